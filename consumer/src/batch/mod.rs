//! Records of one partition gathering into inserts. Pure; time is passed in.
//!
//! Everything is decoded and encoded here, before anything is planned, so that
//! what cannot be stored is known by then.

mod row_offsets;
mod sealed;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outpour_schemas::{config, invariants, wire};
use twox_hash::XxHash3_128;

pub(crate) use self::row_offsets::RowOffsets;
pub use self::sealed::{Insert, Parked, Sealed};
use crate::{
    block::Block,
    decode::{Mapping, Rejection},
    plan::MAX_REJECTED_BYTES,
    rejected::{Rejected, RouteId},
    replay::Terms,
    source::RecordView,
    trace::TraceContext,
    writer::Refusals,
};

/// What closes a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
    pub delay: Duration,
}

impl From<&config::Batch> for Limits {
    fn from(config: &config::Batch) -> Self {
        Limits {
            rows: config.max_rows,
            bytes: usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX),
            delay: config.max_delay.0,
        }
    }
}

/// How many delays a batch may take to reach its size in a backlog.
const BACKLOG_DELAYS: u32 = 10;

/// A route, and its rows.
#[derive(Debug)]
struct Target {
    mapping: Arc<Mapping>,
    block: Block,
    offsets: RowOffsets,
}

/// The open batch of one partition.
#[derive(Debug)]
pub struct Batch {
    limits: Limits,
    environment: Arc<str>,
    /// The routes that take the partition's topic, each with its rows.
    targets: Vec<Target>,
    parked: Vec<Parked>,
    parked_bytes: usize,
    /// Bytes held when they were last counted, and what came since, roughly.
    counted: usize,
    uncounted: usize,
    rejected: Rejected,
    start: i64,
    end: i64,
    records: usize,
    opened_at: Option<Instant>,
    /// Where a batch that is read again has to end.
    pinned_end: Option<i64>,
    /// Rows that ClickHouse refused when they were first sent.
    refused: Refusals,
    /// What an open plan has in the dead letters.
    settled: Rejected,
    trace: Option<TraceContext>,
    /// Of a replay.
    terms: Option<Arc<Terms>>,
}

impl Batch {
    /// An empty batch from `start` on.
    #[must_use]
    pub fn new(
        mappings: &[Arc<Mapping>],
        environment: Arc<str>,
        limits: Limits,
        start: i64,
    ) -> Self {
        let target = |mapping: &Arc<Mapping>| Target {
            mapping: Arc::clone(mapping),
            block: Block::new(Arc::clone(&mapping.columns)),
            offsets: RowOffsets::default(),
        };
        Batch {
            limits,
            environment,
            targets: mappings.iter().map(target).collect(),
            parked: Vec::new(),
            parked_bytes: 0,
            counted: 0,
            uncounted: 0,
            rejected: Rejected::default(),
            start,
            end: start,
            records: 0,
            opened_at: None,
            pinned_end: None,
            refused: Refusals::new(),
            settled: Rejected::default(),
            trace: None,
            terms: None,
        }
    }

    /// Takes what `terms` select, and parks what is not parked yet.
    #[must_use]
    pub(crate) fn replaying(mut self, terms: Option<Arc<Terms>>) -> Self {
        self.terms = terms;
        self
    }

    /// Parks these rows instead of encoding them.
    #[must_use]
    pub(crate) fn refusing(mut self, refused: Refusals) -> Self {
        self.refused = refused;
        self
    }

    /// Makes the first batch end at `end` exactly, whatever the limits say, and
    /// passes over what is `settled`: it is in the dead letters.
    #[must_use]
    pub fn pinned(mut self, end: i64, settled: Rejected) -> Self {
        self.pinned_end = Some(end);
        self.settled = settled;
        self
    }

    /// Whether a record at `offset` belongs to the batch after this one.
    #[must_use]
    pub fn is_past(&self, offset: i64) -> bool {
        self.pinned_end.is_some_and(|end| offset >= end)
    }

