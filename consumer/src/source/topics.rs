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

use std::{collections::BTreeSet, sync::Weak, thread, time::Duration};

use outpour_schemas::{
    config::{Config, GroupProtocol},
    kafka::{Heard, ReachError, Watched, reach_consumer},
    program::error_line,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    groups::GroupMemberInfo,
    metadata::{MetadataPartition, MetadataTopic},
};

use super::{
    Subscription, Topics,
    coverage::{Coverage, assigned},
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
        Ok(self.look_closely()?.0)
    }

    /// The same, with the partitions that they have, each `topic/number`.
    fn look_closely(&self) -> Result<(Topics, BTreeSet<String>), ReachError> {
        let metadata = self.ask(|client, wait| client.fetch_metadata(None, wait))?;
        let there = metadata.topics().iter().filter(|topic| !topic.partitions().is_empty());
        let topics = self.subscription.among(there.clone().map(MetadataTopic::name));
        let read = there.filter(|topic| topics.found.contains(topic.name()));
        let of = |topic: &MetadataTopic| {
            let name = topic.name().to_owned();
            let number = |partition: &MetadataPartition| format!("{name}/{}", partition.id());
            topic.partitions().iter().map(number).collect::<Vec<_>>()
        };
        let partitions = read.flat_map(of).collect();
        Ok((topics, partitions))
    }

    /// The partitions that the members of the group have; `None` while they are dealt out,
    /// and where the client cannot tell.
    fn owned(&self) -> Option<BTreeSet<String>> {
        let consumer = &self.config.consumer;
        if consumer.group_protocol != GroupProtocol::Classic {
            return None;
        }
        let groups = self.client.fetch_group_list(Some(&consumer.group), REQUEST_TIMEOUT);
        let groups =
            groups.inspect_err(|error| tracing::debug!(%error, "asking for members")).ok()?;
        let group = groups.groups().iter().find(|group| group.name() == consumer.group)?;
        let of = |member: &GroupMemberInfo| member.assignment().and_then(assigned);
        let owned = group.members().iter().filter_map(of).flatten().collect();
        (group.state() == "Stable").then_some(owned)
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
        let mut coverage = Coverage::default();
        thread::spawn(move || {
            loop {
                thread::sleep(EVERY);
                if consumer.strong_count() == 0 {
                    return;
                }
                let (mut now, partitions) = match self.look_closely() {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::debug!(error = error_line(&error), "listing topics");
                        continue;
                    }
                };
                if coverage.is_open(&partitions) {
                    now.left_to_nobody = coverage.judge(&partitions, self.owned().as_ref());
                }
                tell(&last, &now);
                seen(Ok(&now));
                last = now;
                if last.found.is_subset(&subscribed) && last.left_to_nobody.is_none() {
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
    if let Some(partition) = &now.left_to_nobody {
        tracing::info!(partition, "no member of the group has it; joining anew");
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
