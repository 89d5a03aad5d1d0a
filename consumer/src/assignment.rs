//! The partitions that this consumer owns: an open batch and a writer each.
//!
//! ```text
//!  poll thread ── record ──▶ Batch ── seal ──▶ (one waiting) ──▶ Writer task
//! ```
//!
//! While a batch is being written the next one gathers. When that is full, too,
//! the partition is paused in the client until there is room: the poll goes on,
//! so a slow insert never costs the membership of the group.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Limits, Sealed},
    dead_letter::DeadLetters,
    decode::Mapping,
    sink::Sink,
    source::{
        RecordView, TopicPartition,
        kafka::{Owner, Start},
    },
    writer::{Edges, Offsets, Work, WriteError, Writer},
};

/// How long a partition that is given up may take to finish what it is doing.
/// Well under the poll interval after which the group would take it by force.
const HAND_OVER: Duration = Duration::from_secs(20);

/// A partition without records for so long is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// What becomes of a partition for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Pause,
    Resume,
}

struct Partition {
    batch: Batch,
    /// A sealed batch that the writer has no room for.
    waiting: Option<Sealed>,
    work: mpsc::Sender<Work>,
    writer: JoinHandle<Result<(), WriteError>>,
    paused: bool,
    /// When its last record came, until what follows it has been looked at.
    last_record: Option<Instant>,
}

/// Everything that the poll thread and the client's callbacks share.
pub(crate) struct Assignment<S, D, O> {
    runtime: Handle,
    edges: Arc<Edges<S, D, O>>,
    mappings: Vec<Arc<Mapping>>,
    environment: Arc<str>,
    limits: Limits,
    owned: Mutex<Owned>,
}

#[derive(Default)]
struct Owned {
    /// By topic first, so that a record's topic need not be copied to look it up.
    partitions: HashMap<Arc<str>, HashMap<i32, Partition>>,
    stop: CancellationToken,
    failure: Option<String>,
}

impl<S: Sink, D: DeadLetters, O: Offsets> Assignment<S, D, O> {
    pub(crate) fn new(
        runtime: Handle,
        edges: Edges<S, D, O>,
        mappings: Vec<Arc<Mapping>>,
        environment: &str,
        limits: Limits,
    ) -> Self {
        Assignment {
            runtime,
            edges: Arc::new(edges),
            mappings,
            environment: environment.into(),
            limits,
            owned: Mutex::default(),
        }
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
        if partition.batch.is_past(record.offset) {
            // The range that was planned ends here, whatever it still holds.
            partition.seal();
        }
        partition.batch.push(record, now);
        partition.last_record = Some(now);
        if !partition.batch.is_full(now) {
            return None;
        }
        let flow = partition.hand_over()?;
        Some((TopicPartition { topic: record.topic.into(), partition: record.partition }, flow))
    }

    /// Closes batches that are due and moves on what waited for room.
    pub(crate) fn tick(&self, now: Instant) -> Vec<(TopicPartition, Flow)> {
        let mut flows = Vec::new();
        for (topic, partitions) in &mut self.owned().partitions {
            for (number, partition) in partitions {
                if let Some(flow) = partition.advance(now) {
                    let partition = TopicPartition { topic: Arc::clone(topic), partition: *number };
                    flows.push((partition, flow));
                }
            }
        }
        flows
    }

    /// Partitions that have just become quiet, and where. Each is named once.
    pub(crate) fn quiet(&self, now: Instant) -> Vec<(TopicPartition, i64)> {
        let mut quiet = Vec::new();
        for (topic, partitions) in &mut self.owned().partitions {
            for (number, partition) in partitions {
                let is_quiet = partition.last_record.is_some_and(|at| now >= at + QUIET)
                    && partition.batch.is_empty()
                    && partition.waiting.is_none();
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

    /// Why the session has to be started over, once it has.
    pub(crate) fn failure(&self) -> Option<String> {
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
        Some(match self.runtime.block_on(&mut finished.writer) {
            Ok(Ok(())) => "a writer ended early".to_owned(),
            Ok(Err(error)) => crate::error::chain(&error),
            Err(error) => format!("a writer panicked: {error}"),
        })
    }
}

impl Partition {
    fn seal(&mut self) {
        debug_assert!(self.waiting.is_none(), "paused while one waits");
        self.waiting = Some(self.batch.seal());
        self.offer();
    }

    /// Gives what waits to the writer, if it has room.
    fn offer(&mut self) {
        if let Some(sealed) = self.waiting.take() {
            match self.work.try_reserve() {
                Ok(room) => room.send(Work::Write(sealed)),
                Err(_) => self.waiting = Some(sealed),
            }
        }
    }

    /// The batch is full.
    fn hand_over(&mut self) -> Option<Flow> {
        if self.waiting.is_none() {
            self.seal();
        }
        if self.waiting.is_some() && !self.paused {
            self.paused = true;
            return Some(Flow::Pause);
        }
        None
    }

    fn advance(&mut self, now: Instant) -> Option<Flow> {
        self.offer();
        if self.waiting.is_none() && !self.batch.is_empty() && self.batch.is_full(now) {
            self.seal();
        }
        if self.waiting.is_none() && self.paused {
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
            let open = start.plan.filter(|plan| plan.start == start.offset);
            let batch =
                Batch::new(&mappings, Arc::clone(&self.environment), self.limits, start.offset);
            let without_plan = open.is_none();
            let batch = match &open {
                Some(plan) => batch.pinned(plan.end),
                None => batch,
            };
            tracing::info!(
                partition = %start.partition, offset = start.offset, open_plan = open.is_some(),
                "partition assigned"
            );
            let (work, receiver) = mpsc::channel(1);
            let writer = Writer {
                edges: Arc::clone(&self.edges),
                partition: start.partition.clone(),
                open,
                stop: owned.stop.clone(),
            };
            let writer = self.runtime.spawn(writer.run(receiver));
            let number = start.partition.partition;
            let partition = Partition {
                batch,
                waiting: None,
                work,
                writer,
                paused: false,
                // What the last owner left at the end is looked at as well.
                last_record: without_plan.then(Instant::now),
            };
            owned.partitions.entry(start.partition.topic).or_default().insert(number, partition);
        }
    }

    fn revoked(&self) {
        let (partitions, stop) = {
            let mut owned = self.owned();
            let stop = std::mem::take(&mut owned.stop);
            (std::mem::take(&mut owned.partitions), stop)
        };
        let count = partitions.values().map(HashMap::len).sum::<usize>();
        if count == 0 {
            return;
        }
        stop.cancel();
        // Open batches are dropped: their records are not planned, so whoever
        // owns the partition next reads them again.
        let writers: Vec<_> = partitions
            .into_values()
            .flat_map(HashMap::into_values)
            .map(|partition| partition.writer)
            .collect();
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
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "partition given up unfinished"
                    );
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

    fn failed(&self, reason: String) {
        self.owned().failure.get_or_insert(reason);
    }
}