    /// Adds a record: a row for each route that takes it.
    pub fn push(&mut self, record: &RecordView<'_>, now: Instant) {
        debug_assert!(
            invariants::follows(Some(self.end - 1), record.offset),
            "I5: offset {} comes again",
            record.offset
        );
        let event_type = record.header(wire::header::EVENT_TYPE);
        if self.terms.as_ref().is_some_and(|terms| !terms.takes(record, event_type)) {
            self.pass(record, now);
            return;
        }
        let (mut taken, mut passed, mut rows, mut rejections) = (false, false, 0, 0);
        for Target { mapping, block, offsets } in &mut self.targets {
            if !mapping.takes_type(event_type) {
                continue;
            }
            taken = true;
            if self.settled.contains(mapping.id(), record.offset) {
                self.rejected.add(mapping.id(), record.offset);
                rejections += 1;
                continue;
            }
            if mapping.passes_over(record.value) {
                passed = true;
                continue;
            }
            let refused = match self.refused.get(&(mapping.index(), record.offset)) {
                Some(rejection) => Err(Box::new(rejection.clone())),
                None => mapping.push(record, &self.environment, block),
            };
            match refused {
                Ok(()) => {
                    rows += 1;
                    offsets.add(record.offset);
                }
                Err(rejection) => {
                    rejections += 1;
                    self.rejected.add(mapping.id(), record.offset);
                    let table = &rejection.table;
                    if self.terms.as_ref().is_some_and(|terms| terms.is_parked(record, table)) {
                        continue;
                    }
                    let mut letter = Parked::of(record, Some(mapping.index()), *rejection);
                    if let Some(terms) = &self.terms {
                        let named = Arc::clone(terms.name_in_letters(&letter.rejection.table));
                        letter.rejection.table = named;
                    }
                    park(&mut self.parked, &mut self.parked_bytes, letter);
                }
            }
        }
        if !taken {
            self.rejected.add(RouteId::NONE, record.offset);
            rejections += 1;
            let is_parked = self.settled.contains(RouteId::NONE, record.offset)
                || self.terms.as_ref().is_some_and(|terms| terms.is_parked(record, ""));
            if !is_parked {
                let letter = Parked::of(record, None, Rejection::no_route());
                park(&mut self.parked, &mut self.parked_bytes, letter);
            }
        }
        debug_assert!(
            passed || invariants::is_kept(rows, rejections),
            "I4: offset {} is neither stored nor parked",
            record.offset
        );
        if rows > 0 && self.trace.is_none() {
            let traceparent = record.header(wire::header::TRACEPARENT);
            self.trace = traceparent.and_then(TraceContext::parse);
        }
        self.pass(record, now);
    }

