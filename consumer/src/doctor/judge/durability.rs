//! What of a confirmed insert is left after a power cut.

use outpour_schemas::{
    config::Config,
    program::{Finding, named},
};

use super::super::facts::{Server, Shape};
use crate::{deduplication::Memory, durability, table::TableName};

const CHECK: &str = "fsync";

pub(super) fn judge(server: &Server, config: &Config) -> Option<Finding> {
    let tables = server.tables.iter().map(|table| (Some(&table.name), table.shape.as_ref()));
    let views = server.tables.iter().flat_map(|table| &table.views);
    let targets = views.map(|view| (view.target.as_ref(), view.shape.as_ref()));
    let all: Vec<(&TableName, &Shape)> =
        tables.chain(targets).filter_map(|(name, shape)| Some((name?, shape?))).collect();
    let of = |is_so: fn(&Shape) -> bool| {
        let found = all.iter().filter(|(_, shape)| !shape.finding.is_synced && is_so(shape));
        found.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let names =
        |tables: &[&TableName]| named(&tables.iter().map(ToString::to_string).collect::<Vec<_>>());
    let alters = |tables: &[&TableName]| {
        tables.iter().map(|table| durability::alter(table) + ";").collect::<Vec<_>>().join("\n")
    };
    let unsynced = of(|shape| shape.finding.engine.ends_with("MergeTree"));
    if config.clickhouse.fsync && !unsynced.is_empty() {
        return Some(
            Finding::problem(
                CHECK,
                format!("confirm inserts before they are on the disk: {}", names(&unsynced)),
                "clickhouse.fsync asks for that, and the consumer does not start without it.",
            )
            .fix(alters(&unsynced)),
        );
    }
    // What has replicas is on another server as well, or soon.
    let single = of(|shape| matches!(shape.finding.memory, Memory::Local { .. }));
    if single.is_empty() {
        return (!all.is_empty())
            .then(|| Finding::ok(CHECK, "inserts are on the disk, or on replicas"));
    }
    Some(
        Finding::warning(
            CHECK,
            format!("on one server, which does not write inserts through: {}", names(&single)),
            "A confirmed insert outlives a kill of ClickHouse, and not a power cut: rows of the last \
             half minute or so may be gone, and the group's offsets are behind them. `reconcile` \
             finds such rows, and with --fix stores them again.",
        )
        .fix(format!("clickhouse.fsync = true\n{}", alters(&single))),
    )
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, config, server},
        *,
    };

    fn found(fsync: bool, change: impl FnOnce(&mut Shape)) -> Vec<Finding> {
        let (mut facts, mut config) = (server(), config());
        config.clickhouse.fsync = fsync;
        change(facts.tables[0].shape.as_mut().unwrap());
        judge(&facts, &config).into_iter().filter(|found| found.level != Level::Ok).collect()
    }

    #[test]
    fn one_server_that_does_not_write_inserts_through_is_a_warning() {
        assert_eq!(found(false, |_| {}), []);
        let single = found(false, |shape| shape.finding.is_synced = false);
        assert_one(&single, Level::Warning, CHECK, "`db.orders`");
        assert!(
            single[0].fix.as_ref().unwrap().contains("ALTER TABLE `db`.`orders` MODIFY SETTING")
        );
        let replicated = found(false, |shape| {
            shape.finding.is_synced = false;
            shape.finding.memory = Memory::Shared { window: 10_000, seconds: 3600 };
        });
        assert_eq!(replicated, []);
    }

    #[test]
    fn a_table_that_does_not_do_what_is_asked_for_is_a_problem() {
        assert_eq!(found(true, |_| {}), []);
        let findings = found(true, |shape| shape.finding.is_synced = false);
        assert_one(&findings, Level::Problem, CHECK, "before they are on the disk: `db.orders`");
    }
}
