use std::time::Duration;

use outpour_schemas::{Envelope, EnvelopeError, config::ConfigError, wire::TopicError};
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};

pub use crate::kafka::topics::TopicsError;

/// Why there is no event producer.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// A setting of `kafka.properties`, or one made from the others.
    #[error("the Kafka client does not take its settings")]
    Client(#[source] KafkaError),
}

/// An event that Kafka has not acknowledged, and why.
#[derive(Debug, thiserror::Error)]
#[error("event {} is not in Kafka: {refusal}", event.id)]
pub struct SendError {
    /// The event as it was handed over, to be sent again or kept elsewhere.
    pub event: Box<Envelope>,
    pub refusal: Refusal,
}

/// Why an event was not sent, or not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error(transparent)]
    Invalid(#[from] EnvelopeError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("its record has {size} bytes, more than max_record_bytes = {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the queue of {capacity} bytes is full of events that Kafka has not acknowledged")]
    Full { capacity: usize },
    /// Only of `try_enqueue`, which cannot wait for the answer.
    #[error("it is not known yet whether topic `{topic}` is there; call ensure_topic at the start")]
    TopicUnknown { topic: String },
    #[error("there is no topic for it: {0}")]
    NoTopic(Box<TopicsError>),
    #[error("no broker answered within {} s", within.as_secs_f64())]
    Unreachable { within: Duration },
    #[error("Kafka has not acknowledged it: {0}")]
    NotDelivered(Box<KafkaError>),
    #[error("the event producer is shut down")]
    Closed,
}

impl SendError {
    pub(super) fn new(event: Envelope, refusal: Refusal) -> Self {
        SendError { event: Box::new(event), refusal }
    }

    /// Whether the event may be in Kafka in spite of the error, since it was sent
    /// and no answer came. Sending it again may then double it there, under the
    /// same id.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        // What was in the queue, or what a broker has refused, is certain.
        const CERTAIN: [RDKafkaErrorCode; 9] = [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::QueueFull,
            RDKafkaErrorCode::Fatal,
            RDKafkaErrorCode::UnknownTopic,
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::InvalidTopic,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::ClusterAuthorizationFailed,
        ];
        match &self.refusal {
            Refusal::NotDelivered(source) => {
                source.rdkafka_error_code().is_none_or(|code| !CERTAIN.contains(&code))
            }
            _ => false,
        }
    }
}

/// Why `log_event` did not accept an event.
#[derive(Debug, thiserror::Error)]
pub enum LogEventError {
    /// It cannot be written as JSON, or names nothing to route by.
    #[error(transparent)]
    Event(#[from] EnvelopeError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// What was not delivered when the time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{pending} events are not delivered, and {failed} more failed unnoticed before")]
pub struct Undelivered {
    /// Events still on their way at the end of the time. After `flush` they go on;
    /// after `shutdown` each has been handed back to whoever waits for it.
    pub pending: usize,
    /// Events that failed since the last `flush` and that nobody waited for. The
    /// log has their ids.
    pub failed: u64,
}
