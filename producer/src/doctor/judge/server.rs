//! The server, the user's rights, and the clocks.

use outpour_schemas::program::Finding;

use super::super::facts::Database;
use crate::sql::quoted;

/// The oldest version whose replication protocol has what the relay asks for.
const OLDEST: u32 = 140_000;

/// Clocks that differ by more bend what is measured across them.
const CLOCK_MS: i64 = 2_000;

pub(super) fn judge(facts: &Database) -> Vec<Finding> {
    let mut findings = vec![version(facts)];
    if facts.is_standby {
        findings.push(
            Finding::problem(
                "server",
                "the server is a standby, in recovery",
                "The slot and the outbox are on the primary; nothing can be published from here.",
            )
            .fix("postgres.url: name the primary"),
        );
    }
    let encoding = encoding(&facts.encoding);
    findings.extend([wal_level(facts), encoding, privilege(facts), clock(facts)]);
    findings.extend(replication(facts.replication.as_ref()));
    findings.extend(synchronous(facts));
    findings
}

/// What no ordinary connection tells: whether one for the log can be had.
pub(in super::super) fn replication(opened: Option<&Result<(), String>>) -> Option<Finding> {
    let check = "replication";
    Some(match opened? {
        Ok(()) => Finding::ok(check, "a replication connection can be opened"),
        Err(error) => Finding::problem(
            check,
            error.clone(),
            "The log is read over a replication connection. A pooler, such as PgBouncer, may \
             refuse one, pg_hba.conf may, and settings of the role hold for it, too.",
        )
        .fix("postgres.url: name the server itself, as a user that may replicate"),
    })
}

/// Commits that wait for any standby wait for the relay: it streams the log, too.
fn synchronous(facts: &Database) -> Option<Finding> {
    let names = &facts.synchronous_standbys;
    let mut listed = names.split(|c: char| c == ',' || c == '(' || c == ')' || c.is_whitespace());
    let means_relay = |name: &str| matches!(name.trim_matches('"'), "*" | "outpour-relay");
    listed.any(means_relay).then(|| {
        Finding::warning(
            "synchronous_standby_names",
            format!("commits may wait for the relay (synchronous_standby_names = '{names}')"),
            "To PostgreSQL a relay is a standby, and these names mean it, too. A commit would \
             wait until its events are in Kafka, and for ever while no relay runs.",
        )
        .fix(
            "ALTER SYSTEM SET synchronous_standby_names = '…';  -- the names of the standbys alone\n\
             SELECT pg_reload_conf();",
        )
    })
}

fn version(facts: &Database) -> Finding {
    let text = format!("PostgreSQL {}.{}", facts.version / 10_000, facts.version % 10_000);
    if facts.version >= OLDEST {
        return Finding::ok("version", text);
    }
    Finding::problem("version", text, "The relay needs PostgreSQL 14 or later.")
}

fn wal_level(facts: &Database) -> Finding {
    let check = "wal_level";
    if facts.wal_level == "logical" {
        return Finding::ok(check, "logical");
    }
    Finding::problem(
        check,
        format!("wal_level is `{}`", facts.wal_level),
        "Without `logical` the log does not hold what a row was, and no logical slot can be made.",
    )
    .fix(
        "ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server\n\
         -- where ALTER SYSTEM is not to be had, the cloud's parameter for it, \
         such as rds.logical_replication = 1",
    )
}

/// Of polling, too.
pub(super) fn encoding(name: &str) -> Finding {
    let check = "encoding";
    let why = match name {
        "UTF8" => return Finding::ok(check, name),
        "SQL_ASCII" => {
            "PostgreSQL checks no text. Events are published as they are where that is UTF-8; a \
             row with other bytes in it is parked (invalid_encoding)."
        }
        _ => {
            "Text is converted to UTF-8 on its way; a row with bytes that have no meaning in this \
             encoding is parked (invalid_encoding)."
        }
    };
    Finding::warning(check, format!("the database's encoding is {name}"), why)
}

