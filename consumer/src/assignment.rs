//! The partitions that this consumer owns: an open batch and a writer each.
//!
//! ```text
//!  poll thread ── record ──▶ Batch ── seal ──▶ waiting ──▶ Writer task
//! ```
//!
//! While a batch is being written the next ones gather. When as much waits as a
//! batch may hold, the partition is paused in the client until half of it is
//! written: the poll goes on, so a slow insert never costs the membership of the
//! group. When all batches together hold more than they may, open ones are closed
//! early and nothing more is taken. The client drops what it had fetched of a
//! paused partition and takes up to a second to fetch it anew, which is why a
//! pause is a last resort.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use outpour_schemas::{
    invariants,
    mutants::{self, Mutant},
    program::error_line,
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Limits, Sealed},
    budget::{Budget, Held},
    dead_letter::DeadLetters,
    decode::Mapping,
    error::ConsumerError,
    plan::Plan,
    rejected::Rejected,
    replay::Terms,
    sink::Sink,
    source::{
        RecordView, TopicPartition,
        kafka::{Owner, Start, StartError},
    },
    writer::{Edges, Offsets, Work, WriteError, Writer},
};

/// How long a partition that is given up may take to finish what it is doing.
/// Well under the poll interval after which the group would take it by force.
const HAND_OVER: Duration = Duration::from_secs(20);

/// However small they are, no more batches than this wait for a writer.
const MAX_WAITING: usize = 64;

/// A partition without records for so long is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// What becomes of a partition for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Pause,
    Resume,
    /// Nothing more of it is wanted.
    End,
}

struct Partition {
    batch: Batch,
    /// Sealed batches that the writer has no room for yet.
    waiting: VecDeque<(Sealed, Held)>,
    waiting_bytes: usize,
    budget: Budget,
    work: mpsc::Sender<Work>,
    writer: JoinHandle<Result<(), WriteError>>,
    /// Told to the writer when the partition is given up.
    stop: CancellationToken,
    paused: bool,
    /// When its last record came, until what follows it has been looked at.
    last_record: Option<Instant>,
    /// Where a replay ends.
    bound: Option<Bound>,
}

/// One past the last offset that is wanted.
#[derive(Debug, Clone, Copy)]
struct Bound {
    until: i64,
    /// Whether a record at or past it has been seen.
    is_reached: bool,
    /// Whether the writer has been told, or need not be.
    is_told: bool,
}

/// Everything that the poll thread and the client's callbacks share.
pub(crate) struct Assignment<S, D, O> {
    runtime: Handle,
    edges: Arc<Edges<S, D, O>>,
    mappings: Vec<Arc<Mapping>>,
    environment: Arc<str>,
    limits: Limits,
    budget: Budget,
    /// Of a replay.
    terms: Option<Arc<Terms>>,
    owned: Mutex<Owned>,
}

/// What a look at every partition came to.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) flows: Vec<(TopicPartition, Flow)>,
    /// Whether batches hold more than they may.
    pub(crate) is_over: bool,
}

#[derive(Default)]
struct Owned {
    /// By topic first, so that a record's topic need not be copied to look it up.
    partitions: HashMap<Arc<str>, HashMap<i32, Partition>>,
    failure: Option<ConsumerError>,
    /// Whether everything is paused until batches hold half of what they may.
    is_braked: bool,
}

impl<S: Sink, D: DeadLetters, O: Offsets> Assignment<S, D, O> {
    pub(crate) fn new(
        runtime: Handle,
        edges: Edges<S, D, O>,
        mappings: Vec<Arc<Mapping>>,
        environment: &str,
        limits: Limits,
        budget: Budget,
    ) -> Self {
        Assignment {
            runtime,
            edges: Arc::new(edges),
            mappings,
            environment: environment.into(),
            limits,
            budget,
            terms: None,
            owned: Mutex::default(),
        }
    }

    /// Takes what `terms` select, and of each partition what its frame says.
    pub(crate) fn replaying(mut self, terms: Option<Arc<Terms>>) -> Self {
        self.terms = terms;
        self
    }

    /// A poisoned lock means a panic that is already on its way up.
    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record to its partition's batch.
    pub(crate) fn record(
        &self,
        record: &RecordView<'_>,
        now: Instant,
    ) -> Option<(TopicPartition, Flow)> {
        let mut owned = self.owned();
        let partition = owned.partitions.get_mut(record.topic)?.get_mut(&record.partition)?;
        if partition.bound.is_some_and(|bound| record.offset >= bound.until) {
            partition.reach_bound();
            return None;
        }
        if partition.batch.is_past(record.offset) {
            // The range that was planned ends here, whatever it still holds.
            partition.seal();
        }
        partition.batch.push(record, now);
        partition.last_record = Some(now);
        let flow = partition.hand_over(self.limits)?;
        Some((TopicPartition { topic: record.topic.into(), partition: record.partition }, flow))
    }

