//! What most people write by hand: lines of JSON, gathered as they are and
//! inserted as JSONEachRow, for the server to take apart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use clickhouse::{Client, Compression};
use rdkafka::{
    Message,
    consumer::{CommitMode, Consumer},
};
use tokio::{runtime::Handle, task::JoinSet};

use super::{dataset::Dataset, topic};
use crate::{bench::child::Work, pipeline::PATIENCE};

/// As the consumer's own batches.
const ROWS: usize = 100_000;
const BYTES: usize = 16 << 20;

/// Reads a topic and inserts its values as they are.
#[derive(Debug, Args)]
pub struct JsonEachRow {
    dataset: Dataset,
    brokers: String,
    url: String,
    table: String,
    rows: u64,
}

impl JsonEachRow {
    /// # Errors
    /// When records do not come, or are not taken.
    pub async fn run(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.work()).await?
    }

    fn work(self) -> Result<()> {
        let reader = topic::reader(&self.brokers, &self.dataset.topic(), &self.table)?;
        let client = Client::default().with_url(&self.url).with_compression(Compression::Lz4);
        let sql =
            format!("INSERT INTO {} ({}) FORMAT JSONEachRow", self.table, self.dataset.names());
        let mut inserts = JoinSet::new();
        let (mut body, mut gathered) = (Vec::new(), 0);
        let (mut rows, mut work, mut heard) = (0, None, Instant::now());
        while rows < self.rows {
            let Some(record) = reader.poll(Duration::from_millis(100)) else {
                ensure!(heard.elapsed() < PATIENCE, "only {rows} records");
                continue;
            };
            let record = record?;
            heard = Instant::now();
            work.get_or_insert_with(Work::begin);
            body.extend_from_slice(record.payload().context("no payload")?);
            body.push(b'\n');
            rows += 1;
            gathered += 1;
            if gathered == ROWS || body.len() >= BYTES || rows == self.rows {
                gathered = 0;
                // One under way while the next gathers.
                if inserts.len() >= 2 {
                    Handle::current().block_on(inserts.join_next()).context("no insert")???;
                }
                inserts.spawn_on(
                    insert(client.clone(), sql.clone(), std::mem::take(&mut body).into()),
                    &Handle::current(),
                );
            }
        }
        while let Some(insert) = Handle::current().block_on(inserts.join_next()) {
            insert??;
        }
        reader.commit_consumer_state(CommitMode::Sync).ok();
        work.context("no records")?.done(rows).tell()
    }
}

async fn insert(client: Client, sql: String, body: Bytes) -> clickhouse::error::Result<()> {
    let mut insert = client
        .insert_formatted_with(sql)
        .with_setting("async_insert", "0")
        .with_setting("date_time_input_format", "best_effort");
    insert.send(body).await?;
    insert.end().await
}
