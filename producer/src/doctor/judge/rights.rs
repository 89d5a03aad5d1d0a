//! What the user may do with the outbox table, beyond reading the log.

use outpour_schemas::{
    config::{Config, Mode, PollAfter},
    program::Finding,
};

use super::{
    super::facts::{Database, Table},
    outbox::qualified,
};
use crate::sql::quoted;

/// To remove old events, where that is asked for.
pub(super) fn retention(facts: &Database, table: &Table, config: &Config) -> Option<Finding> {
    config.relay.retention?;
    // Partitions go as a whole where the table is the user's own.
    if table.is_partitioned && table.is_owned {
        return Some(Finding::ok("retention-rights", "old partitions can be removed"));
    }
    let needed = [("SELECT", table.can_select), ("DELETE", table.can_delete)];
    let why = "Nothing old is removed (relay.retention); publishing goes on.";
    Some(judge("retention-rights", table, &needed, why, (facts, config)))
}

/// To take rows from the table and to remove or mark them.
pub(super) fn polling(facts: &Database, table: &Table, config: &Config) -> Finding {
    let delete = config.relay.poll_after == PollAfter::Delete;
    let needed = [
        ("SELECT", table.can_select),
        // Which locking a row takes, too.
        ("UPDATE", table.can_update),
        ("DELETE", table.can_delete || !delete),
    ];
    judge("polling-rights", table, &needed, "Nothing is published.", (facts, config))
}

/// To see every row. The log has them all; who reads the table may not.
pub(super) fn row_security(facts: &Database, table: &Table, config: &Config) -> Finding {
    let (check, name, user) = ("row-security", &config.outbox.table, &facts.user.name);
    if !table.hides_rows {
        return Finding::ok(check, format!("user `{user}` sees every row of {name}"));
    }
    let what = format!("row-level security hides rows of {name} from user `{user}`");
    let polls = config.relay.mode == Mode::Poll;
    let finding = match (polls, config.relay.retention) {
        (true, _) => Finding::problem(check, what, "Nothing is published: the relay refuses."),
        (false, Some(_)) => Finding::problem(
            check,
            what,
            "Nothing old is removed (relay.retention); publishing goes on.",
        ),
        (false, None) => Finding::warning(
            check,
            what,
            "Publishing from the log goes on; `outpour-consumer reconcile --outbox` refuses.",
        ),
    };
    finding.fix(bypass(user))
}

/// Lets a user see every row.
pub(super) fn bypass(user: &str) -> String {
    format!("ALTER ROLE {} BYPASSRLS;  -- as a superuser", quoted(user))
}

fn judge(
    check: &'static str,
    table: &Table,
    needed: &[(&str, bool)],
    why: &str,
    (facts, config): (&Database, &Config),
) -> Finding {
    let missing: Vec<_> = needed.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
    let (user, name) = (&facts.user.name, &config.outbox.table);
    let mut grants = Vec::from_iter(schema(facts, table, config));
    let mut lacks = Vec::new();
    if !table.can_use_schema {
        lacks.push("USAGE on its schema".to_owned());
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        grants.push(format!("GRANT {missing} ON {} TO {};", qualified(config), quoted(user)));
        lacks.push(format!("{missing} on it"));
    }
    if grants.is_empty() {
        return Finding::ok(check, format!("user `{user}` has what it needs on {name}"));
    }
    let lacks = lacks.join(", and ");
    Finding::problem(check, format!("of {name}, user `{user}` lacks {lacks}"), why)
        .fix(grants.join("\n"))
}

/// The grant without which no name in the table's schema can be used, if it is missing.
pub(super) fn schema(facts: &Database, table: &Table, config: &Config) -> Option<String> {
    let (schema, _) = config.outbox.qualified();
    let user = quoted(&facts.user.name);
    (!table.can_use_schema).then(|| format!("GRANT USAGE ON SCHEMA {} TO {user};", quoted(schema)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outpour_schemas::{config::Span, program::Level};

    use super::{super::super::tests::database, *};

    fn table(change: impl FnOnce(&mut Table)) -> Table {
        let mut table = database().table.unwrap();
        change(&mut table);
        table
    }

    fn fix(finding: &Finding) -> &str {
        assert_eq!(finding.level, Level::Problem);
        finding.fix.as_deref().unwrap()
    }

    #[test]
    fn removing_old_events_takes_rights_only_where_it_is_asked_for() {
        let mut config = Config::default();
        let bare = table(|table| (table.can_select, table.can_delete) = (false, false));
        assert_eq!(retention(&database(), &bare, &config), None);
        config.relay.retention = Some(Span(Duration::from_secs(60)));
        let found = retention(&database(), &bare, &config).unwrap();
        assert_eq!(fix(&found), "GRANT SELECT, DELETE ON \"public\".\"outbox\" TO \"outpour\";");
        let granted = table(|_| {});
        assert_eq!(retention(&database(), &granted, &config).unwrap().level, Level::Ok);
        let owned = table(|table| {
            (table.is_partitioned, table.is_owned, table.can_delete) = (true, true, false);
        });
        assert_eq!(retention(&database(), &owned, &config).unwrap().level, Level::Ok);
    }

    #[test]
    fn hidden_rows_are_a_problem_to_who_reads_the_table() {
        let mut config = Config::default();
        let hiding = table(|table| table.hides_rows = true);
        let level = |table: &Table, config: &Config| row_security(&database(), table, config).level;
        assert_eq!(level(&table(|_| {}), &config), Level::Ok);
        assert_eq!(level(&hiding, &config), Level::Warning);
        config.relay.retention = Some(Span(Duration::from_secs(60)));
        let found = row_security(&database(), &hiding, &config);
        assert!(fix(&found).starts_with("ALTER ROLE \"outpour\" BYPASSRLS"), "{found:?}");
        config.relay.mode = Mode::Poll;
        assert_eq!(level(&hiding, &config), Level::Problem);
    }

    #[test]
    fn polling_takes_the_right_to_lock_and_to_remove_or_mark() {
        let mut config = Config::default();
        config.relay.mode = Mode::Poll;
        let bare = table(|table| (table.can_update, table.can_delete) = (false, false));
        let found = polling(&database(), &bare, &config);
        assert!(fix(&found).starts_with("GRANT UPDATE, DELETE ON "));
        config.relay.poll_after = PollAfter::Mark;
        let found = polling(&database(), &bare, &config);
        assert!(fix(&found).starts_with("GRANT UPDATE ON "));
        assert_eq!(polling(&database(), &table(|_| {}), &config).level, Level::Ok);
        let hidden = polling(&database(), &table(|table| table.can_use_schema = false), &config);
        assert_eq!(fix(&hidden), "GRANT USAGE ON SCHEMA \"public\" TO \"outpour\";");
    }
}
