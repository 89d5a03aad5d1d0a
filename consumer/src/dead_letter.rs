//! What fits no table is kept in Kafka, whole and with the reason.
//!
//! ```text
//! begin ─▶ letters ─▶ the group's offset with the plan ─▶ commit
//! ```
//!
//! One Kafka transaction: a reader of committed records finds every letter once,
//! and the plan knows which are there. The coordinator of the group refuses the
//! offset of a member that the group has given up, and the letters with it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use outpour_schemas::{
    config::{Consumer, Delivery, Route},
    kafka::{Heard, KEEPS_ALL, Watched, new_topic},
    mutants::{self, Mutant},
    wire::{DEAD_LETTER_PREFIX, Header, dead_letter as name},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header as KafkaHeader, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    batch::Parked,
    source::{
        TopicPartition,
        kafka::{GroupOffsets, is_stale, offset_list},
    },
    writer::{Commit, Offsets},
};

/// A place that keeps what was rejected.
pub(crate) trait DeadLetters: Send + Sync + 'static {
    /// Commits `offset` with `plan` as its metadata, and every letter with it.
    /// Returns when all of it is durable.
    fn park(
        &self,
        source: &TopicPartition,
        letters: &[Parked],
        offset: i64,
        plan: &str,
    ) -> impl Future<Output = Result<(), ParkError>> + Send;
}

/// Why letters were not parked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParkError {
    /// Nobody will ever see any of it: it may be tried again.
    #[error(transparent)]
    NotWritten(KafkaError),
    /// The group knows whether it was, or has another owner for the partition.
    #[error(transparent)]
    InDoubt(KafkaError),
}

/// The topic that keeps what came from `source`.
#[must_use]
pub(crate) fn dead_letter_topic(source: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{source}")
}

/// Bytes that the headers of a letter take at most, beyond its record's own: names,
/// a type, a value that is cut, and a sentence or what ClickHouse says.
pub(crate) const LETTER_HEADERS: u64 = 64 * 1024;

type LetterProducer = FutureProducer<Watched>;

/// Dead letters in topics of their own, one for each source topic.
pub(crate) struct KafkaDeadLetters {
    settings: ClientConfig,
    heard: Heard,
    is_transactional: bool,
    /// One transaction at a time.
    producer: Arc<Mutex<Option<Arc<LetterProducer>>>>,
    offsets: GroupOffsets,
    admin: AdminClient<DefaultClientContext>,
    partitions: Option<u32>,
    replicas: Option<u16>,
    known_topics: Mutex<HashSet<Arc<str>>>,
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST_TRANSACTION: Duration = Duration::from_secs(5);
const LONGEST_TRANSACTION: Duration = Duration::from_secs(60);

/// The ids of transactions begin so; a rule of the cluster has to allow them.
pub(crate) fn transactional_id_prefix(group: &str) -> String {
    format!("outpour-consumer-{group}-")
}

impl KafkaDeadLetters {
    /// `name`: that of this process in the group, if it has one.
    pub(crate) fn connect(
        config: &Consumer,
        client: &ClientConfig,
        name: Option<&str>,
        heard: Heard,
        offsets: GroupOffsets,
    ) -> Result<Self, KafkaError> {
        let is_transactional = config.delivery == Delivery::ExactlyOnce
            && !mutants::active(Mutant::LettersOutside)
            && !mutants::active(Mutant::LettersAfterPlan);
        let mut settings = client.clone();
        settings
            .set("client.id", &config.client_id)
            .set("enable.idempotence", "true")
            // See the relay's: the first batch to a new topic could be lost.
            .set("max.in.flight.requests.per.connection", "1")
            // A letter quotes a record that the broker took once already, plus
            // its own headers.
            .set("message.max.bytes", "1000000000")
            .set("partitioner", "murmur2_random");
        // Brokers measure what is compressed, and the record may have been.
        if client.get("compression.type").or(client.get("compression.codec")).is_none() {
            settings.set("compression.type", "zstd");
        }
        if is_transactional {
            // Members need not be told apart by it: the group does that. What a
            // killed one leaves open hides its partitions' offsets. Whoever comes back
            // under its name ends that at once; else it times out before the group
            // gives them to others.
            let own = name.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned);
            let id = format!("{}{own}", transactional_id_prefix(&config.group));
            let timeout = config.session_timeout.0.clamp(SHORTEST_TRANSACTION, LONGEST_TRANSACTION);
            settings
                .set("transactional.id", id)
                .set("transaction.timeout.ms", timeout.as_millis().to_string());
        }
        let letters = KafkaDeadLetters {
            settings,
            heard,
            is_transactional,
            producer: Arc::default(),
            offsets,
            // Nobody takes what such a client says, and it would pile up.
            admin: client.clone().set_log_level(RDKafkaLogLevel::Emerg).create()?,
            partitions: config.dead_letter_partitions,
            replicas: config.dead_letter_replication_factor,
            known_topics: Mutex::default(),
        };
        if is_transactional && name.is_some() {
            letters.end_the_predecessors();
        }
        Ok(letters)
    }

