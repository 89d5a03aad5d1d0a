//! One insert of a planned batch, until it is stored.
//!
//! ```text
//! whole, under its token ───────────────────────────────────▶ stored
//! again or missing, under the range's first token ─▶ rest ─▶ stored
//!               those of other partitions, too: own ─▶ rest ─▶ stored
//! in parts: proof.rs ──────────────────────────────▶ rest ─▶ stored
//! ```
//!
//! A range that somebody has planned otherwise is sent again under the token of its
//! first plan: ClickHouse drops what it has, whichever comes second, and a view that
//! has missed it gets it. What the first insert did not have is found by asking the
//! table: rows of an event type that was added to the route since. Hence the rest.
//! Where that token may be forgotten, or was never used, the table is asked at once.

use std::time::Instant;

use jiff::Timestamp;
use outpour_schemas::mutants::{self, Mutant};

use super::{
    Offsets, TOKENS_TRUSTED_FOR, WriteError, Writer, backoff,
    proof::{self, PartsStored, Proof},
};
use crate::{
    batch::{Insert, Sealed},
    dead_letter::DeadLetters,
    metrics,
    plan::Plan,
    sink::{Class, Inquiry, Part, Sink, SinkError},
    trace::Attempt,
};

/// What is sent of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// All of its rows: ClickHouse knows the token, if it has them.
    Whole,
    /// All of its rows, under the token of the range's first plan.
    Again,
    /// Part by part, since some are refused.
    Parts,
    /// What the table does not have.
    Missing,
    /// What it does not have of the partition since others used the first token.
    Own,
    /// What the table does not have even then.
    Rest,
}

impl Step {
    fn first(plan: &Plan, insert: &Insert, batch: &Sealed) -> Self {
        // Of a joint insert the table is asked: if it cannot be by now, that takes somebody.
        let can_ask = insert.mapping.has_provenance() || plan.is_joint();
        if !plan.by_provenance || !can_ask {
            return Step::Whole;
        }
        // Where somebody moved the offset, other tokens than the first are at work.
        let is_known = plan.first.is_some() && !plan.was_moved && proof::is_trusted(plan);
        match PartsStored::of(insert, batch, plan) {
            PartsStored::UpTo(_) => Step::Parts,
            PartsStored::NoneYet if is_known => Step::Again,
            PartsStored::NoneYet | PartsStored::Unknown => Step::Missing,
        }
    }

    /// After this one. A first token that was never used before has kept nothing out.
    fn next(self, plan: &Plan) -> Option<Self> {
        if plan.is_joint() && matches!(self, Step::Again | Step::Missing) {
            return (!mutants::active(Mutant::RestLeftOut)).then_some(Step::Own);
        }
        let has_rest = matches!(self, Step::Again | Step::Parts | Step::Missing | Step::Own);
        let has_rest = has_rest && plan.first.is_some();
        (has_rest && !mutants::active(Mutant::RestLeftOut)).then_some(Step::Rest)
    }

    /// Whether it rests on ClickHouse's remembering a token of an earlier attempt.
    fn needs_the_token(self) -> bool {
        matches!(self, Step::Whole | Step::Again)
    }
}

