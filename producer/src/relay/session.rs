//! One replication session: from taking the slot to losing or leaving it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use jiff::Timestamp;
use outpour_schemas::{
    Lsn,
    config::{Config, OpInvalid},
    invariants,
    mutants::{self, Mutant},
};
use tokio::{sync::watch, task::unconstrained};
use tokio_util::sync::CancellationToken;

use super::{
    Checkpoint, Ledger, Limits, Router, StartOptions,
    agreement::{self, Found},
    catalog::Catalog,
    row_publisher::RowPublisher,
    snapshot,
};
use crate::{
    error::RelayError,
    health::Monitor,
    kafka::{checkpoint, learned::Learned, publisher::Publisher},
    postgres::Target,
    wal::{
        WalEvent,
        charset::Charset,
        message::InvalidMessage,
        row::OutboxRow,
        slot::{self, SlotError, SlotState},
        stream::WalStream,
        table,
        transaction::{Assembler, Progress},
    },
};

/// What happens to a session, one thing at a time.
enum Happening {
    Wal(Option<WalEvent>),
    /// The open Kafka transaction has been open for long enough.
    Due,
    Stop,
}

/// Whether a session goes on.
enum Step {
    On,
    Stopped,
}

pub(super) struct Session {
    pub(super) wal: WalStream,
    assembler: Assembler,
    pub(super) charset: Charset,
    catalog: Catalog,
    pub(super) rows: RowPublisher,
    pub(super) ledger: Ledger,
    monitor: Arc<Monitor>,
    /// Everything before it is in Kafka.
    pub(super) published: watch::Sender<Lsn>,
    op_invalid: OpInvalid,
    /// Whether it was told that a message was none of a transaction.
    told_non_transactional: bool,
    /// Whether it was told that a message has another relay's prefix.
    told_other_prefix: bool,
}

impl Session {
    /// Takes the slot first and fences other relays second, so that a relay
    /// that merely waits disturbs nobody.
    pub(super) async fn open(
        config: &Config,
        options: StartOptions,
        target: &Target,
        monitor: &Arc<Monitor>,
        learned: &Arc<Learned>,
    ) -> Result<Self, RelayError> {
        // First, so that a mistake in it is not hidden behind one elsewhere.
        let router = Router::new(&config.outbox, &config.relay)?;
        let client = target.connect().await?;
        slot::inspect(&client, target, config).await?;
        let members = table::members(&client, target, &config.outbox).await?;
        let charset = table::charset(&client, target).await?;
        // Asked before the slot is taken: it may take the broker's time to answer.
        let publisher = Publisher::connect(config, Arc::clone(monitor), learned).await?;
        let wal = WalStream::start(target, config, &charset).await?;
        let early = match mutants::active(Mutant::CheckpointBeforeFencing) {
            true => Some(checkpoint::read_settled(config).await?),
            false => None,
        };
        let mut publisher = publisher.fence().await?;
        let found = match early {
            Some(found) => found,
            None if mutants::active(Mutant::CheckpointUnsettled) => {
                checkpoint::read(config).await?
            }
            None => checkpoint::read_settled(config).await?,
        };
        // Held by us now, so that nobody moves it any more.
        let state = slot::inspect(&client, target, config).await?;
        let checkpoint = starting_point(found.as_ref(), &state, &wal, config, options)?;
        let checkpoint = snapshot::decide(checkpoint, found.is_none(), config);
        if found.as_ref() != Some(&checkpoint) {
            // From here on the slot can be compared with it, whatever comes.
            publisher.commit(&checkpoint).await?;
        }
        monitor.started(checkpoint.end_lsn);
        tracing::info!(
            slot = config.relay.slot,
            from = %checkpoint.end_lsn,
            behind_bytes = state.current.bytes_since(checkpoint.end_lsn),
            delivery = ?config.relay.effective_delivery(),
            "relay started"
        );
        let prefix = &config.relay.message_prefix;
        let mut assembler = Assembler::new(&config.outbox, prefix, router.wanted().to_vec())
            .with_charset(charset.clone());
        assembler.adopt(members);
        Ok(Session {
            wal,
            assembler,
            charset,
            catalog: Catalog::new(client, target, &config.outbox),
            rows: RowPublisher::new(router, publisher),
            published: watch::Sender::new(checkpoint.end_lsn),
            ledger: Ledger::new(checkpoint, Limits::from(&config.relay), Instant::now()),
            monitor: Arc::clone(monitor),
            op_invalid: config.relay.op_invalid_behavior,
            told_non_transactional: false,
            told_other_prefix: false,
        })
    }

