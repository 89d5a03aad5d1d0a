//! Whether the consumer gets on with its work, and what it shows of itself.
//!
//! ```text
//! pipeline, assignment, writer ──what happened──▶ Monitor ──▶ standing.rs ──▶ /readyz, /metrics
//! Kafka's client ──where partitions end──────────────┘         (pure)
//! ```
//!
//! Progress is what counts, not life: a consumer that stores nothing while
//! records wait is not ready.

mod standing;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use outpour_schemas::{
    config::Config,
    program::{HttpServer, Observed, Readiness, error_line},
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::standing::Snapshot;
use self::standing::Standing;
use crate::{
    error::ConsumerError,
    metrics,
    source::{TopicPartition, Topics},
};

/// What is known of a running consumer, by all who contribute to it.
pub(crate) struct Monitor {
    standing: Mutex<Standing>,
    stall_after: Duration,
    /// Bytes of batches, open and waiting.
    held_bytes: AtomicUsize,
}

impl Monitor {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Monitor { standing: Mutex::default(), stall_after, held_bytes: AtomicUsize::new(0) }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session is about to join the group.
    pub(crate) fn joined(&self) {
        metrics::session_started();
        self.standing().joined();
    }

    /// Which topics there are to read.
    pub(crate) fn reads(&self, topics: &Topics) {
        self.standing().reads(topics.found.len(), topics.left_to_nobody.clone());
    }

    /// A session, or the attempt at one, failed; another will follow.
    pub(crate) fn failed(&self, error: &ConsumerError) {
        metrics::session_failed(error);
        self.left();
        self.standing().failed(error_line(error));
    }

    /// A partition is this consumer's from `stored` on.
    pub(crate) fn assigned(&self, partition: &TopicPartition, stored: i64) {
        self.standing().assigned(partition.clone(), stored, Instant::now());
    }

    /// A partition is given up.
    pub(crate) fn revoked(&self, partition: &TopicPartition) {
        self.standing().revoked(partition);
        metrics::forget_lags(std::slice::from_ref(partition));
    }

    /// Every partition is given up.
    fn left(&self) {
        let gone = self.standing().left();
        metrics::forget_lags(&gone);
        self.held_bytes.store(0, Relaxed);
    }

    /// A batch is planned: its outcome is open from now on.
    pub(crate) fn planned(&self, partition: &TopicPartition) {
        self.standing().planned(partition, Instant::now());
    }

    /// Everything before `end` is stored or parked, or was never a record.
    pub(crate) fn stored(&self, partition: &TopicPartition, end: i64) {
        self.standing().stored(partition, end, Instant::now());
    }

    /// A batch could not be stored or parked, this time.
    pub(crate) fn troubled(&self, partition: &TopicPartition, error: &dyn std::error::Error) {
        self.standing().troubled(partition, error_line(error));
    }

    /// A partition waits for somebody to change a table.
    pub(crate) fn held_back(&self, partition: &TopicPartition, error: &ConsumerError) {
        self.standing().held_back(partition, error_line(error));
    }

    /// Records before `end` can be read.
    pub(crate) fn ends(&self, partition: &TopicPartition, end: i64) {
        self.standing().ends(partition, end, Instant::now());
    }

    /// The batches of all partitions take so many bytes.
    pub(crate) fn holds(&self, bytes: usize) {
        self.held_bytes.store(bytes, Relaxed);
    }
}

impl Observed for Monitor {
    fn readiness(&self) -> Readiness {
        self.standing().readiness(Instant::now(), self.stall_after)
    }

    fn refresh(&self) {
        let snapshot = self.standing().snapshot(Instant::now(), self.stall_after);
        metrics::show(&snapshot, self.held_bytes.load(Relaxed));
    }
}

/// Serves what `monitor` knows until the handle is dropped, unless it is
/// configured away.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn show(
    config: &Config,
    monitor: &Arc<Monitor>,
) -> Result<Option<AbortOnDropHandle<()>>, ConsumerError> {
    let address = &config.consumer.http_listen;
    if address.is_empty() {
        return Ok(None);
    }
    let server = HttpServer::bind("consumer.http_listen", address).await?;
    metrics::describe(config);
    Ok(Some(server.spawn(Arc::<Monitor>::clone(monitor))))
}
