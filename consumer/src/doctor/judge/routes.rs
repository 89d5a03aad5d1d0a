//! Routes: that they fit their tables, and the topics that there are.

use outpour_schemas::{
    config::{Config, Route},
    program::{Finding, error_line, named},
};

use super::super::facts::{Kafka, Server, Table};
use crate::{
    block::Column,
    decode::{Mapping, MappingError},
    source::Subscription,
    table::TableName,
    tables,
};

fn table_of(route: &Route, config: &Config) -> TableName {
    TableName::parse(&route.table, &config.clickhouse.database)
}

const HELD_BACK: &str =
    "What goes to this table waits, with an alarm; if no route fits, the consumer does not start.";

/// Whether every route can be joined with its table.
pub(super) fn columns(facts: &Server, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, route) in tables::routes(config).iter().enumerate() {
        let name = table_of(route, config);
        let table = facts.tables.iter().find(|table| table.name == name);
        if let Some(table) = table {
            findings.extend(fit(index, route, table));
        }
    }
    findings
}

fn fit(index: usize, route: &Route, table: &Table) -> Vec<Finding> {
    let check = "columns";
    let name = &table.name;
    let Some(shape) = &table.shape else { return Vec::new() };
    let described = &shape.finding.columns;
    let schema = match shape.finding.schema(name.clone()) {
        Ok(schema) => schema,
        Err(error) => {
            return vec![
                Finding::problem(check, error_line(&error), HELD_BACK)
                    .fix(filled_otherwise(name, &error.column)),
            ];
        }
    };
    let mapping = match Mapping::new(index, route, &schema) {
        Ok(mapping) => mapping,
        Err(error) => {
            let fix = match &error {
                MappingError::UnknownColumn { column, .. } => {
                    let computed = described.iter().find(|found| found.name == *column);
                    match computed {
                        Some(found) => format!(
                            "routes: leave out `{column}`, which ClickHouse fills ({})",
                            found.default_kind
                        ),
                        None => format!(
                            "ALTER TABLE {} ADD COLUMN {column} …;  -- or leave it out of the route",
                            name.quoted()
                        ),
                    }
                }
                MappingError::Value { column, .. } => format!("routes: correct `{column}`"),
                MappingError::Collect { column, .. } => {
                    format!("ALTER TABLE {} MODIFY COLUMN {column} String", name.quoted())
                }
                MappingError::Unwritable(error) => {
                    format!(
                        "routes: leave out `{}`, or make it a column of another type",
                        error.column
                    )
                }
                MappingError::Empty { column, .. } => {
                    format!("routes: leave `{column}` out of empty_if_absent")
                }
                MappingError::Topic(_) => "routes: correct the topic".to_owned(),
            };
            return vec![Finding::problem(check, error_line(&error), HELD_BACK).fix(fix)];
        }
    };
    let from = &route.topic;
    let required: Vec<_> = mapping.required_fields().map(Column::name).collect();
    let columns = schema.columns.len();
    let left_out = schema.left_out.iter().map(|error| {
        let why = "It is left out of every row, and ClickHouse fills it with its default.";
        Finding::warning(check, error_line(error), why).fix(filled_otherwise(name, &error.column))
    });
    let fits = Finding::ok(
        check,
        if required.is_empty() {
            format!("`{from}` fits {name}: {columns} columns, none has to be in the payload")
        } else {
            format!(
                "`{from}` fits {name}: {columns} columns; a record is parked that has nothing for {}",
                named(&required)
            )
        },
    );
    left_out.chain([fits]).collect()
}

/// What to do about a column of a type that cannot be written.
fn filled_otherwise(table: &TableName, column: &str) -> String {
    format!(
        "ALTER TABLE {} MODIFY COLUMN {column} …  -- or have ClickHouse fill it: MATERIALIZED …",
        table.quoted()
    )
}

fn taken<'a>(route: &Route, kafka: &'a Kafka) -> Vec<&'a str> {
    let one = Subscription::of(std::slice::from_ref(&route.topic));
    let topics = kafka.topics.iter().filter(|topic| one.takes(&topic.name));
    topics.map(|topic| topic.name.as_str()).collect()
}

/// Whether routes and topics meet.
pub(super) fn topics(kafka: &Kafka, config: &Config) -> Vec<Finding> {
    let check = "routes";
    // Nothing to read yet is said elsewhere.
    if kafka.topics.is_empty() {
        return Vec::new();
    }
    let routes = tables::routes(config);
    let mut findings = Vec::new();
    for route in routes.iter().filter(|route| taken(route, kafka).is_empty()) {
        findings.push(
            Finding::warning(
                check,
                format!(
                    "the route into {} takes no topic that the group reads: `{}`",
                    route.table, route.topic
                ),
                "The table gets no rows.",
            )
            .fix("routes, or consumer.topics: a name or a pattern that fits; nothing, if the topic is still to come"),
        );
    }
    let homeless: Vec<_> = kafka
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| routes.iter().all(|route| !taken(route, kafka).contains(name)))
        .collect();
    if !homeless.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!("no route takes {}", named(&homeless)),
                "Every record of theirs is parked as a dead letter.",
            )
            .fix("[[routes]]: add one, or leave the topics out of consumer.topics"),
        );
    }
    if findings.is_empty() {
        let text = format!("every topic has a route, and each of {} a topic", routes.len());
        findings.push(Finding::ok(check, text));
    }
    findings
}

