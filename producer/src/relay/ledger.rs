//! How far the relay has come: what is published, what is on its way, and when
//! the Kafka transaction is to be closed. Pure; time is passed in.
//!
//! Invariant I7: [`Ledger::committed`] is the only source of positions that may
//! be confirmed to PostgreSQL, and it moves only when Kafka has committed.

use std::time::{Duration, Instant};

use outpour_schemas::{
    Lsn, Position,
    config::Relay,
    invariants,
    mutants::{self, Mutant},
};
use serde::{Deserialize, Serialize};

use super::snapshot::Snapshot;

/// How far a slot has been published. It travels in the same Kafka transaction
/// as the records that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which database cluster; a restored or another one has its own.
    pub system_identifier: String,
    pub timeline: u32,
    /// Every transaction whose commit record starts before it is published.
    pub end_lsn: Lsn,
    /// Set inside a transaction too large for one Kafka transaction: the last
    /// of its rows that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<PublishedWithin>,
    /// The rows that are older than the slot; absent if they were never asked
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// Counts the checkpoints of this slot.
    pub sequence: u64,
}

/// The part of a transaction that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedWithin {
    pub commit_lsn: Lsn,
    pub ordinal: u32,
}

impl From<PublishedWithin> for Position {
    fn from(PublishedWithin { commit_lsn, ordinal }: PublishedWithin) -> Self {
        Position { commit_lsn, ordinal }
    }
}

impl Checkpoint {
    /// Whether the row at `position` has been published.
    #[must_use]
    pub fn covers(&self, position: Position) -> bool {
        // A commit record starts before the position where it ends, so the
        // last published transaction is covered, and the next one is not.
        position.commit_lsn < self.end_lsn
            || self.within.is_some_and(|within| {
                position.commit_lsn == within.commit_lsn && position.ordinal <= within.ordinal
            })
    }
}

/// When a Kafka transaction has to be closed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
    pub delay: Duration,
    /// However large the database transaction is that it holds a part of: Kafka
    /// aborts what is open for twice as long.
    pub longest: Duration,
}

impl From<&Relay> for Limits {
    fn from(config: &Relay) -> Self {
        Limits {
            rows: config.max_transaction_rows,
            bytes: usize::try_from(config.max_transaction_size.as_u64()).unwrap_or(usize::MAX),
            delay: config.max_transaction_delay.0,
            longest: config.transaction_timeout.0 / 2,
        }
    }
}

/// An idle slot's progress is written down when it has moved by a segment of
/// log or stood for this long, not with every keepalive.
const IDLE_BYTES: u64 = 16 << 20;
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// Rows older than this are part of a backlog that is being worked off.
const BACKLOG: Duration = Duration::from_millis(100);

/// How long a Kafka transaction may be open at most, whatever the backlog.
const LONGEST_OPEN: Duration = Duration::from_millis(500);

/// The books of one replication session.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    committed: Checkpoint,
    committed_at: Instant,
    rows: usize,
    bytes: usize,
    opened_at: Option<Instant>,
    /// How old the newest row was when it was handed to Kafka.
    lag: Duration,
    /// End of the last transaction whose rows are all with Kafka.
    complete: Option<Lsn>,
    /// Last row of a transaction that is not complete.
    within: Option<PublishedWithin>,
    /// Last row that was handed to Kafka, in this session or, inside a transaction,
    /// before it.
    last: Option<Position>,
}

impl Ledger {
    #[must_use]
    pub fn new(committed: Checkpoint, limits: Limits, now: Instant) -> Self {
        Ledger {
            limits,
            last: committed.within.map(Position::from),
            committed,
            committed_at: now,
            rows: 0,
            bytes: 0,
            opened_at: None,
            lag: Duration::ZERO,
            complete: None,
            within: None,
        }
    }

    /// What Kafka has committed; its `end_lsn` may be confirmed.
    #[must_use]
    pub fn committed(&self) -> &Checkpoint {
        &self.committed
    }

    /// A record of `bytes` bytes was handed to Kafka.
    pub fn sent(&mut self, position: Position, bytes: usize, now: Instant) {
        debug_assert!(!self.committed.covers(position), "I2: {position} was published before");
        debug_assert!(
            invariants::follows(self.last, position),
            "I2, I3: {position} is not after all that was sent"
        );
        self.last = Some(position);
        self.rows += 1;
        self.bytes += bytes;
        self.opened_at.get_or_insert(now);
        self.within =
            Some(PublishedWithin { commit_lsn: position.commit_lsn, ordinal: position.ordinal });
    }

    /// The rows that come now were committed so long ago.
    pub fn behind(&mut self, lag: Duration) {
        self.lag = lag;
    }

