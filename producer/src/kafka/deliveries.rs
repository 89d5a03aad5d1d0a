//! What the client tells of the records that it was given.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use outpour_schemas::kafka::Heard;
use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext,
};
use tokio::sync::Notify;

/// Wakes whoever waits for the client to be rid of records, and keeps what went
/// wrong with the first that failed: without a transaction nothing else would
/// tell.
#[derive(Clone, Default)]
pub(super) struct Deliveries(Arc<Outcome>);

#[derive(Default)]
struct Outcome {
    delivered: Notify,
    /// How many records the client has been given, and of how many it has told.
    sent: AtomicU64,
    told: AtomicU64,
    /// Whether the first delivery since then is still to come.
    is_first: AtomicBool,
    first: Mutex<Option<Instant>>,
    failed: Mutex<Option<KafkaError>>,
    heard: Heard,
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
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
    pub(super) fn heard(&self) -> Heard {
        self.0.heard.clone()
    }

    /// The client was given a record.
    pub(super) fn sent(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
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

    pub(super) fn failure(&self) -> Option<KafkaError> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
