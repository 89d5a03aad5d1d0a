//! The tables that routes write to: found, understood and fit for the job
//! before the first record is read.

use std::{sync::Arc, time::Duration};

use outpour_schemas::config::{Config, Delivery, Route};

use crate::{
    decode::{self, Mapping},
    error::ConsumerError,
    sink::{ClickHouse, TableFinding},
    table::{TableName, TableSchema},
};

/// The configured routes, or the default one, with what they leave to `[consumer]`.
/// A route into `event_log` that names no columns takes that table's own.
pub(crate) fn routes(config: &Config) -> Vec<Route> {
    let mut routes = config.routes.clone();
    if routes.is_empty() {
        routes.push(decode::default_route());
    }
    for route in &mut routes {
        route.payload_format.get_or_insert(config.consumer.payload_format);
        let name = TableName::parse(&route.table, &config.clickhouse.database);
        if name.table == decode::EVENT_LOG && route.columns.is_empty() {
            route.columns = decode::default_route().columns;
        }
    }
    routes
}

/// A route with its table, as ClickHouse describes it.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    route: Route,
    name: TableName,
    table: TableFinding,
}

impl Found {
    pub(crate) fn name(&self) -> &TableName {
        &self.name
    }

    /// The table's engine, as ClickHouse names it.
    pub(crate) fn engine(&self) -> &str {
        &self.table.engine
    }
}

/// Finds the table of every route.
///
/// # Errors
/// Names the table that is missing.
pub(crate) async fn find(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<Vec<Found>, ConsumerError> {
    let routes = routes(config).into_iter().map(|route| {
        let name = TableName::parse(&route.table, &clickhouse.database);
        (route, name)
    });
    let routes: Vec<_> = routes.collect();
    let asking = clickhouse.on_any(|| async {
        let mut tables = Vec::new();
        for (_, name) in &routes {
            tables.push(clickhouse.find_table(name).await?);
        }
        Ok(tables)
    });
    let tables = asking
        .await
        .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))?;
    let found = routes.into_iter().zip(tables).map(|((route, name), table)| match table {
        Some(table) => Ok(Found { route, name, table }),
        None => Err(ConsumerError::NoTable {
            table: name.to_string(),
            url: clickhouse.url().to_owned(),
        }),
    });
    found.collect()
}

/// Joins every route with its table.
///
/// # Errors
/// Names the table that has columns that cannot be written, or would not drop a
/// repeated insert.
pub(crate) fn mappings(
    config: &Config,
    found: &[Found],
) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
    for Found { name, table, .. } in found {
        if config.consumer.delivery == Delivery::ExactlyOnce {
            table.memory.check(config.clickhouse.has_replicas()).map_err(|unfit| {
                ConsumerError::Unfit { table: name.to_string(), fix: unfit.fix(name), unfit }
            })?;
        }
    }
    mappings_to_read(found)
}

/// The same for who writes nothing.
///
/// # Errors
/// Names the table that has columns that cannot be written.
pub(crate) fn mappings_to_read(found: &[Found]) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
    let mut mappings = Vec::new();
    for (index, Found { route, name, table }) in found.iter().enumerate() {
        let schema = TableSchema::of(name.clone(), &table.columns)?;
        let is_alike = |other: &&Found| other.name == *name && other.route.topic == route.topic;
        let alike = found[..index].iter().filter(is_alike).count();
        mappings.push(Arc::new(Mapping::new(index, route, &schema)?.after_alike(alike)));
    }
    Ok(mappings)
}

/// Returns once a table is not what it was when it was found.
pub(crate) async fn changed(config: &Config, clickhouse: &ClickHouse, found: &[Found]) {
    /// How late a new column may be noticed.
    const EVERY: Duration = Duration::from_secs(10);
    loop {
        tokio::time::sleep(EVERY).await;
        match find(config, clickhouse).await {
            Ok(now) if now != found => return,
            // What is wrong with a table shows when it is written to.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deduplication::Memory, table::DescribedColumn};

    fn found(topic: &str, table: &str) -> Found {
        let column = |(name, type_name): (&str, &str)| DescribedColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: String::new(),
        };
        let columns = [("event_id", "UUID"), ("n", "UInt64")].map(column).into();
        let mut route = decode::default_route();
        topic.clone_into(&mut route.topic);
        route.columns.clear();
        Found {
            route,
            name: TableName::parse(table, "db"),
            table: TableFinding {
                columns,
                engine: "MergeTree".into(),
                memory: Memory::Local { window: 100 },
            },
        }
    }

    #[test]
    fn routes_are_named_apart_and_not_by_where_they_stand() {
        let targets = |found: &[Found]| -> Vec<_> {
            let mappings = mappings_to_read(found).unwrap();
            mappings.iter().map(|mapping| (mapping.target().to_owned(), mapping.id())).collect()
        };
        let routes =
            [found("a", "t"), found("a", "u"), found("b", "t"), found("a", "t"), found("^a", "t")];
        let of_all = targets(&routes);
        let names = of_all.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["db.t#a", "db.u#a", "db.t#b", "db.t#a#1", "db.t#^a"]);
        let ids: std::collections::HashSet<_> = of_all.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), of_all.len());
        assert_eq!(targets(&routes[1..3]), of_all[1..3], "the first one is gone");
    }
}
