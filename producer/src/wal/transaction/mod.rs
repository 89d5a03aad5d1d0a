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
    charset::Charset,
    message::{InvalidMessage, MessageLayout},
    oid,
    pgoutput::{self, Message, PgoutputError, Relation},
    row::{Expects, OutboxRow, Wanted},
};

/// What the relay has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Row(OutboxRow),
    /// A row that no record can be made of, unless it is published already.
    Unfit {
        row: OutboxRow,
        reason: AssemblyError,
        /// The columns that it has.
        columns: Vec<String>,
    },
    /// A table whose rows are about to come, and that is not known to be the
    /// outbox's.
    Stranger {
        table: String,
        /// Whether records could be made of its rows.
        is_alike: bool,
    },
    /// A message that should have been a row.
    InvalidMessage(InvalidMessage),
    /// A message with the prefix of events, but outside of any transaction:
    /// nothing was committed.
    NonTransactional,
    /// An event, but not under our prefix.
    OtherPrefix {
        prefix: String,
    },
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
    /// Object ids of the tables whose rows are the outbox's, whatever they are
    /// called.
    members: HashSet<u32>,
    wanted: Vec<Wanted>,
    message_prefix: String,
    messages: MessageLayout,
    charset: Charset,
    /// What domains are domains over, by object id.
    base_types: HashMap<u32, u32>,
    tables: HashMap<u32, Table>,
    open: Option<Open>,
}

/// What the stream has said of a table.
enum Table {
    Outbox(Layout),
    /// One that the publication has besides the outbox.
    Other(Relation),
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
            members: HashSet::new(),
            wanted,
            charset: Charset::Utf8,
            base_types: HashMap::new(),
            tables: HashMap::new(),
            open: None,
        }
    }

    /// Text of the stream is of this encoding, but for that of messages.
    #[must_use]
    pub fn with_charset(self, charset: Charset) -> Self {
        // The client library takes a message's prefix for UTF-8.
        let message_prefix = charset.mistaken(&self.message_prefix);
        Assembler { charset, message_prefix, ..self }
    }

    /// Takes rows of these tables, by object id, for rows of the outbox. Whether
    /// there is one among them that was a stranger.
    pub fn adopt(&mut self, members: HashSet<u32>) -> bool {
        self.members = members;
        let mut has_adopted = false;
        for (id, table) in &mut self.tables {
            if let Table::Other(relation) = table
                && self.members.contains(id)
            {
                *table = Table::Outbox(Layout::of(relation, &self.wanted));
                has_adopted = true;
            }
        }
        has_adopted
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
            WalEvent::LogicalMessage { transactional, prefix, content }
                if transactional && self.messages.is_event(&content) =>
            {
                Ok(Progress::OtherPrefix { prefix })
            }
            WalEvent::KeepAlive { .. } | WalEvent::LogicalMessage { .. } => Ok(Progress::Nothing),
        }
    }

    fn message(&mut self, content: Bytes) -> Result<Progress, AssemblyError> {
        let open = self.open.as_mut().ok_or(AssemblyError::OutsideTransaction("message"))?;
        let (position, committed_at_us) = (open.next_position()?, open.committed_at_us);
        Ok(match self.messages.values(&content) {
            Ok(values) => {
                Progress::Row(OutboxRow { position, committed_at_us, values, unreadable: None })
            }
            Err(reason) => Progress::InvalidMessage(InvalidMessage {
                position,
                committed_at_us,
                content,
                reason,
            }),
        })
    }

    fn change(&mut self, data: Bytes) -> Result<Progress, AssemblyError> {
        match pgoutput::decode(data, &self.charset)? {
            Message::Type { id, namespace, name } => {
                if let Some(base) = oid::of(&name).filter(|_| namespace == "pg_catalog") {
                    self.base_types.insert(id, base);
                }
                Ok(Progress::Nothing)
            }
            Message::Relation(relation) => Ok(self.relation(relation)),
            Message::Insert { relation, row } => {
                let table =
                    self.tables.get(&relation).ok_or(AssemblyError::UnknownRelation(relation))?;
                let open = self.open.as_mut().ok_or(AssemblyError::OutsideTransaction("row"))?;
                let Table::Outbox(layout) = table else { return Ok(Progress::Nothing) };
                let row = layout.row(&row, open, &self.charset)?;
                Ok(match layout.unfit.clone() {
                    None => Progress::Row(row),
                    Some(reason) => {
                        Progress::Unfit { row, reason, columns: layout.columns().to_vec() }
                    }
                })
            }
            Message::Update { relation } => Ok(match self.tables.get(&relation) {
                Some(Table::Outbox(layout)) => Progress::Updated { table: layout.table.clone() },
                _ => Progress::Nothing,
            }),
            Message::Other { .. } => Ok(Progress::Nothing),
        }
    }

    fn relation(&mut self, mut relation: Relation) -> Progress {
        for column in &mut relation.columns {
            column.type_oid = *self.base_types.get(&column.type_oid).unwrap_or(&column.type_oid);
        }
        let id = relation.id;
        let layout = Layout::of(&relation, &self.wanted);
        let is_outbox = (&relation.namespace, &relation.name) == (&self.schema, &self.table)
            || self.members.contains(&id);
        if is_outbox {
            self.tables.insert(id, Table::Outbox(layout));
            return Progress::Nothing;
        }
        self.tables.insert(id, Table::Other(relation));
        Progress::Stranger { is_alike: layout.unfit.is_none(), table: layout.table }
    }
}

#[cfg(test)]
mod tests;
