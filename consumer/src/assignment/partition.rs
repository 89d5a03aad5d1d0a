//! One partition: an open batch, what waits for its writer, and where it ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Limits, Sealed},
    budget::{Budget, Held},
    decode::Mapping,
    source::RecordView,
    writer::{Seat, Work, WriteError},
};

/// A partition without records for so long is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// How long a partition writes alone after some of its rows were refused: more of them
/// would take every joint insert apart.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// However small they are, no more batches than this wait for a writer.
const MAX_WAITING: usize = 64;

/// What becomes of a partition for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Pause,
    Resume,
    /// Nothing more of it is wanted, or not until it starts over.
    End,
}

/// Whether records are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Works,
    /// A table of it cannot be written to.
    IsHeldBack,
    /// Its writer has ended, since a table may not be what it was.
    AwaitsTables,
    /// It is to be read again once its writer has ended.
    StartsOver,
}

pub(super) struct Partition {
    batch: Batch,
    /// Sealed batches that the writer has no room for yet.
    waiting: VecDeque<(Sealed, Arc<Held>)>,
    waiting_bytes: usize,
    /// The last batch that was closed, until it is stored.
    under_way: Weak<Held>,
    budget: Budget,
    work: mpsc::Sender<Work>,
    /// Until it is known how it ended.
    writer: Option<JoinHandle<Result<(), WriteError>>>,
    /// Told to the writer when the partition is given up.
    pub(super) stop: CancellationToken,
    state: State,
    alone_until: Option<Instant>,
    paused: bool,
    /// When its last record came, until what follows it has been looked at.
    last_record: Option<Instant>,
    /// Where a replay ends.
    bound: Option<Bound>,
}

/// One past the last offset that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    until: i64,
    /// Whether a record at or past it has been seen.
    is_reached: bool,
    /// Whether the writer has been told, or need not be.
    is_told: bool,
}

/// The task that writes, and how it is spoken to.
pub(super) struct Hand {
    pub(super) work: mpsc::Sender<Work>,
    pub(super) writer: JoinHandle<Result<(), WriteError>>,
    pub(super) stop: CancellationToken,
}

impl Bound {
    /// That of a partition which begins at `start`.
    pub(super) fn new(start: i64, until: i64) -> Self {
        let is_done = start >= until;
        Bound { until, is_reached: is_done, is_told: is_done }
    }
}

impl Partition {
    /// `is_new` if no batch under way was found: what the last owner left at the end
    /// is looked at as well.
    pub(super) fn new(
        batch: Batch,
        budget: Budget,
        hand: Hand,
        bound: Option<Bound>,
        is_new: bool,
    ) -> Self {
        Partition {
            batch,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            under_way: Weak::new(),
            budget,
            work: hand.work,
            writer: Some(hand.writer),
            stop: hand.stop,
            state: State::Works,
            alone_until: None,
            paused: false,
            last_record: is_new.then(Instant::now),
            bound,
        }
    }

    /// Takes nothing until it starts over.
    pub(super) fn held_back(mut self) -> Self {
        self.state = State::IsHeldBack;
        self
    }

    /// Lets it share no inserts for a while.
    pub(super) fn alone_from(mut self, now: Instant) -> Self {
        self.alone_until = Some(now + ALONE_FOR);
        self
    }

    /// Has it read again from what is committed, as soon as its writer has ended.
    pub(super) fn start_over(&mut self) {
        self.state = State::StartsOver;
        self.stop.cancel();
    }

    pub(super) fn await_tables(&mut self) {
        self.state = State::AwaitsTables;
    }

    pub(super) fn awaits_tables(&self) -> bool {
        self.state == State::AwaitsTables
    }

    /// Whether it is to be read again, and nothing of it is under way any more.
    pub(super) fn starts_over(&self) -> bool {
        self.state == State::StartsOver && self.writer.is_none()
    }

    /// The writer, if it has ended; once, as a task tells its outcome once.
    pub(super) fn finished_writer(&mut self) -> Option<JoinHandle<Result<(), WriteError>>> {
        self.writer.take_if(|writer| writer.is_finished())
    }

    /// The writer, to be waited for, unless it is known how it ended.
    pub(super) fn into_writer(self) -> Option<JoinHandle<Result<(), WriteError>>> {
        self.writer
    }

    /// Adds a record to the batch.
    pub(super) fn record(
        &mut self,
        record: &RecordView<'_>,
        limits: Limits,
        now: Instant,
    ) -> Option<Flow> {
        if self.state != State::Works {
            // It comes again.
            return self.pause().then_some(Flow::End);
        }
        if self.bound.is_some_and(|bound| record.offset >= bound.until) {
            self.reach_bound();
            return None;
        }
        if self.batch.is_past(record.offset) {
            // The range that was planned ends here, whatever it still holds.
            self.seal();
        }
        self.batch.push(record, now);
        self.last_record = Some(now);
        self.hand_over(limits)
    }

    /// Bytes of the open batch, as they count against the budget. One that is read
    /// again can only end where its plan says: were it counted, it could keep itself
    /// from getting there.
    pub(super) fn open_bytes(&self) -> usize {
        if self.batch.is_pinned() { 0 } else { self.batch.byte_size() }
    }

    /// Whether it ran until now.
    pub(super) fn pause(&mut self) -> bool {
        !std::mem::replace(&mut self.paused, true)
    }

