//! Columns of times that have no zone, where the server has one that is not UTC.

use std::collections::BTreeMap;

use outpour_schemas::{
    config::Config,
    program::{Finding, named},
};

use super::super::facts::{Server, Table};
use crate::{block::ColumnType, table::TableName, tables};

pub(super) fn judge(server: &Server, table: &Table, config: &Config) -> Option<Finding> {
    let zone = server.zone.as_ref()?;
    let described = &table.shape.as_ref()?.finding.columns;
    let is_unzoned = |type_name: &str| {
        type_name.parse::<ColumnType>().is_ok_and(|kind| kind.has_time_without_zone())
    };
    let unzoned = described.iter().filter(|column| {
        matches!(column.default_kind.as_str(), "" | "DEFAULT" | "EPHEMERAL")
            && is_unzoned(&column.type_name)
            && !is_a_moment(&column.name, &table.name, config)
    });
    let unzoned: Vec<_> = unzoned.collect();
    let first = unzoned.first()?;
    let names: Vec<_> = unzoned.iter().map(|column| &column.name).collect();
    Some(
        Finding::warning(
            "time-zone",
            format!(
                "{} of {} have no time zone, and ClickHouse's is {zone}",
                named(&names),
                table.name
            ),
            "A time without an offset is taken as UTC, and ClickHouse shows and reads it in its own \
             zone: queries see another time than the payload says.",
        )
        .fix(format!(
            "ALTER TABLE {} MODIFY COLUMN {} {};  -- or have producers write offsets",
            table.name.quoted(),
            first.name,
            in_utc(&first.type_name)
        )),
    )
}

/// Whether every route into the table fills the column with a moment of the envelope.
fn is_a_moment(column: &str, table: &TableName, config: &Config) -> bool {
    let routes = tables::routes(config);
    let mut ours = routes
        .iter()
        .filter(|route| TableName::parse(&route.table, &config.clickhouse.database) == *table);
    let is_moment = |columns: &BTreeMap<String, String>| {
        matches!(columns.get(column).map(String::as_str), Some("$timestamp" | "$occurred_at"))
    };
    ours.all(|route| is_moment(&route.columns))
}

/// The type with UTC as its zone; what is made of others stays for a person to write.
fn in_utc(type_name: &str) -> String {
    match type_name {
        "DateTime" => "DateTime('UTC')".to_owned(),
        other => match other.strip_prefix("DateTime64(").and_then(|rest| rest.strip_suffix(')')) {
            Some(precision) => format!("DateTime64({precision}, 'UTC')"),
            None => "…('UTC')".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, column, config, server},
        *,
    };

    fn found(zone: Option<&str>, type_name: &str, filled_with: &str) -> Vec<Finding> {
        let (mut server, mut config) = (server(), config());
        server.zone = zone.map(str::to_owned);
        server.tables[0].shape.as_mut().unwrap().finding.columns.push(column("at", type_name));
        if !filled_with.is_empty() {
            config.routes[0].columns.insert("at".into(), filled_with.into());
        }
        judge(&server, &server.tables[0], &config).into_iter().collect()
    }

    #[test]
    fn a_time_without_zone_is_a_warning_where_the_server_is_not_in_utc() {
        let berlin = Some("Europe/Berlin");
        for kind in [
            "DateTime",
            "DateTime64(3)",
            "Nullable(DateTime)",
            "Array(Tuple(a UInt8, b DateTime64(9)))",
            "Map(String, DateTime)",
            "LowCardinality(DateTime)",
        ] {
            let findings = found(berlin, kind, "");
            assert_one(&findings, Level::Warning, "time-zone", "`at` of db.orders");
            assert_eq!(found(None, kind, ""), [], "{kind}");
        }
        let fix = found(berlin, "DateTime64(3)", "")[0].fix.clone().unwrap();
        assert!(fix.contains("MODIFY COLUMN at DateTime64(3, 'UTC')"), "{fix}");
        assert_eq!(found(berlin, "DateTime('UTC')", ""), []);
        assert_eq!(found(berlin, "Date", ""), []);
        assert_eq!(found(berlin, "DateTime", "$occurred_at"), [], "a moment has no zone");
        assert_eq!(found(berlin, "DateTime", "$headers.at").len(), 1);
    }
}
