//! From replication events to outbox rows, each with its place. Pure.
//!
//! ```text
//! Begin ─▶ Relation ─▶ Insert … Insert ─▶ Commit
//!            │            │                 │
//!         layouts       OutboxRow       Committed(end_lsn)
//! ```
//!
//! Rows are handed on as they come, not when their transaction ends: PostgreSQL
//! sends only committed transactions, one after the other, so a transaction of
//! any size takes no more memory than its largest row.

use std::collections::HashMap;

use bytes::Bytes;
use outpour_schemas::{Lsn, OutboxTable, Position};

use super::{
    WalEvent,
    pgoutput::{self, Cell, Message, PgoutputError, Relation},
};

/// One row of the outbox, its columns in the text form of their types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub position: Position,
    /// Microseconds since the Unix epoch.
    pub committed_at_us: i64,
    pub id: Option<Bytes>,
    pub aggregate_type: Option<Bytes>,
    pub aggregate_id: Option<Bytes>,
    pub event_type: Optional,
    pub payload: Option<Bytes>,
    pub occurred_at: Optional,
    pub schema_version: Optional,
    pub traceparent: Optional,
}

/// A column that the outbox table need not have: absent, or a value that may
/// be NULL.
pub type Optional = Option<Option<Bytes>>;

/// What the relay has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "moved once, and rows are nearly all of them")]
pub enum Progress {
    Row(OutboxRow),
    /// A transaction ended; everything before `end_lsn` has been handed on.
    Committed {
        end_lsn: Lsn,
    },
    /// Nothing is on its way that committed before `wal_end`.
    CaughtUp {
        wal_end: Lsn,
    },
    /// Nothing to do.
    Nothing,
}

