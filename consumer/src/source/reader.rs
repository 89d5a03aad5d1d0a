//! Reading parts of a topic outside of any group: once, and to their end.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use outpour_schemas::{
    config::Config,
    kafka::{Heard, Watched, client_config, reach_consumer},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::MetadataPartition,
};

use super::{
    RecordView,
    kafka::{REQUEST_TIMEOUT, view},
};
use crate::error::ConsumerError;

/// Offsets of one partition, the last one excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// A client of no group that reads committed records. All of it blocks.
pub(crate) struct TopicReader {
    client: BaseConsumer<Watched>,
    brokers: String,
}

impl TopicReader {
    /// # Errors
    /// When no broker answers.
    pub(crate) fn connect(config: &Config) -> Result<Self, ConsumerError> {
        let brokers = config.kafka.brokers.clone();
        let heard = Heard::default();
        let client: BaseConsumer<Watched> = client_config(&config.kafka)?
            .set("client.id", &config.consumer.client_id)
            // Needed to create a consumer; the group is not joined.
            .set("group.id", &config.consumer.group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Watched(heard))
            .map_err(|source| ConsumerError::Kafka {
                doing: "connecting",
                brokers: brokers.clone(),
                source,
            })?;
        reach_consumer(&config.kafka, &client, REQUEST_TIMEOUT, |client, wait| {
            client
                .client()
                .fetch_cluster_id(wait)
                .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
        })?;
        Ok(TopicReader { client, brokers })
    }

    fn failed(&self, doing: &'static str) -> impl Fn(KafkaError) -> ConsumerError {
        let brokers = self.brokers.clone();
        move |source| ConsumerError::Kafka { doing, brokers: brokers.clone(), source }
    }

    /// Which Kafka this is.
    pub(crate) fn cluster(&self) -> String {
        self.client.client().fetch_cluster_id(REQUEST_TIMEOUT).unwrap_or_default()
    }

    /// Every topic there is.
    pub(crate) fn topics(&self) -> Result<Vec<String>, ConsumerError> {
        let metadata = self.client.fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata = metadata.map_err(self.failed("listing topics"))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// The partitions of `topic` in order; none if there is no such topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>, ConsumerError> {
        let metadata = self.client.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let metadata = metadata.map_err(self.failed("asking for partitions"))?;
        let mut partitions: Vec<_> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic)
            .flat_map(|found| found.partitions().iter().map(MetadataPartition::id))
            .collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Everything of `topic` that is there and committed, partition by partition.
    pub(crate) fn whole(&self, topic: &str) -> Result<Vec<Part>, ConsumerError> {
        let part = |partition| {
            let marks = self.client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
            let (from, until) = marks.map_err(self.failed("asking for offsets"))?;
            Ok(Part { partition, from, until })
        };
        self.partitions(topic)?.into_iter().map(part).collect()
    }

    /// The first offset in each of `partitions` whose record is of `at_ms`, in
    /// milliseconds since the Unix epoch, or later; `None` where there is none.
    pub(crate) fn offsets_at(
        &self,
        topic: &str,
        partitions: &[i32],
        at_ms: i64,
    ) -> Result<HashMap<i32, Option<i64>>, ConsumerError> {
        let failed = self.failed("asking for offsets by time");
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked
                .add_partition_offset(topic, *partition, Offset::Offset(at_ms))
                .map_err(&failed)?;
        }
        let found = self.client.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(&failed)?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let offset = match element.offset() {
                Offset::Offset(offset) if offset >= 0 => Some(offset),
                _ => None,
            };
            (element.partition(), offset)
        };
        Ok(found.elements().iter().map(offset).collect())
    }

    /// Shows every record of `parts` to `each`, those of one partition in order,
    /// until it breaks.
    ///
    /// # Errors
    /// When records are gone, or none comes for long.
    pub(crate) fn read(
        &self,
        topic: &str,
        parts: &[Part],
        mut each: impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<(), ConsumerError> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let failed = self.failed("reading");
        let mut open: HashMap<i32, i64> = HashMap::new();
        let mut from = TopicPartitionList::new();
        for part in parts.iter().filter(|part| part.from < part.until) {
            open.insert(part.partition, part.until);
            from.add_partition_offset(topic, part.partition, Offset::Offset(part.from))
                .map_err(&failed)?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.client.assign(&from).map_err(&failed)?;
        // The client remembers a pause beyond the assignment it was made in.
        self.client.resume(&from).map_err(&failed)?;
        let mut heard_at = Instant::now();
        let mut outcome = Ok(());
        while !open.is_empty() && outcome.is_ok() {
            let polled = self.client.poll(Duration::from_millis(100));
            if polled.is_some() {
                heard_at = Instant::now();
            }
            match polled {
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let Some(until) = open.get(&partition).copied() else { continue };
                    if message.offset() < until && each(&view(&message)).is_break() {
                        break;
                    }
                    if message.offset() + 1 >= until {
                        open.remove(&partition);
                        outcome = self.pause(topic, partition).map_err(&failed);
                    }
                }
                // What is left before the end are markers of transactions.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) if is_lasting(&error) => outcome = Err(failed(error)),
                Some(Err(error)) => tracing::debug!(%error, topic, "reading"),
                None if heard_at.elapsed() > PATIENCE => {
                    let silent = RDKafkaErrorCode::OperationTimedOut;
                    outcome = Err(failed(KafkaError::MessageConsumption(silent)));
                }
                None => {}
            }
        }
        self.client.unassign().map_err(&failed)?;
        outcome
    }

    fn pause(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        self.client.pause(&list)
    }
}

/// The rest the client mends itself: connections, leaders.
fn is_lasting(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::Fatal
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
        )
    )
}