    /// Publishes until told to stop or until something breaks. What the log has
    /// before something that nobody can publish is published first, so that another
    /// configuration can go on from there.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<(), RelayError> {
        loop {
            let error = match self.step(stop).await {
                Ok(Step::On) => continue,
                Ok(Step::Stopped) => None,
                Err(error) if error.is_of_the_log() => Some(error),
                Err(error) => return Err(error),
            };
            // What is whole is published; what is not comes again.
            if self.ledger.is_open() && (self.ledger.at_boundary() || error.is_some()) {
                self.commit().await?;
            }
            self.wal.close().await;
            tracing::info!(at = %self.ledger.committed().end_lsn, "relay stopped");
            return error.map_or(Ok(()), Err);
        }
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<Step, RelayError> {
        match self.happening(stop).await? {
            Happening::Wal(Some(event)) => self.take(event).await?,
            Happening::Wal(None) => return Err(RelayError::StreamEnded),
            Happening::Due => self.commit().await?,
            Happening::Stop => return Ok(Step::Stopped),
        }
        if self.ledger.is_full(Instant::now()) {
            self.commit().await?;
        }
        Ok(Step::On)
    }

    async fn take(&mut self, event: WalEvent) -> Result<(), RelayError> {
        match self.progress(event).await? {
            Progress::Row(row) => self.publish(&row).await?,
            Progress::Unfit { row, reason, columns } => {
                // What is published needs no columns any more.
                if !self.ledger.committed().covers(row.position) {
                    return Err(RelayError::Unfit { position: row.position, reason, columns });
                }
            }
            Progress::Updated { table } => self.updated(table)?,
            Progress::InvalidMessage(message) => self.park(message).await?,
            Progress::NonTransactional => self.non_transactional(),
            Progress::OtherPrefix { prefix } => self.other_prefix(&prefix),
            Progress::Committed { end_lsn } => {
                if mutants::active(Mutant::ConfirmEarly) {
                    self.wal.confirm(end_lsn);
                }
                if self.ledger.transaction_ended(end_lsn, Instant::now()) {
                    self.commit().await?;
                }
            }
            Progress::CaughtUp { wal_end } => {
                self.monitor.caught_up(wal_end);
                let is_open = self.ledger.is_open();
                if (is_open && mutants::active(Mutant::KeepaliveInFlight))
                    || (!is_open && mutants::active(Mutant::KeepaliveWithoutCheckpoint))
                {
                    self.wal.confirm(wal_end);
                }
                if self.ledger.caught_up(wal_end, Instant::now()) {
                    self.commit().await?;
                }
            }
            Progress::Stranger { .. } | Progress::Nothing => {}
        }
        Ok(())
    }

    /// What an event means, once it is known whose rows come with it: a table may
    /// have become the outbox's child since the session began.
    pub(super) async fn progress(&mut self, event: WalEvent) -> Result<Progress, RelayError> {
        let progress = self.assembler.next(event)?;
        if let Progress::Stranger { table, is_alike } = &progress {
            let members = self.catalog.members().await?;
            if self.assembler.adopt(members) {
                tracing::info!(table, "a child of the outbox: its rows are published");
            } else if *is_alike {
                tracing::warn!(
                    table,
                    "events of a table are passed over that the publication has: it is neither the \
                     outbox (outbox.table) nor a child of it"
                );
            }
        }
        Ok(progress)
    }

    /// The next thing to do.
    async fn happening(&mut self, stop: &CancellationToken) -> Result<Happening, RelayError> {
        if stop.is_cancelled() {
            return Ok(Happening::Stop);
        }
        if let Some(event) = self.at_hand() {
            return Ok(Happening::Wal(event?));
        }
        // The connection's task fills the stream anew in its own turn.
        tokio::task::yield_now().await;
        if let Some(event) = self.at_hand() {
            return Ok(Happening::Wal(event?));
        }
        if self.ledger.is_due() {
            return Ok(Happening::Due);
        }
        // In the middle of a database transaction its rest is waited for.
        let deadline = self.ledger.deadline().filter(|_| self.ledger.at_boundary());
        tokio::select! {
            () = stop.cancelled() => Ok(Happening::Stop),
            event = self.wal.next() => Ok(Happening::Wal(event?)),
            () = until(deadline) => Ok(Happening::Due),
        }
    }

