//! One insert for batches of several partitions.
//!
//! ```text
//! writers ── members ──▶ commit(all their plans) ─▶ insert, retried ─▶ stored, all of them
//!                                                        │
//!                            refused, forgotten, or one of them leaves ─▶ apart
//! ```
//!
//! Where many partitions have few rows each, an insert for every one of them would be many
//! small ones. Together they are few, and the plans say so: each names the one token that
//! all rows are inserted under. Apart, each goes on by its own plan, in this program or in
//! another: its rows are sent under that token once more, so that the joint insert can no
//! longer come after it, and then the table is asked what it lacks (`insert.rs`).
//!
//! Whoever goes on alone may use up the token with its own rows, and whatever comes under
//! it after that is dropped as if it were there. Hence the answer to an insert is believed
//! only while every member is still here: a partition is given up once its writer is done,
//! and a writer is done when it has heard of the outcome, or no longer listens.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use outpour_schemas::mutants::{self, Mutant};
use rdkafka::error::KafkaError;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use twox_hash::XxHash3_128;

use super::{Commit, Edges, MAX_DELAY, Offsets, TOKENS_TRUSTED_FOR, backoff};
use crate::{
    batch::{Insert, RowOffsets, Sealed},
    block,
    budget::Held,
    dead_letter::DeadLetters,
    decode::Mapping,
    metrics,
    plan::{self, Plan},
    sink::{Class, Inquiry, Sink},
    source::TopicPartition,
    trace::{Attempt, TraceContext},
};

/// After so many attempts without an answer, of a server that answers questions, each
/// partition goes on by itself.
const UNANSWERED: u32 = 3;

/// A writer's place in an insert. One that is not taken is not waited for.
#[derive(Debug)]
pub(crate) struct Seat(mpsc::UnboundedSender<Member>);

/// A batch that takes part.
#[derive(Debug)]
pub(super) struct Member {
    partition: TopicPartition,
    plan: Plan,
    inserts: Vec<Insert>,
    trace: Option<TraceContext>,
    stop: CancellationToken,
    outcome: oneshot::Sender<Outcome>,
}

/// What came of it for one member.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its rows are stored, by these attempts.
    Stored(Vec<Attempt>),
    /// Nobody else came, and nothing was planned.
    Alone,
    /// It goes on alone. Its plan is committed, whether its rows are stored is open.
    Apart(Plan),
    NotPlanned(KafkaError),
}

impl Seat {
    /// Has `batch` take part. What is received says what came of it.
    pub(super) fn take(
        self,
        partition: &TopicPartition,
        plan: Plan,
        batch: &Sealed,
        stop: &CancellationToken,
    ) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        let member = Member {
            partition: partition.clone(),
            plan,
            inserts: batch.inserts.clone(),
            trace: batch.trace,
            stop: stop.clone(),
            outcome,
        };
        // Who would listen waits for this seat, too.
        self.0.send(member).ok();
        receiver
    }
}

/// Seats for so many writers, and a task that inserts for those who take them. Their batches
/// are put together under what `held` counts.
pub(crate) fn convene<S: Sink, D: DeadLetters, O: Offsets>(
    runtime: &Handle,
    edges: &Arc<Edges<S, D, O>>,
    seats: usize,
    held: Held,
) -> Vec<Seat> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let edges = Arc::clone(edges);
    runtime.spawn(async move {
        let mut members = Vec::with_capacity(seats);
        while let Some(member) = receiver.recv().await {
            members.push(member);
        }
        Joint { edges, members }.run().await;
        drop(held);
    });
    std::iter::repeat_n(sender, seats).map(Seat).collect()
}

struct Joint<S, D, O> {
    edges: Arc<Edges<S, D, O>>,
    members: Vec<Member>,
}

impl<S: Sink, D: DeadLetters, O: Offsets> Joint<S, D, O> {
    async fn run(mut self) {
        let (leaving, staying) =
            self.members.into_iter().partition(|member| member.stop.is_cancelled());
        Joint { edges: Arc::clone(&self.edges), members: leaving }.tell(|_| Outcome::Alone);
        self.members = staying;
        if self.members.len() < 2 {
            self.tell(|_| Outcome::Alone);
            return;
        }
        let Some((commits, inserts)) = self.prepare() else {
            debug_assert!(false, "plans fit, and blocks of one mapping have its columns");
            self.tell(|_| Outcome::Alone);
            return;
        };
        if let Err(error) = self.edges.offsets.commit(commits).await {
            self.tell(|_| Outcome::NotPlanned(error.clone()));
            return;
        }
        self.members.iter().for_each(|member| self.edges.monitor.planned(&member.partition));
        let mut attempts = Vec::new();
        for insert in &inserts {
            match self.store(insert).await {
                Some(attempt) => attempts.push(attempt),
                None => {
                    self.tell(|plan| Outcome::Apart(plan.clone()));
                    return;
                }
            }
        }
        self.tell(|_| Outcome::Stored(attempts.clone()));
    }

