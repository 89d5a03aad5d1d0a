//! What can go wrong in the consumer, and what it means to the caller.

use outpour_schemas::{
    config::ConfigError,
    kafka::ReachError,
    program::{DoctorError, Exit, HttpError},
};
use rdkafka::error::KafkaError;

use crate::{
    confirm::Unconfirmed,
    decode::MappingError,
    deduplication::Unfit,
    dlq::DlqError,
    plan::PlanError,
    reconcile::ReconcileError,
    replay::ReplayError,
    sink::{Class, ClickHouse, SinkError},
    source::TopicPartition,
    table::SchemaError,
};

#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Mapping(#[from] MappingError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("{doing} in ClickHouse at {url} failed")]
    ClickHouse { doing: &'static str, url: String, source: SinkError },
    #[error("{doing} on Kafka at {brokers} failed")]
    Kafka { doing: &'static str, brokers: String, source: KafkaError },
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("Kafka has sent nothing of {topic} for {seconds} s, with records to come")]
    Silent { topic: String, seconds: u64 },
    #[error("topic `{topic}` does not exist on Kafka at {brokers}")]
    NoTopic { topic: String, brokers: String },
    #[error(
        "table {table} does not exist in ClickHouse at {url}; create it (`outpour-consumer init` makes event_log)"
    )]
    NoTable { table: String, url: String },
    #[error("table {table} {unfit}; {fix}")]
    Unfit { table: String, unfit: Unfit, fix: String },
    #[error(
        "group `{group}`: offset {offset} of {partition} is no longer in Kafka; records were removed \
         before they were read. To go on behind them, stop the group and run once with --accept-gap"
    )]
    RecordsGone { group: String, partition: String, offset: String },
    /// See `source::member`.
    #[error("the group has another member of this one's name")]
    NameTaken,
    #[error(
        "the batch under way in {partition} was planned by a newer version of this program; \
         going on without its plan could store it twice"
    )]
    NewerPlan { partition: TopicPartition, source: PlanError },
    #[error("group `{group}` has members: {advice}")]
    GroupInUse { group: String, advice: &'static str },
    #[error("{0}")]
    Interrupted(String),
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    DeadLetters(#[from] DlqError),
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("cannot receive signals")]
    Signals(#[from] ctrlc::Error),
    #[error("cannot write the result")]
    Output(#[from] std::io::Error),
    #[error("a worker thread ended unexpectedly")]
    Worker(#[source] tokio::task::JoinError),
}

impl ConsumerError {
    pub(crate) fn clickhouse(
        doing: &'static str,
        clickhouse: &ClickHouse,
        source: SinkError,
    ) -> Self {
        ConsumerError::ClickHouse { doing, url: clickhouse.urls(), source }
    }

    /// Whether starting over may work without anybody's doing.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ConsumerError::ClickHouse { source, .. } => {
                matches!(source.class(), Class::Transient | Class::Unclear)
            }
            ConsumerError::Kafka { .. }
            | ConsumerError::Reach(_)
            | ConsumerError::NameTaken
            | ConsumerError::Interrupted(_)
            | ConsumerError::Worker(_) => true,
            _ => false,
        }
    }

    /// A stable name for metrics: which side of a session it was.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            ConsumerError::ClickHouse { .. } => "clickhouse",
            ConsumerError::Kafka { .. }
            | ConsumerError::Reach(_)
            | ConsumerError::NoTopic { .. }
            | ConsumerError::Silent { .. }
            | ConsumerError::GroupInUse { .. }
            | ConsumerError::NameTaken => "kafka",
            ConsumerError::Schema(_)
            | ConsumerError::Mapping(_)
            | ConsumerError::NoTable { .. }
            | ConsumerError::Unfit { .. } => "tables",
            ConsumerError::RecordsGone { .. } => "records_gone",
            ConsumerError::NewerPlan { .. } => "newer_plan",
            ConsumerError::Interrupted(_) => "interrupted",
            ConsumerError::Config(_)
            | ConsumerError::Http(_)
            | ConsumerError::Signals(_)
            | ConsumerError::Output(_)
            | ConsumerError::Doctor(_)
            | ConsumerError::Reconcile(_)
            | ConsumerError::Replay(_)
            | ConsumerError::DeadLetters(_)
            | ConsumerError::Unconfirmed(_)
            | ConsumerError::Worker(_) => "other",
        }
    }

    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            ConsumerError::Config(_) | ConsumerError::Mapping(_) => Exit::Usage,
            ConsumerError::Unfit { .. }
            | ConsumerError::RecordsGone { .. }
            | ConsumerError::NewerPlan { .. } => Exit::Finding,
            ConsumerError::Doctor(error) => error.exit(),
            ConsumerError::Reconcile(error) => error.exit(),
            ConsumerError::Replay(error) => error.exit(),
            ConsumerError::DeadLetters(error) => error.exit(),
            ConsumerError::Unconfirmed(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}
