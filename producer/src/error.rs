//! What can go wrong in the relay, and what it means to the caller.

use outpour_schemas::{
    Position,
    config::ConfigError,
    kafka::ReachError,
    program::{DoctorError, Exit, HttpError},
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::{
    kafka::topics::TopicsError,
    outbox::OutboxError,
    poll::PollError,
    postgres::PostgresError,
    relay::SnapshotError,
    wal::{slot::SlotError, transaction::AssemblyError},
};

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(transparent)]
    Poll(#[from] PollError),
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    #[error("{reason}: so it is in the log at {position}. {}", way_on(.reason, .columns))]
    Unfit { position: Position, reason: AssemblyError, columns: Vec<String> },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(
        "a row of {table} was updated, which is no event; publish inserts only, \
         or set relay.op_invalid_behavior to warn"
    )]
    Updated { table: String },
    #[error("the server ended the replication stream")]
    StreamEnded,
    #[error("{doing} on Kafka at {brokers} failed")]
    Kafka { doing: &'static str, brokers: String, source: KafkaError },
    #[error("Kafka at {brokers} refused a record of topic `{topic}`")]
    Refused { topic: String, brokers: String, source: RDKafkaErrorCode },
    #[error("records of topic `{topic}` cannot be delivered to Kafka at {brokers}")]
    Undelivered { topic: String, brokers: String, source: RDKafkaErrorCode },
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Topics(Box<TopicsError>),
    #[error(
        "topic `{topic}` takes batches of at most {largest} bytes (max.message.bytes); \
         from now on they are no larger"
    )]
    SmallBatches { topic: String, largest: usize },
    #[error("checkpoint in topic `{topic}` cannot be read")]
    Checkpoint { topic: &'static str, source: serde_json::Error },
    #[error(
        "another relay with slot `{slot}` has taken over; of databases that share a Kafka cluster each needs a relay.slot of its own"
    )]
    Fenced { slot: String },
    #[error("a Kafka transaction was open for more than relay.transaction_timeout ({seconds} s)")]
    TransactionTimedOut { seconds: u64 },
    #[error(
        "events may be lost or doubled on slot `{slot}`: {what}. To go on from the slot's position, run with --accept-gap"
    )]
    Gap { slot: String, what: String },
    #[error("cannot create {what} ({made})")]
    Init { what: String, made: String, source: PostgresError },
    #[error(transparent)]
    Emit(#[from] EmitError),
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("cannot write the result")]
    Output(#[from] std::io::Error),
    #[error("cannot receive signals")]
    Signals(#[from] ctrlc::Error),
    #[error("a worker thread ended unexpectedly")]
    Worker(#[source] tokio::task::JoinError),
}

/// Why `emit` did not take its input.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    #[error("cannot read {input}")]
    Read { input: String, source: std::io::Error },
    #[error(
        "table {table} is missing, or has no column `{column}` ({key}) to write to; \
         `outpour-relay init` creates a table"
    )]
    NoColumn { table: String, column: String, key: &'static str },
    #[error("{input} is empty: expected one JSON object a line")]
    Empty { input: String },
    #[error("{input}, line {line}: {reason}{written}")]
    Line { input: String, line: u64, reason: String, written: String },
    #[error("{input}, lines up to {line}: {source}{written}")]
    Write { input: String, line: u64, source: OutboxError, written: String },
}

/// How to get past rows that the configuration does not fit.
fn way_on(reason: &AssemblyError, columns: &[String]) -> String {
    let key = match reason {
        AssemblyError::MissingColumn { key, .. } | AssemblyError::ColumnType { key, .. } => key,
        _ => "outbox",
    };
    let ignore = match key {
        "relay.additional_fields" => " (or relay.additional_field_missing = \"ignore\")",
        _ => "",
    };
    format!(
        "Everything before is published. The rows there have the columns {}: set {key}{ignore} to fit \
         them and start again. Where the log comes to rows of another form, the relay stops once \
         more, and the key can be set back",
        columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ")
    )
}

