//! Whether what Kafka has and where the slot stands belong together. Pure.
//!
//! PostgreSQL itself passes over a gap without a word: told to start at a
//! position that is gone, it starts where it can. So the two are compared
//! before the first row is published.

use std::fmt;

use outpour_schemas::Lsn;

use super::Checkpoint;
use crate::wal::timeline::Switch;

/// The server and the slot, once the slot is held by this relay.
#[derive(Debug, Clone)]
pub(crate) struct Found<'a> {
    pub(crate) system_identifier: &'a str,
    pub(crate) timeline: u32,
    /// Where the server's history left its earlier timelines.
    pub(crate) history: &'a [Switch],
    /// The end of the log.
    pub(crate) current: Lsn,
    /// Where the slot stands.
    pub(crate) confirmed: Lsn,
}

/// Why events may be missing, or there twice, if this relay went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gap {
    OtherCluster {
        published: String,
        found: String,
    },
    /// The server's history never was on the checkpoint's timeline.
    OtherHistory {
        published: u32,
        found: u32,
    },
    /// Published from a part of the log that this server does not have.
    Diverged {
        published: Lsn,
        timeline: u32,
        left_at: Lsn,
    },
    /// The log ends before what was published.
    OlderCopy {
        published: Lsn,
        current: Lsn,
    },
    SlotAhead {
        published: Lsn,
        confirmed: Lsn,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::OtherCluster { published, found } => write!(
                f,
                "the checkpoint in Kafka is of database cluster {published}, this one is {found}"
            ),
            Gap::OtherHistory { published, found } => write!(
                f,
                "the checkpoint in Kafka is of timeline {published}, which is no part of the \
                 history of this server's timeline {found}"
            ),
            Gap::Diverged { published, timeline, left_at } => write!(
                f,
                "everything up to {published} was published, but this server left timeline \
                 {timeline} at {left_at}: it lacks {} bytes of log that were published, and \
                 events in them were committed on a server that is gone",
                published.bytes_since(*left_at)
            ),
            Gap::OlderCopy { published, current } => write!(
                f,
                "the log ends at {current}, {} bytes before {published} up to where Kafka has \
                 everything; the database was put back to an older copy",
                published.bytes_since(*current)
            ),
            Gap::SlotAhead { published, confirmed } => write!(
                f,
                "the slot stands at {confirmed}, {} bytes past {published} up to where Kafka has \
                 everything; it was recreated or advanced by somebody else",
                confirmed.bytes_since(*published)
            ),
        }
    }
}

/// The checkpoint to go on from; `published` is the one in Kafka.
///
/// # Errors
/// When the two do not belong together.
pub(crate) fn agree(
    published: Option<&Checkpoint>,
    found: &Found<'_>,
) -> Result<Checkpoint, Box<Gap>> {
    let Some(checkpoint) = published else {
        return Ok(fresh(None, found));
    };
    gap(checkpoint, found).map_or_else(
        // The same place, on the timeline that the server is on now.
        || Ok(Checkpoint { timeline: found.timeline, ..checkpoint.clone() }),
        |gap| Err(Box::new(gap)),
    )
}

/// A start from where the slot stands.
pub(super) fn fresh(published: Option<&Checkpoint>, found: &Found<'_>) -> Checkpoint {
    Checkpoint {
        system_identifier: found.system_identifier.to_owned(),
        timeline: found.timeline,
        end_lsn: found.confirmed,
        within: None,
        snapshot: published.and_then(|checkpoint| checkpoint.snapshot.clone()),
        sequence: published.map_or(0, |checkpoint| checkpoint.sequence + 1),
    }
}

