//! One pass over what Kafka holds of a topic, which leaves sums of it.

use std::{collections::BTreeMap, ops::Range};

use indicatif::ProgressBar;
use rdkafka::Message;

use super::{
    reader::Reader,
    routing::Routing,
    sums::{Sum, Sums},
};
use crate::error::ConsumerError;

/// By partition, then by table, those that no route takes last.
pub(super) type InKafka = BTreeMap<i32, Vec<Sums>>;

/// Sums of what Kafka holds of some partitions. Blocks.
pub(super) fn scan(
    reader: &Reader,
    topic: &str,
    share: &BTreeMap<i32, Range<i64>>,
    routing: &Routing,
    width: u64,
    bar: &ProgressBar,
) -> Result<InKafka, ConsumerError> {
    /// How often the bar moves, in records.
    const TELL_EVERY: u64 = 4096;
    let tables = routing.tables.len() + 1;
    let mut open: BTreeMap<i32, Open> = share
        .iter()
        .map(|(partition, range)| (*partition, Open::new(range.start, tables)))
        .collect();
    let mut takes = Vec::with_capacity(tables);
    let mut records = 0_u64;
    reader.read(topic, share, |record| {
        let Some(open) = open.get_mut(&record.partition()) else { return Ok(()) };
        let offset = record.offset().cast_unsigned();
        takes.clear();
        routing.takes(record, &mut takes);
        open.add(offset, offset / width, &takes);
        records += 1;
        if records.is_multiple_of(TELL_EVERY) {
            bar.inc(open.told(offset));
        }
        Ok(())
    })?;
    let finished = open.into_iter().map(|(partition, mut open)| {
        open.flush();
        if let Some(range) = share.get(&partition) {
            bar.inc(open.told(range.end.cast_unsigned()));
        }
        (partition, open.sums)
    });
    Ok(finished.collect())
}

/// The range that a partition is being read in.
struct Open {
    range: u64,
    current: Vec<Sum>,
    sums: Vec<Sums>,
    told: u64,
}

impl Open {
    fn new(start: i64, tables: usize) -> Self {
        let told = start.cast_unsigned();
        Open {
            range: 0,
            current: vec![Sum::default(); tables],
            sums: vec![Sums::default(); tables],
            told,
        }
    }

    fn add(&mut self, offset: u64, range: u64, takes: &[u32]) {
        if range != self.range {
            self.flush();
            self.range = range;
        }
        for (sum, takes) in self.current.iter_mut().zip(takes) {
            if *takes > 0 {
                sum.add(offset, *takes);
            }
        }
    }

    fn flush(&mut self) {
        for (sums, current) in self.sums.iter_mut().zip(&mut self.current) {
            if *current != Sum::default() {
                sums.add(self.range, std::mem::take(current));
            }
        }
    }

    /// Offsets since it was last asked.
    fn told(&mut self, offset: u64) -> u64 {
        offset.saturating_sub(std::mem::replace(&mut self.told, offset))
    }
}
