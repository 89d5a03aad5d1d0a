//! Whether a table has what Kafka holds: by partition, how many rows there are, of
//! how many offsets, and the sum of these. Records that were parked are left out on
//! both sides.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use outpour_schemas::{config::Config, wire::header};

use super::{error::ReplayError, escaped, run::blocking};
use crate::{
    dlq,
    error::ConsumerError,
    sink::ClickHouse,
    source::reader::{Part, TopicReader},
    statement::literal,
    table::TableName,
    tables,
};

/// What is compared of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    offsets: u64,
    total: u64,
}

impl Sum {
    fn add(&mut self, offset: i64) {
        self.rows += 1;
        self.offsets += 1;
        self.total = self.total.wrapping_add(offset.unsigned_abs());
    }

    fn less(self, offset: i64) -> Sum {
        Sum {
            rows: self.rows.wrapping_sub(1),
            offsets: self.offsets.wrapping_sub(1),
            total: self.total.wrapping_sub(offset.unsigned_abs()),
        }
    }
}

/// A condition on rows: those of `parts` of `topic`.
pub(super) fn of_parts(topic: &str, parts: &[Part]) -> String {
    let parts = parts.iter().filter(|part| part.from < part.until).map(|part| {
        let Part { partition, from, until } = part;
        format!("(_partition = {partition} AND _offset >= {from} AND _offset < {until})")
    });
    let parts: Vec<_> = parts.collect();
    let any = if parts.is_empty() { "0".to_owned() } else { parts.join(" OR ") };
    format!("_topic = {} AND ({any})", literal(topic))
}

/// Compares `parts` of `topic` with what `table`, to which `config` routes, has.
///
/// # Errors
/// Names the first partition in which they differ.
pub(super) async fn check(
    config: &Config,
    clickhouse: &ClickHouse,
    reader: &Arc<TopicReader>,
    (topic, parts): (&str, &[Part]),
    (table, live): (&TableName, &TableName),
) -> Result<u64, ConsumerError> {
    let mappings = tables::mappings(config, &tables::find(config, clickhouse).await?)?;
    let (reader, read_topic, read_parts) = (Arc::clone(reader), topic.to_owned(), parts.to_vec());
    let names = [table.to_string(), live.to_string()];
    let (held, parked) = blocking(move || {
        let letters = dlq::read::parked(&reader, &read_topic)?;
        let mut parked: BTreeMap<i32, HashSet<i64>> = BTreeMap::new();
        for (partition, tables) in letters {
            let ours = tables.into_iter().filter(|(table, _)| names.iter().any(|n| **n == **table));
            parked.entry(partition).or_default().extend(ours.flat_map(|(_, offsets)| offsets));
        }
        let mut held: BTreeMap<i32, Sum> = BTreeMap::new();
        reader.read(&read_topic, &read_parts, |record| {
            let event_type = record.header(header::EVENT_TYPE);
            let is_taken = mappings.iter().any(|mapping| {
                mapping.takes_type(event_type) && !mapping.passes_over(record.value)
            });
            let is_parked =
                parked.get(&record.partition).is_some_and(|all| all.contains(&record.offset));
            if is_taken && !is_parked {
                held.entry(record.partition).or_default().add(record.offset);
            }
            ControlFlow::Continue(())
        })?;
        Ok((held, parked))
    })
    .await?;
    let mut stored = sums(clickhouse, table, &of_parts(topic, parts)).await?;
    for (partition, offset) in parked_rows(clickhouse, table, topic, &parked).await? {
        let is_in_range = parts
            .iter()
            .any(|part| part.partition == partition && (part.from..part.until).contains(&offset));
        if let Some(sum) = stored.get_mut(&partition).filter(|_| is_in_range) {
            *sum = sum.less(offset);
        }
    }
    stored.retain(|_, sum| *sum != Sum::default());
    for part in parts {
        let (of_kafka, of_table) = (held.get(&part.partition), stored.get(&part.partition));
        if of_kafka != of_table {
            let (kafka, rows) =
                (of_kafka.copied().unwrap_or_default(), of_table.copied().unwrap_or_default());
            return Err(ReplayError::Unequal(format!(
                "table {table} does not have what Kafka holds of {topic}/{}: {} rows of {} \
                 offsets, Kafka has {} records that fit; the tables were not exchanged",
                part.partition, rows.rows, rows.offsets, kafka.rows
            ))
            .into());
        }
    }
    Ok(held.values().map(|sum| sum.rows).sum())
}

async fn sums(
    clickhouse: &ClickHouse,
    table: &TableName,
    rows: &str,
) -> Result<BTreeMap<i32, Sum>, ConsumerError> {
    let sql = format!(
        "SELECT toInt32(_partition), count(), uniqExact(_offset), sum(toUInt64(_offset)) \
         FROM {} WHERE {rows} GROUP BY 1",
        table.quoted()
    );
    let asking = clickhouse
        .on_any(|| clickhouse.fetch::<(i32, u64, u64, u64)>(clickhouse.query(&escaped(&sql))));
    let found = asking.await;
    let found =
        found.map_err(|source| ConsumerError::clickhouse("counting rows", clickhouse, source))?;
    let sum = |(partition, rows, offsets, total)| (partition, Sum { rows, offsets, total });
    Ok(found.into_iter().map(sum).collect())
}

/// Rows of records that were parked once and are in the table all the same.
async fn parked_rows(
    clickhouse: &ClickHouse,
    table: &TableName,
    topic: &str,
    parked: &BTreeMap<i32, HashSet<i64>>,
) -> Result<Vec<(i32, i64)>, ConsumerError> {
    const AT_ONCE: usize = 5000;
    let mut rows = Vec::new();
    for (partition, offsets) in parked {
        let offsets: Vec<_> = offsets.iter().collect();
        for some in offsets.chunks(AT_ONCE) {
            let some: Vec<_> = some.iter().map(ToString::to_string).collect();
            let sql = format!(
                "SELECT toInt32(_partition), toInt64(_offset) FROM {} WHERE _topic = {} \
                 AND _partition = {partition} AND _offset IN ({})",
                table.quoted(),
                literal(topic),
                some.join(",")
            );
            let asking = clickhouse
                .on_any(|| clickhouse.fetch::<(i32, i64)>(clickhouse.query(&escaped(&sql))));
            rows.extend(asking.await.map_err(|source| {
                ConsumerError::clickhouse("counting rows", clickhouse, source)
            })?);
        }
    }
    Ok(rows)
}
