//! Questions to Kafka. The group is asked from outside: nobody joins it.

use std::collections::BTreeMap;

use outpour_schemas::{
    config::{Config, Consumer as Settings},
    kafka::{Described, Watched, client_config, describe, new_topic, reach_consumer},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataTopic},
};
use tokio::task::spawn_blocking;

use super::{
    super::facts::{DeadLetters, Group, Kafka, Offsets, Topic},
    group,
};
use crate::{
    dead_letter::dead_letter_topic,
    error::ConsumerError,
    source::{Subscription, kafka::REQUEST_TIMEOUT},
};

/// # Errors
/// When no broker answers.
pub(in super::super) async fn ask(config: &Config) -> Result<Kafka, ConsumerError> {
    let client = client_config(&config.kafka)?;
    let failed = |source| ConsumerError::Kafka {
        doing: "connecting",
        brokers: config.kafka.brokers.clone(),
        source,
    };
    // Nobody takes what such a client says, and it would pile up.
    let admin: AdminClient<DefaultClientContext> =
        client.clone().set_log_level(RDKafkaLogLevel::Emerg).create().map_err(failed)?;
    let blocking = config.clone();
    let answers = spawn_blocking(move || Answers::ask(&blocking));
    let Answers { cluster, metadata, group, offsets } =
        answers.await.map_err(ConsumerError::Worker)??;

    let subscription = Subscription::of(&config.consumer.topics);
    let found: Vec<_> = metadata
        .topics()
        .iter()
        .filter(|topic| subscription.takes(topic.name()) && !topic.partitions().is_empty())
        .collect();
    let letters: Vec<_> =
        found.iter().map(|topic| (topic.name(), dead_letter_topic(topic.name()))).collect();
    let existing = |name: &str| {
        metadata.topics().iter().find(|t| t.name() == name && !t.partitions().is_empty())
    };
    let mut names: Vec<_> = found.iter().map(|topic| topic.name().to_owned()).collect();
    names.extend(letters.iter().map(|(_, name)| name.clone()));
    names.retain(|name| existing(name).is_some());
    names.sort();
    names.dedup();
    let Described { topics: settings, broker } =
        describe(&admin, &metadata, &names, REQUEST_TIMEOUT).await;
    let topic = |topic: &MetadataTopic| described(topic, &settings);

    let missing: Vec<_> =
        letters.iter().map(|(_, name)| name).filter(|name| existing(name).is_none()).collect();
    let mut refusals = refusals(&admin, config, &missing).await;
    let mut topics: Vec<_> = found.iter().map(|found| topic(found)).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let dead_letters = letters
        .into_iter()
        .map(|(source, name)| DeadLetters {
            source: source.to_owned(),
            topic: existing(&name).map(topic),
            refusal: refusals.remove(&name),
            name,
        })
        .collect();
    let replicas =
        |topic: &MetadataTopic| topic.partitions().iter().map(|p| p.replicas().len()).min();
    Ok(Kafka {
        cluster,
        offsets_replicas: existing("__consumer_offsets").and_then(replicas),
        brokers: metadata.brokers().len(),
        broker,
        topics,
        dead_letters,
        group,
        offsets,
    })
}

fn described(
    topic: &MetadataTopic,
    settings: &BTreeMap<String, BTreeMap<String, String>>,
) -> Topic {
    let partitions = topic.partitions();
    let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
    Topic {
        name: topic.name().to_owned(),
        partitions: partitions.len(),
        leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
        replicas: replicas.unwrap_or_default(),
        settings: settings.get(topic.name()).cloned(),
    }
}

/// What is asked by a client whose calls block.
struct Answers {
    cluster: String,
    metadata: Metadata,
    group: Group,
    offsets: Result<Vec<Offsets>, String>,
}

impl Answers {
    fn ask(config: &Config) -> Result<Self, ConsumerError> {
        let failed = |doing| {
            let brokers = config.kafka.brokers.clone();
            move |source| ConsumerError::Kafka { doing, brokers, source }
        };
        let client: BaseConsumer<Watched> = client_config(&config.kafka)?
            .set("group.id", &config.consumer.group)
            .set("enable.auto.commit", "false")
            .create_with_context(Watched::default())
            .map_err(failed("connecting"))?;
        let cluster = reach_consumer(&config.kafka, &client, REQUEST_TIMEOUT, |client, wait| {
            let id = client.client().fetch_cluster_id(wait);
            id.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
        })?;
        let metadata =
            client.fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed("asking for topics"))?;
        let subscription = Subscription::of(&config.consumer.topics);
        let group = group::group(&client, &config.consumer.group)
            .map_err(failed("asking for the group's members"))?;
        let offsets = group::offsets(&client, &metadata, &subscription)
            .map_err(failed("asking for offsets"))?;
        Ok(Answers { cluster, metadata, group, offsets })
    }
}

/// Why topics could not be created, by name. Kafka is asked to check and not to
/// do it.
async fn refusals(
    admin: &AdminClient<DefaultClientContext>,
    config: &Config,
    names: &[&String],
) -> BTreeMap<String, String> {
    let Settings { dead_letter_partitions, dead_letter_replication_factor, .. } = config.consumer;
    let topics = names
        .iter()
        .map(|name| new_topic(name, dead_letter_partitions, dead_letter_replication_factor));
    let topics: Vec<_> = topics.collect();
    if topics.is_empty() {
        return BTreeMap::new();
    }
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).validate_only(true);
    match admin.create_topics(&topics, &options).await {
        Ok(results) => results
            .into_iter()
            .filter_map(Result::err)
            // Made a moment ago.
            .filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
            .map(|(name, code)| (name, KafkaError::AdminOp(code).to_string()))
            .collect(),
        Err(error) => names.iter().map(|name| ((*name).clone(), error.to_string())).collect(),
    }
}
