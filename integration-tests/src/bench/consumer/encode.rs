//! Decoding and encoding alone, and inserting what they made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use clickhouse::{Client, Compression};
use outpour_consumer::{
    batch::{Batch, Limits, Sealed},
    decode::Mapping,
    source::RecordView,
    table::{DescribedColumn, TableName, TableSchema},
};
use outpour_schemas::config;
use tokio::task::JoinSet;

use super::{
    dataset::{Dataset, Event},
    topic::{self, COMMITTED_MS, PARTITIONS},
};
use crate::bench::child::Work;

/// Makes blocks of events that are in memory.
#[derive(Debug, Args)]
pub struct Encode {
    dataset: Dataset,
    url: String,
    table: String,
    rows: u64,
}

/// Inserts blocks that are in memory.
#[derive(Debug, Args)]
pub struct Insert {
    dataset: Dataset,
    url: String,
    table: String,
    rows: u64,
}

/// The table as the consumer sees it.
async fn schema(client: &Client, table: &str) -> Result<TableSchema> {
    let columns: Vec<(String, String, String)> = client
        .query(
            "SELECT name, type, default_kind FROM system.columns \
             WHERE database = currentDatabase() AND table = ? ORDER BY position",
        )
        .bind(table)
        .fetch_all()
        .await?;
    let columns: Vec<_> = columns
        .into_iter()
        .map(|(name, type_name, default_kind)| DescribedColumn { name, type_name, default_kind })
        .collect();
    Ok(TableSchema::of(TableName::parse(table, "default"), &columns)?)
}

fn view<'a>(event: &'a Event, topic: &'a str, offset: i64) -> RecordView<'a> {
    RecordView {
        topic,
        partition: 0,
        offset,
        timestamp_ms: Some(COMMITTED_MS + offset),
        key: Some(event.key.as_bytes()),
        value: Some(event.payload.as_bytes()),
        headers: topic::headers(event).into_iter().collect(),
    }
}

/// Takes `rows` of the events through a batch after the other, as the consumer
/// does.
fn encode(
    dataset: Dataset,
    schema: &TableSchema,
    events: &[Event],
    rows: u64,
    mut sealed: impl FnMut(Sealed),
) -> Result<()> {
    let mapping = Mapping::new(0, &dataset.route("t"), schema)?;
    let limits = Limits::from(&config::Batch::default());
    let mut batch = Batch::new(&[Arc::new(mapping)], "bench".into(), limits, 0);
    let (topic, now) = (dataset.topic(), Instant::now());
    for (offset, event) in (0..i64::try_from(rows)?).zip(events.iter().cycle()) {
        batch.push(&view(event, &topic, offset), now);
        if batch.has_reached_its_size() {
            sealed(batch.seal());
        }
    }
    if !batch.is_empty() {
        sealed(batch.seal());
    }
    Ok(())
}

impl Encode {
    /// # Errors
    /// When the table cannot be read.
    pub async fn run(self) -> Result<()> {
        let schema = schema(&Client::default().with_url(&self.url), &self.table).await?;
        let work = move || {
            let events = self.dataset.events()?;
            let (mut rows, work) = (0, Work::begin());
            encode(self.dataset, &schema, &events, self.rows, |sealed| rows += sealed.rows())?;
            anyhow::ensure!(rows as u64 == self.rows, "only {rows} rows fit the table");
            work.done(self.rows).tell()
        };
        tokio::task::spawn_blocking(work).await?
    }
}

impl Insert {
    /// # Errors
    /// When ClickHouse does not take a block.
    pub async fn run(self) -> Result<()> {
        let client = Client::default().with_url(&self.url).with_compression(Compression::Lz4);
        let schema = schema(&client, &self.table).await?;
        let columns: Vec<_> = schema.columns.iter().map(|column| column.column.clone()).collect();
        let sql = schema.insert_sql(&columns);
        let (dataset, rows) = (self.dataset, self.rows);
        let blocks = tokio::task::spawn_blocking(move || {
            let mut blocks: Vec<Vec<Bytes>> = Vec::new();
            encode(dataset, &schema, &dataset.events()?, rows, |sealed| {
                blocks.extend(sealed.inserts.into_iter().map(|insert| insert.body));
            })?;
            anyhow::Ok(blocks)
        })
        .await??;
        let work = Work::begin();
        let mut inserts = JoinSet::new();
        for (number, block) in blocks.into_iter().enumerate() {
            // As many at a time as there are partitions.
            if inserts.len() >= usize::try_from(PARTITIONS)? {
                inserts.join_next().await.context("no insert")???;
            }
            let (client, sql) = (client.clone(), Arc::clone(&sql));
            inserts.spawn(async move {
                let token = format!("block {number}");
                let mut insert = client
                    .insert_formatted_with(&*sql)
                    .with_setting("async_insert", "0")
                    .with_setting("insert_deduplication_token", token)
                    .with_timeouts(Some(Duration::from_secs(60)), Some(Duration::from_secs(60)));
                for piece in block {
                    insert.send(piece).await?;
                }
                insert.end().await
            });
        }
        while let Some(insert) = inserts.join_next().await {
            insert??;
        }
        work.done(self.rows).tell()
    }
}