    /// Closes batches that are due and moves on what waited for room.
    /// `caught_up_at` is when last no record was at hand.
    pub(crate) fn tick(&self, now: Instant, caught_up_at: Instant) -> Tick {
        let mut owned = self.owned();
        // A batch that is read again can only end where its plan says: were it
        // counted, it could keep itself from getting there.
        let counted = owned.each().filter(|(_, _, partition)| !partition.batch.is_pinned());
        let open: usize = counted.map(|(_, _, partition)| partition.batch.byte_size()).sum();
        let held = open + self.budget.sealed();
        let is_over = held > self.budget.limit;
        owned.is_braked &= held > self.budget.limit / 2;
        let is_braked = owned.is_braked;
        let mut flows = Vec::new();
        for (topic, number, partition) in owned.each() {
            // Until the brake is off again, or what is open would wait for its time.
            if is_over || is_braked {
                partition.relieve();
            }
            if let Some(flow) = partition.advance(self.limits, now, caught_up_at, is_braked) {
                flows.push((TopicPartition { topic: Arc::clone(topic), partition: number }, flow));
            }
        }
        self.edges.monitor.holds(held);
        Tick { flows, is_over }
    }

    /// Has everything paused until there is room again; what that is now.
    pub(crate) fn brake(&self) -> Vec<(TopicPartition, Flow)> {
        let mut owned = self.owned();
        owned.is_braked = true;
        let running = owned.each().filter(|(_, _, partition)| !partition.paused);
        let pause = |(topic, number, partition): (&Arc<str>, i32, &mut Partition)| {
            partition.paused = true;
            (TopicPartition { topic: Arc::clone(topic), partition: number }, Flow::Pause)
        };
        running.map(pause).collect()
    }

    /// Partitions that have just become quiet, and where. Each is named once.
    pub(crate) fn quiet(&self, now: Instant) -> Vec<(TopicPartition, i64)> {
        let mut quiet = Vec::new();
        for (topic, partitions) in &mut self.owned().partitions {
            for (number, partition) in partitions {
                let is_quiet = partition.last_record.is_some_and(|at| now >= at + QUIET)
                    && partition.batch.is_empty()
                    && partition.waiting.is_empty();
                if is_quiet {
                    partition.last_record = None;
                    let name = TopicPartition { topic: Arc::clone(topic), partition: *number };
                    quiet.push((name, partition.batch.end()));
                }
            }
        }
        quiet
    }

    /// No record lies between `from` and `end` of a partition.
    pub(crate) fn passed(&self, partition: &TopicPartition, from: i64, end: i64) {
        let mut owned = self.owned();
        let found = owned
            .partitions
            .get_mut(&partition.topic)
            .and_then(|partitions| partitions.get_mut(&partition.partition));
        // It may have gone, or have gone on, while that was found out.
        if let Some(found) = found
            && found.batch.is_empty()
            && found.batch.end() == from
            && let Ok(room) = found.work.try_reserve()
        {
            found.batch.skip_to(end);
            room.send(Work::Pass(end));
        }
    }

    /// Gives up everything that is left.
    pub(crate) fn leave(&self) {
        let name = |(topic, number, _): (&Arc<str>, i32, &mut Partition)| TopicPartition {
            topic: Arc::clone(topic),
            partition: number,
        };
        let partitions: Vec<_> = self.owned().each().map(name).collect();
        self.revoked(&partitions);
    }

    /// Has the session end with `error`, unless it has another reason already.
    pub(crate) fn start_over(&self, error: ConsumerError) {
        self.owned().failure.get_or_insert(error);
    }

    /// Why the session has to be started over, once it has.
    pub(crate) fn failure(&self) -> Option<ConsumerError> {
        let mut owned = self.owned();
        if let Some(failure) = owned.failure.take() {
            return Some(failure);
        }
        let finished = owned
            .partitions
            .values_mut()
            .flat_map(HashMap::values_mut)
            .find(|partition| partition.writer.is_finished())?;
        // Finished already, so that this does not wait.
        Some(ConsumerError::Interrupted(match self.runtime.block_on(&mut finished.writer) {
            Ok(Ok(())) => "a writer ended early".to_owned(),
            Ok(Err(error)) => error_line(&error),
            Err(error) => format!("a writer panicked: {error}"),
        }))
    }
}

impl Owned {
    fn remove(&mut self, partition: &TopicPartition) -> Option<Partition> {
        self.partitions.get_mut(&partition.topic)?.remove(&partition.partition)
    }

    fn each(&mut self) -> impl Iterator<Item = (&Arc<str>, i32, &mut Partition)> {
        self.partitions.iter_mut().flat_map(|(topic, partitions)| {
            partitions.iter_mut().map(move |(number, partition)| (topic, *number, partition))
        })
    }
}

