//! The tables, and what is in them.

use std::time::Duration;

use anyhow::{Context, Result};
use clickhouse::{Client, Row};
use serde::Deserialize;
use uuid::Uuid;

use super::event::FORBIDDEN;

/// The table of an aggregate type.
pub(super) fn table(kind: &str) -> String {
    format!("{kind}s")
}

/// The orders' inserts are split among three partitions of the table.
const PARTITIONED_BY: [(&str, &str); 2] = [("order", "PARTITION BY small % 3"), ("payment", "")];

const SUMS: &str = "
    CREATE TABLE order_sums (key String, rows UInt64, amount Decimal(76, 12), small UInt64)
    ENGINE = SummingMergeTree ORDER BY key
    SETTINGS non_replicated_deduplication_window = 10000";

const VIEW: &str = "
    CREATE MATERIALIZED VIEW order_summing TO order_sums AS
    SELECT key, toUInt64(1) AS rows, CAST(amount, 'Decimal(76, 12)') AS amount,
           toUInt64(small) AS small
    FROM orders";

pub(super) async fn create(client: &Client) -> Result<()> {
    for (kind, partition_by) in PARTITIONED_BY {
        let table = table(kind);
        let sql = format!(
            "CREATE TABLE {table} (
                 event_id UUID, key String, seq Int64, amount Decimal(38, 12), quantity Int64,
                 small UInt8, note String, at DateTime64(6, 'UTC'), maybe Nullable(Int32),
                 tags Array(LowCardinality(String)),
                 _topic LowCardinality(String), _partition UInt32, _offset UInt64,
                 CONSTRAINT allowed CHECK note != '{FORBIDDEN}')
             ENGINE = MergeTree {partition_by} ORDER BY (key, seq)
             SETTINGS non_replicated_deduplication_window = 10000"
        );
        client.query(&sql).execute().await?;
    }
    for sql in [SUMS, VIEW] {
        client.query(sql).execute().await?;
    }
    Ok(())
}

/// As a row is in its table, each value as text where a type could hide something.
#[derive(Debug, Clone, Row, Deserialize)]
pub(super) struct Stored {
    #[serde(with = "clickhouse::serde::uuid")]
    pub(super) event_id: Uuid,
    pub(super) key: String,
    pub(super) seq: i64,
    pub(super) amount: String,
    pub(super) quantity: i64,
    pub(super) small: u8,
    pub(super) note: String,
    pub(super) at: String,
    pub(super) maybe: Option<i32>,
    pub(super) tags: Vec<String>,
    pub(super) partition: u32,
    pub(super) offset: u64,
}

pub(super) async fn read(client: &Client, kind: &str) -> Result<Vec<Stored>> {
    let sql = format!(
        "SELECT event_id, key, seq, toString(amount) AS amount, quantity, small, note,
                toString(at) AS at, maybe, CAST(tags, 'Array(String)') AS tags,
                _partition AS partition, _offset AS offset
         FROM {} ORDER BY partition, offset",
        table(kind)
    );
    Ok(client.query(&sql).fetch_all().await?)
}

/// Rows of a table up to an offset in each partition, and distinct events among
/// them.
#[derive(Debug, Clone, Row, Deserialize)]
pub(super) struct Count {
    pub(super) rows: u64,
    pub(super) events: u64,
}

pub(super) async fn count(client: &Client, kind: &str, condition: &str) -> Result<Count> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let table = table(kind);
    let sql = format!(
        "SELECT count() AS rows, uniqExact(event_id) AS events FROM {table} WHERE {condition}"
    );
    let asking = async { Ok(client.query(&sql).fetch_one().await?) };
    tokio::time::timeout(PATIENCE, asking).await.context("no answer in time")?
}

/// Where the view's sums are not those of its table: the keys.
pub(super) async fn wrong_sums(client: &Client) -> Result<Vec<String>> {
    const COMPARE: &str = "
        SELECT key FROM (
            SELECT key, toInt64(1) AS rows, CAST(amount, 'Decimal(76, 12)') AS amount,
                   toInt64(small) AS small FROM orders
            UNION ALL
            SELECT key, -toInt64(rows), -amount, -toInt64(small) FROM order_sums)
        GROUP BY key
        HAVING sum(rows) != 0 OR sum(amount) != 0 OR sum(small) != 0
        ORDER BY key";
    Ok(client.query(COMPARE).fetch_all().await?)
}