/// Routes that put one record into one table twice.
pub(super) fn ambiguous(kafka: &Kafka, config: &Config) -> Vec<Finding> {
    let routes = tables::routes(config);
    let mut findings = Vec::new();
    for (index, one) in routes.iter().enumerate() {
        for other in &routes[index + 1..] {
            if table_of(one, config) != table_of(other, config) || !share_a_type(one, other) {
                continue;
            }
            let others = taken(other, kafka);
            let shared = taken(one, kafka).into_iter().find(|name| others.contains(name));
            let is_same = one.topic == other.topic;
            let Some(topic) = shared.or(is_same.then_some(one.topic.as_str())) else { continue };
            findings.push(
                Finding::problem(
                    "routes",
                    format!(
                        "two routes put records of `{topic}` into {}, from `{}` and from `{}`",
                        one.table, one.topic, other.topic
                    ),
                    "Rows of the two cannot be told apart by where in Kafka they came from. When a \
                     batch has to be completed whose outcome is open, rows of one pass for those of \
                     the other and are left out.",
                )
                .fix("routes: event_types that do not overlap, or a table of its own for each"),
            );
        }
    }
    findings
}

fn share_a_type(one: &Route, other: &Route) -> bool {
    one.event_types.is_empty()
        || other.event_types.is_empty()
        || one.event_types.iter().any(|name| other.event_types.contains(name))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, column, config, kafka, route, server, topic},
        *,
    };

    fn bad(mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn columns_with(change: impl FnOnce(&mut Table, &mut Config)) -> Vec<Finding> {
        let (mut server, mut config) = (server(), config());
        change(&mut server.tables[0], &mut config);
        columns(&server, &config)
    }

    #[test]
    fn a_route_that_fits_tells_what_a_record_has_to_have() {
        let findings = columns_with(|_, _| {});
        assert_eq!(findings[0].level, Level::Ok);
        assert!(findings[0].what.contains("has nothing for `id`"), "{findings:?}");
    }

    #[test]
    fn columns_that_are_not_there_or_cannot_be_written_are_a_problem() {
        let unknown = columns_with(|_, config| {
            config.routes[0].columns.insert("absent".into(), "$id".into());
        });
        assert_one(&unknown, Level::Problem, "columns", "`absent`");
        let computed = columns_with(|table, config| {
            let columns = &mut table.shape.as_mut().unwrap().finding.columns;
            columns.push(column("day", "Date"));
            columns.last_mut().unwrap().default_kind = "MATERIALIZED".into();
            config.routes[0].columns.insert("day".into(), "$timestamp".into());
        });
        assert_one(&computed, Level::Problem, "columns", "`day`");
        assert!(computed[0].fix.as_ref().unwrap().contains("MATERIALIZED"), "{computed:?}");
        let value = columns_with(|_, config| {
            config.routes[0].columns.insert("id".into(), "$nonsense".into());
        });
        assert_one(&value, Level::Problem, "columns", "$nonsense");
        let unsupported = columns_with(|table, _| {
            let columns = &mut table.shape.as_mut().unwrap().finding.columns;
            columns.push(column("sum", "AggregateFunction(sum, UInt64)"));
        });
        assert_one(&unsupported, Level::Problem, "columns", "`sum`");
    }

    #[test]
    fn routes_and_topics_that_do_not_meet_are_warnings() {
        let met = |change: fn(&mut Kafka, &mut Config)| {
            let (mut kafka, mut config) = (kafka(), config());
            change(&mut kafka, &mut config);
            bad(topics(&kafka, &config))
        };
        assert_eq!(met(|_, _| {}), []);
        assert_eq!(met(|kafka, _| kafka.topics.clear()), []);
        let no_topic = met(|_, config| {
            config.routes.push(Route { topic: "elsewhere".into(), ..route() });
        });
        assert_one(&no_topic, Level::Warning, "routes", "`elsewhere`");
        let no_route = met(|kafka, _| kafka.topics.push(topic("outbox.event.invoice")));
        assert_one(&no_route, Level::Warning, "routes", "no route takes `outbox.event.invoice`");
    }

    #[test]
    fn two_ways_into_one_table_are_a_problem_unless_their_types_differ() {
        let both = |change: fn(&mut Route)| {
            let mut config = config();
            let mut second = route();
            change(&mut second);
            config.routes.push(second);
            bad(ambiguous(&kafka(), &config))
        };
        assert_one(
            &both(|_| {}),
            Level::Problem,
            "routes",
            "two routes put records of `outbox.event.order`",
        );
        // By another pattern, and by the full name of the table.
        let other = both(|second| {
            (second.topic, second.table) = ("^outbox\\..*".into(), "db.orders".into());
        });
        assert_one(&other, Level::Problem, "routes", "`^outbox\\..*`");
        assert_eq!(both(|second| second.table = "others".into()), []);
        assert_eq!(both(|second| second.topic = "elsewhere".into()), []);

        let mut config = config();
        config.routes[0].event_types = vec!["placed".into()];
        config.routes.push(Route { event_types: vec!["paid".into()], ..route() });
        assert_eq!(ambiguous(&kafka(), &config), []);
        config.routes[1].event_types.push("placed".into());
        assert_eq!(ambiguous(&kafka(), &config).len(), 1);
    }
}