    /// What the stream has without waiting. The runtime's own budget would have
    /// it seem empty after so many events, and a transaction due that is not.
    fn at_hand(&mut self) -> Option<Result<Option<WalEvent>, SlotError>> {
        unconstrained(self.wal.next()).now_or_never()
    }

    async fn publish(&mut self, row: &OutboxRow) -> Result<(), RelayError> {
        if !self.ledger.committed().covers(row.position) {
            self.monitor.took(row.committed_at_us);
            if row.position.ordinal == 0 {
                self.ledger.behind(age(row.committed_at_us));
            }
            let sent = self.rows.publish(row).await?;
            self.ledger.sent(row.position, sent.bytes, Instant::now());
        }
        Ok(())
    }

    async fn park(&mut self, message: InvalidMessage) -> Result<(), RelayError> {
        let position = message.position;
        if !self.ledger.committed().covers(position) {
            self.monitor.took(message.committed_at_us);
            let sent = self.rows.park(message).await?;
            self.ledger.sent(position, sent.bytes, Instant::now());
        }
        Ok(())
    }

    /// An event that was written is not to be written anew: it is published.
    fn updated(&self, table: String) -> Result<(), RelayError> {
        match self.op_invalid {
            OpInvalid::Warn => tracing::warn!(table, "update of the outbox passed over"),
            OpInvalid::Error => tracing::error!(table, "update of the outbox passed over"),
            OpInvalid::Fatal => return Err(RelayError::Updated { table }),
        }
        Ok(())
    }

    fn non_transactional(&mut self) {
        if !std::mem::replace(&mut self.told_non_transactional, true) {
            tracing::warn!(
                "a message that is not part of a transaction is no event, and is passed over: \
                 outpour_emit writes events; said once, for the first of them"
            );
        }
    }

    fn other_prefix(&mut self, prefix: &str) {
        if !std::mem::replace(&mut self.told_other_prefix, true) {
            tracing::warn!(
                prefix,
                "events are passed over that outpour_emit wrote under another prefix than \
                 relay.message_prefix; said once, for the first of them"
            );
        }
    }

    async fn commit(&mut self) -> Result<(), RelayError> {
        let checkpoint = self.ledger.next_checkpoint();
        self.rows.commit(&checkpoint).await?;
        let end_lsn = checkpoint.end_lsn;
        self.ledger.commit(checkpoint, Instant::now());
        debug_assert!(
            invariants::passes_nothing_open(end_lsn, [self.ledger.committed().end_lsn]),
            "I7: rows from there on are not in Kafka"
        );
        self.wal.confirm(end_lsn);
        self.published.send_replace(end_lsn);
        Ok(())
    }
}

/// Where to go on from, if the checkpoint and the slot belong together or the
/// operator takes it that they do not.
fn starting_point(
    published: Option<&Checkpoint>,
    slot: &SlotState,
    wal: &WalStream,
    config: &Config,
    options: StartOptions,
) -> Result<Checkpoint, RelayError> {
    let found = Found {
        system_identifier: &wal.system.system_id,
        timeline: wal.system.timeline,
        history: &wal.history,
        current: slot.current,
        confirmed: slot.confirmed,
    };
    let slot = &config.relay.slot;
    if mutants::active(Mutant::NoCheckpoint) {
        return Ok(agreement::fresh(published, &found));
    }
    match agreement::agree(published, &found) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(gap) if options.accept_gap || mutants::active(Mutant::NoGapCheck) => {
            tracing::warn!(slot, %gap, "gap accepted by --accept-gap");
            Ok(agreement::fresh(published, &found))
        }
        Err(gap) => Err(RelayError::Gap { slot: slot.clone(), what: gap.to_string() }),
    }
}

/// For ever without a deadline.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How long ago something was committed, by this machine's clock.
fn age(committed_at_us: i64) -> Duration {
    let us = Timestamp::now().as_microsecond().saturating_sub(committed_at_us);
    Duration::from_micros(us.try_into().unwrap_or(0))
}
