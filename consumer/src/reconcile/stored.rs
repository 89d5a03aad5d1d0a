//! What a table has of a topic, asked by where in Kafka its rows came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    bounds::{Bounds, Topic},
    sums::{Sum, Sums},
};
use crate::{
    sink::{ClickHouse, SinkError},
    statement::literal,
    table::TableName,
};

/// All rows of a topic in one table, by partition.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) sums: BTreeMap<i32, Sums>,
    /// Rows before what Kafka has.
    pub(super) gone: BTreeMap<i32, u64>,
    /// The highest offset at or behind the group's.
    pub(super) highest_ahead: BTreeMap<i32, u64>,
}

impl Stored {
    pub(super) fn partitions(&self) -> BTreeSet<i32> {
        let keys = self.sums.keys().chain(self.gone.keys()).chain(self.highest_ahead.keys());
        keys.copied().collect()
    }
}

/// Ranges that are none.
const AHEAD: i64 = -1;
const GONE: i64 = -2;

/// Counts and sums of `table`, by ranges of `width` offsets.
pub(super) async fn sums(
    clickhouse: &ClickHouse,
    table: &TableName,
    topic: &Topic,
    width: u64,
) -> Result<Stored, SinkError> {
    let sql = sums_sql(table, topic, width);
    let rows: Vec<(i32, i64, u64, u64, u64)> = clickhouse.fetch_settled(table, &sql).await?;
    let mut stored = Stored::default();
    for (partition, range, rows, hash, highest) in rows {
        match range {
            AHEAD => _ = stored.highest_ahead.insert(partition, highest),
            GONE => _ = stored.gone.insert(partition, rows),
            range => {
                let sums = stored.sums.entry(partition).or_default();
                sums.add(range.cast_unsigned(), Sum { rows, hash });
            }
        }
    }
    Ok(stored)
}

/// Rows of a partition that Kafka does not know have no bounds: all of them are
/// looked at.
fn sums_sql(table: &TableName, topic: &Topic, width: u64) -> String {
    let by_partition = |of: fn(&Bounds) -> i64, otherwise: u64| {
        by_partition(topic.partitions.iter().map(|(partition, b)| (*partition, of(b))), otherwise)
    };
    let from = by_partition(|bounds| bounds.from, 0);
    let to = by_partition(|bounds| bounds.to, u64::MAX);
    let floor = by_partition(|bounds| bounds.floor, 0);
    format!(
        "SELECT toInt32(_partition) AS p, \
         multiIf(toUInt64(_offset) >= {to}, {AHEAD}, toUInt64(_offset) < {from}, {GONE}, \
         toInt64(intDiv(toUInt64(_offset), {width}))) AS r, \
         count() AS n, sum(intHash64(toUInt64(_offset))) AS h, max(toUInt64(_offset)) AS m \
         FROM {} WHERE _topic = {} AND toUInt64(_offset) >= {floor} GROUP BY p, r",
        table.quoted(),
        literal(&topic.name),
    )
}

/// An expression for a number of each partition.
fn by_partition(all: impl Iterator<Item = (i32, i64)>, otherwise: u64) -> String {
    let numbers: Vec<_> = all.map(|(partition, n)| (partition, n.max(0).cast_unsigned())).collect();
    if numbers.iter().all(|(_, n)| *n == otherwise) {
        return format!("toUInt64({otherwise})");
    }
    let list = |texts: Vec<String>| texts.join(",");
    format!(
        "transform(toInt32(_partition), CAST([{}], 'Array(Int32)'), CAST([{}], 'Array(UInt64)'), toUInt64({otherwise}))",
        list(numbers.iter().map(|(partition, _)| partition.to_string()).collect()),
        list(numbers.iter().map(|(_, n)| n.to_string()).collect()),
    )
}

/// The rows of a range of one partition: each offset, and how many rows have it.
pub(super) async fn offsets(
    clickhouse: &ClickHouse,
    table: &TableName,
    (topic, partition): (&str, i32),
    range: Range<i64>,
) -> Result<Vec<(i64, u64)>, SinkError> {
    let sql = format!(
        "SELECT toInt64(_offset) AS o, count() AS n FROM {} \
         WHERE _topic = {} AND _partition = {partition} AND _offset >= {} AND _offset < {} \
         GROUP BY o ORDER BY o",
        table.quoted(),
        literal(topic),
        range.start,
        range.end,
    );
    clickhouse.fetch_settled(table, &sql).await
}

/// Rows of one partition from `from` on: how many, the first and the last.
pub(super) async fn beyond(
    clickhouse: &ClickHouse,
    table: &TableName,
    (topic, partition): (&str, i32),
    from: i64,
) -> Result<(u64, i64, i64), SinkError> {
    let sql = format!(
        "SELECT count() AS n, toInt64(min(_offset)), toInt64(max(_offset)) FROM {} \
         WHERE _topic = {} AND _partition = {partition} AND _offset >= {from}",
        table.quoted(),
        literal(topic),
    );
    let rows: Vec<(u64, i64, i64)> = clickhouse.fetch_settled(table, &sql).await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_all_partitions_share_is_no_lookup() {
        assert_eq!(by_partition([(0, 0), (1, 0)].into_iter(), 0), "toUInt64(0)");
        let lookup = by_partition([(0, 3), (1, -1)].into_iter(), 9);
        assert!(lookup.contains("CAST([0,1], 'Array(Int32)'), CAST([3,0], "), "{lookup}");
        assert!(lookup.ends_with("toUInt64(9))"), "{lookup}");
    }
}
