//! What is compared: which partitions, from where, and up to where the group is.
//!
//! The committed offsets come first of all that is asked. Everything before them
//! was stored or parked by then, and they do not move any more for us, whatever the
//! group goes on doing.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use outpour_schemas::{
    config::Config,
    kafka::{Watched, client_config, describe, reach_consumer},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::AdminClient,
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};
use tokio::task::spawn_blocking;

use super::{error::ReconcileError, since::Since};
use crate::{
    dead_letter::dead_letter_topic,
    error::ConsumerError,
    source::{Subscription, kafka::REQUEST_TIMEOUT},
};

/// Of one partition.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Rows before it are not looked at.
    pub(super) floor: i64,
    /// Kafka has nothing before it that is compared.
    pub(super) from: i64,
    /// The group's committed offset: what is at it or behind it may be under way.
    /// `floor` if nothing was committed.
    pub(super) to: i64,
    pub(super) is_committed: bool,
    /// One past the last record that could be read when this was asked.
    pub(super) high: i64,
}

impl Bounds {
    /// What is read of Kafka.
    pub(super) fn in_kafka(&self) -> Range<i64> {
        self.from..self.to.min(self.high)
    }
}

/// One topic of the group.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) partitions: BTreeMap<i32, Bounds>,
    /// Kafka removes single records, so that a row without one says nothing.
    pub(super) is_compacted: bool,
    /// How many partitions its dead letters have; `None` if there are none.
    pub(super) letter_partitions: Option<i32>,
}

/// Asks for everything, in the order that makes it hold together.
///
/// # Errors
/// When a topic is not there or not read by the group, when the group has committed
/// nothing, or when Kafka does not answer.
pub(super) async fn ask(
    config: &Config,
    topics: &[String],
    since: Option<Since>,
) -> Result<Vec<Topic>, ConsumerError> {
    let (settings, asked, names) = (client_config(&config.kafka)?, config.clone(), topics.to_vec());
    let client_settings = settings.clone();
    let asking = spawn_blocking(move || Asking { config: &asked, since }.all(&settings, &names));
    let (metadata, mut topics) = asking.await.map_err(ConsumerError::Worker)??;
    // Nobody takes what such a client says, and it would pile up.
    let admin: AdminClient<DefaultClientContext> = client_settings
        .clone()
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create()
        .map_err(|source| failed(config, "connecting", source))?;
    let names: Vec<_> = topics.iter().map(|topic| topic.name.to_string()).collect();
    let described = describe(&admin, &metadata, &names, REQUEST_TIMEOUT).await;
    for topic in &mut topics {
        let settings = described.topics.get(&*topic.name);
        let policy = settings.and_then(|settings| settings.get("cleanup.policy"));
        topic.is_compacted = policy.is_some_and(|policy| policy.contains("compact"));
    }
    Ok(topics)
}

fn failed(config: &Config, doing: &'static str, source: KafkaError) -> ConsumerError {
    ConsumerError::Kafka { doing, brokers: config.kafka.brokers.clone(), source }
}

struct Asking<'a> {
    config: &'a Config,
    since: Option<Since>,
}