fn privilege(facts: &Database) -> Finding {
    let (check, user) = ("privilege", &facts.user);
    if user.is_superuser || user.replicates {
        return Finding::ok(check, format!("user `{}` may replicate", user.name));
    }
    if let Some(role) = &user.replication_role {
        return Finding::ok(check, format!("user `{}` may replicate, by `{role}`", user.name));
    }
    let name = quoted(&user.name);
    Finding::problem(
        check,
        format!("user `{}` may not replicate", user.name),
        "The server refuses a replication connection without this right.",
    )
    .fix(format!(
        "ALTER ROLE {name} REPLICATION;\n-- on Amazon RDS: GRANT rds_replication TO {name};"
    ))
}

fn clock(facts: &Database) -> Finding {
    let check = "clock";
    let (ahead, doubt) = (facts.clock_ahead_ms, facts.round_trip_ms / 2 + 1);
    let text = format!("PostgreSQL's clock is {ahead} ms ahead of this host's (± {doubt} ms)");
    if ahead.abs() <= CLOCK_MS + doubt {
        return Finding::ok(check, text);
    }
    Finding::warning(
        check,
        text,
        "Records carry PostgreSQL's time: Kafka keeps them by it and refuses one too far in the \
         future (message.timestamp.after.max.ms), and measured delays are off by the difference.",
    )
    .fix("keep the clocks by NTP")
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{super::super::tests::database, *};

    fn level(check: &str, change: impl FnOnce(&mut Database)) -> Level {
        let mut facts = database();
        change(&mut facts);
        let findings = judge(&facts);
        findings.iter().find(|finding| finding.check == check).unwrap().level
    }

    #[test]
    fn a_good_server_has_no_finding() {
        assert!(judge(&database()).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn what_keeps_the_server_from_replicating_is_a_problem() {
        assert_eq!(level("version", |facts| facts.version = 130_009), Level::Problem);
        assert_eq!(level("server", |facts| facts.is_standby = true), Level::Problem);
        assert_eq!(level("wal_level", |facts| facts.wal_level = "replica".into()), Level::Problem);
        assert_eq!(level("privilege", |facts| facts.user.replicates = false), Level::Problem);
    }

    #[test]
    fn an_encoding_that_is_not_utf_8_is_a_warning_that_names_it() {
        for name in ["SQL_ASCII", "LATIN1"] {
            assert_eq!(level("encoding", |facts| facts.encoding = name.into()), Level::Warning);
            assert!(encoding(name).what.contains(name));
        }
    }

    #[test]
    fn a_superuser_or_a_member_of_the_clouds_role_may_replicate() {
        let super_user = |facts: &mut Database| {
            (facts.user.replicates, facts.user.is_superuser) = (false, true);
        };
        assert_eq!(level("privilege", super_user), Level::Ok);
        let member = |facts: &mut Database| {
            facts.user.replicates = false;
            facts.user.replication_role = Some("rds_replication".into());
        };
        assert_eq!(level("privilege", member), Level::Ok);
    }

    #[test]
    fn clocks_that_differ_are_a_warning() {
        assert_eq!(level("clock", |facts| facts.clock_ahead_ms = -90_000), Level::Warning);
        // Within what a slow answer leaves open.
        let slow = |facts: &mut Database| {
            (facts.clock_ahead_ms, facts.round_trip_ms) = (3_000, 4_000);
        };
        assert_eq!(level("clock", slow), Level::Ok);
    }

    #[test]
    fn names_of_standbys_that_mean_the_relay_too_are_told() {
        let found = |names: &str| {
            let facts = Database { synchronous_standbys: names.into(), ..database() };
            synchronous(&facts).is_some()
        };
        for names in ["*", "FIRST 2 (a, *)", "ANY 1 (\"outpour-relay\")", "a,*"] {
            assert!(found(names), "{names}");
        }
        for names in ["", "a", "ANY 1 (a, b)", "outpour"] {
            assert!(!found(names), "{names}");
        }
    }
}