    /// Where it ends, if it has just become quiet.
    pub(super) fn quiet(&mut self, now: Instant) -> Option<i64> {
        let is_quiet = self.last_record.is_some_and(|at| now >= at + QUIET)
            && self.batch.is_empty()
            && self.waiting.is_empty()
            // Or its writer could not be told where it ends, and nobody would ask again.
            && self.work.capacity() > 0;
        is_quiet.then(|| {
            self.last_record = None;
            self.batch.end()
        })
    }

    /// No record lies between `from` and `end`, unless it has gone on from there.
    pub(super) fn passed(&mut self, from: i64, end: i64) {
        if self.is_quiet_at(from)
            && let Ok(room) = self.work.try_reserve()
        {
            self.batch.skip_to(end);
            room.send(Work::Pass(end));
        }
    }

    /// It was not found out whether a record follows `from`.
    pub(super) fn look_again(&mut self, from: i64, now: Instant) {
        if self.is_quiet_at(from) {
            self.last_record = Some(now);
        }
    }

    /// Whether nothing has come since it was quiet there.
    fn is_quiet_at(&self, end: i64) -> bool {
        self.batch.is_empty() && self.batch.end() == end
    }

    /// No record that is still wanted will come.
    fn reach_bound(&mut self) {
        let Some(bound) = self.bound.as_mut().filter(|bound| !bound.is_reached) else { return };
        bound.is_reached = true;
        self.last_record = None;
        if !self.batch.is_empty() {
            self.seal();
        }
    }

    /// Says so once everything before the bound is with the writer, and has the
    /// client fetch no more.
    fn finish(&mut self) -> Option<Flow> {
        self.offer();
        if let Some(bound) = self.bound.as_mut().filter(|bound| !bound.is_told)
            && self.waiting.is_empty()
            && let Ok(room) = self.work.try_reserve()
        {
            bound.is_told = true;
            let until = bound.until.max(self.batch.end());
            self.batch.skip_to(until);
            room.send(Work::Pass(until));
        }
        self.pause().then_some(Flow::End)
    }

    fn seal(&mut self) {
        let sealed = self.batch.seal();
        let bytes = sealed.byte_size();
        let held = Arc::new(self.budget.hold(bytes));
        self.under_way = Arc::downgrade(&held);
        self.waiting_bytes += bytes;
        self.waiting.push_back((sealed, held));
        self.offer();
    }

    /// Whether its batch, as far as it has come, could be written at once together with
    /// others: the writer has nothing to do, so that they would not wait for it.
    pub(super) fn can_join(&self, now: Instant) -> bool {
        self.state == State::Works
            && self.bound.is_none()
            && self.alone_until.is_none_or(|until| now >= until)
            && self.under_way.strong_count() == 0
            && self.work.capacity() > 0
            && self.batch.can_join()
    }

    /// Closes the batch and has it written with others, unless it [cannot be](Self::can_join).
    pub(super) fn join(&mut self, seat: Seat) {
        if let Ok(room) = self.work.try_reserve() {
            let sealed = self.batch.seal();
            let held = Arc::new(self.budget.hold(sealed.byte_size()));
            self.under_way = Arc::downgrade(&held);
            room.send(Work::Write(sealed, held, Some(seat)));
        }
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether its rows go by the same routes.
    pub(super) fn goes_with(&self, mappings: &[Arc<Mapping>]) -> bool {
        let ours = self.batch.mappings();
        ours.len() == mappings.len()
            && ours.zip(mappings).all(|(ours, other)| Arc::ptr_eq(ours, other))
    }

    /// Whether there is an open batch that could be written at once.
    pub(super) fn can_seal_early(&self) -> bool {
        let has_room = self.waiting.is_empty() && self.work.capacity() > 0;
        has_room && !self.batch.is_empty() && !self.batch.is_pinned()
    }

    /// Closes the batch before its time, if it can be written at once: memory is
    /// wanted back.
    pub(super) fn seal_early(&mut self) {
        if self.can_seal_early() {
            self.seal();
        }
    }

    /// Gives what waits to the writer, as far as it has room.
    fn offer(&mut self) {
        while let Ok(room) = self.work.try_reserve() {
            let Some((sealed, held)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= sealed.byte_size();
            room.send(Work::Write(sealed, held, None));
        }
    }

    /// A record came: the batch may have reached its size, and what waits its
    /// limit. What is merely due by time is left to [`Self::advance`].
    fn hand_over(&mut self, limits: Limits) -> Option<Flow> {
        if !self.batch.has_reached_its_size() {
            return None;
        }
        self.seal();
        let is_over = self.waiting_bytes >= limits.bytes || self.waiting.len() >= MAX_WAITING;
        (is_over && self.pause()).then_some(Flow::Pause)
    }

    pub(super) fn advance(
        &mut self,
        limits: Limits,
        now: Instant,
        caught_up_at: Instant,
        is_braked: bool,
    ) -> Option<Flow> {
        if self.state != State::Works {
            return self.pause().then_some(Flow::End);
        }
        if self.bound.is_some_and(|bound| bound.is_reached) {
            return self.finish();
        }
        self.offer();
        // A batch that is due while another is being written may as well grow:
        // fewer and larger inserts are what a slow ClickHouse needs.
        let has_room = self.waiting.is_empty() && self.work.capacity() > 0;
        if has_room && self.batch.is_due(now, caught_up_at) {
            self.seal();
        }
        // Fetching starts again with a delay, so not only when all is written.
        let is_under =
            self.waiting_bytes < limits.bytes / 2 && self.waiting.len() < MAX_WAITING / 2;
        if is_under && self.paused && !is_braked {
            self.paused = false;
            return Some(Flow::Resume);
        }
        None
    }
}
