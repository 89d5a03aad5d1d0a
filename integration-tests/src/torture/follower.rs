//! The topics as a reader outside of Outpour sees them, while the run goes on:
//! what is committed, in the order of the log.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use outpour_schemas::{
    Position,
    wire::{DEAD_LETTER_PREFIX, RELAY_DEAD_LETTER_TOPIC, TOPIC_PREFIX, dead_letter, header},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const POLL: Duration = Duration::from_millis(100);
const LOOK_FOR_TOPICS: Duration = Duration::from_secs(1);
const REQUEST: Duration = Duration::from_secs(3);

/// A place in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// An event as it was published.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: Uuid,
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) place: Place,
}

/// A dead letter, of the relay or of the consumer.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) id: Uuid,
    pub(super) reason: String,
    /// Where the record was that the consumer parked; `None` for the relay's.
    pub(super) source: Option<Place>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) records: Vec<Record>,
    pub(super) letters: Vec<Letter>,
    /// What a reader of committed records may never see.
    pub(super) violations: Vec<(String, Option<Uuid>)>,
    ids: HashSet<Uuid>,
    last: HashMap<(Arc<str>, i32), Position>,
    /// One past what was read.
    pub(super) positions: HashMap<(Arc<str>, i32), i64>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Follower {
    seen: Arc<Mutex<Seen>>,
}

impl Follower {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until told to stop. A broker that is away is waited for. Blocks.
    pub(super) fn follow(&self, brokers: &str, stop: &CancellationToken) -> Result<()> {
        /// After this long without a record the reader is replaced: the library's
        /// may have lost sight of a leader for ever while its broker was away.
        const QUIET: Duration = Duration::from_secs(10);
        let mut reader = reader(brokers)?;
        let mut followed = HashSet::new();
        let mut heard = Instant::now();
        let mut looked: Option<Instant> = None;
        while !stop.is_cancelled() {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_FOR_TOPICS) {
                // A broker that does not answer does so again a second later.
                let positions = self.seen().positions.clone();
                follow_new_topics(&reader, &mut followed, &positions).ok();
                looked = Some(Instant::now());
            }
            if let Some(Ok(message)) = reader.poll(POLL) {
                self.seen().take(&message)?;
                heard = Instant::now();
            }
            if heard.elapsed() >= QUIET {
                reader = self::reader(brokers)?;
                followed.clear();
                (looked, heard) = (None, Instant::now());
            }
        }
        Ok(())
    }
}

/// Whether the event is among everything that is committed now, by a reader that
/// begins anew and reads to the end: the follower may just be late. Blocks.
///
/// # Errors
/// When Kafka is away, or not read to its end in time.
pub(super) fn is_published_now(brokers: &str, id: Uuid) -> Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let reader = reader(brokers)?;
    let began = Instant::now();
    for (topic, partitions) in topics(&reader)? {
        for partition in 0..partitions {
            // One at a time: an end that is reached does not say whose it is.
            let mut one = TopicPartitionList::new();
            one.add_partition_offset(&topic, partition, Offset::Beginning)?;
            reader.assign(&one)?;
            let mut seen = Seen::default();
            loop {
                ensure!(began.elapsed() < PATIENCE, "{topic}/{partition} is not read to its end");
                match reader.poll(POLL) {
                    Some(Ok(message)) => seen.take(&message)?,
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    _ => {}
                }
            }
            if seen.is_published(&id) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Those that events and letters are in, with the number of their partitions.
fn topics(reader: &BaseConsumer) -> Result<Vec<(String, i32)>> {
    let metadata = reader.fetch_metadata(None, REQUEST)?;
    let mut topics = Vec::new();
    for topic in metadata.topics() {
        let (name, partitions) = (topic.name(), topic.partitions().len());
        let of_interest = name.starts_with(TOPIC_PREFIX)
            || name.starts_with(DEAD_LETTER_PREFIX)
            || name == RELAY_DEAD_LETTER_TOPIC;
        // A topic that is being made has no partitions yet.
        if of_interest && partitions > 0 {
            topics.push((name.to_owned(), i32::try_from(partitions)?));
        }
    }
    Ok(topics)
}

fn reader(brokers: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set_log_level(RDKafkaLogLevel::Emerg)
        .set("bootstrap.servers", brokers)
        .set("group.id", "outpour-torture-follower")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("reconnect.backoff.max.ms", "500")
        .set("fetch.wait.max.ms", "50")
        .create()?)
}

fn follow_new_topics(
    reader: &BaseConsumer,
    followed: &mut HashSet<String>,
    positions: &HashMap<(Arc<str>, i32), i64>,
) -> Result<()> {
    let mut new = TopicPartitionList::new();
    for (topic, partitions) in topics(reader)? {
        if followed.contains(&topic) {
            continue;
        }
        let log: Arc<str> = Arc::from(topic.as_str());
        for partition in 0..partitions {
            let position = positions.get(&(Arc::clone(&log), partition));
            let from = position.map_or(Offset::Beginning, |next| Offset::Offset(*next));
            new.add_partition_offset(&topic, partition, from)?;
        }
        followed.insert(topic);
    }
    if new.count() > 0 {
        reader.incremental_assign(&new)?;
    }
    Ok(())
}

impl Seen {
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let topic = message.topic();
        let log = (Arc::from(topic), message.partition());
        self.positions.insert(log.clone(), message.offset() + 1);
        let place = Place { topic: log.0.clone(), partition: log.1, offset: message.offset() };
        let id = text(message, header::ID).and_then(|id| id.parse::<Uuid>().ok());
        let id = id.with_context(|| format!("{place:?} has no id"))?;
        if !topic.starts_with(TOPIC_PREFIX) {
            self.letters.push(letter(message, id)?);
            return Ok(());
        }
        let position = text(message, header::LSN).and_then(|position| position.parse().ok());
        let position: Position = position.with_context(|| format!("{place:?} has no position"))?;
        if !self.ids.insert(id) {
            self.violations.push((format!("published twice, again at {place:?}"), Some(id)));
        }
        if let Some(before) = self.last.insert(log, position).filter(|before| *before >= position) {
            let what = format!("{place:?} has position {position}, after {before}");
            self.violations.push((what, Some(id)));
        }
        let key = message.key().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        self.records.push(Record { id, key, position, place });
        Ok(())
    }

    pub(super) fn is_published(&self, id: &Uuid) -> bool {
        self.ids.contains(id)
    }
}

fn letter(message: &BorrowedMessage<'_>, id: Uuid) -> Result<Letter> {
    let number = |name| text(message, name).map(str::parse::<i64>).transpose();
    // The relay's letters have no place: their records have never been anywhere.
    let source = match text(message, dead_letter::SOURCE_TOPIC)
        .zip(number(dead_letter::SOURCE_PARTITION)?)
        .zip(number(dead_letter::SOURCE_OFFSET)?)
    {
        Some(((topic, partition), offset)) => {
            Some(Place { topic: Arc::from(topic), partition: i32::try_from(partition)?, offset })
        }
        None => None,
    };
    let reason = text(message, dead_letter::REASON).unwrap_or_default().to_owned();
    Ok(Letter { id, reason, source })
}

fn text<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}