    /// A database transaction ended. Whether that is worth a checkpoint of its
    /// own: of transactions without an event in them there may be many, and no
    /// pause in which the server would say how far it is.
    pub fn transaction_ended(&mut self, end_lsn: Lsn, now: Instant) -> bool {
        self.within = None;
        // A transaction is replayed after a restart until it is confirmed.
        if end_lsn > self.committed.end_lsn {
            self.complete = Some(end_lsn);
        }
        self.caught_up(end_lsn, now)
    }

    /// PostgreSQL has nothing on its way that committed before `wal_end`.
    /// Whether that is worth a checkpoint of its own.
    pub fn caught_up(&mut self, wal_end: Lsn, now: Instant) -> bool {
        let ahead = wal_end.bytes_since(self.committed.end_lsn);
        if self.rows > 0 || ahead == 0 {
            return false;
        }
        self.complete = self.complete.max(Some(wal_end));
        ahead >= IDLE_BYTES || now.duration_since(self.committed_at) >= IDLE_INTERVAL
    }

    /// Whether records wait for their commit.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rows > 0
    }

    /// Whether the Kafka transaction has to be closed even though more rows
    /// are there. Inside a database transaction only its size can ask for it, and
    /// the time that Kafka gives it.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        let over = self.rows >= self.limits.rows
            || self.bytes >= self.limits.bytes
            || self.opened_at.is_some_and(|at| at + self.limits.longest <= now);
        over || (self.within.is_none() && self.deadline().is_some_and(|deadline| deadline <= now))
    }

    /// Whether every row with Kafka belongs to a complete transaction.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.within.is_none()
    }

    /// When the Kafka transaction is to be closed at the latest. A relay that is
    /// far behind may leave it open for longer: readers wait anyway, and what a
    /// commit costs is spread over more rows.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let patience = (self.lag / 4).min(LONGEST_OPEN).max(self.limits.delay);
        self.opened_at.map(|at| at + patience)
    }

    /// Whether the Kafka transaction is to be closed now that nothing is at
    /// hand. What is fresh is: while it is being committed the next rows gather,
    /// so that the load itself sets the size. What is old is not: more of it is
    /// on its way.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_open() && self.at_boundary() && self.lag < BACKLOG
    }

    /// The checkpoint that belongs into the Kafka transaction about to close.
    #[must_use]
    pub fn next_checkpoint(&self) -> Checkpoint {
        let end_lsn = self.complete.unwrap_or(self.committed.end_lsn).max(self.committed.end_lsn);
        // After a restart a keepalive may come before the rest of a transaction of
        // which a part is published: that part still is.
        let before = self.committed.within.filter(|within| within.commit_lsn >= end_lsn);
        let before = before.filter(|_| !mutants::active(Mutant::RowCountForgotten));
        let within = self.within.or(before);
        Checkpoint {
            end_lsn,
            within: within.filter(|_| !mutants::active(Mutant::NoRowCount)),
            sequence: self.committed.sequence + 1,
            ..self.committed.clone()
        }
    }

    /// Kafka committed `checkpoint` with everything sent before it.
    pub fn commit(&mut self, checkpoint: Checkpoint, now: Instant) {
        debug_assert!(
            invariants::passes_nothing_open(self.committed.end_lsn, [checkpoint.end_lsn]),
            "I7: progress went back"
        );
        self.committed = checkpoint;
        self.committed_at = now;
        self.rows = 0;
        self.bytes = 0;
        self.opened_at = None;
        self.complete = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Checkpoint {
        Checkpoint {
            system_identifier: "1".into(),
            timeline: 1,
            end_lsn: Lsn(100),
            within: None,
            snapshot: None,
            sequence: 4,
        }
    }

    fn ledger(now: Instant) -> Ledger {
        let limits = Limits {
            rows: 3,
            bytes: 1000,
            delay: Duration::from_millis(10),
            longest: Duration::from_secs(1),
        };
        Ledger::new(start(), limits, now)
    }

    fn at(commit_lsn: u64, ordinal: u32) -> Position {
        Position { commit_lsn: Lsn(commit_lsn), ordinal }
    }

    #[test]
    fn a_checkpoint_covers_whole_transactions_and_the_published_part_of_one() {
        let mut checkpoint = start();
        assert!(checkpoint.covers(at(99, 0)));
        assert!(!checkpoint.covers(at(100, 0)), "it begins where the last one ended");
        checkpoint.within = Some(PublishedWithin { commit_lsn: Lsn(140), ordinal: 5 });
        assert!(checkpoint.covers(at(140, 5)));
        assert!(!checkpoint.covers(at(140, 6)));
        assert!(!checkpoint.covers(at(120, 0)));
    }

    #[test]
    fn nothing_is_confirmed_before_kafka_has_committed() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        ledger.sent(at(110, 0), 10, now);
        ledger.transaction_ended(Lsn(120), now);
        assert_eq!(ledger.committed().end_lsn, Lsn(100));
        let checkpoint = ledger.next_checkpoint();
        assert_eq!((checkpoint.end_lsn, checkpoint.sequence), (Lsn(120), 5));
        ledger.commit(checkpoint, now);
        assert_eq!(ledger.committed().end_lsn, Lsn(120));
        assert!(!ledger.is_open());
    }

    #[test]
    fn a_large_transaction_is_split_by_size_and_resumed_by_ordinal() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        for ordinal in 0..3 {
            assert!(!ledger.is_full(now));
            ledger.sent(at(110, ordinal), 10, now);
        }
        assert!(ledger.is_full(now));
        let checkpoint = ledger.next_checkpoint();
        assert_eq!(checkpoint.end_lsn, Lsn(100));
        assert!(checkpoint.covers(at(110, 2)));
        assert!(!checkpoint.covers(at(110, 3)));
        ledger.commit(checkpoint, now);
        ledger.sent(at(110, 3), 10, now);
        ledger.transaction_ended(Lsn(120), now);
        assert_eq!(ledger.next_checkpoint().within, None);
    }

    #[test]
    fn a_keepalive_before_the_rest_of_a_split_transaction_does_not_forget_its_part() {
        let now = Instant::now();
        let within = Some(PublishedWithin { commit_lsn: Lsn(5000), ordinal: 2 });
        let restarted = Checkpoint { within, ..start() };
        let mut ledger = Ledger::new(restarted, ledger(now).limits, now);
        // The server has gone through log before the commit that it sends next.
        assert!(ledger.caught_up(Lsn(5000), now + IDLE_INTERVAL));
        let checkpoint = ledger.next_checkpoint();
        assert_eq!(checkpoint.end_lsn, Lsn(5000));
        assert!(checkpoint.covers(at(5000, 2)) && !checkpoint.covers(at(5000, 3)));
        ledger.commit(checkpoint, now);
        ledger.sent(at(5000, 3), 10, now);
        ledger.transaction_ended(Lsn(5010), now);
        assert_eq!(ledger.next_checkpoint().within, None);
    }

    #[test]
    fn time_closes_a_kafka_transaction_only_between_database_transactions() {
        let now = Instant::now();
        let later = now + Duration::from_millis(10);
        let mut ledger = ledger(now);
        ledger.sent(at(110, 0), 10, now);
        assert!(!ledger.is_full(later), "inside a database transaction");
        assert!(ledger.is_full(now + Duration::from_secs(1)), "Kafka would abort it");
        ledger.transaction_ended(Lsn(120), now);
        assert!(!ledger.is_full(now));
        assert!(ledger.is_full(later));
    }

    #[test]
    fn transactions_without_an_event_move_the_slot_as_an_idle_server_does() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        assert!(!ledger.transaction_ended(Lsn(120), now), "too little");
        assert!(ledger.transaction_ended(Lsn(130), now + IDLE_INTERVAL));
        assert!(ledger.transaction_ended(Lsn(100 + IDLE_BYTES), now));
        assert_eq!(ledger.next_checkpoint().end_lsn, Lsn(100 + IDLE_BYTES));
        ledger.sent(at(1 << 40, 0), 10, now);
        assert!(!ledger.transaction_ended(Lsn(1 << 41), now), "rows are on their way");
    }

    #[test]
    fn fresh_rows_are_due_at_once_and_a_backlog_is_gathered() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut ledger = ledger(now);
        assert!(!ledger.is_due(), "nothing to close");
        ledger.behind(Duration::from_millis(20));
        ledger.sent(at(110, 0), 10, now);
        assert!(!ledger.is_due(), "inside a database transaction");
        ledger.transaction_ended(Lsn(120), now);
        assert!(ledger.is_due());
        assert_eq!(ledger.deadline(), Some(after(10)));
        ledger.behind(Duration::from_millis(400));
        assert!(!ledger.is_due());
        assert_eq!(ledger.deadline(), Some(after(100)));
        assert!(!ledger.is_full(after(99)) && ledger.is_full(after(100)));
        ledger.behind(Duration::from_secs(3600));
        assert_eq!(ledger.deadline(), Some(after(500)));
    }

    #[test]
    fn an_idle_slot_moves_on_but_not_with_every_keepalive() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        assert!(!ledger.caught_up(Lsn(100), now), "nothing new");
        assert!(!ledger.caught_up(Lsn(200), now), "too little");
        assert!(ledger.caught_up(Lsn(200), now + IDLE_INTERVAL));
        assert!(ledger.caught_up(Lsn(100 + IDLE_BYTES), now));
        assert_eq!(ledger.next_checkpoint().end_lsn, Lsn(100 + IDLE_BYTES));
        ledger.sent(at(1 << 40, 0), 10, now);
        assert!(!ledger.caught_up(Lsn(1 << 41), now), "rows are on their way");
    }
}
