//! Inserts over HTTP.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clickhouse::{Client, Compression, RowOwned, RowRead, query::Query};
use outpour_schemas::config;
use tokio::sync::OnceCell;

use super::{Sink, SinkError};
use crate::{batch::Insert, decode::Mapping, source::TopicPartition, table::quoted};

/// A client of one ClickHouse.
#[derive(Clone)]
pub(crate) struct ClickHouse {
    client: Client,
    /// Whether the server has [`DEDUPLICATE_INSERT`], once that has been asked.
    deduplicates_by_name: Arc<OnceCell<bool>>,
    insert_timeout: Duration,
    /// As it may be shown.
    pub(crate) url: String,
    pub(crate) database: String,
}

/// What every insert depends on, whatever the server's profile says.
pub(crate) const INSERT_SETTINGS: [(&str, &str); 7] = [
    // On by default since 26.2; it would gather blocks anew and answer early.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // A NULL asks for the DEFAULT in columns that have one.
    ("input_format_null_as_default", "1"),
    ("insert_null_as_default", "1"),
    ("input_format_native_allow_types_conversion", "1"),
    // A batch of old events may touch many months.
    ("max_partitions_per_insert_block", "0"),
];

/// Overrides `insert_deduplicate`, on servers that know it: 26.2 and later.
const DEDUPLICATE_INSERT: (&str, &str) = ("deduplicate_insert", "enable");

impl ClickHouse {
    pub(crate) fn new(config: &config::ClickHouse) -> Self {
        let compression = if config.compression { Compression::Lz4 } else { Compression::None };
        let client = Client::default()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(config.password.expose())
            .with_database(&config.database)
            .with_compression(compression)
            .with_product_info("outpour-consumer", env!("CARGO_PKG_VERSION"));
        ClickHouse {
            client,
            deduplicates_by_name: Arc::default(),
            insert_timeout: config.insert_timeout.0,
            url: config.url.clone(),
            database: config.database.clone(),
        }
    }

    /// A query; every `?` in it is to be bound.
    pub(crate) fn query(&self, template: &str) -> Query {
        self.client.query(template)
    }

    /// What a query returns.
    pub(crate) async fn fetch<T: RowOwned + RowRead>(
        &self,
        query: Query,
    ) -> Result<Vec<T>, SinkError> {
        self.within(async { Ok(query.fetch_all().await?) }).await
    }

    /// Runs a statement that returns nothing.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), SinkError> {
        // Not a template: a `?` in it is a `?`.
        self.within(async { Ok(self.client.query_raw(sql).execute().await?) }).await
    }

    /// What a query returns, in `format`.
    pub(crate) async fn fetch_bytes(&self, sql: &str, format: &str) -> Result<Bytes, SinkError> {
        self.within(async { Ok(self.client.query_raw(sql).fetch_bytes(format)?.collect().await?) })
            .await
    }

    /// Sends one INSERT with its rows.
    pub(crate) async fn send(
        &self,
        sql: &str,
        body: &[Bytes],
        token: Option<&str>,
    ) -> Result<(), SinkError> {
        /// What is compressed at once, here and by the server.
        const FRAME: usize = 1 << 20;
        self.within(async {
            let known = self.deduplicates_by_name.get_or_try_init(|| self.knows_of_it()).await?;
            let mut insert = self.client.insert_formatted_with(sql);
            if *known {
                insert = insert.with_setting(DEDUPLICATE_INSERT.0, DEDUPLICATE_INSERT.1);
            }
            for (name, value) in INSERT_SETTINGS {
                insert = insert.with_setting(name, value);
            }
            if let Some(token) = token {
                insert = insert.with_setting("insert_deduplication_token", token);
            }
            for piece in body {
                for start in (0..piece.len()).step_by(FRAME) {
                    insert.send(piece.slice(start..piece.len().min(start + FRAME))).await?;
                }
            }
            Ok(insert.end().await?)
        })
        .await
    }

    async fn knows_of_it(&self) -> Result<bool, SinkError> {
        let sql = "SELECT count() FROM system.settings WHERE name = ?";
        let found: u64 = self.client.query(sql).bind(DEDUPLICATE_INSERT.0).fetch_one().await?;
        Ok(found > 0)
    }

    /// Nothing that waits for ClickHouse waits for ever.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        tokio::time::timeout(self.insert_timeout, work)
            .await
            .unwrap_or_else(|_| Err(SinkError::timed_out(self.insert_timeout.as_secs())))
    }
}

impl Sink for ClickHouse {
    async fn insert(&self, insert: &Insert, token: &str) -> Result<(), SinkError> {
        self.send(&insert.mapping.insert_sql, &insert.body, Some(token)).await
    }

    async fn insert_missing(
        &self,
        insert: &Insert,
        partition: &TopicPartition,
        range: std::ops::Range<i64>,
    ) -> Result<(), SinkError> {
        let sql = missing_sql(insert, partition, &range);
        self.send(&sql, &insert.body, None).await
    }

    async fn last_offset(
        &self,
        mapping: &Mapping,
        partition: &TopicPartition,
    ) -> Result<Option<i64>, SinkError> {
        let sql = format!(
            "SELECT toInt64(maxOrNull(_offset)) FROM {} WHERE _topic = ? AND _partition = ?",
            mapping.table_sql()
        );
        let query = self.query(&sql).bind(&*partition.topic).bind(partition.partition);
        let found: Vec<Option<i64>> = self.fetch(query).await?;
        Ok(found.into_iter().next().flatten())
    }
}

/// The server compares, since it has the rows: what the table holds of the
/// range is left out of what is sent.
fn missing_sql(
    insert: &Insert,
    partition: &TopicPartition,
    range: &std::ops::Range<i64>,
) -> String {
    let names: Vec<_> = insert.mapping.columns.iter().map(|c| quoted(c.name())).collect();
    let structure: Vec<_> = insert
        .mapping
        .columns
        .iter()
        .map(|column| format!("{} {}", quoted(column.name()), column.wire_type()))
        .collect();
    let names = names.join(", ");
    let table = insert.mapping.table_sql();
    format!(
        "INSERT INTO {table} ({names}) SELECT {names} FROM input({}) \
         WHERE _offset >= {} AND _offset < {} AND _offset NOT IN (SELECT _offset FROM {table} WHERE _topic = {} AND _partition = {} \
         AND _offset >= {} AND _offset < {}) FORMAT Native",
        literal(&structure.join(", ")),
        range.start,
        range.end,
        literal(&partition.topic),
        partition.partition,
        range.start,
        range.end,
    )
}

/// A string constant, whatever it contains.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
