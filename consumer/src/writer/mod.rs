//! The protocol of one partition: plan, park, insert, and only then go on.
//!
//! ```text
//!  Sealed ─▶ commit(start, plan) ─▶ insert, retried ─▶ next
//!              together with              │
//!              the dead letters      nothing more for a while ─▶ commit(end)
//! ```
//!
//! Where many partitions have little each, they share inserts (`joint.rs`).
//!
//! I6: the offset that is committed is the start of the batch under way, or the
//! end of one that is stored. Nothing else is ever committed.
//!
//! Cancellation: `stop` lets the running request end and starts no other. What
//! is planned and not stored stays planned, for the partition's next owner.

mod bisection;
mod insert;
mod joint;
mod planning;
mod proof;
mod refused;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use outpour_schemas::{
    invariants,
    mutants::{self, Mutant},
};
use rdkafka::error::KafkaError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::joint::Outcome;
pub(crate) use self::{
    joint::{Seat, convene},
    refused::{Refusals, Refused},
};
use crate::{
    batch::Sealed,
    budget::Held,
    dead_letter::DeadLetters,
    decode::Mapping,
    frame::Frame,
    health::Monitor,
    metrics,
    plan::{self, Plan, PlanError},
    sink::{Class, Sink, SinkError},
    source::TopicPartition,
    trace::Attempt,
};

/// The group's committed offsets.
pub(crate) trait Offsets: Send + Sync + 'static {
    /// Returns when the coordinator has accepted all of them.
    ///
    /// # Errors
    /// When it has not: it may have accepted some.
    fn commit(&self, commits: Vec<Commit>) -> impl Future<Output = Result<(), KafkaError>> + Send;
}

/// The offset that a partition is to be read from, and what stands beside it.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) metadata: String,
}

/// What a writer is given to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Perhaps together with batches of other partitions.
    Write(Sealed, Arc<Held>, Option<Seat>),
    /// No record lies before this offset that has not been written.
    Pass(i64),
}

/// What a writer works with; one for all partitions.
pub(crate) struct Edges<S, D, O> {
    pub(crate) sink: S,
    pub(crate) dead_letters: D,
    pub(crate) offsets: O,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) refused: Arc<Refused>,
    /// Has a few at a time ask a table what it has.
    pub(crate) asking: Semaphore,
    /// Tells this Kafka cluster from others.
    pub(crate) cluster: String,
    /// Shown in plans.
    pub(crate) owner: String,
}

impl<S: Sink, D, O> Edges<S, D, O> {
    /// Whether the table still knows by their tokens what was inserted since `plan` was
    /// made.
    ///
    /// # Errors
    /// When it can be asked later.
    async fn remembers(&self, mapping: &Mapping, plan: &Plan) -> Result<bool, SinkError> {
        let since = Timestamp::from_millisecond(plan.planned_at_ms).unwrap_or_default();
        match self.sink.remembers(mapping, since).await {
            // Nothing is known then that could be relied on.
            Err(error) if error.class() != Class::Transient => {
                let table = &mapping.table;
                tracing::warn!(%table, %error, "cannot tell which inserts the table remembers");
                Ok(false)
            }
            answer => answer,
        }
    }

    /// What is sent in place of `token`.
    fn sent(&self, token: String, attempt: &Attempt) -> String {
        if mutants::active(Mutant::NoToken) {
            attempt.query_id()
        } else if mutants::active(Mutant::TokenPerOwner) {
            format!("{token}/{}", self.owner)
        } else {
            token
        }
    }
}

/// Why a partition cannot go on as it is. Reading the committed plan again and
/// starting over from it is always right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("committing offset {offset} of {partition}")]
    Commit { partition: TopicPartition, offset: i64, source: KafkaError },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the insert that {partition} shares with others ended without a word")]
    Unheard { partition: TopicPartition },
    #[error("table {table} refuses {rows} rows of {partition}, which are read again to be parked")]
    Refused { partition: TopicPartition, table: String, rows: usize, source: SinkError },
    #[error("table {table} has changed")]
    SchemaDrift { table: String, source: SinkError },
    #[error("table {table} has changed since its rows were refused")]
    RefusedByWhatWas { table: String },
}

