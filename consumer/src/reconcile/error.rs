//! Why nothing was compared, and what it came to where it was.

use outpour_schemas::{postgres::PostgresError, program::Exit};

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("--topic {topic}: the consumer does not read it; consumer.topics is {topics:?}")]
    NotRead { topic: String, topics: Vec<String> },
    #[error("--since: {0}")]
    Since(String),
    #[error("Kafka at {brokers} has no topic that consumer.topics takes: {topics:?}")]
    NoTopics { brokers: String, topics: Vec<String> },
    #[error(
        "group `{group}` has committed nothing in {topics}: there is nothing to compare before \
         `outpour-consumer run` has stored its first batch"
    )]
    NothingCommitted { group: String, topics: String },
    #[error(
        "--since {offset}: group `{group}` stands at offset {furthest} at most; there is nothing \
         to compare from there on"
    )]
    BehindSince { offset: i64, group: String, furthest: i64 },
    #[error(
        "table {table} has no columns `_topic`, `_partition` and `_offset`, so that its rows do not \
         say which records they are; rows from now on do after {fix}"
    )]
    NoProvenance { table: String, fix: String },
    #[error(
        "table {table} has engine {engine}, which makes one row of several, and their offsets are \
         none any more: there is nothing to compare; {remedy}"
    )]
    Combined { table: String, engine: String, remedy: String },
    #[error(
        "--outbox --fix writes rows of {table} anew by deleting them first, and its foreign keys would \
         change rows of {by} with them (ON DELETE CASCADE, SET NULL or SET DEFAULT); nothing was changed"
    )]
    Referenced { table: String, by: String },
    #[error(
        "--outbox --fix: {rows} rows that were written anew did not come to be in {table}: a trigger or \
         rule there keeps them out; nothing was changed"
    )]
    NotWrittenAnew { table: String, rows: i64 },
    #[error("table {table} was altered while its values were compared; ask again")]
    Altered { table: String },
    #[error(
        "--fix: rows of table {table} would be deleted and read again, and {engine} would put them \
         before newer ones. What is there more than once goes by OPTIMIZE TABLE {table} FINAL, where \
         the engine replaces rows"
    )]
    Merges { table: String, engine: String },
    #[error(
        "a transaction in {topic} has been open for more than {seconds} s, and what is behind it cannot \
         be read; it ends by itself when its time-out has passed"
    )]
    OpenTransaction { topic: String, seconds: u64 },
    #[error("--outbox: outbox.table is empty, and events that come as messages are in no table")]
    NoOutbox,
    #[error("--outbox: PostgreSQL has no table {table} (outbox.table)")]
    NoOutboxTable { table: String },
    #[error(
        "{waiting} of the events in {table} did not come to Kafka, and no relay has brought slot `{slot}` past them: \
         they are not published yet, or lost. Start outpour-relay, and ask again"
    )]
    NotPublished { waiting: u64, table: String, slot: String },
    #[error(
        "--fix: with relay.mode = \"poll\", set {column} to NULL in the rows of {table} that are \
         missing: the relay publishes them then"
    )]
    Polled { table: String, column: String },
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("{0}")]
    Discrepancies(String),
}

impl ReconcileError {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            ReconcileError::NotRead { .. }
            | ReconcileError::Since(_)
            | ReconcileError::BehindSince { .. }
            | ReconcileError::NoOutbox
            | ReconcileError::Polled { .. }
            | ReconcileError::NoOutboxTable { .. }
            | ReconcileError::Combined { .. }
            | ReconcileError::Merges { .. }
            | ReconcileError::NoProvenance { .. } => Exit::Usage,
            ReconcileError::Discrepancies(_) => Exit::Finding,
            _ => Exit::Failed,
        }
    }
}
