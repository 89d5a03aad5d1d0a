//! Reading back how far a slot has been published.

use std::time::{Duration, Instant};

use outpour_schemas::{
    config::Config,
    kafka::{Watched, client_config, reach_consumer},
    wire,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};

use super::REQUEST_TIMEOUT;
use crate::{error::RelayError, relay::Checkpoint};

const PARTITION: i32 = 0;

/// How much of the topic has to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Visible,
    /// Also what stands behind transactions that are still open.
    Written,
}

/// The newest checkpoint of the configured slot that can be seen now, if there
/// is one.
///
/// # Errors
/// When the topic cannot be read to its end, or holds something else.
pub(crate) async fn read(config: &Config) -> Result<Option<Checkpoint>, RelayError> {
    read_to(config, Extent::Visible).await
}

/// The newest committed checkpoint of the configured slot, whose producer is
/// fenced, if there is one. The relays of all slots share the topic, and an open
/// transaction of any of them hides what was committed behind it: it is waited
/// for, since an older checkpoint would have events published again (I2).
///
/// # Errors
/// When the topic cannot be read to its end, or holds something else.
pub(crate) async fn read_settled(config: &Config) -> Result<Option<Checkpoint>, RelayError> {
    read_to(config, Extent::Written).await
}

async fn read_to(config: &Config, extent: Extent) -> Result<Option<Checkpoint>, RelayError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || read_blocking(&config, extent))
        .await
        .map_err(RelayError::Worker)?
}

/// Waits until nothing that was written before now belongs to an open
/// transaction. That of a relay that died Kafka aborts when it times out.
fn settle(config: &Config, consumer: &BaseConsumer<Watched>) -> Result<(), RelayError> {
    /// Longer than the default transaction timeout, and than the ten seconds
    /// after which coordinators look for those that timed out.
    const PATIENCE: Duration = Duration::from_secs(120);
    const PAUSE: Duration = Duration::from_millis(50);
    let failed = |source| RelayError::Kafka {
        doing: "waiting for open transactions of other relays",
        brokers: config.kafka.brokers.clone(),
        source,
    };
    let end = |consumer: &BaseConsumer<Watched>| {
        let marks = consumer.fetch_watermarks(wire::CHECKPOINT_TOPIC, PARTITION, REQUEST_TIMEOUT);
        marks.map(|(_, end)| end).map_err(failed)
    };
    let dirty: BaseConsumer<Watched> = client_config(&config.kafka)?
        .set("client.id", "outpour-relay")
        .set("isolation.level", "read_uncommitted")
        .create_with_context(Watched::default())
        .map_err(failed)?;
    let written = end(&dirty)?;
    let since = Instant::now();
    let mut told = false;
    while end(consumer)? < written {
        if since.elapsed() > PATIENCE {
            return Err(failed(KafkaError::MessageConsumption(
                RDKafkaErrorCode::OperationTimedOut,
            )));
        }
        if since.elapsed() > REQUEST_TIMEOUT && !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for the open transaction of another slot's relay to end");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn read_blocking(config: &Config, extent: Extent) -> Result<Option<Checkpoint>, RelayError> {
    let failed = |source| RelayError::Kafka {
        doing: "reading the checkpoint",
        brokers: config.kafka.brokers.clone(),
        source,
    };
    let consumer: BaseConsumer<Watched> = client_config(&config.kafka)?
        .set("client.id", "outpour-relay")
        // Needed to create a consumer; no group is ever joined.
        .set("group.id", format!("outpour-relay-{}", config.relay.slot))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create_with_context(Watched::default())
        .map_err(failed)?;
    let metadata = reach_consumer(&config.kafka, &consumer, REQUEST_TIMEOUT, |consumer, wait| {
        consumer.fetch_metadata(Some(wire::CHECKPOINT_TOPIC), wait)
    })?;
    if !has_topic(&metadata) {
        return Ok(None);
    }
    if extent == Extent::Written {
        settle(config, &consumer)?;
    }
    // What is written from now on by other relays need not be waited for; they
    // may never be silent for long enough to be told the end.
    let (_, end) = consumer
        .fetch_watermarks(wire::CHECKPOINT_TOPIC, PARTITION, REQUEST_TIMEOUT)
        .map_err(failed)?;
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset(wire::CHECKPOINT_TOPIC, PARTITION, Offset::Beginning)
        .map_err(failed)?;
    consumer.assign(&partitions).map_err(failed)?;
    let mut newest = None;
    let mut quiet_since = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                quiet_since = Instant::now();
                if message.key() == Some(config.relay.slot.as_bytes()) {
                    newest = message.payload().map(<[u8]>::to_vec);
                }
                if message.offset() + 1 >= end {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            // The topic has just been made and is not known everywhere yet.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            )))
            | None
                if quiet_since.elapsed() < REQUEST_TIMEOUT => {}
            Some(Err(source)) => return Err(failed(source)),
            None => {
                return Err(failed(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::OperationTimedOut,
                )));
            }
        }
    }
    newest
        .map(|value| serde_json::from_slice(&value))
        .transpose()
        .map_err(|source| RelayError::Checkpoint { topic: wire::CHECKPOINT_TOPIC, source })
}

/// Before the first relay of a cluster has started, there is no such topic.
fn has_topic(metadata: &Metadata) -> bool {
    metadata
        .topics()
        .iter()
        .any(|topic| topic.name() == wire::CHECKPOINT_TOPIC && !topic.partitions().is_empty())
}