/// What has to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartsOver {
    /// The partition, from its committed plan: what is found stands in its way no more.
    Partition,
    /// The same, once its tables were read again.
    Table,
    /// Everything: it may be the group's matter.
    Session,
}

impl WriteError {
    pub(crate) fn starts_over(&self) -> StartsOver {
        match self {
            WriteError::Refused { rows, .. } if *rows > 0 => StartsOver::Partition,
            WriteError::SchemaDrift { .. } | WriteError::RefusedByWhatWas { .. } => {
                StartsOver::Table
            }
            WriteError::Refused { .. }
            | WriteError::Commit { .. }
            | WriteError::Unheard { .. }
            | WriteError::Plan(_) => StartsOver::Session,
        }
    }
}

/// A plan is trusted to be within the table's memory of tokens for this long, unless
/// others' inserts fill that before; then the table itself is asked. Replicated tables
/// forget after an hour.
pub(crate) const TOKENS_TRUSTED_FOR: Duration = Duration::from_secs(30 * 60);

/// Writers that ask a table what it has, at a time.
pub(crate) const ASKING: usize = 4;

/// A stored batch is committed without the next plan after this long.
const IDLE: Duration = Duration::from_millis(500);

pub(crate) struct Writer<S, D, O> {
    pub(crate) edges: Arc<Edges<S, D, O>>,
    pub(crate) partition: TopicPartition,
    /// The plan that was found at the start, if its outcome is still open.
    pub(crate) open: Option<Plan>,
    /// Whether the group's offset was found where somebody else has put it, and the
    /// tables may still have rows of what comes.
    pub(crate) was_moved: bool,
    /// What is replayed of the partition, if this is a replay.
    pub(crate) frame: Option<Frame>,
    /// The routes that take the partition's topic.
    pub(crate) targets: Vec<Arc<Mapping>>,
    /// How far their tables have rows, once that was asked.
    pub(crate) there_until: Option<i64>,
    /// Every record before it is stored or parked.
    pub(crate) settled: i64,
    pub(crate) stop: CancellationToken,
}

