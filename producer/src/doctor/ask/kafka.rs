//! Questions to Kafka.
//!
//! The transactional id of the relay is never used: whoever takes it fences the
//! relay that runs. `<id>-doctor` is asked for in its place, which no slot can
//! be called. It leaves an entry that holds nothing and that Kafka forgets by
//! itself (`transactional.id.expiration.ms`).

use outpour_schemas::{
    config::{Config, Delivery, Relay},
    kafka::{Described, Watched, client_config, describe, reach_consumer},
    wire,
};
use rdkafka::{
    admin::AdminClient,
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataPartition, MetadataTopic},
    producer::{BaseProducer, Producer},
};
use tokio::task::spawn_blocking;

use super::super::facts::{Kafka, Role, Topic, TransactionsRefused};
use crate::{
    error::RelayError,
    kafka::{REQUEST_TIMEOUT, checkpoint, transactional_id},
};

/// # Errors
/// When no broker answers, or the checkpoint cannot be read.
pub(in super::super) async fn ask(config: &Config) -> Result<Kafka, RelayError> {
    let failed = |doing| {
        let brokers = config.kafka.brokers.clone();
        move |source| RelayError::Kafka { doing, brokers, source }
    };
    let admin: AdminClient<DefaultClientContext> =
        client_config(&config.kafka)?.create().map_err(failed("connecting"))?;
    // Asked by another client: this kind cannot say why no broker will do.
    let watched: BaseConsumer<Watched> = client_config(&config.kafka)?
        .create_with_context(Watched::default())
        .map_err(failed("connecting"))?;
    let kafka = config.kafka.clone();
    let metadata = spawn_blocking(move || {
        reach_consumer(&kafka, &watched, REQUEST_TIMEOUT, |client, wait| {
            client.fetch_metadata(None, wait)
        })
    })
    .await
    .map_err(RelayError::Worker)??;
    let mut topics = topics(&metadata, &config.relay);
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    let Described { topics: mut settings, broker } =
        describe(&admin, &metadata, &names, REQUEST_TIMEOUT).await;
    for topic in &mut topics {
        topic.settings = settings.remove(&topic.name);
    }
    Ok(Kafka {
        brokers: metadata.brokers().len(),
        broker,
        topics,
        knows_event_topics: !literal_prefix(&config.relay.route_topic_replacement).is_empty(),
        transactions: match config.relay.effective_delivery() {
            Delivery::ExactlyOnce => Some(transactions(config).await?),
            Delivery::AtLeastOnce => None,
        },
        checkpoint: checkpoint::read(config).await?,
    })
}

/// What every topic that the replacement gives begins with.
fn literal_prefix(replacement: &str) -> &str {
    let end = replacement.find(['$', '\\']).unwrap_or(replacement.len());
    &replacement[..end]
}

fn topics(metadata: &Metadata, relay: &Relay) -> Vec<Topic> {
    let prefix = literal_prefix(&relay.route_topic_replacement);
    let role = |name: &str| match name {
        wire::CHECKPOINT_TOPIC => Some(Role::Checkpoints),
        name if name == relay.dead_letter_topic => Some(Role::DeadLetters),
        name => (!prefix.is_empty() && name.starts_with(prefix)).then_some(Role::Events),
    };
    let fewest = |topic: &MetadataTopic, count: fn(&MetadataPartition) -> usize| {
        topic.partitions().iter().map(count).min().unwrap_or_default()
    };
    let mut topics: Vec<_> = metadata
        .topics()
        .iter()
        .filter(|topic| !topic.partitions().is_empty())
        .filter_map(|topic| {
            Some(Topic {
                name: topic.name().to_owned(),
                role: role(topic.name())?,
                partitions: topic.partitions().len(),
                replicas: fewest(topic, |partition| partition.replicas().len()),
                in_sync: fewest(topic, |partition| partition.isr().len()),
                settings: None,
            })
        })
        .collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

/// Whether Kafka would let a relay begin transactions.
async fn transactions(config: &Config) -> Result<Result<(), TransactionsRefused>, RelayError> {
    let id = format!("{}-doctor", transactional_id(&config.relay));
    let mut settings = client_config(&config.kafka)?;
    settings
        .set("client.id", "outpour-relay")
        .set("transactional.id", &id)
        .set("transaction.timeout.ms", config.relay.transaction_timeout.0.as_millis().to_string());
    let probe = move || {
        let producer: BaseProducer = settings.create()?;
        producer.init_transactions(REQUEST_TIMEOUT)
    };
    let refused = |error: KafkaError| TransactionsRefused {
        id,
        is_unauthorized: error.rdkafka_error_code()
            == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed),
        error: error.to_string(),
    };
    Ok(spawn_blocking(probe).await.map_err(RelayError::Worker)?.map_err(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_events_are_told_by_what_stands_before_the_first_group() {
        assert_eq!(literal_prefix("outbox.event.${routedByValue}"), "outbox.event.");
        assert_eq!(literal_prefix("a$1.b"), "a");
        assert_eq!(literal_prefix("${routedByValue}"), "");
        assert_eq!(literal_prefix("events"), "events");
    }
}
