//! Which rows of an insert ClickHouse refuses: row by row, since one refusal
//! says nothing about the rest.
//!
//! ```text
//! insert refused ─▶ plan says: by provenance ─▶ halves, and halves of what is refused ─▶ offsets
//!                                                    │ accepted: stored
//! ```
//!
//! The server takes the range out of the same bytes by the offsets in them, and
//! leaves out what the table has: whatever is done twice changes nothing. What
//! is found is remembered beyond the session; the range is read again, and then
//! the rows are parked as they are encoded.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Offsets, WriteError, Writer, backoff};
use crate::{
    batch::{Insert, Sealed},
    dead_letter::DeadLetters,
    decode::Rejection,
    plan::Plan,
    sink::{Class, Missing, Sink, SinkError},
    source::TopicPartition,
    trace::Attempt,
};

/// Rows that are refused, by the route that made them and their offset.
pub(crate) type Refusals = HashMap<(usize, i64), Rejection>;

/// What has been found, by partition. It outlives a session and not a process:
/// who does not know it finds it anew.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<HashMap<TopicPartition, Refusals>>);

impl Refused {
    fn all(&self) -> MutexGuard<'_, HashMap<TopicPartition, Refusals>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, partition: &TopicPartition) -> Refusals {
        self.all().get(partition).cloned().unwrap_or_default()
    }

    fn add(&self, partition: &TopicPartition, found: Refusals) {
        self.all().entry(partition.clone()).or_default().extend(found);
    }

    /// Everything before `end` is stored or parked.
    pub(super) fn forget(&self, partition: &TopicPartition, end: i64) {
        if let Some(found) = self.all().get_mut(partition) {
            found.retain(|(_, offset), _| *offset >= end);
        }
    }
}

impl<S: Sink, D: DeadLetters, O: Offsets> Writer<S, D, O> {
    /// Stores the rows of `insert` that the table takes, and says which it does
    /// not, as the error that starts the partition over. `None` if it was told to
    /// stop before all was known.
    pub(super) async fn prove(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &Plan,
        error: SinkError,
    ) -> Result<Option<WriteError>, WriteError> {
        let table = &insert.mapping.table;
        let mut plan = plan.clone();
        if !plan.by_provenance {
            // From here on parts of it are stored that its token does not stand for.
            plan = plan.asking();
            self.commit(batch.start, plan.metadata()?).await?;
        }
        let target = insert.mapping.target();
        let token = plan.first_token(&self.edges.cluster, &self.partition, &target);
        let mut rows = 0;
        let mut open = halves(&(batch.start..batch.end));
        let mut delays = backoff();
        while let Some(range) = open.pop() {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let attempt = Attempt::new(batch.trace);
            let sink = &self.edges.sink;
            // Whoever has to find it anew comes to the same halves.
            let token = format!("{token}/{}-{}", range.start, range.end);
            let missing = Missing { partition: &self.partition, range: range.clone(), token };
            let inserting = sink.insert_missing(insert, missing, &attempt);
            let Err(error) = inserting.await else { continue };
            match error.class() {
                Class::Data if range.end - range.start == 1 => {
                    let rejection = Rejection::refused(&insert.mapping, &error);
                    // At once: whoever is interrupted has less to find the next time.
                    let found = [((insert.mapping.index(), range.start), rejection)];
                    self.edges.refused.add(&self.partition, Refusals::from(found));
                    rows += 1;
                }
                Class::Data => open.extend(halves(&range)),
                Class::SchemaDrift => {
                    let table = table.to_string();
                    return Err(WriteError::SchemaDrift { table, source: error });
                }
                Class::Transient | Class::Configuration => {
                    self.edges.monitor.troubled(&self.partition, &error);
                    tracing::warn!(
                        partition = %self.partition, %table, query_id = attempt.query_id(),
                        trace_id = attempt.trace_id(), %error, "insert failed; trying again"
                    );
                    open.push(range);
                    if !self.pause(delays.next()).await {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(WriteError::Refused {
            partition: self.partition.clone(),
            table: table.to_string(),
            rows,
            source: error,
        }))
    }
}

/// The two halves of a range, the first one last, to be taken first; a single
/// offset is its own half.
fn halves(range: &Range<i64>) -> Vec<Range<i64>> {
    if range.end - range.start == 1 {
        return vec![range.clone()];
    }
    let middle = range.start + (range.end - range.start) / 2;
    vec![middle..range.end, range.start..middle]
}
