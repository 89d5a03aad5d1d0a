//! The columns by which a row says where in Kafka it came from.

use outpour_schemas::{
    config::Config,
    program::{Finding, named},
};

use super::{
    super::facts::{Shape, Table},
    is_once,
};
use crate::{
    block::{ColumnType, types::ScalarType},
    decode::PROVENANCE,
    table::{DescribedColumn, TableName},
    tables,
};

const CHECK: &str = "provenance";

const WHY: &str = "A batch whose outcome is open, and whose token may be forgotten, is completed by \
    what the table has of it. Without that it is stored twice, and one row that ClickHouse refuses \
    holds back its batch.";

pub(super) fn judge(table: &Table, shape: &Shape, config: &Config) -> Vec<Finding> {
    if !is_once(config) {
        return Vec::new();
    }
    let name = &table.name;
    let mut findings = Vec::new();
    let missing: Vec<_> = PROVENANCE
        .iter()
        .map(|(column, _)| *column)
        .filter(|column| shape.finding.columns.iter().all(|found| found.name != *column))
        .collect();
    if !missing.is_empty() {
        let adds: Vec<_> = missing
            .iter()
            .map(|column| format!("ADD COLUMN {column} {}", fitting(column)))
            .collect();
        findings.push(
            Finding::problem(CHECK, format!("table {name} has no {}", named(&missing)), WHY)
                .fix(format!("ALTER TABLE {} {};", name.quoted(), adds.join(", "))),
        );
    }
    for column in &shape.finding.columns {
        findings.extend(unfit(name, column));
    }
    findings.extend(taken(name, config));
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("rows of {name} say where they came from")));
        findings.extend(unindexed(name, shape));
    }
    findings
}

fn fitting(column: &str) -> &'static str {
    match column {
        "_topic" => "LowCardinality(String)",
        "_partition" => "UInt32",
        _ => "UInt64",
    }
}

/// A column of provenance that cannot hold every value of it.
fn unfit(table: &TableName, column: &DescribedColumn) -> Option<Finding> {
    let name = column.name.as_str();
    if PROVENANCE.iter().all(|(provenance, _)| *provenance != name) {
        return None;
    }
    let type_name = &column.type_name;
    let what = if !matches!(column.default_kind.as_str(), "" | "DEFAULT") {
        format!("column `{name}` of {table} is {}: nothing is written to it", column.default_kind)
    } else {
        let fits = type_name.parse().is_ok_and(|kind| holds(&kind, name));
        if fits {
            return None;
        }
        format!("column `{name}` of {table} is {type_name}, which does not hold every value of it")
    };
    let why = "What does not fit is parked, or cannot be compared with what the table has.";
    Some(Finding::problem(CHECK, what, why).fix(format!(
        "ALTER TABLE {} MODIFY COLUMN {name} {};",
        table.quoted(),
        fitting(name)
    )))
}

fn holds(kind: &ColumnType, column: &str) -> bool {
    let scalar = match kind {
        ColumnType::Scalar(scalar) | ColumnType::Nullable(scalar) => scalar,
        ColumnType::LowCardinality { of, .. } => of,
        _ => return false,
    };
    // Kafka's partitions have 31 bits and its offsets 63.
    let bytes = match column {
        "_topic" => return *scalar == ScalarType::String,
        "_partition" => 4,
        _ => 8,
    };
    matches!(scalar, ScalarType::Integer(integer) if integer.bytes >= bytes)
}

/// Routes that fill a column of provenance with something else.
fn taken(table: &TableName, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for route in tables::routes(config) {
        if TableName::parse(&route.table, &config.clickhouse.database) != *table {
            continue;
        }
        for (column, value) in &PROVENANCE {
            let Some(from) = route.columns.get(*column) else { continue };
            if *from == value.to_string() {
                continue;
            }
            findings.push(
                Finding::problem(
                    CHECK,
                    format!(
                        "the route from `{}` fills `{column}` of {table} with `{from}`",
                        route.topic
                    ),
                    WHY,
                )
                .fix(format!("routes: leave out `{column}`, which is filled by itself")),
            );
        }
    }
    findings
}

