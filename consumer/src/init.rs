//! The table that everything goes to unless routes say otherwise.

use outpour_schemas::config::Config;

use crate::{
    decode::EVENT_LOG,
    error::ConsumerError,
    sink::ClickHouse,
    table::{TableName, quoted},
};

/// The SQL that `init` runs.
pub(crate) fn sql(config: &Config) -> Vec<String> {
    let name =
        TableName { database: config.clickhouse.database.clone(), table: EVENT_LOG.to_owned() };
    vec![
        format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&name.database)),
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
    event_id UUID,
    event_type LowCardinality(String),
    event_date_time DateTime64(6, 'UTC'),
    environment LowCardinality(String),
    event_context String,
    metadata_version UInt64,
    aggregate_type LowCardinality(String),
    aggregate_id String,
    _topic LowCardinality(String),
    _partition UInt32,
    _offset UInt64,
    INDEX provenance _offset TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(event_date_time)
ORDER BY (event_type, event_date_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000",
            name.quoted()
        ),
    ]
}

/// Creates what is missing and leaves alone what is there.
///
/// # Errors
/// When ClickHouse refuses.
pub(crate) async fn init(config: &Config) -> Result<String, ConsumerError> {
    // The database may be what is missing.
    let mut outside = config.clickhouse.clone();
    "default".clone_into(&mut outside.database);
    let clickhouse = ClickHouse::new(&outside);
    for statement in sql(config) {
        let executing = clickhouse.on_any(|| clickhouse.execute(&statement));
        executing.await.map_err(|source| {
            ConsumerError::clickhouse("creating the tables", &clickhouse, source)
        })?;
    }
    Ok(format!("table {}.{EVENT_LOG} is there", config.clickhouse.database))
}
