//! From replication events to outbox rows, each with its place. Pure.
//!
//! ```text
//! Begin ─▶ Relation ─▶ Insert … Message … Insert ─▶ Commit
//!            │            │       │                    │
//!         layouts       OutboxRow OutboxRow       Committed(end_lsn)
//! ```
//!
//! A logical message of the right prefix is a row like any other: both count
//! in the order in which the transaction wrote them.
//!
//! Rows are handed on as they come, not when their transaction ends: PostgreSQL
//! sends only committed transactions, one after the other, so a transaction of
//! any size takes no more memory than its largest row.

mod layout;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use outpour_schemas::{Lsn, OutboxTable, Position};

pub(crate) use self::layout::Layout;
use super::{
    WalEvent,
    message::{InvalidMessage, MessageLayout},
    pgoutput::{self, Message, PgoutputError},
    row::{Expects, OutboxRow, Wanted},
};

/// What the relay has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Row(OutboxRow),
    /// A message that should have been a row.
    InvalidMessage(InvalidMessage),
    /// A message with the prefix of events, but outside of any transaction:
    /// nothing was committed.
    NonTransactional,
    /// A row of the outbox was updated, which is no event.
    Updated {
        table: String,
    },
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
    #[error("column `{column}` of table {table} ({key}) must be {expects}")]
    ColumnType { table: String, column: String, key: &'static str, expects: Expects },
    #[error("more than {} rows in one transaction", u32::MAX)]
    TooManyRows,
}

struct Open {
    commit_lsn: Lsn,
    committed_at_us: i64,
    next_ordinal: u32,
}

impl Open {
    fn next_position(&mut self) -> Result<Position, AssemblyError> {
        let position = Position { commit_lsn: self.commit_lsn, ordinal: self.next_ordinal };
        self.next_ordinal = self.next_ordinal.checked_add(1).ok_or(AssemblyError::TooManyRows)?;
        Ok(position)
    }
}

/// Follows the stream and keeps what its messages refer to.
pub struct Assembler {
    schema: String,
    table: String,
    /// Object ids of the outbox table's partitions.
    partitions: HashSet<u32>,
    wanted: Vec<Wanted>,
    message_prefix: String,
    messages: MessageLayout,
    /// `None` for tables that the publication has besides the outbox.
    layouts: HashMap<u32, Option<Layout>>,
    open: Option<Open>,
}

impl Assembler {
    /// Logical messages of `message_prefix` are events.
    #[must_use]
    pub fn new(outbox: &OutboxTable, message_prefix: &str, wanted: Vec<Wanted>) -> Self {
        let (schema, table) = outbox.qualified();
        Assembler {
            schema: schema.to_owned(),
            table: table.to_owned(),
            messages: MessageLayout::of(outbox, &wanted),
            message_prefix: message_prefix.to_owned(),
            partitions: HashSet::new(),
            wanted,
            layouts: HashMap::new(),
            open: None,
        }
    }

    /// Takes rows of these tables, by object id, for rows of the outbox.
    #[must_use]
    pub fn with_partitions(self, partitions: HashSet<u32>) -> Self {
        Assembler { partitions, ..self }
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
            WalEvent::LogicalMessage { transactional, prefix, content }
                if prefix == self.message_prefix =>
            {
                if transactional {
                    self.message(content)
                } else {
                    Ok(Progress::NonTransactional)
                }
            }
            WalEvent::KeepAlive { .. } | WalEvent::LogicalMessage { .. } => Ok(Progress::Nothing),
        }
    }

    fn message(&mut self, content: Bytes) -> Result<Progress, AssemblyError> {
        let open = self.open.as_mut().ok_or(AssemblyError::OutsideTransaction("message"))?;
        let (position, committed_at_us) = (open.next_position()?, open.committed_at_us);
        Ok(match self.messages.values(&content) {
            Ok(values) => Progress::Row(OutboxRow { position, committed_at_us, values }),
            Err(reason) => Progress::InvalidMessage(InvalidMessage {
                position,
                committed_at_us,
                content,
                reason,
            }),
        })
    }

    fn change(&mut self, data: Bytes) -> Result<Progress, AssemblyError> {
        match pgoutput::decode(data)? {
            Message::Relation(relation) => {
                let name = (relation.namespace.as_str(), relation.name.as_str());
                let is_outbox = name == (self.schema.as_str(), self.table.as_str())
                    || self.partitions.contains(&relation.id);
                let layout = is_outbox.then(|| Layout::of(&relation, &self.wanted)).transpose()?;
                self.layouts.insert(relation.id, layout);
                Ok(Progress::Nothing)
            }
            Message::Insert { relation, row } => {
                let layout =
                    self.layouts.get(&relation).ok_or(AssemblyError::UnknownRelation(relation))?;
                let open = self.open.as_mut().ok_or(AssemblyError::OutsideTransaction("row"))?;
                match layout {
                    Some(layout) => layout.row(&row, open).map(Progress::Row),
                    None => Ok(Progress::Nothing),
                }
            }
            Message::Update { relation } => Ok(match self.layouts.get(&relation) {
                Some(Some(layout)) => Progress::Updated { table: layout.table.clone() },
                _ => Progress::Nothing,
            }),
            Message::Other { .. } => Ok(Progress::Nothing),
        }
    }
}

#[cfg(test)]
mod tests;