fn gap(checkpoint: &Checkpoint, found: &Found<'_>) -> Option<Gap> {
    if checkpoint.system_identifier != found.system_identifier {
        return Some(Gap::OtherCluster {
            published: checkpoint.system_identifier.clone(),
            found: found.system_identifier.to_owned(),
        });
    }
    // The last log position that was acted on.
    let published = checkpoint
        .within
        .map_or(checkpoint.end_lsn, |within| within.commit_lsn.max(checkpoint.end_lsn));
    if checkpoint.timeline != found.timeline {
        let switch = found.history.iter().find(|switch| switch.timeline == checkpoint.timeline);
        let Some(switch) = switch else {
            let (published, found) = (checkpoint.timeline, found.timeline);
            return Some(Gap::OtherHistory { published, found });
        };
        if published > switch.left_at {
            let Switch { timeline, left_at } = *switch;
            return Some(Gap::Diverged { published, timeline, left_at });
        }
    }
    if published > found.current {
        return Some(Gap::OlderCopy { published, current: found.current });
    }
    (found.confirmed > checkpoint.end_lsn)
        .then_some(Gap::SlotAhead { published: checkpoint.end_lsn, confirmed: found.confirmed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::PublishedWithin;

    fn published() -> Checkpoint {
        Checkpoint {
            system_identifier: "7".to_owned(),
            timeline: 2,
            end_lsn: Lsn(500),
            within: None,
            snapshot: None,
            sequence: 9,
        }
    }

    fn found() -> Found<'static> {
        Found {
            system_identifier: "7",
            timeline: 2,
            history: &[],
            current: Lsn(900),
            confirmed: Lsn(400),
        }
    }

    fn refusal(checkpoint: &Checkpoint, found: &Found<'_>) -> String {
        agree(Some(checkpoint), found).unwrap_err().to_string()
    }

    #[test]
    fn a_slot_behind_the_checkpoint_goes_on_from_the_checkpoint() {
        assert_eq!(agree(Some(&published()), &found()), Ok(published()));
    }

    #[test]
    fn a_first_start_goes_on_from_the_slot() {
        let first = agree(None, &found()).unwrap();
        assert_eq!((first.end_lsn, first.sequence, first.timeline), (Lsn(400), 0, 2));
    }

    #[test]
    fn a_slot_past_the_checkpoint_is_a_gap() {
        let found = Found { confirmed: Lsn(501), ..found() };
        assert!(refusal(&published(), &found).contains("1 bytes past 0/1F4"));
        assert_eq!(fresh(Some(&published()), &found).sequence, 10);
    }

    #[test]
    fn another_cluster_is_refused_whatever_the_positions() {
        let found = Found { system_identifier: "8", ..found() };
        assert!(refusal(&published(), &found).contains("cluster 7, this one is 8"));
    }

    #[test]
    fn a_log_that_ends_before_what_was_published_is_an_older_copy() {
        let found = Found { current: Lsn(499), ..found() };
        assert!(refusal(&published(), &found).contains("older copy"));
        // Published inside a transaction that this log does not have.
        let within = Some(PublishedWithin { commit_lsn: Lsn(950), ordinal: 3 });
        let inside = Checkpoint { within, ..published() };
        assert!(refusal(&inside, &self::found()).contains("older copy"));
    }

    #[test]
    fn a_promoted_server_is_gone_on_with_if_it_has_everything_that_was_published() {
        let history =
            [Switch { timeline: 1, left_at: Lsn(100) }, Switch { timeline: 2, left_at: Lsn(500) }];
        let promoted = Found { timeline: 3, history: &history, ..found() };
        let goes_on = agree(Some(&published()), &promoted).unwrap();
        assert_eq!((goes_on.timeline, goes_on.end_lsn), (3, Lsn(500)));
        let ahead = Checkpoint { end_lsn: Lsn(501), ..published() };
        assert!(refusal(&ahead, &promoted).contains("left timeline 2 at 0/1F4"));
        let within = Some(PublishedWithin { commit_lsn: Lsn(510), ordinal: 0 });
        let inside = Checkpoint { within, ..published() };
        assert!(refusal(&inside, &promoted).contains("lacks 10 bytes"));
    }

    #[test]
    fn a_server_of_another_history_is_refused() {
        let older = Found { timeline: 1, ..found() };
        assert!(refusal(&published(), &older).contains("timeline 2, which is no part"));
        let history = [Switch { timeline: 1, left_at: Lsn(100) }];
        let other = Found { timeline: 3, history: &history, ..found() };
        assert!(refusal(&published(), &other).contains("no part of the history"));
    }
}
