//! Which rows of an insert ClickHouse refuses: part by part, since one refusal says
//! nothing about the rest.
//!
//! Which part comes next, [`Bisection`] says. A row that ClickHouse names (a
//! constraint) is tried first: what is before it, the row, and all that follows.
//!
//! The server takes a part out of the same bytes, by the offsets in them. What is
//! found is remembered beyond the session; the range is read again, and then the rows
//! are parked as they are encoded.
//!
//! A part is what it is to whoever comes next, too: its bounds are in the plan, its
//! token is its own. Were the table asked instead what it has, a view that has missed
//! a part, because the server died between the two, would miss it for ever. The table
//! is asked where that is settled: in what lies before the part under way, and where
//! it is not known who has stored what, and the table has something of the range.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::{Offsets, TOKENS_TRUSTED_FOR, WriteError, Writer, backoff, bisection::Bisection};
use crate::{
    batch::{Insert, Sealed},
    dead_letter::DeadLetters,
    decode::Rejection,
    plan::{Plan, Search},
    sink::{Class, Part, Sink, SinkError},
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

/// What is known of the parts that may have been stored of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartsStored {
    /// How far the search has come that is under way in it.
    UpTo(Search),
    /// None were.
    NoneYet,
    Unknown,
}

impl PartsStored {
    pub(super) fn of(insert: &Insert, batch: &Sealed, plan: &Plan) -> Self {
        let route = insert.mapping.id();
        let Some(search) = plan.search else { return PartsStored::NoneYet };
        if search.route == route {
            return PartsStored::UpTo(search);
        }
        let in_order = batch.inserts.iter().map(|insert| insert.mapping.id());
        let is_before = in_order.take_while(|id| *id != route).any(|id| id == search.route);
        // Inserts are searched in their order, so that a search in one before means
        // that this was not begun, unless that one began with parts of which nobody
        // knew: it may then have replaced a search in this.
        match is_before && search.from < batch.end {
            true => PartsStored::NoneYet,
            false => PartsStored::Unknown,
        }
    }
}

/// What a search has come to.
#[derive(Debug)]
pub(super) enum Proof {
    /// It was told to stop before all was known.
    Stopped,
    /// Every row was taken.
    Stored,
    /// The partition has to be read again.
    Refused(WriteError),
}

impl<S: Sink, D: DeadLetters, O: Offsets> Writer<S, D, O> {
    /// Stores the rows of `insert` that the table takes, and finds out which it does
    /// not. `plan` says how far somebody has come with that already, `refusal` what was
    /// said of the whole.
    pub(super) async fn prove(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &mut Plan,
        refusal: Option<SinkError>,
    ) -> Result<Proof, WriteError> {
        let route = insert.mapping.id();
        let end = batch.end;
        // From where on nothing is stored but what the plan says.
        let (known_from, under_way) = match PartsStored::of(insert, batch, plan) {
            PartsStored::UpTo(search) => (search.from, Some(search.to)),
            PartsStored::NoneYet if !plan.by_provenance => (batch.start, None),
            // Planned anew, and refused as a whole: no part of it was begun, or the
            // plan would say so. Of those before it, one may have been stored.
            PartsStored::NoneYet => match self.end_of_rows(&insert.mapping).await {
                Some(until) if until <= batch.start => (batch.start, None),
                Some(_) => (end, None),
                None => return Ok(Proof::Stopped),
            },
            PartsStored::Unknown => (end, None),
        };
        if under_way.is_none() {
            // What is stored from here on its first token does not stand for.
            *plan = plan.asking();
            plan.search = (known_from == end).then_some(Search { route, from: end, to: end });
            if plan.search.is_some() {
                self.commit(batch.start, plan.metadata()?).await?;
            }
        }
        let suspected = |range: &Range<i64>, error: &SinkError| {
            insert.offsets.of_row(range, error.refused_row()?)
        };
        let suspect = refusal.and_then(|error| suspected(&(batch.start..end), &error));
        let mut parts = Bisection::new(batch.start..end, known_from, under_way, suspect);
        let mut refused: Option<(usize, SinkError)> = None;
        while !self.stop.is_cancelled() {
            let Some(part) = parts.next_part() else { return Ok(self.outcome(insert, refused)) };
            let is_known = part.start >= known_from && is_trusted(plan);
            let planned = Search { route, from: part.start, to: part.end };
            if is_known && plan.search != Some(planned) {
                plan.search = Some(planned);
                self.commit(batch.start, plan.metadata()?).await?;
            }
            match self.try_part(insert, batch, plan, (part.clone(), !is_known)).await? {
                None => break,
                Some(Ok(())) => parts.taken(),
                Some(Err(error)) => {
                    // Of what is asked for, the rows are not those of the part.
                    let suspect = is_known.then(|| suspected(&part, &error)).flatten();
                    let Some(row) = parts.refused(suspect) else { continue };
                    let rejection = Rejection::refused(&insert.mapping, &error);
                    // At once: whoever is interrupted has less to find the next time.
                    let found = [((insert.mapping.index(), row), rejection)];
                    self.edges.refused.add(&self.partition, Refusals::from(found));
                    refused = Some((refused.map_or(1, |(rows, _)| rows + 1), error));
                }
            }
        }
        Ok(Proof::Stopped)
    }

    fn outcome(&self, insert: &Insert, refused: Option<(usize, SinkError)>) -> Proof {
        match refused {
            None => Proof::Stored,
            Some((rows, source)) => Proof::Refused(WriteError::Refused {
                partition: self.partition.clone(),
                table: insert.mapping.table.to_string(),
                rows,
                source,
            }),
        }
    }

    /// Inserts a part until it is stored or refused; `None` if it was told to stop
    /// before.
    async fn try_part(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &Plan,
        (range, is_asked): (Range<i64>, bool),
    ) -> Result<Option<Result<(), SinkError>>, WriteError> {
        let table = &insert.mapping.table;
        let target = insert.mapping.target();
        let token = plan.part_token(&range, &self.edges.cluster, &self.partition, target);
        let token = if is_asked { format!("{token}/missing") } else { token };
        let mut delays = backoff();
        loop {
            let attempt = Attempt::new(batch.trace);
            let part = Part {
                partition: &self.partition,
                range: range.clone(),
                token: token.clone(),
                is_asked,
            };
            let Err(error) = self.edges.sink.insert_part(insert, part, &attempt).await else {
                return Ok(Some(Ok(())));
            };
            match error.class() {
                Class::Data => return Ok(Some(Err(error))),
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
                    if !self.pause(delays.next()).await {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// Whether ClickHouse is sure to know what was inserted under the plan, as far as the
/// plan tells.
pub(super) fn is_trusted(plan: &Plan) -> bool {
    !plan.is_forgotten && plan.age_at(Timestamp::now()) <= TOKENS_TRUSTED_FOR
}
