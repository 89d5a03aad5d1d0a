//! Topics are made here, with the partitions and replicas that were asked for,
//! not by the broker's auto-creation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outpour_schemas::{config::Kafka, kafka::client_config, wire};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::REQUEST_TIMEOUT;
use crate::error::RelayError;

pub(super) struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    brokers: String,
}

impl Topics {
    pub(super) fn connect(kafka: &Kafka) -> Result<Self, RelayError> {
        let brokers = kafka.brokers.clone();
        // Nobody takes what such a client says, and it would pile up.
        match client_config(kafka)?.set_log_level(RDKafkaLogLevel::Emerg).create() {
            Ok(admin) => Ok(Topics { admin: Arc::new(admin), brokers }),
            Err(source) => Err(RelayError::Kafka { doing: "connecting", brokers, source }),
        }
    }

    pub(super) async fn ensure_checkpoints(&self, replicas: u16) -> Result<(), RelayError> {
        let topic =
            NewTopic::new(wire::CHECKPOINT_TOPIC, 1, TopicReplication::Fixed(i32::from(replicas)))
                .set("cleanup.policy", "compact")
                // Only closed segments are compacted, and every start reads the rest.
                .set("segment.bytes", "16777216")
                .set("min.cleanable.dirty.ratio", "0.1");
        self.create(topic).await
    }

    pub(super) async fn ensure(
        &self,
        name: &str,
        partitions: u32,
        replicas: u16,
    ) -> Result<(), RelayError> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.create(NewTopic::new(name, partitions, TopicReplication::Fixed(i32::from(replicas))))
            .await
    }

    /// How many partitions a topic has that is there, or has just been made.
    pub(super) async fn partitions(&self, name: &str) -> Result<i32, RelayError> {
        const LAG: Duration = Duration::from_millis(50);
        let until = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let (admin, topic) = (Arc::clone(&self.admin), name.to_owned());
            let metadata = tokio::task::spawn_blocking(move || {
                admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)
            })
            .await
            .map_err(RelayError::Worker)?
            .map_err(|source| self.failed("counting partitions", source))?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if count > 0 {
                return Ok(i32::try_from(count).unwrap_or(i32::MAX));
            }
            // A broker may hear of a new topic after the one that made it.
            if Instant::now() >= until {
                return Err(RelayError::Topic {
                    topic: name.to_owned(),
                    brokers: self.brokers.clone(),
                    code: RDKafkaErrorCode::UnknownTopicOrPartition,
                });
            }
            tokio::time::sleep(LAG).await;
        }
    }

    async fn create(&self, topic: NewTopic<'_>) -> Result<(), RelayError> {
        let options = AdminOptions::new()
            .operation_timeout(Some(REQUEST_TIMEOUT))
            .request_timeout(Some(REQUEST_TIMEOUT));
        let results = self
            .admin
            .create_topics([&topic], &options)
            .await
            .map_err(|source| self.failed("creating a topic", source))?;
        for result in results {
            match result {
                Ok(name) => {
                    tracing::info!(
                        topic = name,
                        partitions = topic.num_partitions,
                        "topic created"
                    );
                }
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(RelayError::Topic { topic, brokers: self.brokers.clone(), code });
                }
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: KafkaError) -> RelayError {
        RelayError::Kafka { doing, brokers: self.brokers.clone(), source }
    }
}
