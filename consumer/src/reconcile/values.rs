//! Whether rows hold what their records say, and not only whether they are there.
//!
//! ```text
//! Kafka ─▶ Mapping ─▶ Block ─▶ scratch table ─┐
//!                                   table ────┴─▶ JOIN … ON _offset ─▶ offsets, and what differs
//! ```
//!
//! Each record is encoded again, as the consumer would do it now, and the server
//! compares it with its row: it has the rows, and prints both alike. A value that the
//! record leaves to the column's DEFAULT is not compared. What does not fit any more,
//! and is there all the same, is not what the record says either.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use indicatif::ProgressBar;
use outpour_schemas::{config::Config, wire::header};
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;

use super::{bounds::Topic, error::ReconcileError, letters::Letters, reader::Reader, routing};
use crate::{
    block::Block,
    decode::{Mapping, PROVENANCE},
    error::ConsumerError,
    sink::{ClickHouse, Request, Sink, SinkError},
    source::kafka::view,
    statement::{self, literal},
    table::{TableName, quoted},
    trace::Attempt,
};

/// Rows, and bytes of them, that are compared at a time.
const AT_ONCE: usize = 50_000;
const BYTES_AT_ONCE: usize = 32 << 20;

/// What the records of one topic are compared with.
pub(super) struct Values {
    pub(super) config: Arc<Config>,
    pub(super) clickhouse: ClickHouse,
    pub(super) topic: Arc<Topic>,
    pub(super) routing: Arc<routing::Routing>,
    pub(super) letters: Arc<Letters>,
    pub(super) bar: ProgressBar,
}

/// A row that is not what its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Different {
    pub(super) partition: i32,
    /// Which of the tables.
    pub(super) table: usize,
    pub(super) offset: i64,
    pub(super) columns: Vec<String>,
}

/// Records on their way into the scratch table beside one table.
struct Open<'a> {
    index: usize,
    table: &'a routing::Table,
    scratch: TableName,
    block: Block,
    /// Records that do not fit the table as it is, with the column.
    refused: BTreeMap<i64, String>,
    /// First and last offset.
    reach: Option<(i64, i64)>,
}

impl Values {
    /// Reads all of it again. Blocks; runs within a runtime.
    pub(super) fn run(&self, reader: &Reader) -> Result<Vec<Different>, ConsumerError> {
        let run = &uuid::Uuid::now_v7().simple().to_string()[24..];
        let mut open = Vec::new();
        let tables = self.routing.tables.iter().enumerate();
        for (index, table) in tables.filter(|(_, table)| !table.routes.is_empty()) {
            let columns = Arc::clone(&table.routes[0].columns);
            let scratch = scratch_name(&table.table, run, index);
            let (block, refused) = (Block::new(columns), BTreeMap::new());
            open.push(Open { index, table, scratch, block, refused, reach: None });
        }
        let compared = self.compare(reader, &mut open);
        for open in &open {
            let dropping = format!("DROP TABLE IF EXISTS {} SYNC", open.scratch.quoted());
            if let Err(error) = self.wait(self.clickhouse.execute(&dropping)) {
                tracing::warn!(table = %open.scratch, %error, "a scratch table could not be dropped");
            }
        }
        compared
    }

