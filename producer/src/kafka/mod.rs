//! Kafka, as the relay and the event producer use it: idempotent clients that
//! choose partitions as Kafka's Java clients do, and topics that are made here.

#[cfg(feature = "relay")]
pub(crate) mod checkpoint;
#[cfg(feature = "relay")]
mod deliveries;
#[cfg(feature = "relay")]
pub(crate) mod learned;
#[cfg(feature = "relay")]
pub(crate) mod limits;
#[cfg(feature = "relay")]
mod pace;
#[cfg(feature = "relay")]
pub(crate) mod publisher;
#[cfg(feature = "relay")]
pub(crate) mod refusals;
pub(crate) mod topics;
#[cfg(feature = "relay")]
mod undelivered;

#[cfg(feature = "relay")]
use outpour_schemas::config::Relay;
use outpour_schemas::{
    Record,
    config::{ConfigError, Kafka},
    kafka::client_config,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
    util::IntoOpaque,
};

/// Longest wait for an answer that a healthy cluster gives at once.
pub(crate) const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the producer of a slot is called. Whoever takes it fences who had it.
#[cfg(feature = "relay")]
pub(crate) fn transactional_id(relay: &Relay) -> String {
    format!("outpour-relay-{}", relay.slot)
}

/// A client that keeps the record contract: in order, not doubled by its own
/// retries, and in the partition that any Java client would choose. `defaults`
/// are what an operator may have set otherwise.
///
/// # Errors
/// Names the property that the client does not take.
pub(crate) fn producer_config(
    kafka: &Kafka,
    max_record_size: u64,
    defaults: &[(&str, &str)],
) -> Result<ClientConfig, ConfigError> {
    let mut settings = client_config(kafka)?;
    // The batch that holds the largest record has a few bytes of its own.
    let largest = max_record_size.saturating_add(4096).min(1_000_000_000);
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // A broker that knows nothing of a producer takes any sequence number as
        // its first. With two batches on their way, and the first sent back by a
        // partition that has no leader yet, it would take the second, and call the
        // first a duplicate when it comes again: it would be lost without a word.
        .set("max.in.flight.requests.per.connection", "1")
        // librdkafka's own default differs.
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", largest.to_string())
        // Or brokers that take no larger record would refuse a full batch of small ones.
        .set("batch.size", batch_size(kafka, max_record_size).to_string())
        .set("allow.auto.create.topics", "false");
    for (key, value) in defaults {
        if !kafka.properties.contains_key(*key) {
            settings.set(*key, *value);
        }
    }
    Ok(settings)
}

/// How large a batch of records grows at most, in bytes: the client's own limit,
/// unless configured otherwise, and nothing that brokers would refuse.
pub(crate) fn batch_size(kafka: &Kafka, max_record_size: u64) -> u64 {
    const DEFAULT: u64 = 1_000_000;
    let configured = kafka.properties.get("batch.size").and_then(|size| size.expose().parse().ok());
    configured.unwrap_or(DEFAULT).min(max_record_size)
}

/// The record as the client takes it.
pub(crate) fn message<D: IntoOpaque>(
    record: &Record,
    delivery_opaque: D,
) -> BaseRecord<'_, [u8], [u8], D> {
    let headers =
        record.headers.iter().fold(
            OwnedHeaders::new_with_capacity(record.headers.len()),
            |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }),
        );
    BaseRecord {
        topic: &record.topic,
        partition: record.partition,
        payload: record.value.as_deref(),
        key: record.key.as_deref(),
        timestamp: Some(record.timestamp_ms),
        headers: Some(headers),
        delivery_opaque,
    }
}
