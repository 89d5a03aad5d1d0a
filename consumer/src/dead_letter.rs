//! What fits no table is kept in Kafka, whole and with the reason.

use std::{collections::HashSet, sync::Arc, time::Duration};

use outpour_schemas::{
    config::Consumer,
    kafka::{Heard, Watched},
    wire::{DEAD_LETTER_PREFIX, Header, dead_letter as name},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header as KafkaHeader, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::Mutex;

use crate::{batch::Parked, source::TopicPartition};

/// A place that keeps what was rejected.
pub(crate) trait DeadLetters: Send + Sync + 'static {
    /// Returns when every letter is durable.
    fn park(
        &self,
        source: &TopicPartition,
        letters: &[Parked],
    ) -> impl Future<Output = Result<(), KafkaError>> + Send;
}

/// The topic that keeps what came from `source`.
#[must_use]
pub(crate) fn dead_letter_topic(source: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{source}")
}

/// Dead letters in topics of their own, one for each source topic.
pub(crate) struct KafkaDeadLetters {
    producer: FutureProducer<Watched>,
    admin: AdminClient<DefaultClientContext>,
    partitions: i32,
    replication: i32,
    known_topics: Mutex<HashSet<Arc<str>>>,
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

impl KafkaDeadLetters {
    pub(crate) fn connect(
        config: &Consumer,
        client: &ClientConfig,
        heard: Heard,
    ) -> Result<Self, KafkaError> {
        let producer = client
            .clone()
            .set("client.id", &config.client_id)
            .set("enable.idempotence", "true")
            // See the relay's: the first batch to a new topic could be lost.
            .set("max.in.flight.requests.per.connection", "1")
            // A letter quotes a record that the broker took once already, plus
            // its own headers.
            .set("message.max.bytes", "1000000000")
            .set("partitioner", "murmur2_random")
            .create_with_context(Watched(heard))?;
        Ok(KafkaDeadLetters {
            producer,
            // Nobody takes what such a client says, and it would pile up.
            admin: client.clone().set_log_level(RDKafkaLogLevel::Emerg).create()?,
            partitions: i32::try_from(config.dead_letter_partitions).unwrap_or(i32::MAX),
            replication: i32::from(config.dead_letter_replication_factor),
            known_topics: Mutex::default(),
        })
    }

    async fn ensure(&self, source: &TopicPartition, topic: &str) -> Result<(), KafkaError> {
        let mut known = self.known_topics.lock().await;
        if known.contains(&source.topic) {
            return Ok(());
        }
        let new = NewTopic::new(topic, self.partitions, TopicReplication::Fixed(self.replication));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        for result in self.admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        known.insert(Arc::clone(&source.topic));
        Ok(())
    }
}

impl DeadLetters for KafkaDeadLetters {
    async fn park(&self, source: &TopicPartition, letters: &[Parked]) -> Result<(), KafkaError> {
        let topic = dead_letter_topic(&source.topic);
        self.ensure(source, &topic).await?;
        let parked_at = jiff::Timestamp::now().to_string();
        let sends = letters.iter().map(|letter| {
            let headers = headers(source, letter, &parked_at);
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
                    all.insert(KafkaHeader { key, value: value.as_ref() })
                });
            let mut record: FutureRecord<'_, [u8], [u8]> =
                FutureRecord::to(&topic).headers(headers);
            record.key = letter.key.as_deref();
            record.payload = letter.value.as_deref();
            self.producer.send(record, rdkafka::util::Timeout::Never)
        });
        for result in futures_util::future::join_all(sends).await {
            result.map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

/// The record's own headers, then where it came from and why it is here.
fn headers(source: &TopicPartition, letter: &Parked, parked_at: &str) -> Vec<Header> {
    let rejection = &letter.rejection;
    let mut headers = letter.headers.clone();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            headers.push((name.to_owned(), Some(value.into_bytes())));
        }
    };
    add(name::SOURCE_TOPIC, source.topic.to_string());
    add(name::SOURCE_PARTITION, source.partition.to_string());
    add(name::SOURCE_OFFSET, letter.offset.to_string());
    add(name::SOURCE_TIMESTAMP, letter.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default());
    add(name::TABLE, rejection.table.to_string());
    add(name::COLUMN, rejection.column.clone());
    add(name::EXPECTED_TYPE, rejection.expected.clone());
    add(name::VALUE, rejection.value.clone());
    add(name::REASON, rejection.reason.to_owned());
    add(name::ERROR, rejection.error.clone());
    add(name::PARKED_AT, parked_at.to_owned());
    headers
}
