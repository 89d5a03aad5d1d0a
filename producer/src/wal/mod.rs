//! PostgreSQL's write-ahead log, from bytes to outbox rows.
//!
//! ```text
//! slot.rs      is the slot there, whose is it, how far has it come   (I/O)
//! mark.rs      places in the log that the stream can be waited for at  (I/O)
//! stream.rs    the replication connection ──▶ WalEvent               (I/O)
//! publication.rs  does the publication have the outbox                (I/O)
//! table.rs     the outbox table as the catalog has it now             (I/O)
//! pgoutput.rs  bytes of a change          ──▶ Relation, Insert       (pure)
//! charset.rs   text of the database       ──▶ UTF-8                  (pure)
//! message.rs   content of a logical message ──▶ values of a row      (pure)
//! transaction/   events                  ──▶ OutboxRow, Committed   (pure)
//! row.rs, oid.rs  what a row is, and its types
//! sqlstate.rs  which kind of error the server sent                     (pure)
//! timeline.rs  which histories a server's log has been through          (pure)
//! ```

pub mod charset;
pub(crate) mod mark;
pub mod message;
pub mod oid;
pub mod pgoutput;
pub(crate) mod publication;
pub mod row;
pub(crate) mod slot;
mod sqlstate;
pub(crate) mod stream;
pub(crate) mod table;
pub mod timeline;
pub mod transaction;

use bytes::Bytes;
use outpour_schemas::Lsn;

/// What the replication connection delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalEvent {
    Begin {
        commit_lsn: Lsn,
        /// Microseconds since the Unix epoch.
        committed_at_us: i64,
    },
    /// A pgoutput message.
    Change(Bytes),
    /// A message of `pg_logical_emit_message`, anybody's.
    LogicalMessage {
        /// Whether it is part of a transaction, and was committed with it.
        transactional: bool,
        prefix: String,
        content: Bytes,
    },
    Commit {
        end_lsn: Lsn,
    },
    KeepAlive {
        wal_end: Lsn,
    },
}