/// A stream that cannot be turned into outbox rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    #[error(transparent)]
    Pgoutput(#[from] PgoutputError),
    #[error("replication stream: {0} outside a transaction")]
    OutsideTransaction(&'static str),
    #[error("replication stream: a transaction began inside another")]
    NestedTransaction,
    #[error("replication stream: row of unknown relation {0}")]
    UnknownRelation(u32),
    #[error("replication stream: row with {found} cells for the {expected} columns of {table}")]
    CellCount { table: String, expected: usize, found: usize },
    #[error("table {table} has no column `{column}` ({key})")]
    MissingColumn { table: String, column: String, key: &'static str },
    #[error("more than {} rows in one transaction", u32::MAX)]
    TooManyRows,
}

struct Open {
    commit_lsn: Lsn,
    committed_at_us: i64,
    next_ordinal: u32,
}

/// Follows the stream and keeps what its messages refer to.
pub struct Assembler {
    outbox: OutboxTable,
    /// `None` for tables that the publication has besides the outbox.
    layouts: HashMap<u32, Option<Layout>>,
    open: Option<Open>,
}

impl Assembler {
    #[must_use]
    pub fn new(outbox: OutboxTable) -> Self {
        Assembler { outbox, layouts: HashMap::new(), open: None }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When the stream breaks its own rules or the table lacks a column.
    pub fn next(&mut self, event: WalEvent) -> Result<Progress, AssemblyError> {
        match event {
            WalEvent::Begin { commit_lsn, committed_at_us } => {
                let opened = Open { commit_lsn, committed_at_us, next_ordinal: 0 };
                match self.open.replace(opened) {
                    None => Ok(Progress::Nothing),
                    Some(_) => Err(AssemblyError::NestedTransaction),
                }
            }
            WalEvent::Change(data) => self.change(data),
            WalEvent::Commit { end_lsn } => match self.open.take() {
                Some(_) => Ok(Progress::Committed { end_lsn }),
                None => Err(AssemblyError::OutsideTransaction("commit")),
            },
            WalEvent::KeepAlive { wal_end } if self.open.is_none() => {
                Ok(Progress::CaughtUp { wal_end })
            }
            WalEvent::KeepAlive { .. } | WalEvent::LogicalMessage => Ok(Progress::Nothing),
        }
    }

    fn change(&mut self, data: Bytes) -> Result<Progress, AssemblyError> {
        match pgoutput::decode(data)? {
            Message::Relation(relation) => {
                let layout = Layout::of(&relation, &self.outbox)?;
                self.layouts.insert(relation.id, layout);
                Ok(Progress::Nothing)
            }
            Message::Insert { relation, row } => {
                let layout =
                    self.layouts.get(&relation).ok_or(AssemblyError::UnknownRelation(relation))?;
                let open = self.open.as_mut().ok_or(AssemblyError::OutsideTransaction("row"))?;
                match layout {
                    Some(layout) => layout.row(row, open).map(Progress::Row),
                    None => Ok(Progress::Nothing),
                }
            }
            Message::Other { .. } => Ok(Progress::Nothing),
        }
    }
}

/// Which cell of the outbox table's rows holds what.
struct Layout {
    table: String,
    width: usize,
    id: usize,
    aggregate_type: usize,
    aggregate_id: usize,
    payload: usize,
    event_type: Option<usize>,
    occurred_at: Option<usize>,
    schema_version: Option<usize>,
    traceparent: Option<usize>,
}

impl Layout {
    fn of(relation: &Relation, outbox: &OutboxTable) -> Result<Option<Self>, AssemblyError> {
        if (relation.namespace.as_str(), relation.name.as_str()) != outbox.qualified() {
            return Ok(None);
        }
        let table = format!("{}.{}", relation.namespace, relation.name);
        let find = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let require = |name: &str, key| {
            find(name).ok_or_else(|| AssemblyError::MissingColumn {
                table: table.clone(),
                column: name.to_owned(),
                key,
            })
        };
        Ok(Some(Layout {
            width: relation.columns.len(),
            id: require(&outbox.column_id, "outbox.column_id")?,
            aggregate_type: require(&outbox.column_aggregate_type, "outbox.column_aggregate_type")?,
            aggregate_id: require(&outbox.column_aggregate_id, "outbox.column_aggregate_id")?,
            payload: require(&outbox.column_payload, "outbox.column_payload")?,
            event_type: find(&outbox.column_type),
            occurred_at: find(&outbox.column_occurred_at),
            schema_version: find(&outbox.column_schema_version),
            traceparent: find(&outbox.column_traceparent),
            table,
        }))
    }

    fn row(&self, mut cells: Vec<Cell>, open: &mut Open) -> Result<OutboxRow, AssemblyError> {
        if cells.len() != self.width {
            return Err(AssemblyError::CellCount {
                table: self.table.clone(),
                expected: self.width,
                found: cells.len(),
            });
        }
        let position = Position { commit_lsn: open.commit_lsn, ordinal: open.next_ordinal };
        open.next_ordinal = open.next_ordinal.checked_add(1).ok_or(AssemblyError::TooManyRows)?;
        let mut take = |at: usize| match std::mem::replace(&mut cells[at], Cell::Null) {
            Cell::Text(text) => Some(text),
            Cell::Null | Cell::Unchanged => None,
        };
        Ok(OutboxRow {
            position,
            committed_at_us: open.committed_at_us,
            id: take(self.id),
            aggregate_type: take(self.aggregate_type),
            aggregate_id: take(self.aggregate_id),
            payload: take(self.payload),
            event_type: self.event_type.map(&mut take),
            occurred_at: self.occurred_at.map(&mut take),
            schema_version: self.schema_version.map(&mut take),
            traceparent: self.traceparent.map(&mut take),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: WalEvent = WalEvent::Begin { commit_lsn: Lsn(0x100), committed_at_us: 7 };

    fn relation(id: u32, table: &str, columns: &[&str]) -> WalEvent {
        let mut bytes = vec![b'R'];
        bytes.extend(id.to_be_bytes());
        bytes.extend(format!("public\0{table}\0d").bytes());
        bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
        for name in columns {
            bytes.push(0);
            bytes.extend(name.bytes());
            bytes.extend([0; 9]);
        }
        WalEvent::Change(bytes.into())
    }

    fn insert(id: u32, cells: &[Option<&str>]) -> WalEvent {
        let mut bytes = vec![b'I'];
        bytes.extend(id.to_be_bytes());
        bytes.push(b'N');
        bytes.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
        for cell in cells {
            match cell {
                None => bytes.push(b'n'),
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend(text.bytes());
                }
            }
        }
        WalEvent::Change(bytes.into())
    }

    const REQUIRED: [&str; 4] = ["payload", "id", "aggregateid", "aggregatetype"];

    fn rows(events: impl IntoIterator<Item = WalEvent>) -> Result<Vec<OutboxRow>, AssemblyError> {
        let mut assembler = Assembler::new(OutboxTable::default());
        let mut rows = Vec::new();
        for event in events {
            if let Progress::Row(row) = assembler.next(event)? {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    #[test]
    fn rows_are_numbered_within_their_transaction_and_found_by_column_name() {
        let cells = [Some("{}"), Some("e1"), Some("k"), Some("order")];
        let rows = rows([
            BEGIN,
            relation(1, "outbox", &REQUIRED),
            insert(1, &cells),
            insert(1, &cells),
            WalEvent::Commit { end_lsn: Lsn(0x130) },
            BEGIN,
            insert(1, &[None; 4]),
        ])
        .unwrap();
        let ordinals: Vec<_> = rows.iter().map(|row| row.position.ordinal).collect();
        assert_eq!(ordinals, [0, 1, 0]);
        assert_eq!(rows[0].aggregate_type.as_deref(), Some(b"order".as_slice()));
        assert_eq!(rows[0].traceparent, None, "a column that the table does not have");
        assert_eq!(rows[2].payload, None);
    }

    #[test]
    fn rows_of_other_tables_are_passed_over() {
        let events = [BEGIN, relation(9, "other", &["x"]), insert(9, &[Some("1")])];
        assert_eq!(rows(events).unwrap(), []);
    }

    #[test]
    fn a_missing_column_is_named_with_its_configuration_key() {
        let error = rows([BEGIN, relation(1, "outbox", &["id"])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table public.outbox has no column `aggregatetype` (outbox.column_aggregate_type)"
        );
    }

    #[test]
    fn a_stream_out_of_order_is_refused() {
        assert!(matches!(rows([BEGIN, BEGIN]), Err(AssemblyError::NestedTransaction)));
        let error = rows([BEGIN, insert(5, &[])]).unwrap_err();
        assert_eq!(error, AssemblyError::UnknownRelation(5));
        let outside = [relation(1, "outbox", &REQUIRED), insert(1, &[None; 4])];
        assert_eq!(rows(outside).unwrap_err(), AssemblyError::OutsideTransaction("row"));
        let short = [BEGIN, relation(1, "outbox", &REQUIRED), insert(1, &[None])];
        assert!(matches!(rows(short), Err(AssemblyError::CellCount { .. })));
    }

    #[test]
    fn a_keepalive_inside_a_transaction_says_nothing_about_being_caught_up() {
        let mut assembler = Assembler::new(OutboxTable::default());
        let keepalive = || WalEvent::KeepAlive { wal_end: Lsn(9) };
        let caught_up = Progress::CaughtUp { wal_end: Lsn(9) };
        assert_eq!(assembler.next(keepalive()).unwrap(), caught_up);
        assembler.next(BEGIN).unwrap();
        assert_eq!(assembler.next(keepalive()).unwrap(), Progress::Nothing);
    }
}
