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
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
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

/// For a client that reads to the end of a partition: that is no error to log.
pub(crate) struct EndExpected;

impl ClientContext for EndExpected {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "reading a topic to its end");
    }
}

impl ConsumerContext for EndExpected {}

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
        let read =
            read_parts(&self.client, &self.brokers, topic, parts, |message| each(&view(message)));
        read.map(drop)
    }
}

/// Hands every committed record of `parts`, partitions of `topic`, to `each`, those
/// of one partition in order, until it breaks; what it broke with. Blocks.
///
/// # Errors
/// When Kafka does not send them.
pub(crate) fn read_parts<C: ConsumerContext, B>(
    client: &BaseConsumer<C>,
    brokers: &str,
    topic: &str,
    parts: &[Part],
    each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, ConsumerError> {
    let failed = |source| {
        let brokers = brokers.to_owned();
        ConsumerError::Kafka { doing: "reading records", brokers, source }
    };
    let mut open: HashMap<i32, i64> = HashMap::new();
    let mut from = TopicPartitionList::new();
    for part in parts.iter().filter(|part| part.from < part.until) {
        open.insert(part.partition, part.until);
        from.add_partition_offset(topic, part.partition, Offset::Offset(part.from))
            .map_err(failed)?;
    }
    if open.is_empty() {
        return Ok(ControlFlow::Continue(()));
    }
    client.assign(&from).map_err(failed)?;
    // The client remembers a pause beyond the assignment it was made in.
    client.resume(&from).map_err(failed)?;
    let outcome = drain(client, topic, open, each);
    client.unassign().map_err(failed)?;
    match outcome {
        Ok(read) => Ok(read),
        Err(Broken::Kafka(source)) => Err(failed(source)),
        Err(Broken::Silent) => {
            Err(ConsumerError::Silent { topic: topic.to_owned(), seconds: SILENCE.as_secs() })
        }
    }
}

/// With records to come, nothing of them for so long is no pause any more.
const SILENCE: Duration = Duration::from_secs(60);

enum Broken {
    Kafka(KafkaError),
    Silent,
}

/// Polls until every partition of `open` has come to its end.
fn drain<C: ConsumerContext, B>(
    client: &BaseConsumer<C>,
    topic: &str,
    mut open: HashMap<i32, i64>,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, Broken> {
    let mut heard_at = Instant::now();
    while !open.is_empty() {
        let ended = match client.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let Some(until) = open.get(&message.partition()).copied() else { continue };
                if message.offset() < until
                    && let ControlFlow::Break(with) = each(&message)
                {
                    return Ok(ControlFlow::Break(with));
                }
                (message.offset() + 1 >= until).then(|| message.partition())
            }
            // What is left before the end are markers of transactions.
            Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
            Some(Err(error)) if is_lasting(&error) => return Err(Broken::Kafka(error)),
            other => {
                if let Some(Err(error)) = other {
                    tracing::debug!(%error, topic, "reading");
                }
                if heard_at.elapsed() > SILENCE {
                    return Err(Broken::Silent);
                }
                continue;
            }
        };
        heard_at = Instant::now();
        if let Some(partition) = ended
            && open.remove(&partition).is_some()
        {
            // What is behind it is not fetched any further.
            let mut rest = TopicPartitionList::with_capacity(1);
            rest.add_partition(topic, partition);
            client.pause(&rest).map_err(Broken::Kafka)?;
        }
    }
    Ok(ControlFlow::Continue(()))
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
