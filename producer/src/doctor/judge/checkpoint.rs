//! The checkpoint in Kafka against the slot in PostgreSQL: whether a start
//! would be refused.

use outpour_schemas::{Lsn, program::Finding};

use super::super::facts::Database;
use crate::relay::{Checkpoint, Found, agree};

const CHECK: &str = "checkpoint";

pub(super) fn judge(
    database: &Database,
    found: Option<&Checkpoint>,
    log_end: Lsn,
) -> Option<Finding> {
    let slot = database.slot.as_ref()?;
    let Some(found) = found else {
        return Some(Finding::ok(
            CHECK,
            "nothing is published yet; the first run begins at the slot",
        ));
    };
    let here = Found {
        // What is not known is taken to be right.
        system_identifier: database.system_identifier.as_ref().unwrap_or(&found.system_identifier),
        timeline: found.timeline,
        history: &[],
        current: log_end,
        confirmed: slot.confirmed,
    };
    if let Err(gap) = agree(Some(found), &here) {
        return Some(
            Finding::problem(
                CHECK,
                gap.to_string(),
                "Events may be missing in Kafka, or there twice, if a relay went on: a start is \
                 refused until somebody has looked.",
            )
            .fix("outpour-relay run --accept-gap  -- goes on from where the slot stands"),
        );
    }
    if found.timeline != database.timeline {
        return Some(
            Finding::warning(
                CHECK,
                format!(
                    "published on timeline {}, the server is on {} now",
                    found.timeline, database.timeline
                ),
                "A server that was promoted with everything that was published is gone on with, \
                 any other is refused. Which it is, its timeline history tells, and only over a \
                 replication connection, such as a start has.",
            )
            .fix("outpour-relay run  -- refuses if log is missing"),
        );
    }
    let behind = log_end.bytes_since(found.end_lsn);
    Some(Finding::ok(
        CHECK,
        format!("published up to {}, {} behind the log's end", found.end_lsn, super::bytes(behind)),
    ))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{database, kafka},
        *,
    };

    fn outcome(change: impl FnOnce(&mut Database, &mut Checkpoint)) -> Finding {
        let (mut database, mut checkpoint) = (database(), kafka().checkpoint.unwrap());
        change(&mut database, &mut checkpoint);
        judge(&database, Some(&checkpoint), database.end).unwrap()
    }

    #[test]
    fn a_start_that_would_be_refused_is_told_before() {
        assert_eq!(outcome(|_, _| {}).level, Level::Ok);
        let other = outcome(|_, checkpoint| checkpoint.system_identifier = "2".into());
        assert_eq!(other.level, Level::Problem);
        assert!(other.what.contains("cluster 2"), "{other:?}");
        let promoted = outcome(|database, _| database.timeline = 2);
        assert_eq!(promoted.level, Level::Warning);
        assert!(promoted.what.contains("timeline 1, the server is on 2"), "{promoted:?}");
        let moved = outcome(|database, checkpoint| {
            database.slot.as_mut().unwrap().confirmed = Lsn(checkpoint.end_lsn.0 + 77);
        });
        assert!(moved.what.contains("77 bytes past"), "{moved:?}");
        assert!(moved.fix.unwrap().contains("--accept-gap"));
        let restored = outcome(|database, checkpoint| {
            checkpoint.end_lsn = Lsn(database.end.0 + 1);
        });
        assert_eq!(restored.level, Level::Problem);
        assert!(restored.what.contains("the log ends at"), "{restored:?}");
    }

    #[test]
    fn a_cluster_that_may_not_be_asked_for_its_identity_is_not_suspected() {
        assert_eq!(outcome(|database, _| database.system_identifier = None).level, Level::Ok);
    }

    #[test]
    fn a_first_start_is_no_gap() {
        let finding = judge(&database(), None, Lsn(5_000)).unwrap();
        assert_eq!(finding.level, Level::Ok);
    }
}
