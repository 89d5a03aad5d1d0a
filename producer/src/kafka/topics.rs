//! Topics are made here, with the partitions and replicas that were asked for,
//! not by the broker's auto-creation.

use std::sync::Arc;
#[cfg(feature = "relay")]
use std::time::{Duration, Instant};

use outpour_schemas::{
    config::{ConfigError, Kafka},
    kafka::{ReachError, client_config, new_topic},
};
#[cfg(feature = "relay")]
use outpour_schemas::{kafka::settings, wire};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::REQUEST_TIMEOUT;
#[cfg(feature = "relay")]
use super::limits::Limits;

/// Why a topic is not known to be there.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("{doing} on Kafka at {brokers} failed")]
    Kafka { doing: &'static str, brokers: String, source: KafkaError },
    #[error("cannot create topic `{topic}` on Kafka at {brokers}: {code}")]
    Refused { topic: String, brokers: String, code: RDKafkaErrorCode },
    #[error("a worker thread ended unexpectedly")]
    Worker(#[source] tokio::task::JoinError),
}

impl TopicsError {
    /// Whether Kafka takes no topic of this name, though it has the form of one.
    #[cfg(feature = "relay")]
    pub(crate) fn is_name_refused(&self) -> bool {
        matches!(self, TopicsError::Refused { code: RDKafkaErrorCode::InvalidTopic, .. })
    }

    /// Whether asking again could help without anybody's doing.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            TopicsError::Kafka { .. }
            | TopicsError::Reach(ReachError::Silent { .. })
            | TopicsError::Worker(_) => true,
            TopicsError::Config(_) | TopicsError::Reach(ReachError::Refused { .. }) => false,
            TopicsError::Refused { code, .. } => !matches!(
                code,
                RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::InvalidConfig
                    | RDKafkaErrorCode::InvalidPartitions
                    | RDKafkaErrorCode::InvalidTopic
                    | RDKafkaErrorCode::PolicyViolation
                    | RDKafkaErrorCode::TopicAuthorizationFailed
            ),
        }
    }
}

pub(crate) struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    brokers: String,
}

impl Topics {
    pub(crate) fn connect(kafka: &Kafka) -> Result<Self, TopicsError> {
        let brokers = kafka.brokers.clone();
        let mut settings = client_config(kafka)?;
        settings
            // Or the broker would make a topic of its own liking when asked for one.
            .set("allow.auto.create.topics", "false")
            // Nobody takes what such a client says, and it would pile up.
            .set_log_level(RDKafkaLogLevel::Emerg);
        match settings.create() {
            Ok(admin) => Ok(Topics { admin: Arc::new(admin), brokers }),
            Err(source) => Err(TopicsError::Kafka { doing: "connecting", brokers, source }),
        }
    }

    /// Makes the topic with `settings`, unless it is there; with as many partitions and
    /// replicas as the brokers choose where it is not said.
    pub(crate) async fn ensure(
        &self,
        name: &str,
        partitions: Option<u32>,
        replicas: Option<u16>,
        settings: &[(&str, &str)],
    ) -> Result<(), TopicsError> {
        let topic = new_topic(name, partitions, replicas);
        self.create(settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))).await
    }

    /// How many partitions the topic has; 0 if no broker knows it.
    async fn count(&self, name: &str) -> Result<i32, TopicsError> {
        let (admin, topic) = (Arc::clone(&self.admin), name.to_owned());
        let metadata = tokio::task::spawn_blocking(move || {
            admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)
        })
        .await
        .map_err(TopicsError::Worker)?
        .map_err(|source| self.failed("counting partitions", source))?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    async fn create(&self, topic: NewTopic<'_>) -> Result<(), TopicsError> {
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
                    tracing::info!(topic = name, "topic created");
                }
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // Whoever may not make topics may still write to this one.
                Err((topic, _)) if self.count(&topic).await.is_ok_and(|count| count > 0) => {}
                Err((topic, code)) => {
                    return Err(TopicsError::Refused {
                        topic,
                        brokers: self.brokers.clone(),
                        code,
                    });
                }
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: KafkaError) -> TopicsError {
        TopicsError::Kafka { doing, brokers: self.brokers.clone(), source }
    }
}

#[cfg(feature = "relay")]
impl Topics {
    pub(crate) async fn ensure_checkpoints(
        &self,
        replicas: Option<u16>,
    ) -> Result<(), TopicsError> {
        let settings = [
            ("cleanup.policy", "compact"),
            // Only closed segments are compacted, and every start reads the rest.
            ("segment.bytes", "16777216"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ];
        self.ensure(wire::CHECKPOINT_TOPIC, Some(1), replicas, &settings).await
    }

    /// What a topic takes and keeps.
    pub(crate) async fn limits(&self, name: &str) -> Limits {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let topic = [ResourceSpecifier::Topic(name)];
        let described = self.admin.describe_configs(&topic, &options).await.unwrap_or_default();
        Limits::of(&described.into_iter().flatten().next().map(|topic| settings(topic.entries)))
    }

    /// What [`Self::ensure`] has answered before.
    pub(crate) fn refused(&self, name: &str, code: RDKafkaErrorCode) -> TopicsError {
        TopicsError::Refused { topic: name.to_owned(), brokers: self.brokers.clone(), code }
    }

    /// How many partitions a topic has that is there, or has just been made.
    pub(crate) async fn partitions(&self, name: &str) -> Result<i32, TopicsError> {
        const LAG: Duration = Duration::from_millis(50);
        let until = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let count = self.count(name).await?;
            if count > 0 {
                return Ok(count);
            }
            // A broker may hear of a new topic after the one that made it.
            if Instant::now() >= until {
                return Err(TopicsError::Refused {
                    topic: name.to_owned(),
                    brokers: self.brokers.clone(),
                    code: RDKafkaErrorCode::UnknownTopicOrPartition,
                });
            }
            tokio::time::sleep(LAG).await;
        }
    }
}
