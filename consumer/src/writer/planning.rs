//! The plan of a batch, with its letters: made anew, or taken over from whoever had
//! the partition before.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use outpour_schemas::{
    invariants,
    mutants::{self, Mutant},
};

use super::{Offsets, TOKENS_TRUSTED_FOR, WriteError, Writer, backoff};
use crate::{
    batch::{Insert, Sealed},
    dead_letter::{DeadLetters, ParkError},
    decode::Mapping,
    metrics,
    plan::{self, Plan},
    sink::{Class, Sink},
};

impl<S: Sink, D: DeadLetters, O: Offsets> Writer<S, D, O> {
    /// The plan of `batch`, committed. One that was found at the start is taken
    /// over if its token can be relied on: the same content, and recent. `None` if
    /// it was told to stop before.
    pub(super) async fn planned(
        &mut self,
        batch: &Sealed,
        now: Timestamp,
    ) -> Result<Option<Plan>, WriteError> {
        let found = self.open.take().filter(|plan| plan.start == batch.start);
        let mut is_forgotten = false;
        let by_provenance = match &found {
            None if self.was_moved => match self.may_be_there(batch).await {
                Some(may_be_there) => may_be_there,
                None => return Ok(None),
            },
            None => false,
            Some(found) => {
                let age = found.age_at(now);
                let is_young = age <= TOKENS_TRUSTED_FOR;
                is_forgotten = match self.is_forgotten(batch, found, is_young).await {
                    Some(is_forgotten) => is_forgotten,
                    None => return Ok(None),
                };
                let trusted = is_young && !is_forgotten;
                let same = found.content == batch.content;
                if same && trusted && !found.by_provenance && batch.parked.is_empty() {
                    return Ok(Some(found.clone()));
                }
                metrics::asked_for_provenance();
                tracing::warn!(
                    partition = %self.partition, start = batch.start, end = batch.end, same, age_s = age.as_secs(),
                    "the outcome of a plan is open; asking the tables which rows are missing"
                );
                !mutants::active(Mutant::NoProvenance)
            }
        };
        let new = Plan { by_provenance, is_forgotten, ..self.new_plan(batch, now) };
        let plan = match found {
            None => new,
            Some(found) => Plan {
                version: found.version,
                first: Some(found.name()),
                search: found.search,
                // The first token is as old as the first plan.
                planned_at_ms: found.planned_at_ms,
                ..new
            },
        };
        debug_assert!(
            invariants::begins_at(&(plan.start..plan.end), &self.settled),
            "I6: the plan of {}-{} leaves out what is not settled from {} on",
            plan.start,
            plan.end,
            self.settled
        );
        let metadata = match mutants::active(Mutant::NoPlan) {
            true => plan::STORED.to_owned(),
            false => plan.metadata()?,
        };
        let is_planned = if batch.parked.is_empty() {
            self.commit(batch.start, metadata).await?;
            true
        } else {
            self.refused_by_what_is(batch).await?;
            self.park(batch, metadata).await?
        };
        Ok(is_planned.then_some(plan))
    }

    /// That of a range of which nothing was planned before.
    pub(super) fn new_plan(&self, batch: &Sealed, now: Timestamp) -> Plan {
        Plan {
            version: plan::VERSION,
            owner: self.edges.owner.clone(),
            start: batch.start,
            end: batch.end,
            rows: batch.rows(),
            rejected: batch.rejected.clone(),
            content: batch.content.clone(),
            by_provenance: false,
            first: None,
            is_forgotten: false,
            was_moved: self.was_moved,
            search: None,
            planned_at_ms: now.as_millisecond(),
            frame: self.frame.clone(),
        }
    }

    /// Whether a table may have rows of the batch, since the group's offset was
    /// moved. `None` if it was told to stop before that was known.
    async fn may_be_there(&mut self, batch: &Sealed) -> Option<bool> {
        let until = match self.there_until {
            Some(until) => until,
            None => *self.there_until.insert(self.ask_how_far().await?),
        };
        self.was_moved = batch.start < until;
        Some(self.was_moved)
    }

