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
//!
//! A row is parked if it is refused by itself while the table takes inserts. What is
//! said of the state of a server may be over by then, or not, and what is not said of a
//! value may be the table's (a dictionary that is gone): such a row is parked if the table
//! has taken others of its batch meanwhile, and waits if it has not.

use std::ops::Range;

use jiff::Timestamp;

use super::{
    Offsets, Refusals, TOKENS_TRUSTED_FOR, WriteError, Writer, backoff, bisection::Bisection,
};
use crate::{
    batch::{Insert, Sealed},
    dead_letter::DeadLetters,
    decode::Rejection,
    metrics,
    plan::{Plan, Search},
    sink::{Class, Inquiry, Part, Sink, SinkError},
    trace::Attempt,
};

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

/// A part that is tried.
#[derive(Debug)]
struct Trial {
    range: Range<i64>,
    /// Whether the table is asked what it has of it.
    is_asked: bool,
    /// What others of the same rows were refused with.
    code: Option<u32>,
}

/// What came of a part.
#[derive(Debug)]
enum Tried {
    /// It was told to stop before that was known.
    Stopped,
    Stored,
    Refused(SinkError),
}

/// What a search has found so far.
#[derive(Debug, Default)]
struct Findings {
    /// How many rows are refused, and what was said of the last.
    rows: usize,
    last: Option<SinkError>,
    /// The code of the last refusal, of one row or of several.
    code: Option<u32>,
    /// Rows that were refused for what may be the state of the server or of the table.
    doubts: Vec<i64>,
    /// Whether the table has taken rows of the batch meanwhile.
    takes_others: bool,
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
        let (mut known_from, under_way) = match PartsStored::of(insert, batch, plan) {
            PartsStored::UpTo(search) => (search.from, Some(search.to)),
            // Planned anew, and refused as a whole: no part of it was begun, or the
            // plan would say so. Of those before it, one may have been stored.
            PartsStored::NoneYet if plan.by_provenance => {
                match self.end_of_rows(&insert.mapping).await {
                    Some(until) if until <= batch.start => (batch.start, None),
                    Some(_) => (end, None),
                    None => return Ok(Proof::Stopped),
                }
            }
            PartsStored::NoneYet => {
                match self.has_some(insert, batch.start, refusal.as_ref()).await {
                    Some(false) => (batch.start, None),
                    Some(true) => (end, None),
                    None => return Ok(Proof::Stopped),
                }
            }
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
        let code = refusal.as_ref().and_then(|error| error.code);
        let suspect = refusal.and_then(|error| suspected(&(batch.start..end), &error));
        let mut parts = Bisection::new(batch.start..end, known_from, under_way, suspect);
        let mut found = Findings { code, ..Findings::default() };
        while let Some(part) = parts.next_part() {
            let is_known = part.start >= known_from && is_trusted(plan);
            let planned = Search { route, from: part.start, to: part.end };
            if is_known && plan.search != Some(planned) && !self.stop.is_cancelled() {
                plan.search = Some(planned);
                self.commit(batch.start, plan.metadata()?).await?;
            }
            let trial = Trial { range: part.clone(), is_asked: !is_known, code: found.code };
            match self.try_part(insert, batch, plan, trial).await? {
                Tried::Stopped => return Ok(Proof::Stopped),
                Tried::Stored => {
                    found.takes_others |= insert.offsets.has_any(&part);
                    parts.taken();
                }
                Tried::Refused(error) => {
                    found.code = error.code;
                    // Of what is asked for, the rows are not those of the part.
                    let suspect = is_known.then(|| suspected(&part, &error)).flatten();
                    match self.has_some(insert, part.start, Some(&error)).await {
                        Some(true) if is_known => {
                            known_from = end;
                            plan.search = Some(Search { route, from: end, to: end });
                            self.commit(batch.start, plan.metadata()?).await?;
                        }
                        Some(_) => {}
                        None => return Ok(Proof::Stopped),
                    }
                    if let Some(row) = parts.refused(suspect) {
                        self.found(insert, row, error, &mut found);
                    }
                }
            }
        }
        self.settle_doubts(insert, batch, plan, found).await
    }