/// Without an index each question reads the whole column; it is asked seldom.
fn unindexed(table: &TableName, shape: &Shape) -> Option<Finding> {
    let mentions = |text: &String| text.contains("_offset");
    if mentions(&shape.sorting_key) || shape.indices.iter().any(mentions) {
        return None;
    }
    Some(Finding::ok(
        CHECK,
        format!(
            "{table} has no index on _offset, which finds what is missing sooner: \
             ALTER TABLE {} ADD INDEX provenance _offset TYPE minmax",
            table.quoted()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::{config::Delivery, program::Level};

    use super::{
        super::super::tests::{assert_one, config, server},
        *,
    };

    fn all(change: impl FnOnce(&mut Shape), config: &Config) -> Vec<Finding> {
        let table = server().tables.remove(0);
        let mut shape = table.shape.clone().unwrap();
        change(&mut shape);
        judge(&table, &shape, config)
    }

    fn found(change: impl FnOnce(&mut Shape)) -> Vec<Finding> {
        let mut findings = all(change, &config());
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn retyped(column: usize, type_name: &str) -> Vec<Finding> {
        found(|shape| shape.finding.columns[column].type_name = type_name.into())
    }

    #[test]
    fn what_init_makes_has_no_finding() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn missing_columns_are_a_problem_with_the_alter_that_adds_them() {
        let findings = found(|shape| shape.finding.columns.truncate(2));
        assert_one(&findings, Level::Problem, CHECK, "`_partition`, `_offset`");
        assert_eq!(
            findings[0].fix.as_deref(),
            Some(
                "ALTER TABLE `db`.`orders` ADD COLUMN _partition UInt32, ADD COLUMN _offset UInt64;"
            )
        );
        let mut config = config();
        config.consumer.delivery = Delivery::AtLeastOnce;
        assert_eq!(all(|shape| shape.finding.columns.truncate(2), &config), []);
    }

    #[test]
    fn types_that_hold_every_value_will_do_and_no_others() {
        for (column, fits, does_not) in [
            (1, ["String", "LowCardinality(Nullable(String))"], ["FixedString(9)", "UInt64"]),
            (2, ["Int32", "UInt64"], ["UInt16", "String"]),
            (3, ["Int64", "Nullable(UInt64)"], ["UInt32", "Float64"]),
        ] {
            for type_name in fits {
                assert_eq!(retyped(column, type_name), [], "{type_name}");
            }
            for type_name in does_not {
                let findings = retyped(column, type_name);
                assert_one(&findings, Level::Problem, CHECK, type_name);
            }
        }
        let computed = found(|shape| shape.finding.columns[3].default_kind = "MATERIALIZED".into());
        assert_one(&computed, Level::Problem, CHECK, "nothing is written");
    }

    #[test]
    fn a_route_that_fills_them_otherwise_is_a_problem() {
        let with = |from: &str| {
            let mut config = config();
            config.routes[0].columns.insert("_offset".into(), from.into());
            let mut findings = all(|_| {}, &config);
            findings.retain(|finding| finding.level != Level::Ok);
            findings
        };
        assert_one(&with("n"), Level::Problem, CHECK, "fills `_offset` of db.orders with `n`");
        assert_eq!(with("$offset"), []);
    }

    #[test]
    fn an_index_is_advised_where_nothing_leads_to_an_offset() {
        let advice = |change: fn(&mut Shape)| all(change, &config()).len() - 1;
        assert_eq!(advice(|_| {}), 0);
        assert_eq!(advice(|shape| shape.indices.clear()), 1);
        assert_eq!(
            advice(|shape| {
                shape.indices.clear();
                shape.sorting_key = "_topic, _offset".into();
            }),
            0
        );
    }
}