impl<S: Sink, D: DeadLetters, O: Offsets> Writer<S, D, O> {
    /// Does its work in the given order until there is no more.
    ///
    /// # Errors
    /// When the partition has to be started over.
    pub(crate) async fn run(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), WriteError> {
        // The end of what is stored, while the coordinator does not know it.
        let mut stored = None;
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                next = work.recv() => next,
                () = tokio::time::sleep(IDLE), if stored.is_some() => {
                    self.commit_stored(&mut stored).await?;
                    continue;
                }
            };
            match next {
                Some(Work::Write(batch, _held, seat)) => {
                    match self.write(&batch, seat).await {
                        Ok(true) => {}
                        // Planned but not stored: the plan says so to whoever is next.
                        Ok(false) => return Ok(()),
                        Err(error) => {
                            if let WriteError::RefusedByWhatWas { .. } = error {
                                // Not planned: the plan before it is the one that is found.
                                self.commit_stored(&mut stored).await?;
                            }
                            return Err(error);
                        }
                    }
                    self.edges.monitor.stored(&self.partition, batch.end);
                    self.edges.refused.forget(&self.partition, batch.end);
                    self.settled = batch.end;
                    stored = Some(batch.end);
                }
                Some(Work::Pass(offset)) => {
                    self.edges.monitor.stored(&self.partition, offset);
                    self.settled = offset;
                    stored = Some(offset);
                }
                None => break,
            }
        }
        self.commit_stored(&mut stored).await
    }

    async fn commit_stored(&self, stored: &mut Option<i64>) -> Result<(), WriteError> {
        match stored.take() {
            Some(end) => {
                let note = match &self.frame {
                    Some(frame) => frame.metadata(self.was_moved),
                    // The next owner takes the offset for moved, as it was.
                    None if self.was_moved => String::new(),
                    None => plan::STORED.to_owned(),
                };
                self.commit(end, note).await
            }
            None => Ok(()),
        }
    }

    /// Whether the batch is stored; `false` if it was told to stop before.
    async fn write(&mut self, batch: &Sealed, seat: Option<Seat>) -> Result<bool, WriteError> {
        let has_seat = seat.is_some();
        let jointly = match seat {
            Some(seat) => self.write_jointly(batch, seat).await?,
            None => None,
        };
        let stored_by = match jointly {
            Some(attempts) => attempts,
            // It does not take part in a joint insert any more.
            None if has_seat && self.stop.is_cancelled() => return Ok(false),
            None => match self.write_alone(batch).await? {
                Some(attempts) => attempts,
                None => return Ok(false),
            },
        };
        metrics::batch_stored(batch);
        tracing::debug!(
            partition = %self.partition, start = batch.start, end = batch.end,
            rows = batch.rows(), parked = batch.parked.len(),
            query_id = stored_by.iter().map(Attempt::query_id).collect::<Vec<_>>().join(","),
            trace_id = stored_by.first().and_then(Attempt::trace_id), "batch stored"
        );
        Ok(true)
    }

    /// The attempts that stored it; `None` if it was told to stop before.
    async fn write_alone(&mut self, batch: &Sealed) -> Result<Option<Vec<Attempt>>, WriteError> {
        let Some(mut plan) = self.planned(batch, Timestamp::now()).await? else {
            return Ok(None);
        };
        if mutants::active(Mutant::PlanAtTheEnd) {
            self.send_commit(batch.end, plan::STORED.to_owned()).await?;
        }
        self.edges.monitor.planned(&self.partition);
        let mut stored_by = Vec::new();
        for insert in &batch.inserts {
            let Some(attempt) = self.insert(insert, batch, &mut plan).await? else {
                return Ok(None);
            };
            stored_by.push(attempt);
        }
        Ok(Some(stored_by))
    }

    /// The attempts that stored it together with others; `None` if it is to be written alone.
    async fn write_jointly(
        &mut self,
        batch: &Sealed,
        seat: Seat,
    ) -> Result<Option<Vec<Attempt>>, WriteError> {
        // What may be there already is asked of the table, partition by partition.
        let is_plain = self.open.is_none() && !self.was_moved && self.frame.is_none();
        if !is_plain || !batch.rejected.is_empty() || mutants::active(Mutant::PlanAtTheEnd) {
            return Ok(None);
        }
        let plan = self.new_plan(batch, Timestamp::now());
        let outcome = seat.take(&self.partition, plan, batch, &self.stop).await;
        // It may have been planned, and sent.
        let unheard = |_| WriteError::Unheard { partition: self.partition.clone() };
        match outcome.map_err(unheard)? {
            Outcome::Stored(attempts) => Ok(Some(attempts)),
            Outcome::Alone => Ok(None),
            Outcome::Apart(plan) => {
                self.open = Some(plan);
                Ok(None)
            }
            Outcome::NotPlanned(source) => Err(WriteError::Commit {
                partition: self.partition.clone(),
                offset: batch.start,
                source,
            }),
        }
    }

    async fn commit(&self, offset: i64, metadata: String) -> Result<(), WriteError> {
        debug_assert!(
            invariants::passes_nothing_open(offset, [self.settled]),
            "I6: {offset} would pass records from {} on",
            self.settled
        );
        self.send_commit(offset, metadata).await
    }

    async fn send_commit(&self, offset: i64, metadata: String) -> Result<(), WriteError> {
        let partition = self.partition.clone();
        let commit = Commit { partition: partition.clone(), offset, metadata };
        let outcome = self.edges.offsets.commit(vec![commit]).await;
        outcome.map_err(|source| WriteError::Commit { partition, offset, source })
    }

    /// Waits; `false` if told to stop meanwhile.
    async fn pause(&self, delay: Option<Duration>) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(delay.unwrap_or(MAX_DELAY)) => true,
        }
    }
}

/// Up to twice as long, as clients are not to come all at once. A server that is back
/// has rows again within five seconds.
const MAX_DELAY: Duration = Duration::from_secs(2);

fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_DELAY)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests;
