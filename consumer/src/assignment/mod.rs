//! The partitions that this consumer owns: an open batch and a writer each.
//!
//! ```text
//!  poll thread ── record ──▶ Batch ── seal ──▶ waiting ──▶ Writer task
//! ```
//!
//! While a batch is being written the next ones gather. When as much waits as a
//! batch may hold, the partition is paused in the client until half of it is
//! written: the poll goes on, so a slow insert never costs the membership of the
//! group. When all batches together hold more than they may, the largest open ones are
//! closed early and nothing more is taken. The client drops what it had fetched of a
//! paused partition and takes up to a second to fetch it anew, which is why a
//! pause is a last resort.

mod joining;
mod ownership;
mod partition;
mod starting_over;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{runtime::Handle, sync::Notify};

pub(crate) use self::partition::Flow;
use self::partition::Partition;
use crate::{
    batch::Limits,
    budget::Budget,
    dead_letter::DeadLetters,
    error::ConsumerError,
    replay::Terms,
    sink::Sink,
    source::{RecordView, TopicPartition, kafka::Owner},
    tables::Routes,
    writer::{Edges, Offsets},
};

/// Everything that the poll thread and the client's callbacks share.
pub(crate) struct Assignment<S, D, O> {
    runtime: Handle,
    edges: Arc<Edges<S, D, O>>,
    environment: Arc<str>,
    limits: Limits,
    budget: Budget,
    /// Of a replay.
    terms: Option<Arc<Terms>>,
    /// Whether partitions may share inserts.
    shares_inserts: bool,
    owned: Mutex<Owned>,
    /// Told when a table may not be what it was.
    in_doubt: Notify,
}

/// What a look at every partition came to.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) flows: Vec<(TopicPartition, Flow)>,
    /// Whether batches hold more than they may.
    pub(crate) is_over: bool,
}

/// What has to be started over.
#[derive(Debug)]
pub(crate) enum Broken {
    Session(ConsumerError),
    /// This one alone: the group need not hear of it.
    Partition(TopicPartition),
}

struct Owned {
    routes: Arc<Routes>,
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
        routes: Routes,
        environment: &str,
        limits: Limits,
        budget: Budget,
    ) -> Self {
        Assignment {
            runtime,
            edges: Arc::new(edges),
            environment: environment.into(),
            limits,
            budget,
            terms: None,
            shares_inserts: false,
            owned: Mutex::new(Owned {
                routes: Arc::new(routes),
                partitions: HashMap::new(),
                failure: None,
                is_braked: false,
            }),
            in_doubt: Notify::new(),
        }
    }

    /// Takes what `terms` select, and of each partition what its frame says.
    pub(crate) fn replaying(mut self, terms: Option<Arc<Terms>>) -> Self {
        self.terms = terms;
        self
    }

    /// Lets partitions share inserts: where what is committed for several at once is refused
    /// as a whole once one of them was given up, as it is by generations.
    pub(crate) fn sharing_inserts(mut self, shares_inserts: bool) -> Self {
        self.shares_inserts = shares_inserts;
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
        let flow = partition.record(record, self.limits, now)?;
        Some((TopicPartition { topic: record.topic.into(), partition: record.partition }, flow))
    }

    /// Closes batches that are due and moves on what waited for room.
    /// `caught_up_at` is when last no record was at hand.
    pub(crate) fn tick(&self, now: Instant, caught_up_at: Instant) -> Tick {
        let mut owned = self.owned();
        let open: usize = owned.each().map(|(_, _, partition)| partition.open_bytes()).sum();
        let held = open + self.budget.sealed();
        let is_over = held > self.budget.limit;
        owned.is_braked &= held > self.budget.limit / 2;
        let is_braked = owned.is_braked;
        if is_braked {
            // Nothing is taken any more: what is open would wait for its time.
            owned.each().for_each(|(_, _, partition)| partition.seal_early());
        } else if is_over {
            self.relieve(&mut owned);
        }
        if self.shares_inserts && !is_braked {
            self.join_batches(&mut owned, now, caught_up_at);
        }
        let mut flows = Vec::new();
        for (topic, number, partition) in owned.each() {
            if let Some(flow) = partition.advance(self.limits, now, caught_up_at, is_braked) {
                flows.push((TopicPartition { topic: Arc::clone(topic), partition: number }, flow));
            }
        }
        self.edges.monitor.holds(held);
        Tick { flows, is_over }
    }

    /// Closes open batches, the largest first, until those on their way hold half of
    /// what all may. The other half goes on gathering: were all closed at once, each
    /// would be as small as what comes while one insert is stored.
    fn relieve(&self, owned: &mut Owned) {
        while self.budget.sealed() < self.budget.limit / 2 {
            let open = owned.each().map(|(_, _, partition)| partition);
            let writable = open.filter(|partition| partition.can_seal_early());
            let Some(largest) = writable.max_by_key(|partition| partition.open_bytes()) else {
                return;
            };
            largest.seal_early();
        }
    }

    /// Has everything paused until there is room again; what that is now.
    pub(crate) fn brake(&self) -> Vec<(TopicPartition, Flow)> {
        let mut owned = self.owned();
        owned.is_braked = true;
        let pause = |(topic, number, partition): (&Arc<str>, i32, &mut Partition)| {
            let name = TopicPartition { topic: Arc::clone(topic), partition: number };
            partition.pause().then_some((name, Flow::Pause))
        };
        owned.each().filter_map(pause).collect()
    }

    /// Partitions that have just become quiet, and where. Each is named once.
    pub(crate) fn quiet(&self, now: Instant) -> Vec<(TopicPartition, i64)> {
        let mut owned = self.owned();
        let quiet = owned.each().filter_map(|(topic, number, partition)| {
            let end = partition.quiet(now)?;
            Some((TopicPartition { topic: Arc::clone(topic), partition: number }, end))
        });
        quiet.collect()
    }

    /// No record lies between `from` and `end` of a partition.
    pub(crate) fn passed(&self, partition: &TopicPartition, from: i64, end: i64) {
        // It may have gone while that was found out.
        if let Some(found) = self.owned().get(partition) {
            found.passed(from, end);
        }
    }

    /// What lies behind `from` could not be found out: the partition will be quiet
    /// once more.
    pub(crate) fn look_again(&self, partition: &TopicPartition, from: i64, now: Instant) {
        if let Some(found) = self.owned().get(partition) {
            found.look_again(from, now);
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
}

impl Owned {
    fn get(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition.topic)?.get_mut(&partition.partition)
    }

    fn remove(&mut self, partition: &TopicPartition) -> Option<Partition> {
        self.partitions.get_mut(&partition.topic)?.remove(&partition.partition)
    }

    fn each(&mut self) -> impl Iterator<Item = (&Arc<str>, i32, &mut Partition)> {
        self.partitions.iter_mut().flat_map(|(topic, partitions)| {
            partitions.iter_mut().map(move |(number, partition)| (topic, *number, partition))
        })
    }
}

#[cfg(test)]
mod tests;
