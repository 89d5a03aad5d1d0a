//! The topics as a reader outside of Outpour sees them: what is committed and
//! nothing else.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use outpour_schemas::{
    Position,
    wire::{CHECKPOINT_TOPIC, DEAD_LETTER_PREFIX, RELAY_DEAD_LETTER_TOPIC, TOPIC_PREFIX, header},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{counters::Counters, latency::now_ms};

const REQUEST: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// How often the follower looks for topics that are new.
const LOOK_FOR_TOPICS: Duration = Duration::from_millis(500);
/// A reader that gets nothing for so long has not reached the end, but lost
/// the broker.
const SILENCE: Duration = Duration::from_secs(30);

fn reader(brokers: &str, group: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set_log_level(RDKafkaLogLevel::Critical)
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        // What the reader of a test holds need not be much.
        .set("queued.max.messages.kbytes", "16384");
    Ok(config.create()?)
}

/// Partitions of each topic that `wanted` takes.
fn topics(reader: &BaseConsumer, wanted: fn(&str) -> bool) -> Result<BTreeMap<String, i32>> {
    let metadata = reader.fetch_metadata(None, REQUEST).context("cannot list the topics")?;
    let topics = metadata.topics().iter().filter(|topic| wanted(topic.name()));
    topics
        .map(|topic| Ok((topic.name().to_owned(), i32::try_from(topic.partitions().len())?)))
        .collect()
}

fn is_event_topic(topic: &str) -> bool {
    topic.starts_with(TOPIC_PREFIX)
}

fn is_dead_letter_topic(topic: &str) -> bool {
    topic == RELAY_DEAD_LETTER_TOPIC || topic.starts_with(DEAD_LETTER_PREFIX)
}

fn is_read(topic: &str) -> bool {
    topic != CHECKPOINT_TOPIC && (is_event_topic(topic) || is_dead_letter_topic(topic))
}

/// A record's way from its transaction's commit to a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) committed_ms: i64,
    pub(super) seen_ms: i64,
}

/// Reads the events as they come, until told to stop. Blocks.
pub(super) fn follow(
    brokers: &str,
    counters: &Counters,
    stop: &CancellationToken,
) -> Result<Vec<Arrival>> {
    let reader = reader(brokers, "outpour-run-follower")?;
    let mut arrivals = Vec::new();
    let mut followed = BTreeMap::new();
    let mut looked: Option<Instant> = None;
    while !stop.is_cancelled() {
        if looked.is_none_or(|at| at.elapsed() >= LOOK_FOR_TOPICS) {
            looked = Some(Instant::now());
            match topics(&reader, is_event_topic) {
                Ok(found) => follow_also(&reader, &mut followed, found)?,
                Err(error) => counters.note_trouble("looking for topics", &error),
            }
        }
        match reader.poll(POLL) {
            Some(Ok(record)) => {
                counters.in_kafka.add(1);
                if let Some(committed_ms) = record.timestamp().to_millis() {
                    arrivals.push(Arrival { committed_ms, seen_ms: now_ms() });
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => counters.note_trouble("following the topics", &error),
        }
    }
    Ok(arrivals)
}

fn follow_also(
    reader: &BaseConsumer,
    followed: &mut BTreeMap<String, i32>,
    found: BTreeMap<String, i32>,
) -> Result<()> {
    let mut new = TopicPartitionList::new();
    for (topic, partitions) in found {
        // A topic that is being made has no partitions yet.
        if partitions == 0 || followed.contains_key(&topic) {
            continue;
        }
        for partition in 0..partitions {
            new.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        followed.insert(topic, partitions);
    }
    if new.count() > 0 {
        reader.incremental_assign(&new)?;
    }
    Ok(())
}

/// Everything that the topics hold.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Records by topic.
    pub(super) records: BTreeMap<String, u64>,
    /// Of events, in the order they were read.
    pub(super) event_ids: Vec<Uuid>,
    pub(super) dead_letters: u64,
    /// Events that do not stand behind all earlier ones of their partition
    /// (I3: commit order within each key, and a key has one partition).
    pub(super) out_of_order: u64,
    /// One past the last event, by topic and partition.
    pub(super) ends: BTreeMap<(String, i32), i64>,
}

/// Reads every topic from its beginning to its end. Blocks.
pub(super) fn read_all(brokers: &str) -> Result<Contents> {
    let reader = reader(brokers, "outpour-run-auditor")?;
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in topics(&reader, is_read)? {
        for partition in 0..partitions {
            all.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
    }
    let mut contents = Contents::default();
    let mut unread = all.count();
    reader.assign(&all)?;
    let mut positions = BTreeMap::new();
    let mut heard = Instant::now();
    while unread > 0 {
        match reader.poll(POLL) {
            Some(Ok(record)) => contents.take(&record, &mut positions)?,
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(error)) => return Err(error).context("cannot read the topics"),
            None if heard.elapsed() > SILENCE => {
                bail!("Kafka has sent nothing for {} s", SILENCE.as_secs())
            }
            None => continue,
        }
        heard = Instant::now();
    }
    Ok(contents)
}

impl Contents {
    fn take(
        &mut self,
        record: &BorrowedMessage<'_>,
        positions: &mut BTreeMap<(String, i32), Position>,
    ) -> Result<()> {
        let topic = record.topic();
        *self.records.entry(topic.to_owned()).or_default() += 1;
        if is_dead_letter_topic(topic) {
            self.dead_letters += 1;
            return Ok(());
        }
        let place = (topic.to_owned(), record.partition());
        let header = |name: &str| {
            let headers = record.headers()?;
            let found = headers.iter().find(|header| header.key == name)?;
            std::str::from_utf8(found.value?).ok()
        };
        let offset = record.offset();
        let id = header(header::ID).and_then(|id| id.parse().ok());
        self.event_ids
            .push(id.with_context(|| format!("{topic}: the record at {offset} has no id"))?);
        let position = header(header::LSN).and_then(|position| position.parse().ok());
        let position: Position =
            position.with_context(|| format!("{topic}: the record at {offset} has no position"))?;
        let before = positions.insert(place.clone(), position);
        if before.is_some_and(|before| before >= position) {
            self.out_of_order += 1;
        }
        self.ends.insert(place, offset + 1);
        Ok(())
    }
}

/// Records that `group` has not committed as done. Blocks.
pub(super) fn lag(brokers: &str, group: &str, ends: &BTreeMap<(String, i32), i64>) -> Result<i64> {
    let reader = reader(brokers, group)?;
    let mut partitions = TopicPartitionList::new();
    for (topic, partition) in ends.keys() {
        partitions.add_partition(topic, *partition);
    }
    let committed = reader
        .committed_offsets(partitions, REQUEST)
        .context("cannot read the group's committed offsets")?;
    let lag = ends.iter().map(|((topic, partition), end)| {
        let found = committed.find_partition(topic, *partition);
        let done = found.and_then(|found| found.offset().to_raw()).unwrap_or(0);
        (end - done.max(0)).max(0)
    });
    Ok(lag.sum())
}