    fn compare(
        &self,
        reader: &Reader,
        open: &mut [Open<'_>],
    ) -> Result<Vec<Different>, ConsumerError> {
        for open in &*open {
            self.wait(self.clickhouse.execute(&create(&open.scratch, &open.block)))?;
        }
        let mut found = Vec::new();
        for (partition, bounds) in &self.topic.partitions {
            let range = bounds.in_kafka();
            if range.is_empty() {
                continue;
            }
            self.bar.set_message(format!("comparing values of {}/{partition}", self.topic.name));
            reader.read(&self.topic.name, &[(*partition, range)].into(), |record| {
                for open in &mut *open {
                    self.take(open, record);
                    if open.is_full() {
                        self.flush(open, *partition, &mut found)?;
                    }
                }
                Ok(())
            })?;
            for open in &mut *open {
                self.flush(open, *partition, &mut found)?;
            }
        }
        self.bar.set_message("");
        for open in &*open {
            if self.wait(self.clickhouse.has_changed(&open.table.routes[0]))? {
                return Err(ReconcileError::Altered { table: open.table.name.clone() }.into());
            }
        }
        Ok(found)
    }

    fn take(&self, open: &mut Open<'_>, record: &BorrowedMessage<'_>) {
        let record = view(record);
        let event_type = record.header(header::EVENT_TYPE);
        let parked = self.letters.of(record.partition, &open.table.name);
        if parked.iter().any(|offsets| offsets.contains(record.offset)) {
            return;
        }
        let takes = |route: &&Arc<Mapping>| {
            route.takes_type(event_type) && !route.passes_over(record.value)
        };
        for route in open.table.routes.iter().filter(takes) {
            let environment = &self.config.consumer.environment;
            match route.push(&record, environment, &mut open.block) {
                Ok(()) => {}
                // A column that came later may well have nothing of it.
                Err(rejection) if rejection.reason == "missing" => continue,
                Err(rejection) => _ = open.refused.insert(record.offset, rejection.column),
            }
            let (first, _) = open.reach.unwrap_or((record.offset, 0));
            open.reach = Some((first, record.offset));
        }
    }

    /// Compares what has gathered.
    fn flush(
        &self,
        open: &mut Open<'_>,
        partition: i32,
        found: &mut Vec<Different>,
    ) -> Result<(), ConsumerError> {
        let Some((first, last)) = open.reach.take() else { return Ok(()) };
        let rows = rows(&open.table.table, &self.topic.name, partition, &(first..last + 1));
        let mut different: Vec<(i64, Vec<String>)> = Vec::new();
        if !open.block.is_empty() {
            let sql = differences(open, &rows);
            let (scratch, body) = (&open.scratch, open.block.take());
            let asking = async {
                let truncate = format!("TRUNCATE TABLE {}", scratch.quoted());
                self.clickhouse.execute(&truncate).await?;
                let insert = statement::plain(scratch, open.block.columns());
                let (token, attempt) = (scratch.table.as_str(), &Attempt::new(None));
                let request = Request { sql: &insert, body: &body, token, attempt };
                self.clickhouse.send(request).await?;
                self.clickhouse.fetch_settled(&open.table.table, &sql).await
            };
            let rows: Vec<(i64, String)> = self.wait(asking)?;
            different.extend(
                rows.into_iter().map(|(offset, columns)| {
                    (offset, columns.lines().map(str::to_owned).collect())
                }),
            );
        }
        let refused = std::mem::take(&mut open.refused);
        let offsets: Vec<_> = refused.keys().map(i64::to_string).collect();
        for some in offsets.chunks(AT_ONCE / 10) {
            let sql = format!(
                "SELECT DISTINCT toInt64(_offset) FROM {rows} AND _offset IN ({})",
                some.join(",")
            );
            let there: Vec<i64> =
                self.wait(self.clickhouse.fetch_settled(&open.table.table, &sql))?;
            different.extend(there.into_iter().map(|offset| {
                let column = refused.get(&offset).filter(|column| !column.is_empty());
                (offset, column.into_iter().cloned().collect())
            }));
        }
        different.sort();
        found.extend(different.into_iter().map(|(offset, columns)| Different {
            partition,
            table: open.index,
            offset,
            columns,
        }));
        Ok(())
    }

    fn wait<T>(
        &self,
        asking: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, ConsumerError> {
        Handle::current().block_on(asking).map_err(|source| {
            ConsumerError::clickhouse("comparing values", &self.clickhouse, source)
        })
    }
}

impl Open<'_> {
    fn is_full(&self) -> bool {
        self.block.rows() >= AT_ONCE
            || self.refused.len() >= AT_ONCE
            || self.block.byte_size() >= BYTES_AT_ONCE
    }
}

/// A name that the doctor knows for a scratch table's.
fn scratch_name(table: &TableName, run: &str, index: usize) -> TableName {
    /// What the name of a file has room for, beside the rest.
    const KEPT: usize = 60;
    let kept: String = table.table.trim_start_matches('.').chars().take(KEPT).collect();
    let name = format!("{kept}_outpour_reconcile_{run}_{index}");
    TableName { database: table.database.clone(), table: name }
}

/// The columns as they are encoded; NULL stands where a DEFAULT is asked for.
fn create(scratch: &TableName, block: &Block) -> String {
    let columns = block.columns().iter().map(|column| {
        let name = quoted(column.name());
        match column.takes_default() {
            true => format!("{name} {}", column.wire_type()),
            false => format!("{name} {}", column.column_type()),
        }
    });
    let columns: Vec<_> = columns.collect();
    format!("CREATE TABLE {} ({}) ENGINE = Memory", scratch.quoted(), columns.join(", "))
}

/// What follows a FROM.
fn rows(table: &TableName, topic: &str, partition: i32, range: &Range<i64>) -> String {
    format!(
        "{} WHERE _topic = {} AND _partition = {partition} AND _offset >= {} AND _offset < {}",
        table.quoted(),
        literal(topic),
        range.start,
        range.end
    )
}

/// Asks which offsets have a row that is not what the scratch table has, and in which
/// columns. Of several rows of one offset the closest counts.
fn differences(open: &Open<'_>, rows: &str) -> String {
    let is_provenance = |name: &str| PROVENANCE.iter().any(|(column, _)| *column == name);
    let route = &open.table.routes[0];
    let is_compared = |name: &str| !is_provenance(name) && route.is_stored(name);
    let columns = open.block.columns().iter().filter(|column| is_compared(column.name()));
    let differs = columns.clone().map(|column| {
        let name = quoted(column.name());
        let (ours, theirs) = (format!("s.{name}"), format!("t.{name}"));
        let default =
            if column.takes_default() { format!("isNull({ours}) OR ") } else { String::new() };
        format!(
            "({}, NOT ({default}isNull({ours}) = isNull({theirs}) \
             AND ifNull(toString({ours}), '') = ifNull(toString({theirs}), '')))",
            literal(column.name())
        )
    });
    let differs: Vec<_> = differs.collect();
    let names: Vec<_> = columns.map(|column| quoted(column.name())).collect();
    format!(
        "SELECT o, arrayStringConcat(argMin(d, length(d)) AS least, '\\n') FROM (\
           SELECT toInt64(t._offset) AS o, arrayFilter(x -> x.2, [{}]).1 AS d \
           FROM (SELECT _offset, {} FROM {rows}) AS t \
           INNER JOIN {} AS s ON t._offset = s._offset) \
         GROUP BY o HAVING notEmpty(least) ORDER BY o",
        differs.join(", "),
        names.join(", "),
        open.scratch.quoted(),
    )
}
