//! What the client tells of the records that it was given.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use outpour_schemas::{kafka::Heard, wire::header};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, DeliveryResult, Headers},
    producer::ProducerContext,
};
use tokio::sync::Notify;

use super::{learned::Learned, refusals::Refused};

/// Wakes whoever waits for the client to be rid of records, and keeps what went
/// wrong with those that failed: neither a transaction's commit nor, without a
/// transaction, anything else would tell.
#[derive(Clone)]
pub(super) struct Deliveries(Arc<Outcome>);

struct Outcome {
    delivered: Notify,
    /// How many records the client has been given, and of how many it has told.
    sent: AtomicUsize,
    told: AtomicUsize,
    /// Whether the first delivery since then is still to come.
    is_first: AtomicBool,
    first: Mutex<Option<Instant>>,
    has_failed: AtomicBool,
    failures: Mutex<Failures>,
    heard: Heard,
    learned: Arc<Learned>,
}

/// What became of the records that were not delivered.
#[derive(Default)]
pub(super) struct Failures {
    /// By the number that each was sent under.
    pub(super) numbers: HashSet<usize>,
    /// The first of them that failed for a reason of its own, by topic.
    pub(super) cause: Option<(String, RDKafkaErrorCode)>,
    /// Those that Kafka refused for what they are.
    pub(super) refused: Vec<Refused>,
    /// Partitions of which Kafka refused a batch for another record than this one.
    pub(super) named: HashSet<(String, i32)>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.heard.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// The number that the record was sent under.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((error, message)) = result {
            self.failed(error, message, number);
        }
        if self.0.is_first.swap(false, Ordering::Relaxed) {
            let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
            *first = Some(Instant::now());
        }
        self.0.told.fetch_add(1, Ordering::Relaxed);
        self.0.delivered.notify_one();
    }
}

impl Deliveries {
    pub(super) fn new(learned: Arc<Learned>) -> Self {
        Deliveries(Arc::new(Outcome {
            delivered: Notify::new(),
            sent: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            is_first: AtomicBool::new(false),
            first: Mutex::new(None),
            has_failed: AtomicBool::new(false),
            failures: Mutex::default(),
            heard: Heard::default(),
            learned,
        }))
    }

    pub(super) fn heard(&self) -> Heard {
        self.0.heard.clone()
    }

    /// The number of the record that the client is given next.
    pub(super) fn next_number(&self) -> usize {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// The client was given a record.
    pub(super) fn sent(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, error: &KafkaError, message: &BorrowedMessage<'_>, number: usize) {
        use RDKafkaErrorCode::{InvalidDifferentRecord, PurgeInflight, PurgeQueue};
        let mut failures = self.failures();
        failures.numbers.insert(number);
        self.0.has_failed.store(true, Ordering::Release);
        let Some(code) = error.rdkafka_error_code() else { return };
        // Neither is a reason of its own: another record was at fault.
        if !matches!(code, InvalidDifferentRecord | PurgeInflight | PurgeQueue) {
            failures.cause.get_or_insert_with(|| (message.topic().to_owned(), code));
        }
        if code == InvalidDifferentRecord {
            failures.named.insert((message.topic().to_owned(), message.partition()));
        }
        if Refused::is_meant_by(code) {
            let (key, value) = (message.key(), message.payload());
            let headers = message.headers();
            let id = headers.and_then(|headers| headers.iter().find(|one| one.key == header::ID));
            let id = id.and_then(|id| id.value);
            let refusals = &self.0.learned.refusals;
            failures.refused.push(Refused {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                fingerprint: refusals.fingerprint(message.topic(), key, value, id),
                timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
                size: key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len),
                code,
                is_named: false,
            });
        }
    }

    /// Waits for the next delivery. The client still counts a record while it
    /// reports it, hence no longer than a moment, and hardly at all for those that
    /// it has all told of.
    pub(super) async fn next(&self) {
        const MOMENT: Duration = Duration::from_millis(2);
        // Either way it is time to look again.
        if self.0.told.load(Ordering::Relaxed) >= self.0.sent.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        } else {
            tokio::time::timeout(MOMENT, self.0.delivered.notified()).await.ok();
        }
    }

    /// Takes note of when the first of those to come is delivered.
    pub(super) fn watch_first(&self) {
        *self.0.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.is_first.store(true, Ordering::Relaxed);
    }

    pub(super) fn first(&self) -> Option<Instant> {
        *self.0.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any record was not delivered.
    pub(super) fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::Acquire)
    }

    pub(super) fn failures(&self) -> MutexGuard<'_, Failures> {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