    /// Whether the table has some of the rows from `from` on, though it refused them: each
    /// of its partitions is stored by itself. `None` if it was told to stop before that was
    /// known.
    async fn has_some(
        &self,
        insert: &Insert,
        from: i64,
        refusal: Option<&SinkError>,
    ) -> Option<bool> {
        // Constraints are looked at before anything is stored.
        let is_named = refusal.is_some_and(|error| error.refused_row().is_some());
        if is_named || !insert.mapping.is_partitioned() {
            return Some(false);
        }
        Some(self.end_of_rows(&insert.mapping).await? > from)
    }

    /// Notes a row that is refused by itself.
    fn found(&self, insert: &Insert, row: i64, error: SinkError, found: &mut Findings) {
        let is_doubtful = error.class() == Class::Transient || !error.is_of_a_value();
        if is_doubtful && !found.takes_others {
            found.doubts.push(row);
            return;
        }
        let rejection = Rejection::refused(&insert.mapping, &error);
        // At once: whoever is interrupted has less to find the next time.
        let refusal = [((insert.mapping.index(), row), rejection)];
        self.edges.refused.add(&self.partition, Refusals::from(refusal));
        found.rows += 1;
        found.last = Some(error);
    }

    /// Tries rows once more that may have been refused for the state of the server. One
    /// that is refused while the table takes no other waits.
    async fn settle_doubts(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &Plan,
        mut found: Findings,
    ) -> Result<Proof, WriteError> {
        let mut delays = backoff();
        while let Some(row) = found.doubts.pop() {
            let trial = Trial { range: row..row + 1, is_asked: true, code: found.code };
            match self.try_part(insert, batch, plan, trial).await? {
                Tried::Stopped => return Ok(Proof::Stopped),
                Tried::Stored => found.takes_others = true,
                Tried::Refused(error) => {
                    let table = &insert.mapping.table;
                    if !found.takes_others {
                        metrics::insert_failed(table, Class::Configuration);
                        tracing::error!(
                            partition = %self.partition, %table, offset = row, %error,
                            "row refused, and no other was taken; somebody has to act"
                        );
                        if !self.pause(delays.next()).await {
                            return Ok(Proof::Stopped);
                        }
                    }
                    self.found(insert, row, error, &mut found);
                }
            }
        }
        let Some(source) = found.last else { return Ok(Proof::Stored) };
        Ok(Proof::Refused(WriteError::Refused {
            partition: self.partition.clone(),
            table: insert.mapping.table.to_string(),
            rows: found.rows,
            source,
        }))
    }

    /// Inserts a part until it is stored or refused.
    async fn try_part(
        &self,
        insert: &Insert,
        batch: &Sealed,
        plan: &Plan,
        Trial { range, is_asked, code }: Trial,
    ) -> Result<Tried, WriteError> {
        let table = &insert.mapping.table;
        let target = insert.mapping.target();
        let token = plan.part_token(&range, &self.edges.cluster, &self.partition, target);
        let token = if is_asked { format!("{token}/missing") } else { token };
        let mut delays = backoff();
        let mut inquiry = Inquiry::of_some(code, range.end - range.start > 1);
        while !self.stop.is_cancelled() {
            let attempt = Attempt::new(batch.trace);
            let part = Part {
                partition: &self.partition,
                range: range.clone(),
                token: token.clone(),
                is_asked,
            };
            let Err(error) = self.edges.sink.insert_part(insert, part, &attempt).await else {
                return Ok(Tried::Stored);
            };
            let (query_id, trace_id) = (attempt.query_id(), attempt.trace_id());
            let class = inquiry.judge(&self.edges.sink, &insert.mapping, &error).await;
            match class {
                Class::Data => return Ok(Tried::Refused(error)),
                Class::SchemaDrift => {
                    let table = table.to_string();
                    return Err(WriteError::SchemaDrift { table, source: error });
                }
                Class::Transient | Class::Unclear => tracing::warn!(
                    partition = %self.partition, %table, query_id, trace_id, %error,
                    "insert failed; trying again"
                ),
                Class::Configuration => tracing::error!(
                    partition = %self.partition, %table, query_id, trace_id, %error,
                    "insert refused; somebody has to act"
                ),
            }
            metrics::insert_failed(table, class);
            self.edges.monitor.troubled(&self.partition, &error);
            if !self.pause(delays.next()).await {
                break;
            }
        }
        Ok(Tried::Stopped)
    }
}

/// Whether ClickHouse is sure to know what was inserted under the plan, as far as the
/// plan tells.
pub(super) fn is_trusted(plan: &Plan) -> bool {
    !plan.is_forgotten && plan.age_at(Timestamp::now()) <= TOKENS_TRUSTED_FOR
}
