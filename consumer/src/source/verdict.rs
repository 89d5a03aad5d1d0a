//! What an error out of the poll means: for the client to mend, or for the session to
//! end with.

use outpour_schemas::config::Config;
use rdkafka::{
    TopicPartitionList,
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
        Some(Code::AutoOffsetReset) => Err(out_of_range(config, consumer)),
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

/// Finds the partition that stands where its log is not. A topic that was made anew has lost
/// the group's offsets: it is read from its beginning by the next session.
fn out_of_range(config: &Config, consumer: &GroupConsumer) -> ConsumerError {
    let (mut gone, mut made_anew) = (None, None);
    let committed = consumer.committed(REQUEST_TIMEOUT).ok();
    for element in committed.iter().flat_map(TopicPartitionList::elements) {
        let partition = format!("{}/{}", element.topic(), element.partition());
        match element.offset().to_raw().filter(|offset| *offset >= 0) {
            None => made_anew = made_anew.or(Some(partition)),
            Some(offset) => {
                let log = consumer.fetch_watermarks(
                    element.topic(),
                    element.partition(),
                    REQUEST_TIMEOUT,
                );
                if log.is_ok_and(|(low, high)| !(low..=high).contains(&offset)) {
                    gone = gone.or(Some((partition, offset.to_string())));
                }
            }
        }
    }
    match (gone, made_anew) {
        (None, Some(partition)) => ConsumerError::Interrupted(format!(
            "the group's offset of {partition} is gone, as it is where a topic was made anew"
        )),
        (gone, _) => {
            let unknown = || ("a partition".to_owned(), "committed".to_owned());
            let (partition, offset) = gone.unwrap_or_else(unknown);
            ConsumerError::RecordsGone { group: config.consumer.group.clone(), partition, offset }
        }
    }
}

/// Kafka could not do this.
pub(crate) fn kafka_error(
    config: &Config,
    doing: &'static str,
    source: KafkaError,
) -> ConsumerError {
    ConsumerError::Kafka { doing, brokers: config.kafka.brokers.clone(), source }
}