impl Asking<'_> {
    fn all(
        &self,
        client: &ClientConfig,
        names: &[String],
    ) -> Result<(Metadata, Vec<Topic>), ConsumerError> {
        // A member of no group: it asks and does not subscribe.
        let client: BaseConsumer<Watched> = client
            .clone()
            .set("group.id", &self.config.consumer.group)
            .set("enable.auto.commit", "false")
            .create_with_context(Watched::default())
            .map_err(|source| failed(self.config, "connecting", source))?;
        let kafka = &self.config.kafka;
        let metadata = reach_consumer(kafka, &client, REQUEST_TIMEOUT, |client, wait| {
            client.fetch_metadata(None, wait)
        })?;
        let partitions = |name: &str| {
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            found.map(|topic| topic.partitions().len() as i32).filter(|count| *count > 0)
        };
        let names = self.topics(&metadata, names)?;
        let mut asked = TopicPartitionList::new();
        for name in &names {
            for partition in 0..partitions(name).unwrap_or(0) {
                asked.add_partition(name, partition);
            }
        }
        let committed = self.committed(&client, &asked)?;
        let since = self.since_offsets(&client, &asked)?;
        let mut topics = Vec::new();
        for name in &names {
            let mut topic = Topic {
                name: name.as_str().into(),
                partitions: BTreeMap::new(),
                is_compacted: false,
                letter_partitions: partitions(&dead_letter_topic(name)),
            };
            for partition in 0..partitions(name).unwrap_or(0) {
                let place = (name.clone(), partition);
                let (low, high) = client
                    .fetch_watermarks(name, partition, REQUEST_TIMEOUT)
                    .map_err(|source| failed(self.config, "asking for offsets", source))?;
                // Without a record of that time there is nothing to compare.
                let floor = match since.get(&place) {
                    Some(floor) => floor.unwrap_or(high),
                    None => 0,
                };
                let committed = committed.get(&place).copied();
                let (to, is_committed) = (committed.unwrap_or(floor), committed.is_some());
                let bounds = Bounds { floor, from: floor.max(low), to, is_committed, high };
                topic.partitions.insert(partition, bounds);
            }
            topics.push(topic);
        }
        self.check(&names, &committed)?;
        Ok((metadata, topics))
    }

    fn topics(&self, metadata: &Metadata, asked: &[String]) -> Result<Vec<String>, ConsumerError> {
        let consumer = &self.config.consumer;
        let brokers = self.config.kafka.brokers.clone();
        let subscription = Subscription::of(&consumer.topics);
        let there = |name: &str| {
            metadata.topics().iter().any(|t| t.name() == name && !t.partitions().is_empty())
        };
        for topic in asked {
            if !subscription.takes(topic) {
                let (topic, topics) = (topic.clone(), consumer.topics.clone());
                return Err(ReconcileError::NotRead { topic, topics }.into());
            }
            if !there(topic) {
                return Err(ConsumerError::NoTopic { topic: topic.clone(), brokers });
            }
        }
        let mut names = asked.to_vec();
        if names.is_empty() {
            let read = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
            names = read.filter(|n| subscription.takes(n) && there(n)).map(str::to_owned).collect();
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            let topics = consumer.topics.clone();
            return Err(ReconcileError::NoTopics { brokers, topics }.into());
        }
        Ok(names)
    }

    /// What the group has committed, by partition.
    fn committed(
        &self,
        client: &BaseConsumer<Watched>,
        asked: &TopicPartitionList,
    ) -> Result<BTreeMap<(String, i32), i64>, ConsumerError> {
        /// An offset that is part of a transaction is told once that has ended.
        const ATTEMPTS: u32 = 9;
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            match client.committed_offsets(asked.clone(), REQUEST_TIMEOUT) {
                Err(error) if is_pending(&error) && attempts < ATTEMPTS => {}
                found => break found,
            }
        };
        let failed = |source| failed(self.config, "asking for committed offsets", source);
        let mut committed = BTreeMap::new();
        for element in found.map_err(failed)?.elements() {
            element.error().map_err(failed)?;
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            if let Some(offset) = offset {
                committed.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(committed)
    }

    /// Where each partition begins, if not at its start; `None` for one without a
    /// record of that time or later.
    fn since_offsets(
        &self,
        client: &BaseConsumer<Watched>,
        asked: &TopicPartitionList,
    ) -> Result<BTreeMap<(String, i32), Option<i64>>, ConsumerError> {
        let place = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            (element.topic().to_owned(), element.partition())
        };
        let time = match self.since {
            None => return Ok(BTreeMap::new()),
            Some(Since::Offset(offset)) => {
                let all = asked.elements();
                return Ok(all.iter().map(|element| (place(element), Some(offset))).collect());
            }
            Some(Since::Time(time)) => time,
        };
        let failed = |source| failed(self.config, "asking for the offsets of a time", source);
        let mut times = asked.clone();
        times.set_all_offsets(Offset::Offset(time.as_millisecond().max(0))).map_err(failed)?;
        let found = client.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
        let mut since = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(failed)?;
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            since.insert(place(&element), offset);
        }
        Ok(since)
    }

    /// That there is something to compare.
    fn check(
        &self,
        names: &[String],
        committed: &BTreeMap<(String, i32), i64>,
    ) -> Result<(), ReconcileError> {
        let group = self.config.consumer.group.clone();
        let Some(furthest) = committed.values().max().copied() else {
            let topics = outpour_schemas::program::named(names);
            return Err(ReconcileError::NothingCommitted { group, topics });
        };
        match self.since {
            Some(Since::Offset(offset)) if offset > furthest => {
                Err(ReconcileError::BehindSince { offset, group, furthest })
            }
            _ => Ok(()),
        }
    }
}

fn is_pending(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnstableOffsetCommit | RDKafkaErrorCode::OperationTimedOut)
    )
}
