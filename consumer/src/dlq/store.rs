//! Marks and new letters, in one Kafka transaction.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use outpour_schemas::{
    config::Config,
    kafka::{Heard, Watched, client_config},
    wire::Header,
};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header as KafkaHeader, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};

use super::{
    DlqError,
    letter::{Letter, Outcome, mark_headers},
};
use crate::{
    batch::Parked,
    dead_letter::{blocking, dead_letter_topic, letter_headers, transactional_id_prefix},
    error::ConsumerError,
    source::TopicPartition,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A writer of dead-letter topics: one in all of a group, since the next one that
/// begins fences it.
pub(super) struct Store {
    producer: FutureProducer<Watched>,
    brokers: String,
}

/// What became of a letter that was sent through again.
#[derive(Debug)]
pub(super) struct Settled<'a> {
    pub(super) letter: &'a Letter,
    /// One for each table that refused it; none if it went through.
    pub(super) again: Vec<Parked>,
}

impl Store {
    /// Takes over from whoever has written before.
    pub(super) fn open(config: &Config) -> Result<Self, ConsumerError> {
        let brokers = config.kafka.brokers.clone();
        let failed = |source| ConsumerError::Kafka {
            doing: "opening the dead letters",
            brokers: brokers.clone(),
            source,
        };
        let id = format!("{}dlq", transactional_id_prefix(&config.consumer.group));
        let producer: FutureProducer<Watched> = client_config(&config.kafka)?
            .set("client.id", &config.consumer.client_id)
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", "1")
            // A letter quotes a record that the broker took once already.
            .set("message.max.bytes", "1000000000")
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "60000")
            .create_with_context(Watched(Heard::default()))
            .map_err(failed)?;
        producer.init_transactions(REQUEST_TIMEOUT).map_err(failed)?;
        Ok(Store { producer, brokers })
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// When another one has begun meanwhile, or Kafka does not take it.
    pub(super) async fn settle(&self, settled: &[Settled<'_>]) -> Result<(), ConsumerError> {
        let outcome = self.in_a_transaction(settled).await;
        outcome.map_err(|error| {
            // What is open is aborted by whoever begins next, or by its time-out.
            blocking(|| self.producer.abort_transaction(REQUEST_TIMEOUT)).ok();
            match is_fenced(&error) || self.producer.client().fatal_error().is_some() {
                true => DlqError::Fenced.into(),
                false => ConsumerError::Kafka {
                    doing: "marking dead letters",
                    brokers: self.brokers.clone(),
                    source: error,
                },
            }
        })
    }

    async fn in_a_transaction(&self, settled: &[Settled<'_>]) -> Result<(), KafkaError> {
        let now = Timestamp::now();
        self.producer.begin_transaction()?;
        let mut sends = Vec::new();
        for Settled { letter, again } in settled {
            let topic = dead_letter_topic(&letter.id.topic);
            let outcome = if again.is_empty() { Outcome::Replayed } else { Outcome::Superseded };
            let source =
                TopicPartition { topic: Arc::clone(&letter.id.topic), partition: letter.partition };
            for parked in again {
                let headers =
                    letter_headers(&source, parked, &now.to_string(), letter.attempts + 1);
                sends.push(self.send(&topic, letter, &headers, parked.value.as_deref()));
            }
            let headers = mark_headers(letter.id.offset, outcome, now);
            sends.push(self.send(&topic, letter, &headers, None));
        }
        for sent in futures_util::future::join_all(sends).await {
            sent?;
        }
        blocking(|| self.producer.commit_transaction(REQUEST_TIMEOUT))
    }

    /// To the partition that has the letter, so that a mark comes after it.
    fn send(
        &self,
        topic: &str,
        letter: &Letter,
        headers: &[Header],
        value: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), KafkaError>> + use<> {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
                all.insert(KafkaHeader { key, value: value.as_ref() })
            });
        let mut record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(topic).headers(headers).partition(letter.id.partition);
        record.key = letter.key.as_deref();
        record.payload = value;
        let queued = self.producer.send_result(record).map_err(|(error, _)| error);
        async move {
            let acknowledged = queued?.await;
            let canceled = KafkaError::Canceled;
            acknowledged.map_err(|_| canceled)?.map(drop).map_err(|(error, _)| error)
        }
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::ProducerFenced | Code::Fenced | Code::InvalidProducerEpoch)
    )
}
