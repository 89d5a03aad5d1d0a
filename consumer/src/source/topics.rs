//! Which topics there are of those that the group reads.
//!
//! ```text
//! Kafka's list of topics ─▶ Subscription::among ─▶ names ─▶ the group's subscription
//!                           consumer.topics
//! ```
//!
//! The Kafka client and the brokers are given names alone. Both can match patterns, in
//! languages of their own (POSIX, RE2/J), in which some expressions mean something
//! else, nothing at all, or are an error in a retry loop.

use std::{sync::Weak, thread, time::Duration};

use outpour_schemas::{
    config::Config,
    kafka::{Heard, ReachError, Watched, reach_consumer},
    program::error_line,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    Subscription, Topics,
    kafka::{self, GroupConsumer, REQUEST_TIMEOUT},
    verdict::kafka_error,
};
use crate::error::ConsumerError;

/// Between looks. With a rebalance on top, a new topic is read within ten seconds.
const EVERY: Duration = Duration::from_secs(4);

/// A client of no group that lists topics. All of it blocks.
pub(crate) struct TopicList {
    config: Config,
    client: BaseConsumer<Watched>,
    subscription: Subscription,
}

impl TopicList {
    /// # Errors
    /// When the client cannot be made.
    pub(crate) fn connect(
        config: &Config,
        client: &ClientConfig,
        heard: Heard,
    ) -> Result<Self, ConsumerError> {
        let client = client
            .create_with_context(Watched(heard))
            .map_err(|source| kafka_error(config, "connecting", source))?;
        let subscription = Subscription::of(&config.consumer.topics);
        Ok(TopicList { config: config.clone(), client, subscription })
    }

    /// Which Kafka this is.
    ///
    /// # Errors
    /// When no broker answers.
    pub(crate) fn cluster(&self) -> Result<String, ReachError> {
        self.ask(|client, wait| {
            let id = client.client().fetch_cluster_id(wait);
            id.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
        })
    }

    /// # Errors
    /// When no broker answers.
    pub(crate) fn look(&self) -> Result<Topics, ReachError> {
        let metadata = self.ask(|client, wait| client.fetch_metadata(None, wait))?;
        let there = metadata.topics().iter().filter(|topic| !topic.partitions().is_empty());
        Ok(self.subscription.among(there.map(rdkafka::metadata::MetadataTopic::name)))
    }

    fn ask<T>(
        &self,
        ask: impl FnMut(&BaseConsumer<Watched>, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, ReachError> {
        reach_consumer(&self.config.kafka, &self.client, REQUEST_TIMEOUT, ask)
    }

    /// Has `consumer`, which reads what `last` found, read topics that come to be, on a
    /// thread that ends once it is gone. `seen` gets what each look came to, or why the
    /// group cannot go on.
    ///
    /// A topic that is gone stays subscribed: the client gives up its partitions by
    /// itself and takes them up again if it is made anew, and a broker that once does
    /// not know all topics costs nobody a partition.
    pub(crate) fn follow(
        self,
        consumer: Weak<GroupConsumer>,
        mut last: Topics,
        seen: impl Fn(Result<&Topics, KafkaError>) + Send + 'static,
    ) {
        let mut subscribed = last.found.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(EVERY);
                if consumer.strong_count() == 0 {
                    return;
                }
                let now = match self.look() {
                    Ok(now) => now,
                    Err(error) => {
                        tracing::debug!(error = error_line(&error), "listing topics");
                        continue;
                    }
                };
                tell(&last, &now);
                seen(Ok(&now));
                last = now;
                if last.found.is_subset(&subscribed) {
                    continue;
                }
                subscribed.extend(last.found.iter().cloned());
                let Some(consumer) = consumer.upgrade() else { return };
                if let Err(error) = kafka::subscribe(&consumer, &subscribed) {
                    return seen(Err(error));
                }
            }
        });
    }
}

/// What has changed between two looks.
fn tell(before: &Topics, now: &Topics) {
    for topic in now.found.difference(&before.found) {
        tracing::info!(topic, "topic found; reading it from now on");
    }
    for topic in now.missing.difference(&before.missing) {
        warn_of(topic);
    }
    let gone = before.found.difference(&now.found);
    for topic in gone.filter(|topic| !now.missing.contains(*topic)) {
        tracing::info!(topic, "topic is gone");
    }
}

/// A named topic that is not there.
pub(crate) fn warn_of(topic: &str) {
    tracing::warn!("{}; it is read once it is there", Topics::missing_line(topic));
}