    /// The record is part of the batch, whatever has become of it.
    fn pass(&mut self, record: &RecordView<'_>, now: Instant) {
        self.end = record.offset + 1;
        self.records += 1;
        self.opened_at.get_or_insert(now);
        /// What a row has beside its payload.
        const ENVELOPE: usize = 64;
        self.uncounted += ENVELOPE + record.value.map_or(0, <[u8]>::len);
        // Every column would have to be asked for each record.
        if self.uncounted >= self.limits.bytes / 64 {
            self.counted = self.byte_size();
            self.uncounted = 0;
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// One past the last record, or where the next one is expected.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Starts an empty batch further on, past offsets that hold no record.
    pub fn skip_to(&mut self, offset: i64) {
        debug_assert!(
            self.is_empty() && invariants::passes_nothing_open(self.end, [offset]),
            "I6: records would be skipped"
        );
        self.start = offset;
        self.end = offset;
    }

    /// Bytes held.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.targets.iter().map(|target| target.block.byte_size()).sum::<usize>()
            + self.parked_bytes
    }

    /// The routes that its records may take.
    pub(crate) fn mappings(&self) -> impl ExactSizeIterator<Item = &Arc<Mapping>> {
        self.targets.iter().map(|target| &target.mapping)
    }

    /// Whether it has rows, and nothing else, that may be inserted together with those of
    /// other partitions.
    pub(crate) fn can_join(&self) -> bool {
        let has_rows = self.targets.iter().any(|target| !target.block.is_empty());
        has_rows
            && self.pinned_end.is_none()
            && self.rejected.is_empty()
            && self.mappings().all(|mapping| mapping.takes_joint_inserts())
            && self.has_a_table_each()
    }

    /// Whether no two of its routes write to one table, which could not tell their rows apart.
    fn has_a_table_each(&self) -> bool {
        let tables: Vec<_> = self.mappings().map(|mapping| mapping.table_name()).collect();
        tables.iter().enumerate().all(|(place, table)| !tables[..place].contains(table))
    }

    /// Records in it.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// When its first record came.
    pub(crate) fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Whether no record was at hand, at some time since its first came.
    pub(crate) fn has_caught_up(&self, caught_up_at: Instant) -> bool {
        self.opened_at.is_some_and(|opened_at| opened_at <= caught_up_at)
    }

    /// Whether it ends where its plan says, and nowhere else.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned_end.is_some()
    }

    /// Whether it may take no more records.
    #[must_use]
    pub fn has_reached_its_size(&self) -> bool {
        match self.pinned_end {
            Some(end) => self.end >= end,
            None => {
                self.records >= self.limits.rows
                    || self.counted >= self.limits.bytes
                    || self.rejected.text_size() >= MAX_REJECTED_BYTES
            }
        }
    }

    /// Whether its first record has waited long enough. `caught_up_at` is when
    /// no further record was at hand: a batch that has not seen that moment is
    /// part of a backlog, of which many rows are there and none is fresh. Few
    /// large inserts are then better than many that are on time.
    #[must_use]
    pub fn is_due(&self, now: Instant, caught_up_at: Instant) -> bool {
        let Some(opened_at) = self.opened_at.filter(|_| self.pinned_end.is_none()) else {
            return false;
        };
        let delays = if self.has_caught_up(caught_up_at) { 1 } else { BACKLOG_DELAYS };
        let patience = self.limits.delay * delays;
        opened_at + patience <= now
    }

    /// Closes the batch and starts the next one where it ends.
    pub fn seal(&mut self) -> Sealed {
        let mut content = XxHash3_128::new();
        let mut inserts = Vec::new();
        for Target { mapping, block, offsets } in &mut self.targets {
            if block.is_empty() {
                continue;
            }
            let rows = block.rows();
            let body = block.take();
            content.write(mapping.table.as_bytes());
            body.iter().for_each(|piece| content.write(piece));
            let (mapping, offsets) = (Arc::clone(mapping), std::mem::take(offsets));
            inserts.push(Insert { mapping, rows, body, offsets });
        }
        for (route, offset) in self.rejected.iter() {
            content.write(&route.to_le_bytes());
            content.write(&offset.to_le_bytes());
        }
        let sealed = Sealed {
            start: self.start,
            end: self.end,
            records: self.records,
            opened_at: self.opened_at.unwrap_or_else(Instant::now),
            inserts,
            parked: std::mem::take(&mut self.parked),
            rejected: std::mem::take(&mut self.rejected),
            content: format!("{:032x}", content.finish_128()),
            trace: self.trace.take(),
        };
        self.parked_bytes = 0;
        self.counted = 0;
        self.uncounted = 0;
        self.start = self.end;
        self.records = 0;
        self.opened_at = None;
        self.pinned_end = None;
        self.settled = Rejected::default();
        sealed
    }
}

fn park(parked: &mut Vec<Parked>, parked_bytes: &mut usize, letter: Parked) {
    *parked_bytes += letter.byte_size();
    parked.push(letter);
}

#[cfg(test)]
mod tests;
