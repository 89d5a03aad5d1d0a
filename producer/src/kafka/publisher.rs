//! Records into Kafka, all of a transaction or none.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use outpour_schemas::{
    Lsn, Record,
    config::{Config, Delivery, Kafka, Mode, Relay},
    kafka::{KEEPS_ALL, reach},
    mutants::{self, Mutant},
    wire,
};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use super::{
    REQUEST_TIMEOUT,
    deliveries::Deliveries,
    learned::Learned,
    limits::Limits,
    message,
    pace::Pace,
    producer_config,
    refusals::Verdict,
    topics::{Topics, TopicsError},
    transactional_id,
};
use crate::{error::RelayError, health::Monitor, metrics::Tally, relay::Checkpoint};

pub(super) type Client = ThreadedProducer<Deliveries>;

/// Connected, but not yet disturbing any other relay of the same slot.
pub(crate) struct Unfenced(Publisher);

/// The one producer that may write for its slot.
pub(crate) struct Publisher {
    pub(super) client: Arc<Client>,
    pub(super) deliveries: Deliveries,
    topics: Topics,
    /// The topics that are there, as they were when first written to.
    known_topics: HashMap<String, Limits>,
    /// Topics that Kafka refuses, and why. Asked once: many events may have one.
    refused_topics: HashMap<String, RDKafkaErrorCode>,
    pub(super) learned: Arc<Learned>,
    /// How many partitions the topics have for which a row named one.
    partitions: HashMap<String, i32>,
    pub(super) kafka: Kafka,
    relay: Relay,
    /// Since when a Kafka transaction has been begun and not ended.
    began: Option<Instant>,
    pace: Pace,
    /// What has been sent since the last commit.
    tally: Tally,
    monitor: Arc<Monitor>,
}

impl Publisher {
    pub(crate) async fn connect(
        config: &Config,
        monitor: Arc<Monitor>,
        learned: &Arc<Learned>,
    ) -> Result<Unfenced, RelayError> {
        let (kafka, relay) = (config.kafka.clone(), config.relay.clone());
        let failed = |source| RelayError::Kafka {
            doing: "connecting",
            brokers: config.kafka.brokers.clone(),
            source,
        };
        let defaults = [
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.kbytes", "24576"),
            ("queue.buffering.max.messages", "100000"),
        ];
        let mut settings = producer_config(&kafka, relay.max_record_size.as_u64(), &defaults)?;
        settings
            .set("client.id", "outpour-relay")
            .set("batch.size", learned.batch_size.get().to_string());
        if relay.effective_delivery() == Delivery::ExactlyOnce {
            settings
                .set(
                    "transactional.id",
                    match mutants::active(Mutant::NoFencing) {
                        true => format!("{}-{}", transactional_id(&relay), std::process::id()),
                        false => transactional_id(&relay),
                    },
                )
                .set("transaction.timeout.ms", relay.transaction_timeout.0.as_millis().to_string());
        }
        if mutants::active(Mutant::RandomPartition) {
            settings.set("partitioner", "random");
        }
        let deliveries = Deliveries::new(Arc::clone(learned));
        let client: Client = settings.create_with_context(deliveries.clone()).map_err(failed)?;
        let topics = Topics::connect(&kafka)?;
        let publisher = Publisher {
            client: Arc::new(client),
            deliveries,
            topics,
            known_topics: HashMap::new(),
            refused_topics: HashMap::new(),
            learned: Arc::clone(learned),
            partitions: HashMap::new(),
            kafka,
            relay,
            began: None,
            pace: Pace::default(),
            tally: Tally::default(),
            monitor,
        };
        publisher.reach().await?;
        if publisher.relay.mode == Mode::Wal {
            publisher.topics.ensure_checkpoints(publisher.relay.topic_replication_factor).await?;
        }
        Ok(Unfenced(publisher))
    }

    /// Waits for an answer from any broker.
    async fn reach(&self) -> Result<(), RelayError> {
        let (client, kafka) = (Arc::clone(&self.client), self.kafka.clone());
        let heard = self.deliveries.heard();
        tokio::task::spawn_blocking(move || {
            reach(&kafka, &heard, REQUEST_TIMEOUT, |wait| {
                // One topic, not all: metadata of all may be large.
                client.client().fetch_metadata(Some(wire::CHECKPOINT_TOPIC), wait).map(drop)
            })
        })
        .await
        .map_err(RelayError::Worker)?
        .map_err(RelayError::from)
    }

