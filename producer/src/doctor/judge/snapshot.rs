//! Rows that are older than the slot: whether they can be read where they are
//! to be published.

use outpour_schemas::{
    config::{Config, SnapshotMode},
    program::Finding,
};

use super::{super::facts::Database, rights};
use crate::{relay::Checkpoint, sql::quoted};

const CHECK: &str = "snapshot";

pub(super) fn judge(
    database: &Database,
    found: Option<&Checkpoint>,
    config: &Config,
) -> Option<Finding> {
    let table = database.table.as_ref()?;
    let is_due = config.relay.snapshot != SnapshotMode::Never
        && found.is_none_or(|found| found.snapshot.as_ref().is_some_and(|part| !part.done));
    if !is_due {
        return Some(Finding::ok(CHECK, "none is due: rows are read from the log alone"));
    }
    let (schema, name) = config.outbox.qualified();
    let user = quoted(&database.user.name);
    let grants = [
        (
            table.can_select,
            format!("GRANT SELECT ON {}.{} TO {user};", quoted(schema), quoted(name)),
        ),
        (
            database.user.makes_temporary,
            format!("GRANT TEMPORARY ON DATABASE {} TO {user};", quoted(&database.user.database)),
        ),
        (!table.hides_rows, rights::bypass(&database.user.name)),
    ];
    let missing: Vec<_> = rights::schema(database, table, config)
        .into_iter()
        .chain(grants.into_iter().filter(|(has, _)| !has).map(|(_, grant)| grant))
        .collect();
    if missing.is_empty() {
        return Some(Finding::ok(CHECK, "rows that are older than the slot can be read"));
    }
    Some(
        Finding::problem(
            CHECK,
            format!(
                "user `{}` may not read all of {} by way of a temporary table",
                database.user.name, config.outbox.table
            ),
            "The first start publishes rows that are older than the slot, or else refuses to \
             start; relay.snapshot = \"never\" leaves them out.",
        )
        .fix(missing.join("\n")),
    )
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{database, kafka},
        *,
    };
    use crate::relay::Snapshot;

    #[test]
    fn rights_are_asked_for_only_where_a_snapshot_is_due() {
        let mut facts = database();
        facts.table.as_mut().unwrap().can_select = false;
        let mut config = Config::default();
        let level = |facts: &Database, found: Option<&Checkpoint>, config: &Config| {
            judge(facts, found, config).unwrap().level
        };
        let problem = judge(&facts, None, &config).unwrap();
        assert_eq!(problem.level, Level::Problem);
        let fix = problem.fix.unwrap();
        assert_eq!(fix, "GRANT SELECT ON \"public\".\"outbox\" TO \"outpour\";");
        assert_eq!(level(&database(), None, &config), Level::Ok);

        let mut begun = kafka().checkpoint.unwrap();
        assert_eq!(level(&facts, Some(&begun), &config), Level::Ok, "it never had one");
        begun.snapshot = Some(Snapshot::default());
        assert_eq!(level(&facts, Some(&begun), &config), Level::Problem);
        begun.snapshot = Some(Snapshot { done: true, ..Snapshot::default() });
        assert_eq!(level(&facts, Some(&begun), &config), Level::Ok);
        config.relay.snapshot = SnapshotMode::Never;
        assert_eq!(level(&facts, None, &config), Level::Ok);
    }
}
