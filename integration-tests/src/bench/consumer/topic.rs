//! The topic that every case reads, and reading it for nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use outpour_schemas::wire::header;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use super::dataset::{Dataset, Event};
use crate::{bench::child::Work, pipeline::PATIENCE};

pub(super) const PARTITIONS: i32 = 6;
/// When the first event was committed, in milliseconds since the Unix epoch.
pub(super) const COMMITTED_MS: i64 = 1_767_323_045_000;
const OCCURRED_AT: &str = "2026-01-02T03:04:05.678901Z";

/// The headers that the relay gives a record, in its order.
pub(super) fn headers(event: &Event) -> [(&'static str, Option<&[u8]>); 6] {
    [
        (header::ID, Some(event.id.as_bytes())),
        (header::EVENT_TYPE, Some(event.event_type.as_bytes())),
        (header::SCHEMA_VERSION, Some(b"1")),
        (header::OCCURRED_AT, Some(OCCURRED_AT.as_bytes())),
        (header::TRACEPARENT, None),
        (header::LSN, Some(b"0/15000000/0")),
    ]
}

/// Makes the topic and writes `rows` records to it. Blocks.
pub(super) fn fill(brokers: &str, dataset: Dataset, rows: u64) -> Result<()> {
    let topic = dataset.topic();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    // Kafka goes by the records' own time, which is long ago.
    let new =
        NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let making = async { admin.create_topics([&new], &AdminOptions::new()).await };
    for made in tokio::runtime::Handle::current().block_on(making)? {
        ensure!(made.is_ok(), "cannot create {topic}: {made:?}");
    }
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .create()?;
    let events = dataset.events()?;
    for (n, event) in (0..rows).zip(events.iter().cycle()) {
        let headers = headers(event)
            .into_iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value }));
        let mut record = BaseRecord::to(&topic)
            .key(&event.key)
            .payload(&event.payload)
            .headers(headers)
            .timestamp(COMMITTED_MS + i64::try_from(n)?);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(PATIENCE)?;
    Ok(())
}

/// A reader of the whole topic, with the consumer's own client settings.
pub(super) fn reader(brokers: &str, topic: &str, group: &str) -> Result<BaseConsumer> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "5")
        .set("check.crcs", "true")
        .create()?;
    reader.subscribe(&[topic])?;
    Ok(reader)
}

/// Reads a topic's records and throws them away.
#[derive(Debug, Args)]
pub struct Consume {
    brokers: String,
    topic: String,
    rows: u64,
}

impl Consume {
    /// # Errors
    /// When the records do not come.
    pub async fn run(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.read()).await?
    }

    fn read(&self) -> Result<()> {
        let reader = reader(&self.brokers, &self.topic, "raw")?;
        let (mut rows, mut work, mut heard) = (0, None, Instant::now());
        while rows < self.rows {
            match reader.poll(Duration::from_millis(100)) {
                Some(record) => {
                    record?;
                    heard = Instant::now();
                    work.get_or_insert_with(Work::begin);
                    rows += 1;
                }
                None => ensure!(heard.elapsed() < PATIENCE, "only {rows} records"),
            }
        }
        work.context("no records")?.done(rows).tell()
    }
}