    /// Whether a table may have forgotten what was inserted under `plan`, for other
    /// reasons than its age. `None` if it was told to stop before that was known.
    async fn is_forgotten(&self, batch: &Sealed, plan: &Plan, is_young: bool) -> Option<bool> {
        if plan.is_forgotten || !is_young {
            return Some(plan.is_forgotten);
        }
        let with_provenance = |insert: &&Insert| insert.mapping.has_provenance();
        for insert in batch.inserts.iter().filter(with_provenance) {
            if !self.remembers(&insert.mapping, plan).await? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether the table still knows by their tokens what was inserted since `plan`
    /// was made. `None` if it was told to stop before that was known.
    pub(super) async fn remembers(&self, mapping: &Mapping, plan: &Plan) -> Option<bool> {
        let table = &mapping.table;
        let mut delays = backoff();
        loop {
            let error = match self.edges.remembers(mapping, plan).await {
                Ok(remembers) => return Some(remembers),
                Err(error) => error,
            };
            self.edges.monitor.troubled(&self.partition, &error);
            metrics::insert_failed(table, Class::Transient);
            tracing::warn!(partition = %self.partition, %table, %error, "asking which inserts the table remembers failed; trying again");
            if !self.pause(delays.next()).await {
                return None;
            }
        }
    }

    /// One past the highest offset that any of the tables has.
    async fn ask_how_far(&self) -> Option<i64> {
        let mut until = 0;
        for mapping in self.targets.iter().filter(|mapping| mapping.has_provenance()) {
            until = until.max(self.end_of_rows(mapping).await?);
        }
        tracing::info!(
            partition = %self.partition, until,
            "the group's offset was moved; what the tables have before {until} is left out"
        );
        Some(until)
    }

    /// One past the highest offset of the partition that the table of `mapping` has.
    /// `None` if it was told to stop before that was known.
    pub(super) async fn end_of_rows(&self, mapping: &Mapping) -> Option<i64> {
        let mut delays = backoff();
        loop {
            match self.edges.sink.last_offset(mapping, &self.partition).await {
                Ok(last) => return Some(last.map_or(0, |last| last + 1)),
                Err(error) => {
                    let table = &mapping.table;
                    self.edges.monitor.troubled(&self.partition, &error);
                    tracing::warn!(partition = %self.partition, %table, %error, "asking for the last offset failed; trying again");
                }
            }
            if !self.pause(delays.next()).await {
                return None;
            }
        }
    }

    /// Makes sure that what is rejected does not fit the tables as they are now. Where
    /// that cannot be asked, they are taken for what they were.
    async fn refused_by_what_is(&self, batch: &Sealed) -> Result<(), WriteError> {
        /// Letters do not wait for a ClickHouse that stands still.
        const PATIENCE: Duration = Duration::from_secs(5);
        let refuses = |mapping: &&Arc<Mapping>| {
            batch.parked.iter().any(|letter| letter.route == Some(mapping.index()))
        };
        for mapping in self.targets.iter().filter(refuses) {
            let table = &mapping.table;
            let asking = self.edges.sink.has_changed(mapping);
            match tokio::time::timeout(PATIENCE, asking).await {
                Ok(Ok(true)) => {
                    return Err(WriteError::RefusedByWhatWas { table: table.to_string() });
                }
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%table, %error, "cannot look at the table"),
            }
        }
        Ok(())
    }

    /// Parks what was rejected, together with the plan, for as long as it takes:
    /// nothing is dropped. `false` if it was told to stop before.
    async fn park(&self, batch: &Sealed, plan: String) -> Result<bool, WriteError> {
        for letter in &batch.parked {
            tracing::warn!(
                partition = %self.partition, offset = letter.offset,
                table = %letter.rejection.table, reason = letter.rejection.reason,
                error = letter.rejection.error, "record parked"
            );
        }
        let mut delays = backoff();
        loop {
            let offset = batch.start;
            let outcome =
                self.edges.dead_letters.park(&self.partition, &batch.parked, offset, &plan);
            match outcome.await {
                Ok(()) => return Ok(true),
                Err(ParkError::InDoubt(source)) => {
                    return Err(WriteError::Commit {
                        partition: self.partition.clone(),
                        offset,
                        source,
                    });
                }
                Err(ParkError::NotWritten(error)) => {
                    self.edges.monitor.troubled(&self.partition, &error);
                    tracing::error!(partition = %self.partition, %error, "dead letters cannot be written; waiting");
                }
            }
            if !self.pause(delays.next()).await {
                return Ok(false);
            }
        }
    }
}
