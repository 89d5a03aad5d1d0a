//! The produce ceiling: as fast as the same records come from memory into
//! Kafka, with the relay's own client settings but without transactions.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use outpour_schemas::identity::derived_event_id;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use super::{
    backlog::{Backlog, KEYS},
    floor::hear,
};
use crate::{
    bench::{child::Work, results::Outcome},
    stack::Stack,
};

/// Writes records from memory.
#[derive(Debug, Args)]
pub struct Ceiling {
    brokers: String,
    topic: String,
    rows: u64,
}

pub(super) async fn measure(stack: &Stack, backlog: &Backlog, round: u32) -> Result<Outcome> {
    let (brokers, topic) = (stack.kafka.url(), format!("ceiling_{round}"));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(&topic, 6, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await?;
    let outcome = hear(stack, &["ceiling", brokers, &topic, &backlog.rows.to_string()]).await?;
    // Its disk is wanted back.
    admin.delete_topics(&[&topic], &AdminOptions::new()).await?;
    Ok(outcome)
}

/// A record as the relay makes it of a row of the backlog.
struct Event {
    key: String,
    payload: String,
    headers: OwnedHeaders,
}

impl Event {
    fn new(k: u64) -> Self {
        let id = derived_event_id("order", &k.to_string()).to_string();
        let position = format!("0/{:X}/{}", 0x1500_0000 + k * 100, k % 100);
        let values = [
            ("id", id.as_str()),
            ("eventType", "order_placed"),
            ("schemaVersion", "1"),
            ("occurredAt", "2026-01-02T03:04:05.678901Z"),
        ];
        let headers = values.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let headers = headers
            .insert(Header { key: "traceparent", value: None::<&str> })
            .insert(Header { key: "outpour-lsn", value: Some(&position) });
        let payload = format!(
            "{{\"note\": \"{}\", \"items\": {}, \"total\": {}.{:02}, \"currency\": \"EUR\", \
             \"customer\": \"customer-{}\", \"order_id\": {k}}}",
            derived_event_id("note", &k.to_string()).simple(),
            k % 7,
            k % 1000,
            k % 100,
            k % KEYS
        );
        Self { key: (k % KEYS).to_string(), payload, headers }
    }
}

impl Ceiling {
    /// # Errors
    /// When Kafka does not take a record.
    pub async fn run(self) -> Result<()> {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "1")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", "32768")
            .set("queue.buffering.max.messages", "100000")
            .create()?;
        tokio::task::spawn_blocking(move || self.produce(&producer)).await?
    }

    fn produce(self, producer: &ThreadedProducer<DefaultProducerContext>) -> Result<()> {
        // From memory, as said; as many different ones as matter to compression.
        let events: Vec<_> = (0..self.rows.min(100_000)).map(Event::new).collect();
        let mut source = events.iter().cycle();
        let work = Work::begin();
        for _ in 0..self.rows {
            let event = source.next().context("no rows")?;
            let mut record = BaseRecord::to(&self.topic)
                .key(&event.key)
                .payload(&event.payload)
                .headers(event.headers.clone());
            while let Err((error, back)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        producer.flush(Duration::from_secs(60))?;
        work.done(self.rows).tell()
    }
}