impl<S: Sink, D: DeadLetters, O: Offsets> Writer<S, D, O> {
    /// The attempt that stored it; `None` if it was told to stop before.
    pub(super) async fn insert(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &mut Plan,
    ) -> Result<Option<Attempt>, WriteError> {
        let trusted_until = tokio::time::Instant::now()
            + TOKENS_TRUSTED_FOR.saturating_sub(plan.age_at(Timestamp::now()));
        let mut delays = backoff();
        let mut attempts = 0_u64;
        let mut step = Step::first(plan, insert, batch);
        let mut refusal = None;
        let mut inquiry = Inquiry::default();
        loop {
            attempts += 1;
            let began = Instant::now();
            let attempt = Attempt::new(batch.trace);
            let table = &insert.mapping.table;
            let outcome = if step == Step::Parts {
                match self.prove(insert, batch, plan, refusal.take()).await? {
                    Proof::Stored => Ok(()),
                    Proof::Stopped => return Ok(None),
                    Proof::Refused(refused) => return Err(refused),
                }
            } else {
                self.send(step, insert, plan, &attempt).await
            };
            let error = match outcome {
                Ok(()) => match step.next(plan) {
                    Some(next) => {
                        step = next;
                        continue;
                    }
                    None => {
                        metrics::inserted(table, insert.rows, insert.byte_size(), began.elapsed());
                        if attempts > 1 {
                            tracing::info!(partition = %self.partition, %table, attempts, "insert succeeded");
                        }
                        return Ok(Some(attempt));
                    }
                },
                Err(error) => error,
            };
            let (query_id, trace_id) = (attempt.query_id(), attempt.trace_id());
            let class = inquiry.judge(&self.edges.sink, &insert.mapping, &error).await;
            metrics::insert_failed(table, class);
            self.edges.monitor.troubled(&self.partition, &error);
            match class {
                Class::Data if mutants::active(Mutant::RefusedIsDone) => return Ok(Some(attempt)),
                _ if attempts >= 5 && mutants::active(Mutant::InsertGivenUp) => {
                    return Ok(Some(attempt));
                }
                Class::SchemaDrift => {
                    let table = table.to_string();
                    return Err(WriteError::SchemaDrift { table, source: error });
                }
                Class::Data if insert.mapping.has_provenance() => {
                    tracing::warn!(
                        partition = %self.partition, %table, rows = insert.rows, query_id, trace_id,
                        %error, "insert refused for what is in it; finding the rows one by one"
                    );
                    step = Step::Parts;
                    refusal = Some(error);
                    continue;
                }
                Class::Transient | Class::Unclear => tracing::warn!(
                    partition = %self.partition, %table, rows = insert.rows, query_id, trace_id,
                    class = class.as_str(), attempts, %error, "insert failed; trying again"
                ),
                // Without provenance nothing tells one row from another.
                Class::Data | Class::Configuration => tracing::error!(
                    partition = %self.partition, %table, rows = insert.rows, query_id, trace_id,
                    class = class.as_str(), attempts, %error, "insert refused; somebody has to act"
                ),
            }
            if !self.pause(delays.next()).await {
                return Ok(None);
            }
            if !step.needs_the_token() || !insert.mapping.has_provenance() {
                continue;
            }
            let is_old = tokio::time::Instant::now() > trusted_until;
            let is_forgotten = match is_old {
                true => plan.is_forgotten,
                false => match self.remembers(&insert.mapping, plan).await {
                    Some(remembers) => !remembers,
                    None => return Ok(None),
                },
            };
            if is_old || is_forgotten {
                // One of the attempts may be stored, and its token forgotten by now.
                metrics::asked_for_provenance();
                *plan = Plan { is_forgotten, ..plan.asking() };
                self.commit(batch.start, plan.metadata()?).await?;
                step = Step::Missing;
            }
        }
    }

    /// Sends it once.
    async fn send(
        &self,
        step: Step,
        insert: &Insert,
        plan: &Plan,
        attempt: &Attempt,
    ) -> Result<(), SinkError> {
        let sink = &self.edges.sink;
        let (cluster, target) = (&self.edges.cluster, insert.mapping.target());
        let token = match step {
            Step::Again | Step::Missing if mutants::active(Mutant::FirstTokenForgotten) => {
                plan.token(cluster, &self.partition, target)
            }
            Step::Whole => plan.token(cluster, &self.partition, target),
            Step::Again | Step::Missing => plan.first_token(cluster, &self.partition, target),
            Step::Own => plan.own_token(cluster, &self.partition, target),
            Step::Rest | Step::Parts => plan.rest_token(cluster, &self.partition, target),
        };
        let token = self.edges.sent(token, attempt);
        if step.needs_the_token() {
            sink.insert(insert, &token, attempt).await
        } else {
            let range = plan.start..plan.end;
            let part = Part { partition: &self.partition, range, token, is_asked: true };
            // All members of a joint insert may ask at once, and it may be a large table.
            let _permit = self.edges.asking.acquire().await;
            sink.insert_part(insert, part, attempt).await
        }
    }
}
