//! What an error out of the poll means: for the client to mend, or for the session to
//! end with.

use outpour_schemas::config::Config;
use rdkafka::{
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::kafka::{GroupConsumer, REQUEST_TIMEOUT};
use crate::error::ConsumerError;

/// # Errors
/// Where the session has to end.
pub(crate) fn judge(
    config: &Config,
    consumer: &GroupConsumer,
    error: KafkaError,
) -> Result<(), ConsumerError> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset) => Err(records_gone(config, consumer)),
        Some(Code::FencedInstanceId | Code::UnreleasedInstanceId) => Err(ConsumerError::NameTaken),
        Some(Code::Fatal) if is_fenced(consumer) => Err(ConsumerError::NameTaken),
        Some(
            Code::Fatal
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::PollExceeded,
        ) => Err(kafka_error(config, "consuming", error)),
        // The rest the client mends itself: connections, leaders, coordinators.
        _ => {
            tracing::debug!(%error, "consuming");
            Ok(())
        }
    }
}

/// Whether another member has the same name.
fn is_fenced(consumer: &GroupConsumer) -> bool {
    use RDKafkaErrorCode as Code;
    let fatal = consumer.client().fatal_error();
    matches!(fatal, Some((Code::FencedInstanceId | Code::UnreleasedInstanceId, _)))
}

/// Finds the partition whose committed offset has fallen out of the log.
fn records_gone(config: &Config, consumer: &GroupConsumer) -> ConsumerError {
    let gone = consumer.committed(REQUEST_TIMEOUT).ok().and_then(|committed| {
        committed.elements().iter().find_map(|element| {
            let offset = element.offset().to_raw()?;
            let (low, _) = consumer
                .fetch_watermarks(element.topic(), element.partition(), REQUEST_TIMEOUT)
                .ok()?;
            (offset < low).then(|| {
                (format!("{}/{}", element.topic(), element.partition()), offset.to_string())
            })
        })
    });
    let (partition, offset) = gone.unwrap_or(("a partition".to_owned(), "committed".to_owned()));
    ConsumerError::RecordsGone { group: config.consumer.group.clone(), partition, offset }
}

/// Kafka could not do this.
pub(crate) fn kafka_error(
    config: &Config,
    doing: &'static str,
    source: KafkaError,
) -> ConsumerError {
    ConsumerError::Kafka { doing, brokers: config.kafka.brokers.clone(), source }
}