    /// Whether `topic`, which is there, has this partition.
    pub(crate) async fn has_partition(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<bool, RelayError> {
        if self.partitions.get(topic).is_some_and(|&count| partition < count) {
            return Ok(true);
        }
        // Asked again and again for one that is not there: it may come.
        let count = self.topics.partitions(topic).await?;
        self.partitions.insert(topic.to_owned(), count);
        Ok(partition < count)
    }

    /// What `topic`, which is made if need be, takes and keeps.
    ///
    /// # Errors
    /// Among others that Kafka takes no topic of this name, or that batches must be
    /// smaller for it, as they will be in the next session.
    pub(crate) async fn limits(&mut self, topic: &str) -> Result<Limits, RelayError> {
        if let Some(limits) = self.known_topics.get(topic) {
            return Ok(*limits);
        }
        let (partitions, replicas) =
            (self.relay.topic_partitions, self.relay.topic_replication_factor);
        if let Some(&code) = self.refused_topics.get(topic) {
            return Err(self.topics.refused(topic, code).into());
        }
        let settings = match topic == self.relay.dead_letter_topic {
            true => KEEPS_ALL.as_slice(),
            false => &[],
        };
        if let Err(error) = self.topics.ensure(topic, partitions, replicas, settings).await {
            if let TopicsError::Refused { code, .. } = error
                && !error.is_transient()
            {
                self.refused_topics.insert(topic.to_owned(), code);
            }
            return Err(error.into());
        }
        let limits = self.topics.limits(topic).await;
        let largest = limits.largest;
        if !self.learned.batch_size.suits(largest) {
            return Err(RelayError::SmallBatches { topic: topic.to_owned(), largest });
        }
        self.known_topics.insert(topic.to_owned(), limits);
        Ok(limits)
    }

    /// What is to be done with the record, if Kafka has refused it before.
    pub(crate) fn verdict(&self, record: &Record) -> Option<Verdict> {
        self.learned.refusals.verdict(record)
    }

    /// Hands a record for a topic that is there to the client, and returns the
    /// number that it has in this session. It is durable only after
    /// [`Self::commit`].
    pub(crate) async fn send(&mut self, record: Record) -> Result<usize, RelayError> {
        if self.tally.add(&record, record.topic == self.relay.dead_letter_topic) {
            self.monitor.began();
        }
        self.begin().await?;
        let number = self.deliveries.next_number();
        if self.deliveries.has_failed() && self.relay.mode == Mode::Wal {
            // What goes out behind it would go out again.
            self.drain().await?;
        }
        let mut message = message(&record, number);
        loop {
            match self.client.send(message) {
                Ok(()) => {
                    self.deliveries.sent();
                    return Ok(number);
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    self.deliveries.next().await;
                }
                Err((source, _)) => {
                    let error = self.failed("publishing", source);
                    return Err(self.explained(error).await);
                }
            }
        }
    }

    /// The same for one that shall share its batch with no other.
    pub(crate) async fn send_alone(&mut self, record: Record) -> Result<usize, RelayError> {
        self.drain().await?;
        let number = self.send(record).await?;
        self.drain().await?;
        Ok(number)
    }

    /// Makes everything sent durable and visible, together with `checkpoint`.
    pub(crate) async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<(), RelayError> {
        self.begin().await?;
        if mutants::active(Mutant::CheckpointOutside) {
            self.end().await?;
            self.begin().await?;
        }
        if self.began.is_none() {
            // Nothing else keeps it from being there without what it stands for.
            self.drain().await?;
        }
        let value = serde_json::to_vec(checkpoint)
            .map_err(|source| RelayError::Checkpoint { topic: wire::CHECKPOINT_TOPIC, source })?;
        let number = self.deliveries.next_number();
        let message = BaseRecord::with_opaque_to(wire::CHECKPOINT_TOPIC, number)
            .key(self.relay.slot.as_bytes())
            .payload(value.as_slice());
        if let Err((source, _)) = self.client.send(message) {
            let error = self.failed("writing the checkpoint", source);
            return Err(self.explained(error).await);
        }
        self.deliveries.sent();
        if let Err(error) = self.end().await {
            if !mutants::active(Mutant::AbortedIsDone) {
                return Err(error);
            }
            self.began = None;
        }
        self.learned.refusals.committed();
        self.tally.committed(self.monitor.published(checkpoint.end_lsn));
        Ok(())
    }

    /// Makes everything sent durable and, where there is a transaction, visible.
    async fn end(&mut self) -> Result<(), RelayError> {
        self.drain().await?;
        let drained = Instant::now();
        if let Some(began) = self.began {
            if let Some(first) = self.deliveries.first() {
                self.pace.acknowledged(first.saturating_duration_since(began));
            }
            let timeout = self.relay.transaction_timeout.0;
            let committed = self.blocking("committing a transaction", move |client| {
                client.commit_transaction(timeout)
            });
            if let Err(error) = committed.await {
                return Err(self.explained(error).await);
            }
            self.began = None;
            let now = Instant::now();
            self.pace.committed(now);
            // Where the time of a transaction goes, whose length decides on latency.
            tracing::trace!(
                first_acknowledged = ?self.deliveries.first().map(|first| first - began),
                all_acknowledged = ?(drained - began),
                committed = ?(now - began),
                pause = ?self.pace.wait(now),
                "Kafka transaction"
            );
        }
        Ok(())
    }

    /// Makes everything sent durable, where there is no transaction.
    ///
    /// # Errors
    /// When the brokers have not acknowledged it in time, or refused any of it.
    pub(crate) async fn flush(&mut self) -> Result<(), RelayError> {
        self.drain().await?;
        self.learned.refusals.committed();
        self.tally.committed(self.monitor.published(Lsn::ZERO));
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), RelayError> {
        if self.began.is_some() || self.relay.effective_delivery() == Delivery::AtLeastOnce {
            return Ok(());
        }
        let pause = self.pace.wait(Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.deliveries.watch_first();
        let begun = self.client.begin_transaction();
        if begun.is_err() && mutants::active(Mutant::AbortedIsDone) {
            // Until PostgreSQL has been told, which happens once a second.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        begun.map_err(|source| self.failed("beginning a transaction", source))?;
        let now = Instant::now();
        self.pace.begun(now);
        self.began = Some(now);
        Ok(())
    }

    /// Waits until the brokers have acknowledged everything sent. The client's
    /// own flush, and the one inside its commit, sleep in slices of 100 ms.
    ///
    /// # Errors
    /// When they have not in time, or refused any of it.
    async fn drain(&self) -> Result<(), RelayError> {
        const LATE: KafkaError = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
        let until = Instant::now() + self.relay.transaction_timeout.0;
        // No record waits for others any more.
        self.client.flush(Duration::ZERO).or_else(|error| match error {
            LATE => Ok(()),
            source => Err(self.failed("publishing", source)),
        })?;
        while self.client.in_flight_count() > 0 && !self.deliveries.has_failed() {
            if Instant::now() >= until {
                let error = self.failed("publishing", LATE);
                return Err(self.explained(error).await);
            }
            self.deliveries.next().await;
        }
        if !self.deliveries.has_failed() {
            return Ok(());
        }
        self.settle().await;
        if self.began.is_some() {
            // The commit knows better why there can be none.
            return Ok(());
        }
        Err(self.explained(self.failed("publishing", LATE)).await)
    }

    /// Runs one of the client's calls that block until the broker has answered.
    async fn blocking(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Client) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), RelayError> {
        let client = Arc::clone(&self.client);
        tokio::task::spawn_blocking(move || call(&client))
            .await
            .map_err(RelayError::Worker)?
            .map_err(|source| self.failed(doing, source))
    }

    fn failed(&self, doing: &'static str, source: KafkaError) -> RelayError {
        const FENCED: [RDKafkaErrorCode; 3] = [
            RDKafkaErrorCode::ProducerFenced,
            RDKafkaErrorCode::InvalidProducerEpoch,
            RDKafkaErrorCode::Fenced,
        ];
        let fenced = source.rdkafka_error_code().is_some_and(|code| FENCED.contains(&code))
            || matches!(self.client.client().fatal_error(), Some((code, _)) if FENCED.contains(&code));
        let timeout = self.relay.transaction_timeout.0;
        match self.began {
            // Kafka aborts such a transaction by itself, and the client tells it in
            // many ways, by the code for a replaced producer among others: nobody
            // need have taken over.
            Some(began) if began.elapsed() >= timeout => {
                RelayError::TransactionTimedOut { seconds: timeout.as_secs() }
            }
            _ if fenced => RelayError::Fenced { slot: self.relay.slot.clone() },
            _ => RelayError::Kafka { doing, brokers: self.kafka.brokers.clone(), source },
        }
    }
}

impl Unfenced {
    /// From here on no older producer of this slot can write, and what such a
    /// one left open is aborted.
    pub(crate) async fn fence(self) -> Result<Publisher, RelayError> {
        let publisher = self.0;
        if publisher.relay.effective_delivery() == Delivery::ExactlyOnce {
            publisher
                .blocking("taking over the transactional id", |client| {
                    client.init_transactions(REQUEST_TIMEOUT * 3)
                })
                .await?;
        }
        Ok(publisher)
    }
}