    /// Has the plans name all of them. What is to be committed, and inserted.
    fn prepare(&mut self) -> Option<(Vec<Commit>, Vec<Insert>)> {
        let mut all = XxHash3_128::new();
        for Member { partition, plan, .. } in &self.members {
            all.write(partition.topic.as_bytes());
            all.write(&[0]);
            all.write(&partition.partition.to_le_bytes());
            all.write(&plan.start.to_le_bytes());
            all.write(&plan.end.to_le_bytes());
            all.write(plan.content.as_bytes());
        }
        let name = format!("{:032x}", all.finish_128());
        let mut commits = Vec::with_capacity(self.members.len());
        for Member { partition, plan, .. } in &mut self.members {
            *plan = plan.clone().joining(&name);
            let metadata = match mutants::active(Mutant::NoPlan) {
                true => plan::STORED.to_owned(),
                false => plan.metadata().ok()?,
            };
            let (partition, offset) = (partition.clone(), plan.start);
            commits.push(Commit { partition, offset, metadata });
        }
        Some((commits, together(&self.members)?))
    }

    /// The attempt that stored it; `None` if that is not known, and nothing more is tried.
    async fn store(&self, insert: &Insert) -> Option<Attempt> {
        let plan = &self.members.first()?.plan;
        let partition = &self.members.first()?.partition;
        let table = &insert.mapping.table;
        let trace = self.members.iter().find_map(|member| member.trace);
        let trusted_until = tokio::time::Instant::now() + TOKENS_TRUSTED_FOR;
        let (mut delays, mut inquiry) = (backoff(), Inquiry::default());
        let (mut attempts, mut unanswered) = (0_u64, 0);
        loop {
            attempts += 1;
            if !self.is_whole() {
                return None;
            }
            let (attempt, began) = (Attempt::new(trace), Instant::now());
            let token = plan.first_token(&self.edges.cluster, partition, insert.mapping.target());
            let token = self.edges.sent(token, &attempt);
            let error = match self.edges.sink.insert(insert, &token, &attempt).await {
                // Else somebody may have used the token for less.
                Ok(()) if self.is_whole() => {
                    metrics::inserted(table, insert.rows, insert.byte_size(), began.elapsed());
                    return Some(attempt);
                }
                Ok(()) => return None,
                Err(error) => error,
            };
            let (query_id, trace_id) = (attempt.query_id(), attempt.trace_id());
            let class = inquiry.judge(&self.edges.sink, &insert.mapping, &error).await;
            metrics::insert_failed(table, class);
            for member in &self.members {
                self.edges.monitor.troubled(&member.partition, &error);
            }
            let partitions = self.members.len();
            unanswered = if error.code.is_none() { unanswered + 1 } else { 0 };
            match class {
                Class::Data | Class::SchemaDrift => {
                    tracing::warn!(
                        partitions, %table, rows = insert.rows, query_id, trace_id,
                        class = class.as_str(), %error,
                        "insert of several partitions refused; inserting each by itself"
                    );
                    return None;
                }
                // The table has the rows, and a view by now.
                Class::Configuration if error.is_of_a_view() => return None,
                Class::Transient | Class::Unclear => tracing::warn!(
                    partitions, %table, rows = insert.rows, query_id, trace_id,
                    class = class.as_str(), attempts, %error, "insert failed; trying again"
                ),
                Class::Configuration => tracing::error!(
                    partitions, %table, rows = insert.rows, query_id, trace_id,
                    class = class.as_str(), attempts, %error, "insert refused; somebody has to act"
                ),
            }
            loop {
                if !self.pause(delays.next()).await || tokio::time::Instant::now() > trusted_until {
                    return None;
                }
                match self.edges.remembers(&insert.mapping, plan).await {
                    // It answers others: the rows of one may be what takes so long.
                    Ok(true) if unanswered >= UNANSWERED => return None,
                    Ok(true) => break,
                    Ok(false) => return None,
                    Err(error) => {
                        metrics::insert_failed(table, Class::Transient);
                        tracing::warn!(partitions, %table, %error, "asking which inserts the table remembers failed; trying again");
                    }
                }
            }
        }
    }

    /// Whether every member still waits for the outcome.
    fn is_whole(&self) -> bool {
        self.members.iter().all(|member| !member.outcome.is_closed())
    }

    /// Waits; `false` if a member was told to stop meanwhile.
    async fn pause(&self, delay: Option<Duration>) -> bool {
        let stops = self.members.iter().map(|member| Box::pin(member.stop.cancelled()));
        tokio::select! {
            biased;
            _ = select_all(stops) => false,
            () = tokio::time::sleep(delay.unwrap_or(MAX_DELAY)) => true,
        }
    }

    fn tell(self, outcome: impl Fn(&Plan) -> Outcome) {
        for member in self.members {
            // Who does not listen any more leaves its plan to the next owner.
            member.outcome.send(outcome(&member.plan)).ok();
        }
    }
}

/// The rows of all members, an insert for each route that has any. `None` if they are not
/// of one kind.
fn together(members: &[Member]) -> Option<Vec<Insert>> {
    let mut by_route: BTreeMap<usize, Vec<&Insert>> = BTreeMap::new();
    for insert in members.iter().flat_map(|member| &member.inserts) {
        by_route.entry(insert.mapping.index()).or_default().push(insert);
    }
    by_route.into_values().map(|inserts| put_together(&inserts)).collect()
}

fn put_together(inserts: &[&Insert]) -> Option<Insert> {
    let mapping: &Arc<Mapping> = &inserts.first()?.mapping;
    let bodies: Vec<_> = inserts.iter().map(|insert| insert.body.as_slice()).collect();
    let body = block::concat(&mapping.columns, &bodies)?;
    Some(Insert {
        mapping: Arc::clone(mapping),
        rows: inserts.iter().map(|insert| insert.rows).sum(),
        body: vec![body],
        // They are those of several partitions.
        offsets: RowOffsets::default(),
    })
}
