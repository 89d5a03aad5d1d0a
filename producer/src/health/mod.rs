//! Whether the relay gets on with its work, and what it shows of itself.
//!
//! ```text
//! relay/, kafka/ ──what happened──▶ Monitor ──▶ standing/ ──▶ /readyz, /metrics
//! watch.rs ─────what the log is at──────┘        (pure)
//! ```
//!
//! The relay says what it did; how much there is to do only PostgreSQL knows,
//! and [`watch`] asks it on a connection of its own. Progress is what counts,
//! not life: a relay that stands still before waiting events is not ready.

mod standing;
mod watch;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use outpour_schemas::{
    Lsn,
    config::Config,
    program::{HttpServer, Observed, Readiness, error_line},
};
use tokio_util::task::AbortOnDropHandle;

use self::standing::Standing;
pub(crate) use self::standing::{LogView, Snapshot};
use crate::{error::RelayError, metrics, postgres::Target};

/// No row of this age is known.
const NONE: i64 = i64::MIN;

/// What is known of a running relay, by all who contribute to it.
pub(crate) struct Monitor {
    standing: Mutex<Standing>,
    stall_after: Duration,
    /// Commit times, in microseconds since the Unix epoch, of the rows that the
    /// open Kafka transaction holds. Apart, as every row touches them.
    oldest_us: AtomicI64,
    newest_us: AtomicI64,
}

impl Monitor {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Monitor {
            standing: Mutex::new(Standing::new(Instant::now())),
            stall_after,
            oldest_us: AtomicI64::new(NONE),
            newest_us: AtomicI64::new(NONE),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session publishes from `published` on.
    pub(crate) fn started(&self, published: Lsn) {
        metrics::session_started();
        self.standing().started(published, Instant::now());
    }

    /// Another relay holds the slot.
    pub(crate) fn stands_by(&self) {
        self.forget_rows();
        self.standing().stands_by(Instant::now());
    }

    /// A session, or the attempt at one, failed; another will follow.
    pub(crate) fn failed(&self, error: &RelayError) {
        metrics::session_failed(error);
        self.forget_rows();
        self.standing().failed(error_line(error), Instant::now());
    }

    /// A row that committed at this time, in microseconds since the Unix epoch,
    /// is about to be published.
    pub(crate) fn took(&self, committed_at_us: i64) {
        if self.oldest_us.load(Relaxed) == NONE {
            self.oldest_us.store(committed_at_us, Relaxed);
        }
        self.newest_us.store(committed_at_us, Relaxed);
    }

    /// A Kafka transaction holds its first record.
    pub(crate) fn began(&self) {
        self.standing().began(Instant::now());
    }

    /// Kafka committed everything up to `published`. How long ago its oldest
    /// row had committed.
    pub(crate) fn published(&self, published: Lsn) -> Option<Duration> {
        let (oldest, newest) = (self.oldest_us.load(Relaxed), self.newest_us.load(Relaxed));
        self.forget_rows();
        let known = |at_us| (at_us != NONE).then_some(at_us);
        self.standing().published(published, known(newest), Instant::now());
        known(oldest).map(since_us)
    }

    /// PostgreSQL has sent everything that committed before `read`.
    pub(crate) fn caught_up(&self, read: Lsn) {
        self.standing().caught_up(read);
    }

    /// A round of polling ended: whether rows that wait are locked by another
    /// session, all of them.
    pub(crate) fn polled(&self, held_up: bool) {
        self.standing().polled(held_up, Instant::now());
    }

    /// What PostgreSQL says about its log, or why it says nothing.
    fn looked(&self, view: Result<LogView, String>) {
        self.standing().looked(view, Instant::now());
    }

    /// Why rows of the outbox are not sent, if they are not.
    fn unpublished(&self, reason: Option<String>) {
        self.standing().unpublished(reason);
    }

    fn forget_rows(&self) {
        self.oldest_us.store(NONE, Relaxed);
        self.newest_us.store(NONE, Relaxed);
    }
}

impl Observed for Monitor {
    fn readiness(&self) -> Readiness {
        self.standing().readiness(Instant::now(), self.stall_after)
    }

    fn refresh(&self) {
        let oldest = self.oldest_us.load(Relaxed);
        let waited = (oldest != NONE).then(|| since_us(oldest));
        let snapshot = self.standing().snapshot(waited, Instant::now(), self.stall_after);
        metrics::show(&snapshot);
    }
}

/// How long ago it was; clocks that differ make no negative time.
fn since_us(at_us: i64) -> Duration {
    let us = Timestamp::now().as_microsecond().saturating_sub(at_us);
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// The tasks that watch and show a relay; they end when this is dropped.
pub(crate) struct Shown {
    _server: Option<AbortOnDropHandle<()>>,
    _watch: AbortOnDropHandle<()>,
}

/// Watches what `monitor` cannot know by itself, and serves what it knows, unless
/// that is configured away.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn show(
    config: &Config,
    target: &Target,
    monitor: &Arc<Monitor>,
) -> Result<Shown, RelayError> {
    let server = match config.relay.http_listen.as_str() {
        "" => None,
        address => {
            let server = HttpServer::bind("relay.http_listen", address).await?;
            metrics::describe(config);
            Some(server.spawn(Arc::<Monitor>::clone(monitor)))
        }
    };
    let watch = tokio::spawn(watch::watch(config.clone(), target.clone(), Arc::clone(monitor)));
    Ok(Shown { _server: server, _watch: AbortOnDropHandle::new(watch) })
}