    /// Has Kafka abort what a process of the same name has left open, beside other
    /// work: offsets are not told before. Who has nothing to park may lack the right.
    fn end_the_predecessors(&self) {
        let (slot, connect) = (Arc::clone(&self.producer), self.connecting());
        tokio::spawn(async move {
            let mut slot = slot.lock().await;
            match tokio::task::spawn_blocking(connect).await {
                Ok(Ok(producer)) => *slot = Some(producer),
                Ok(Err(error)) => tracing::debug!(%error, "no transactions for dead letters yet"),
                Err(error) => tracing::debug!(%error, "no producer for dead letters yet"),
            }
        });
    }

    /// Makes a producer that may write. Blocks for as long as its transactional id takes.
    fn connecting(&self) -> impl FnOnce() -> Result<Arc<LetterProducer>, KafkaError> + use<> {
        let (settings, heard) = (self.settings.clone(), self.heard.clone());
        let is_transactional = self.is_transactional;
        move || {
            let producer: LetterProducer = settings.create_with_context(Watched(heard))?;
            if is_transactional {
                producer.init_transactions(REQUEST_TIMEOUT * 3)?;
            }
            Ok(Arc::new(producer))
        }
    }

    async fn ensure(&self, source: &TopicPartition, topic: &str) -> Result<(), KafkaError> {
        let mut known = self.known_topics.lock().await;
        if known.contains(&source.topic) {
            return Ok(());
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let largest = self.largest_record(&source.topic).await;
        let largest = largest.map(|bytes| bytes.saturating_add(LETTER_HEADERS).to_string());
        let mut new = new_topic(topic, self.partitions, self.replicas);
        new = KEEPS_ALL.iter().fold(new, |new, (name, value)| new.set(name, value));
        if let Some(largest) = &largest {
            new = new.set("max.message.bytes", largest);
        }
        for result in self.admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // Whoever may not make topics may still write to this one.
                Err(_) if self.is_there(topic) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        known.insert(Arc::clone(&source.topic));
        Ok(())
    }

    fn is_there(&self, topic: &str) -> bool {
        let metadata = blocking(|| self.admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT));
        metadata.is_ok_and(|found| found.topics().iter().any(|t| !t.partitions().is_empty()))
    }

    /// In bytes; `None` for whoever may not read the topic's settings.
    async fn largest_record(&self, topic: &str) -> Option<u64> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let topic = [ResourceSpecifier::Topic(topic)];
        let described = self.admin.describe_configs(&topic, &options).await.ok()?;
        let described = described.into_iter().next()?.ok()?;
        described.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }
}