impl From<TopicsError> for RelayError {
    fn from(error: TopicsError) -> Self {
        match error {
            TopicsError::Config(error) => RelayError::Config(error),
            error => RelayError::Topics(error.into()),
        }
    }
}

impl RelayError {
    /// Whether Kafka takes no topic of the name that was asked for.
    pub(crate) fn is_topic_refused(&self) -> bool {
        matches!(self, RelayError::Topics(error) if error.is_name_refused())
    }

    /// Whether Kafka refuses the topic that was asked for, and that one alone.
    pub(crate) fn is_of_topic(&self) -> bool {
        matches!(self, RelayError::Topics(error)
            if matches!(**error, TopicsError::Refused { .. }) && !error.is_transient())
    }

    /// Whether another session may work without anybody's doing.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RelayError::Slot(error) => error.is_transient(),
            RelayError::Poll(error) => error.is_transient(),
            RelayError::Postgres(_)
            | RelayError::StreamEnded
            | RelayError::Kafka { .. }
            | RelayError::Refused { .. }
            | RelayError::Undelivered { .. }
            | RelayError::Reach(_)
            | RelayError::Topics(_)
            | RelayError::SmallBatches { .. }
            | RelayError::TransactionTimedOut { .. }
            | RelayError::Worker(_) => true,
            RelayError::Config(_)
            | RelayError::Assembly(_)
            | RelayError::Unfit { .. }
            | RelayError::Snapshot(_)
            | RelayError::Updated { .. }
            | RelayError::Checkpoint { .. }
            | RelayError::Fenced { .. }
            | RelayError::Gap { .. }
            | RelayError::Init { .. }
            | RelayError::Emit(_)
            | RelayError::Doctor(_)
            | RelayError::Http(_)
            | RelayError::Output(_)
            | RelayError::Signals(_) => false,
        }
    }

    /// Whether the next session knows something that this one did not, so that it is
    /// not the same attempt.
    pub(crate) fn is_learned(&self) -> bool {
        matches!(self, RelayError::Refused { .. } | RelayError::SmallBatches { .. })
    }

    /// Whether it is something in the log that stops the relay, before which
    /// everything can be published.
    pub(crate) fn is_of_the_log(&self) -> bool {
        matches!(
            self,
            RelayError::Assembly(_) | RelayError::Unfit { .. } | RelayError::Updated { .. }
        )
    }

    pub(crate) fn is_held_slot(&self) -> bool {
        matches!(
            self,
            RelayError::Slot(SlotError::Held { .. }) | RelayError::Poll(PollError::Held { .. })
        )
    }

    /// A stable name for metrics: which side of a session it was.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            RelayError::Postgres(_) => "postgres",
            RelayError::Slot(_) => "slot",
            RelayError::StreamEnded => "stream_ended",
            RelayError::Poll(_)
            | RelayError::Assembly(_)
            | RelayError::Unfit { .. }
            | RelayError::Snapshot(_)
            | RelayError::Updated { .. } => "outbox",
            RelayError::Kafka { .. }
            | RelayError::Refused { .. }
            | RelayError::Undelivered { .. }
            | RelayError::Reach(_)
            | RelayError::Topics(_)
            | RelayError::SmallBatches { .. } => "kafka",
            RelayError::Checkpoint { .. } => "checkpoint",
            RelayError::TransactionTimedOut { .. } => "transaction_timeout",
            RelayError::Fenced { .. } => "fenced",
            RelayError::Gap { .. } => "gap",
            RelayError::Config(_)
            | RelayError::Init { .. }
            | RelayError::Emit(_)
            | RelayError::Doctor(_)
            | RelayError::Http(_)
            | RelayError::Output(_)
            | RelayError::Signals(_)
            | RelayError::Worker(_) => "other",
        }
    }

    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            RelayError::Config(_) => Exit::Usage,
            RelayError::Gap { .. } => Exit::Finding,
            RelayError::Doctor(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}
