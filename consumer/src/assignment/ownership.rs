//! Partitions come and go, as the group says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outpour_schemas::{
    invariants,
    mutants::{self, Mutant},
    program::error_line,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Assignment,
    partition::{Bound, Hand, Partition},
};
use crate::{
    batch::Batch,
    dead_letter::DeadLetters,
    error::ConsumerError,
    metrics,
    plan::Plan,
    rejected::Rejected,
    sink::Sink,
    source::{
        TopicPartition,
        kafka::{Owner, Start, StartError},
    },
    writer::{Offsets, Writer},
};

/// How long a partition that is given up may take to finish what it is doing.
/// Well under the poll interval after which the group would take it by force.
const HAND_OVER: Duration = Duration::from_secs(20);

impl<S: Sink, D: DeadLetters, O: Offsets> Assignment<S, D, O> {
    /// Begins a batch and a writer where the group's committed offset and plan say,
    /// in place of what there was.
    fn take_up(&self, start: Start, starts_over: bool) {
        let topic = &start.partition.topic;
        let routes = Arc::clone(&self.owned().routes);
        let held_back = routes.held_back_of(topic).next();
        let mappings: Vec<_> =
            routes.mappings.iter().filter(|m| m.takes_topic(topic)).cloned().collect();
        let begins_there =
            |plan: &Plan| invariants::begins_at(&(plan.start..plan.end), &start.offset);
        let open = start.plan.filter(begins_there);
        let open = open.filter(|_| !mutants::active(Mutant::PlanIgnored));
        let batch = Batch::new(&mappings, Arc::clone(&self.environment), self.limits, start.offset);
        let batch = batch.refusing(self.edges.refused.of(&start.partition));
        let batch = batch.replaying(self.terms.clone());
        // What no frame says is none of the replay's.
        let bound = self.terms.as_ref().map(|_| {
            let until = start.frame.as_ref().map_or(start.offset, |frame| frame.until);
            Bound::new(start.offset, until)
        });
        let without_plan = open.is_none();
        let batch = match &open {
            Some(plan) if mutants::active(Mutant::LettersAgain) => {
                batch.pinned(plan.end, Rejected::default())
            }
            Some(plan) => batch.pinned(plan.end, plan.rejected.clone()),
            None => batch,
        };
        self.edges.monitor.assigned(&start.partition, start.offset);
        if let Some(held_back) = held_back {
            self.edges.monitor.held_back(&start.partition, &held_back.error);
        }
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
        let hand = Hand { work, writer, stop };
        let partition = Partition::new(batch, self.budget.clone(), hand, bound, without_plan);
        let partition = if starts_over { partition.alone_from(Instant::now()) } else { partition };
        let mut partition = if held_back.is_some() { partition.held_back() } else { partition };
        let mut owned = self.owned();
        if !Arc::ptr_eq(&routes, &owned.routes) {
            // They were joined anew meanwhile.
            partition.start_over();
        }
        owned.partitions.entry(start.partition.topic).or_default().insert(number, partition);
    }
}

impl<S: Sink, D: DeadLetters, O: Offsets> Owner for Assignment<S, D, O> {
    fn assigned(&self, starts: Vec<Start>) {
        for start in starts {
            tracing::info!(
                partition = %start.partition, offset = start.offset,
                open_plan = start.plan.is_some(), "partition assigned"
            );
            self.take_up(start, false);
        }
    }

    fn starts_over(&self, start: Start) {
        metrics::partition_started_over();
        self.take_up(start, true);
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
        let writers: Vec<_> = given_up.into_iter().filter_map(Partition::into_writer).collect();
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
