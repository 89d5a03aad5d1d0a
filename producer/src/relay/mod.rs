//! The relay: write-ahead log → Kafka, every record exactly once.
//!
//! ```text
//!  WalStream ──WalEvent──▶ Assembler ──OutboxRow──▶ Router ──Record──▶ Publisher
//!      ▲                                                                   │
//!      └───────── confirm(end_lsn) ◀──── Ledger ◀──── Kafka committed ─────┘
//! ```
//!
//! Records and the checkpoint that stands for them go out in one Kafka
//! transaction; only then is the position confirmed to PostgreSQL (I7). A crash
//! at any point leaves either both or neither, and the replication slot still
//! has whatever Kafka does not.

mod agreement;
mod catalog;
mod ledger;
mod retention;
mod route;
pub(crate) mod row_publisher;
mod session;
mod snapshot;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use outpour_schemas::{
    config::{Config, Mode, Relay, SnapshotMode},
    program::error_line,
};
use tokio_util::sync::CancellationToken;

use self::session::Session;
pub(crate) use self::{
    agreement::{Found, agree},
    route::moment_ms,
};
pub use self::{
    ledger::{Checkpoint, Ledger, Limits, PublishedWithin},
    route::{NotExpanded, Routed, Router, Unroutable},
    snapshot::{Place, Snapshot, SnapshotError, SnapshotProgress, TimePlace},
};
use crate::{
    error::RelayError,
    health::{self, Monitor},
    kafka::learned::Learned,
    poll::Poller,
    postgres::Target,
    wal::slot::{self, SlotError},
};

/// What an operator allows a start to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Go on although the slot and the checkpoint show that events are lost.
    pub accept_gap: bool,
}

/// How a session ended that did not break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Stopped,
    /// The rows that are older than the slot are published.
    SnapshotTaken,
}

/// Runs until `stop` is cancelled. A session that breaks for a reason that can
/// pass is followed by another.
///
/// # Errors
/// At the first start, for whatever keeps it from working; later only for what
/// does not pass by itself.
pub async fn run(
    config: &Config,
    mut options: StartOptions,
    stop: CancellationToken,
) -> Result<(), RelayError> {
    /// A session that has lasted this long was a working one.
    const STEADY: Duration = Duration::from_secs(30);
    /// Up to twice as long. What is waited for has events again soon after it is back.
    const MAX_DELAY: Duration = Duration::from_secs(1);
    let target = Target::of(&config.postgres)?;
    let monitor = Arc::new(Monitor::new(config.relay.stall_after.0));
    let _shown = health::show(config, &target, &monitor).await?;
    let learned = Arc::new(Learned::new(&config.kafka, &config.relay));
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_DELAY)
        .with_jitter()
        .without_max_times();
    let mut delays = backoff.build();
    let mut has_started = false;
    let mut waits_for_slot = false;
    loop {
        let attempt_at = Instant::now();
        let outcome = match config.relay.mode {
            Mode::Wal => {
                let open = Session::open(config, options, &target, &monitor, &learned);
                attempt(open, config, &target, &stop, &mut has_started).await
            }
            Mode::Poll => {
                let open = Poller::open(config, &target, &monitor, &learned);
                poll(open, &stop, &mut has_started).await
            }
        };
        let error = match outcome {
            Ok(Ended::SnapshotTaken) if config.relay.snapshot != SnapshotMode::Only => continue,
            Ok(_) => return Ok(()),
            Err(error) => explained(error, config, &target).await,
        };
        if has_started {
            // What was accepted is this gap, not the next one.
            options.accept_gap = false;
        }
        if attempt_at.elapsed() >= STEADY || error.is_learned() {
            delays = backoff.build();
        }
        let delay = if error.is_held_slot() {
            if !waits_for_slot {
                tracing::info!(
                    slot = config.relay.slot,
                    "another relay holds the slot; waiting to take over"
                );
            }
            waits_for_slot = true;
            monitor.stands_by();
            Duration::from_millis(500)
        } else {
            // A first start that fails is the operator's to see at once.
            if !error.is_transient() || !(has_started || waits_for_slot) {
                return Err(error);
            }
            monitor.failed(&error);
            let delay = delays.next().unwrap_or(MAX_DELAY);
            tracing::warn!(
                error = error_line(&error),
                retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "replication interrupted"
            );
            delay
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn attempt(
    open: impl Future<Output = Result<Session, RelayError>>,
    config: &Config,
    target: &Target,
    stop: &CancellationToken,
    has_started: &mut bool,
) -> Result<Ended, RelayError> {
    let session = tokio::select! {
        () = stop.cancelled() => return Ok(Ended::Stopped),
        session = open => session?,
    };
    *has_started = true;
    if session.ledger.committed().snapshot.as_ref().is_some_and(|snapshot| !snapshot.done) {
        return snapshot::take(session, config, target, stop).await;
    }
    if config.relay.snapshot == SnapshotMode::Only {
        tracing::info!(slot = config.relay.slot, "no snapshot is due");
        session.wal.close().await;
        return Ok(Ended::Stopped);
    }
    let _retention = retention::start(config, target, session.published.subscribe());
    session.run(stop).await?;
    Ok(Ended::Stopped)
}

/// What a missing publication means: is it gone now, or was it when the row was
/// written that the server could not decode?
async fn explained(error: RelayError, config: &Config, target: &Target) -> RelayError {
    let RelayError::Slot(broken) = &error else { return error };
    if !broken.lacks_publication() {
        return error;
    }
    let found = match target.connect().await {
        Ok(client) => slot::inspect(&client, target, config).await.err(),
        Err(error) => Some(error.into()),
    };
    let Relay { publication, slot, .. } = config.relay.clone();
    let table = config.outbox.table.clone();
    found.unwrap_or(SlotError::YoungPublication { publication, slot, table }).into()
}

async fn poll(
    open: impl Future<Output = Result<Poller, RelayError>>,
    stop: &CancellationToken,
    has_started: &mut bool,
) -> Result<Ended, RelayError> {
    let poller = tokio::select! {
        () = stop.cancelled() => return Ok(Ended::Stopped),
        poller = open => poller?,
    };
    *has_started = true;
    poller.run(stop).await?;
    Ok(Ended::Stopped)
}
