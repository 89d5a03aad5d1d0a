//! The tables that routes write to: found, understood and fit for the job
//! before the first record is read.

use std::sync::Arc;

use outpour_schemas::config::{Config, Delivery, Route};

use crate::{
    decode::{self, Mapping},
    error::ConsumerError,
    sink::{ClickHouse, TableFinding},
    table::{TableName, TableSchema},
};

/// What exactly-once asks a table to remember at least: each partition's batch
/// under way, with room for the parts that a batch may fall into.
const MIN_DEDUPLICATION_WINDOW: u64 = 1000;

/// The configured routes, or the default one. A route into `event_log` that
/// names no columns takes that table's own.
pub(crate) fn routes(config: &Config) -> Vec<Route> {
    if config.routes.is_empty() {
        return vec![decode::default_route()];
    }
    let mut routes = config.routes.clone();
    for route in &mut routes {
        let name = TableName::parse(&route.table, &config.clickhouse.database);
        if name.table == decode::EVENT_LOG && route.columns.is_empty() {
            route.columns = decode::default_route().columns;
        }
    }
    routes
}

/// Joins every route with its table.
///
/// # Errors
/// Names the table that is missing, has columns that cannot be written, or
/// would not drop a repeated insert.
pub(crate) async fn mappings(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<Vec<Arc<Mapping>>, ConsumerError> {
    let mut mappings = Vec::new();
    for (index, route) in routes(config).iter().enumerate() {
        let name = TableName::parse(&route.table, &clickhouse.database);
        let finding = clickhouse
            .find_table(&name)
            .await
            .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))?
            .ok_or_else(|| ConsumerError::NoTable {
                table: name.to_string(),
                url: clickhouse.url.clone(),
            })?;
        if config.consumer.delivery == Delivery::ExactlyOnce {
            check_deduplication(&name, &finding)?;
        }
        let schema = TableSchema::of(name, &finding.columns)?;
        mappings.push(Arc::new(Mapping::new(index, route, &schema)?));
    }
    Ok(mappings)
}

fn check_deduplication(name: &TableName, finding: &TableFinding) -> Result<(), ConsumerError> {
    if !finding.engine.ends_with("MergeTree") {
        return Err(ConsumerError::NoDeduplication {
            table: name.to_string(),
            engine: finding.engine.clone(),
        });
    }
    match finding.deduplication_window {
        Some(window) if window < MIN_DEDUPLICATION_WINDOW => Err(ConsumerError::SmallWindow {
            table: name.to_string(),
            table_sql: name.quoted(),
            window,
            minimum: MIN_DEDUPLICATION_WINDOW,
        }),
        _ => Ok(()),
    }
}