impl Partition {
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
        let runs = !self.paused;
        self.paused = true;
        runs.then_some(Flow::End)
    }

    fn seal(&mut self) {
        let sealed = self.batch.seal();
        let bytes = sealed.byte_size();
        self.waiting_bytes += bytes;
        self.waiting.push_back((sealed, self.budget.hold(bytes)));
        self.offer();
    }

    /// Closes the batch before its time, if it can be written at once: memory is
    /// wanted back.
    fn relieve(&mut self) {
        let has_room = self.waiting.is_empty() && self.work.capacity() > 0;
        if has_room && !self.batch.is_empty() && !self.batch.is_pinned() {
            self.seal();
        }
    }

    /// Gives what waits to the writer, as far as it has room.
    fn offer(&mut self) {
        while let Ok(room) = self.work.try_reserve() {
            let Some((sealed, held)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= sealed.byte_size();
            room.send(Work::Write(sealed, held));
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
        if is_over && !self.paused {
            self.paused = true;
            return Some(Flow::Pause);
        }
        None
    }

    fn advance(
        &mut self,
        limits: Limits,
        now: Instant,
        caught_up_at: Instant,
        is_braked: bool,
    ) -> Option<Flow> {
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

impl<S: Sink, D: DeadLetters, O: Offsets> Owner for Assignment<S, D, O> {
    fn assigned(&self, starts: Vec<Start>) {
        let mut owned = self.owned();
        for start in starts {
            let topic = &start.partition.topic;
            let mappings: Vec<_> =
                self.mappings.iter().filter(|m| m.takes_topic(topic)).cloned().collect();
            let begins_there =
                |plan: &Plan| invariants::begins_at(&(plan.start..plan.end), &start.offset);
            let open = start.plan.filter(begins_there);
            let open = open.filter(|_| !mutants::active(Mutant::PlanIgnored));
            let batch =
                Batch::new(&mappings, Arc::clone(&self.environment), self.limits, start.offset);
            let batch = batch.refusing(self.edges.refused.of(&start.partition));
            let batch = batch.replaying(self.terms.clone());
            // What no frame says is none of the replay's.
            let bound = self.terms.as_ref().map(|_| {
                let until = start.frame.as_ref().map_or(start.offset, |frame| frame.until);
                let is_done = start.offset >= until;
                Bound { until, is_reached: is_done, is_told: is_done }
            });
            let without_plan = open.is_none();
            let batch = match &open {
                Some(plan) if mutants::active(Mutant::LettersAgain) => {
                    batch.pinned(plan.end, Rejected::default())
                }
                Some(plan) => batch.pinned(plan.end, plan.rejected.clone()),
                None => batch,
            };
            tracing::info!(
                partition = %start.partition, offset = start.offset, open_plan = open.is_some(),
                "partition assigned"
            );
            self.edges.monitor.assigned(&start.partition, start.offset);
            let (work, receiver) = mpsc::channel(1);
            let stop = CancellationToken::new();
            let writer = Writer {
                edges: Arc::clone(&self.edges),
                partition: start.partition.clone(),
                open,
                was_moved: start.was_moved && !mutants::active(Mutant::MovesIgnored),
                frame: start.frame,
                targets: mappings,
                there_until: None,
                settled: start.offset,
                stop: stop.clone(),
            };
            let writer = self.runtime.spawn(writer.run(receiver));
            let number = start.partition.partition;
            let partition = Partition {
                batch,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                budget: self.budget.clone(),
                work,
                writer,
                stop,
                paused: false,
                // What the last owner left at the end is looked at as well.
                last_record: without_plan.then(Instant::now),
                bound,
            };
            owned.partitions.entry(start.partition.topic).or_default().insert(number, partition);
        }
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        let given_up: Vec<_> = {
            let mut owned = self.owned();
            partitions.iter().filter_map(|partition| owned.remove(partition)).collect()
        };
        if given_up.is_empty() {
            return;
        }
        if mutants::active(Mutant::NoHandOver) {
            // What is dropped is told to nobody: the writers go on with what they have.
            return;
        }
        let count = given_up.len();
        partitions.iter().for_each(|partition| self.edges.monitor.revoked(partition));
        given_up.iter().for_each(|partition| partition.stop.cancel());
        // Open batches are dropped: their records are not planned, so whoever
        // owns the partition next reads them again.
        let writers: Vec<_> = given_up.into_iter().map(|partition| partition.writer).collect();
        let joined = self.runtime.block_on(async {
            let aborts: Vec<_> = writers.iter().map(JoinHandle::abort_handle).collect();
            let joined = futures_util::future::join_all(writers);
            let outcome = tokio::time::timeout(HAND_OVER, joined).await;
            if outcome.is_err() {
                aborts.iter().for_each(tokio::task::AbortHandle::abort);
            }
            outcome
        });
        match joined {
            Ok(results) => {
                for error in results.into_iter().filter_map(|joined| joined.ok()?.err()) {
                    tracing::warn!(error = error_line(&error), "partition given up unfinished");
                }
                tracing::info!(partitions = count, "partitions given up");
            }
            Err(_) => tracing::warn!(
                partitions = count,
                seconds = HAND_OVER.as_secs(),
                "partitions given up while inserts were under way; their plans stay open"
            ),
        }
    }

    fn ends(&self, partition: TopicPartition, end: i64) {
        self.edges.monitor.ends(&partition, end);
    }

    fn failed(&self, error: StartError) {
        self.start_over(match error {
            StartError::Kafka(_) => {
                ConsumerError::Interrupted(format!("taking up partitions: {}", error_line(&error)))
            }
            StartError::Plan { partition, source } => {
                ConsumerError::NewerPlan { partition, source }
            }
        });
    }
}