impl DeadLetters for KafkaDeadLetters {
    async fn park(
        &self,
        source: &TopicPartition,
        letters: &[Parked],
        offset: i64,
        plan: &str,
    ) -> Result<(), ParkError> {
        let commit = Commit { partition: source.clone(), offset, metadata: plan.to_owned() };
        let commits = vec![commit];
        let topic = dead_letter_topic(&source.topic);
        self.ensure(source, &topic).await.map_err(ParkError::NotWritten)?;
        let mut slot = self.producer.lock().await;
        let producer = match slot.take() {
            Some(producer) => producer,
            None => blocking(self.connecting()).map_err(ParkError::NotWritten)?,
        };
        if !self.is_transactional {
            if mutants::active(Mutant::LettersAfterPlan) {
                let committed = self.offsets.commit(commits.clone()).await;
                committed.map_err(ParkError::InDoubt)?;
            }
            send(&producer, &topic, source, letters).await.map_err(ParkError::NotWritten)?;
            *slot = Some(producer);
            drop(slot);
            let committed = self.offsets.commit(commits).await;
            return committed.map_err(ParkError::InDoubt);
        }
        producer.begin_transaction().map_err(ParkError::NotWritten)?;
        let sent = send(&producer, &topic, source, letters).await;
        let outcome = blocking(|| {
            sent.map_err(ParkError::NotWritten)?;
            let group = self.offsets.group().map_err(ParkError::InDoubt)?;
            let offsets = offset_list(&commits).map_err(ParkError::InDoubt)?;
            again(|| producer.send_offsets_to_transaction(&offsets, &group, REQUEST_TIMEOUT))
                .map_err(|error| match is_stale(&error) {
                    true => ParkError::NotWritten(error),
                    false => ParkError::InDoubt(error),
                })?;
            again(|| producer.commit_transaction(REQUEST_TIMEOUT)).map_err(ParkError::InDoubt)
        });
        // A producer that cannot abort is of no use any more: what it left open
        // ends by time-out.
        if outcome.is_ok() || blocking(|| producer.abort_transaction(REQUEST_TIMEOUT)).is_ok() {
            *slot = Some(producer);
        }
        outcome
    }
}

/// Runs calls that wait for brokers, off the async executor's other work.
pub(crate) fn blocking<T>(calls: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(calls)
}

/// Calls again for as long as the client says that this may help.
fn again(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    const ATTEMPTS: u32 = 3;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempts < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

/// Returns when the brokers have acknowledged every letter.
async fn send(
    producer: &LetterProducer,
    topic: &str,
    source: &TopicPartition,
    letters: &[Parked],
) -> Result<(), KafkaError> {
    let parked_at = jiff::Timestamp::now().to_string();
    let sends = letters.iter().map(|letter| {
        let headers = letter_headers(source, letter, &parked_at, 1);
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
                all.insert(KafkaHeader { key, value: value.as_ref() })
            });
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        record.key = letter.key.as_deref();
        record.payload = letter.value.as_deref();
        producer.send(record, rdkafka::util::Timeout::Never)
    });
    for result in futures_util::future::join_all(sends).await {
        result.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// The record's own headers, then where it came from and why it is here.
pub(crate) fn letter_headers(
    source: &TopicPartition,
    letter: &Parked,
    parked_at: &str,
    attempts: u32,
) -> Vec<Header> {
    let rejection = &letter.rejection;
    let mut headers = letter.headers.clone();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            headers.push((name.to_owned(), Some(value.into_bytes())));
        }
    };
    add(name::SOURCE_TOPIC, source.topic.to_string());
    add(name::SOURCE_PARTITION, source.partition.to_string());
    add(name::SOURCE_OFFSET, letter.offset.to_string());
    add(name::SOURCE_TIMESTAMP, letter.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default());
    add(name::ROUTE, letter.route.map(Route::number).unwrap_or_default());
    add(name::TABLE, rejection.table.to_string());
    add(name::COLUMN, rejection.column.clone());
    add(name::EXPECTED_TYPE, rejection.expected.clone());
    add(name::VALUE, rejection.value.clone());
    add(name::REASON, rejection.reason.to_owned());
    add(name::ERROR, rejection.error.clone());
    add(name::ATTEMPTS, attempts.to_string());
    add(name::PARKED_AT, parked_at.to_owned());
    headers
}
