//! The tables of this run: typed ones for flights and orders, besides the
//! `event_log` that takes every event. And what is in them at the end.

use anyhow::Result;
use clickhouse::{Client, Row};
use serde::Deserialize;
use uuid::Uuid;

use super::counters::Counters;

/// The window is what lets ClickHouse drop an insert that comes again.
const FLIGHTS: &str = "
CREATE TABLE flights (
    event_id            UUID,
    committed_at        DateTime64(3, 'UTC'),
    carrier             LowCardinality(String),
    flight              UInt16,
    tail_number         LowCardinality(Nullable(String)),
    origin              LowCardinality(String),
    destination         LowCardinality(String),
    scheduled_at        DateTime64(3, 'UTC'),
    year                UInt16,
    month               UInt8,
    day                 UInt8,
    scheduled_departure UInt16,
    departure           Nullable(UInt16),
    departure_delay     Nullable(Int16),
    scheduled_arrival   UInt16,
    arrival             Nullable(UInt16),
    arrival_delay       Nullable(Int16),
    air_time            Nullable(Float64),
    distance            UInt32,
    _topic              LowCardinality(String),
    _partition          UInt32,
    _offset             UInt64
) ENGINE = MergeTree ORDER BY (origin, carrier, scheduled_at)
SETTINGS non_replicated_deduplication_window = 10000";

const ORDERS: &str = "
CREATE TABLE orders (
    event_id     UUID,
    committed_at DateTime64(3, 'UTC'),
    order_id     UInt64,
    total        Decimal(18, 4),
    lines        UInt16,
    _topic       LowCardinality(String),
    _partition   UInt32,
    _offset      UInt64
) ENGINE = MergeTree ORDER BY order_id
SETTINGS non_replicated_deduplication_window = 10000";

pub(super) async fn create(client: &Client) -> Result<()> {
    for table in [FLIGHTS, ORDERS] {
        client.query(table).execute().await?;
    }
    Ok(())
}

/// Counts the rows as they come.
pub(super) async fn count(client: &Client, counters: &Counters) {
    let count = async |table: &str| {
        client.query(&format!("SELECT count() FROM {table}")).fetch_one::<u64>().await
    };
    let counted = async {
        let typed = count("flights").await? + count("orders").await?;
        Ok::<_, clickhouse::error::Error>((typed, count("event_log").await?))
    };
    match counted.await {
        Ok((typed, event_log)) => {
            counters.in_typed_tables.set(typed);
            counters.in_event_log.set(event_log);
        }
        Err(error) => counters.note_trouble("counting in ClickHouse", &error),
    }
}

/// One row of `flights`, as far as it says where it came from.
#[derive(Debug, Clone, Row, Deserialize)]
pub(super) struct StoredFlight {
    #[serde(with = "clickhouse::serde::uuid")]
    pub(super) event_id: Uuid,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) committed_ms: i64,
}

pub(super) async fn stored_flights(client: &Client) -> Result<Vec<StoredFlight>> {
    Ok(client
        .query(
            "SELECT event_id, _partition AS partition, _offset AS offset, \
             toUnixTimestamp64Milli(committed_at) AS committed_ms FROM flights",
        )
        .fetch_all()
        .await?)
}

#[derive(Row, Deserialize)]
struct EventId {
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
}

pub(super) async fn event_ids(client: &Client, table: &str) -> Result<Vec<Uuid>> {
    let query = client.query(&format!("SELECT event_id FROM {table}"));
    Ok(query.fetch_all::<EventId>().await?.into_iter().map(|row| row.event_id).collect())
}

/// The amounts in the order of their orders, as ClickHouse writes them.
pub(super) async fn order_amounts(client: &Client) -> Result<Vec<String>> {
    let query = client.query("SELECT toString(total) FROM orders ORDER BY order_id");
    Ok(query.fetch_all().await?)
}
