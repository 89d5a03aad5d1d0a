//! The table that everything goes to unless routes say otherwise.

use outpour_schemas::config::Config;

use crate::{
    decode::EVENT_LOG,
    durability,
    error::ConsumerError,
    sink::ClickHouse,
    table::{TableName, quoted},
};

/// The SQL that `init` runs.
pub(crate) fn sql(config: &Config) -> Vec<String> {
    let name =
        TableName { database: config.clickhouse.database.clone(), table: EVENT_LOG.to_owned() };
    let cluster = config.clickhouse.cluster.as_deref();
    // Quoted or not, ClickHouse puts the value of a macro in the place of `{cluster}`.
    let on_cluster = cluster.map(|name| format!(" ON CLUSTER {}", quoted(name)));
    let on_cluster = on_cluster.unwrap_or_default();
    let (engine, settings) = match cluster {
        None => ("MergeTree", "non_replicated_deduplication_window = 10000"),
        // Spelt out, as the default path has the table's UUID in it: a server that
        // joins later, and gets its table from this statement, would get one of its
        // own and share neither rows nor tokens.
        Some(_) => (
            "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')",
            "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 86400",
        ),
    };
    let synced = config.clickhouse.fsync.then(|| format!(", {}", durability::settings()));
    let synced = synced.unwrap_or_default();
    vec![
        format!("CREATE DATABASE IF NOT EXISTS {}{on_cluster}", quoted(&name.database)),
        format!(
            "CREATE TABLE IF NOT EXISTS {}{on_cluster} (
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
ENGINE = {engine}
PARTITION BY toYYYYMM(event_date_time)
ORDER BY (event_type, event_date_time, event_id)
SETTINGS {settings}{synced}",
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
    let clickhouse = ClickHouse::new(&outside)?;
    for statement in sql(config) {
        let executing = clickhouse.on_any(|| clickhouse.execute(&statement));
        executing.await.map_err(|source| {
            ConsumerError::clickhouse("creating the tables", &clickhouse, source)
        })?;
    }
    Ok(format!("table {}.{EVENT_LOG} is there", config.clickhouse.database))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deduplication::{Defaults, Memory};

    fn sql_of(cluster: Option<&str>) -> Vec<String> {
        let mut config = Config::default();
        config.clickhouse.database = "shop".into();
        config.clickhouse.cluster = cluster.map(str::to_owned);
        sql(&config)
    }

    /// What a table remembers that is made by `sql`, whatever the server's defaults.
    fn remembers(sql: &str) -> Memory {
        let none = Defaults { local_window: 0, shared_window: 0, shared_seconds: 0 };
        let (_, engine_full) = sql.split_once("ENGINE = ").unwrap();
        let engine_full = engine_full.replace('\n', " ");
        let engine = engine_full.split([' ', '(']).next().unwrap();
        Memory::of(engine, &engine_full, none)
    }

    #[test]
    fn a_single_server_gets_a_table_that_remembers_inserts() {
        let sql = sql_of(None);
        assert!(sql.iter().all(|sql| !sql.contains("ON CLUSTER")), "{sql:?}");
        assert_eq!(remembers(&sql[1]).check(false), Ok(()));
    }

    #[test]
    fn a_cluster_gets_one_whose_replicas_remember_together() {
        let sql = sql_of(Some("main"));
        assert_eq!(sql[0], "CREATE DATABASE IF NOT EXISTS `shop` ON CLUSTER `main`");
        let begin = "CREATE TABLE IF NOT EXISTS `shop`.`event_log` ON CLUSTER `main` (\n";
        assert!(sql[1].starts_with(begin), "{}", sql[1]);
        let engine = "\nENGINE = ReplicatedMergeTree(\
            '/clickhouse/tables/{shard}/{database}/{table}', '{replica}')\nPARTITION BY";
        assert!(sql[1].contains(engine), "{}", sql[1]);
        assert_eq!(remembers(&sql[1]), Memory::Shared { window: 10_000, seconds: 86_400 });
        assert_eq!(remembers(&sql[1]).check(true), Ok(()));
    }

    #[test]
    fn the_name_of_a_cluster_is_quoted() {
        let sql = sql_of(Some("a`; DROP TABLE x"));
        assert!(sql[0].ends_with(" ON CLUSTER `a\\`; DROP TABLE x`"), "{}", sql[0]);
        assert!(sql_of(Some("{cluster}"))[0].ends_with(" ON CLUSTER `{cluster}`"));
    }
}
