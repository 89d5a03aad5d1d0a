//! Ranges in which the two sides differ, offset by offset.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use rdkafka::Message;
use tokio::runtime::Handle;

use super::{
    bounds::Topic,
    compare::{Comparison, Stretch, Window},
    letters::Letters,
    offsets::Offsets,
    reader::Reader,
    routing::Routing,
    stored,
};
use crate::{error::ConsumerError, sink::ClickHouse};

/// Offsets that are held in memory at a time.
const WINDOW: i64 = 100_000;

/// One partition, and whom to ask about it.
pub(super) struct Drill {
    pub(super) topic: Arc<Topic>,
    pub(super) routing: Arc<Routing>,
    pub(super) clickhouse: ClickHouse,
    pub(super) letters: Arc<Letters>,
    pub(super) partition: i32,
    pub(super) width: u64,
    /// By table, whether it has any rows to be asked for.
    pub(super) has_rows: Vec<bool>,
}

/// What was looked at, and what it came to by table, the letters of what no route
/// takes last.
pub(super) struct Drilled {
    pub(super) ranges: BTreeSet<u64>,
    pub(super) tables: Vec<(Comparison, Vec<Stretch>)>,
}

/// Records of a window, by offset, and how many rows each has by table.
#[derive(Default)]
struct Held {
    offsets: Vec<i64>,
    takes: Vec<u32>,
}

impl Held {
    fn of_table(&self, table: usize) -> Vec<(i64, u32)> {
        let tables = self.takes.len() / self.offsets.len().max(1);
        let takes = self.takes.iter().skip(table).step_by(tables.max(1));
        self.offsets.iter().copied().zip(takes.copied()).collect()
    }
}

impl Drill {
    /// Reads the ranges of `drilled` again. Blocks; runs within a runtime.
    pub(super) fn run(
        &self,
        reader: &Reader,
        mut drilled: Drilled,
    ) -> Result<Drilled, ConsumerError> {
        let bounds = self.topic.partitions.get(&self.partition);
        let compared = bounds.map_or(0..i64::MAX, |bounds| bounds.from..bounds.to);
        let in_kafka = bounds.map_or(0..0, super::bounds::Bounds::in_kafka);
        for run in runs(&drilled.ranges, self.width) {
            let run = run.start.max(compared.start)..run.end.min(compared.end);
            let read = run.start.max(in_kafka.start)..run.end.min(in_kafka.end);
            let mut window = run.start..run.end.min(run.start.saturating_add(WINDOW));
            let mut held = Held::default();
            let mut next = |held: &mut Held, window: &mut Range<i64>| {
                self.window(reader, held, window.clone(), &mut drilled.tables)?;
                *held = Held::default();
                *window = window.end..run.end.min(window.end.saturating_add(WINDOW));
                Ok::<_, ConsumerError>(())
            };
            if !read.is_empty() {
                reader.read(&self.topic.name, &[(self.partition, read)].into(), |record| {
                    while record.offset() >= window.end {
                        next(&mut held, &mut window)?;
                    }
                    held.offsets.push(record.offset());
                    self.routing.takes(record, &mut held.takes);
                    Ok(())
                })?;
            }
            while !window.is_empty() {
                next(&mut held, &mut window)?;
            }
            for (comparison, stretches) in &mut drilled.tables {
                comparison.close(&mut |stretch| stretches.push(stretch));
            }
        }
        Ok(drilled)
    }

    fn window(
        &self,
        reader: &Reader,
        held: &Held,
        range: Range<i64>,
        tables: &mut [(Comparison, Vec<Stretch>)],
    ) -> Result<(), ConsumerError> {
        let is_known = self.topic.partitions.contains_key(&self.partition);
        // Asked after reading: what was removed in between is no reason to wonder.
        let low = match is_known {
            true => reader.watermarks(&self.topic.name, self.partition)?.start,
            false => 0,
        };
        for (index, (comparison, stretches)) in tables.iter_mut().enumerate() {
            let held = held.of_table(index);
            let table = self.routing.tables.get(index);
            let parked = self.letters.of(self.partition, table.map_or("", |table| &table.name));
            let (stored, parked) = match table {
                Some(_) => (self.stored(index, range.clone())?, parked),
                None => (letters(&held, &parked), Vec::new()),
            };
            let window = Window {
                held: &held,
                stored: &stored,
                parked: &parked,
                low,
                is_compacted: self.topic.is_compacted,
            };
            comparison.window(&window, &mut |stretch| stretches.push(stretch));
        }
        Ok(())
    }

    fn stored(&self, table: usize, range: Range<i64>) -> Result<Vec<(i64, u64)>, ConsumerError> {
        if !self.has_rows[table] {
            return Ok(Vec::new());
        }
        let place = (&*self.topic.name, self.partition);
        let name = &self.routing.tables[table].table;
        let asking = stored::offsets(&self.clickhouse, name, place, range);
        Handle::current().block_on(asking).map_err(|source| {
            ConsumerError::clickhouse("comparing offsets", &self.clickhouse, source)
        })
    }
}

/// Of records that no route takes: those that have their letter.
fn letters(held: &[(i64, u32)], parked: &[&Offsets]) -> Vec<(i64, u64)> {
    let taken = held.iter().filter(|(_, takes)| *takes > 0);
    let has_letter = |offset: &i64| parked.iter().any(|offsets| offsets.contains(*offset));
    taken.filter(|(offset, _)| has_letter(offset)).map(|(offset, _)| (*offset, 1)).collect()
}

/// Ranges that follow one another, as offsets.
fn runs(ranges: &BTreeSet<u64>, width: u64) -> Vec<Range<i64>> {
    let offset = |n: u64| i64::try_from(n.saturating_mul(width)).unwrap_or(i64::MAX);
    let mut runs: Vec<Range<i64>> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if last.end == offset(*range) => last.end = offset(range + 1),
            _ => runs.push(offset(*range)..offset(range + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_follow_one_another_are_read_at_once() {
        assert_eq!(runs(&[0, 1, 3].into(), 10), [0..20, 30..40]);
        assert_eq!(runs(&[u64::MAX / 20].into(), 10).len(), 1);
    }

    #[test]
    fn takes_are_told_apart_by_table() {
        let held = Held { offsets: vec![4, 6], takes: vec![1, 0, 2, 3, 4, 5] };
        assert_eq!(held.of_table(0), [(4, 1), (6, 3)]);
        assert_eq!(held.of_table(2), [(4, 2), (6, 5)]);
        assert_eq!(Held::default().of_table(1), []);
    }
}
