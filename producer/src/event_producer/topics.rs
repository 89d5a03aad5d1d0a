//! Topics are asked for once, and made where they are missing.

use std::{sync::Arc, time::Duration};

use outpour_schemas::kafka::reach;
use rdkafka::producer::Producer;
use tokio::time::{Instant, sleep, timeout_at};

use super::{EventProducer, Refusal};
use crate::kafka::{
    REQUEST_TIMEOUT,
    topics::{Topics, TopicsError},
};

impl EventProducer {
    /// Makes sure of the topic of an aggregate type before its first event needs
    /// it, so that [`Self::try_enqueue`] can take that one.
    ///
    /// # Errors
    /// When the topic is not there within `delivery_timeout`, or cannot be made.
    pub async fn ensure_topic(&self, aggregate_type: &str) -> Result<(), Refusal> {
        let topic = format!("{}{aggregate_type}", self.0.settings.topic_prefix);
        outpour_schemas::wire::check_event_topic(&topic)?;
        self.topic_is_there(&topic, Instant::now() + self.0.settings.delivery_timeout).await
    }

    pub(super) async fn topic_is_there(
        &self,
        topic: &str,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        const PAUSE: Duration = Duration::from_millis(200);
        if self.0.topics.contains(topic) {
            if !self.0.topics.is_sure(topic) {
                self.reconsider(topic);
            }
            return Ok(());
        }
        let unreachable = || Refusal::Unreachable { within: self.0.settings.delivery_timeout };
        let asking = Arc::clone(&self.0.asking);
        let _asking = timeout_at(deadline, asking.lock_owned()).await.map_err(|_| unreachable())?;
        let mut last = None;
        while !self.0.topics.contains(topic) {
            match timeout_at(deadline, self.find_or_make(topic)).await {
                Ok(Ok(())) => self.0.topics.insert(topic),
                Ok(Err(error)) if error.is_transient() && Instant::now() + PAUSE < deadline => {
                    last = Some(error);
                    sleep(PAUSE).await;
                }
                Ok(Err(error)) => return Err(Refusal::NoTopic(error.into())),
                Err(_) => {
                    return Err(
                        last.map_or_else(unreachable, |error| Refusal::NoTopic(error.into()))
                    );
                }
            }
        }
        Ok(())
    }

    async fn find_or_make(&self, topic: &str) -> Result<(), TopicsError> {
        if self.is_there(topic).await? {
            return Ok(());
        }
        let settings = &self.0.settings;
        Topics::connect(&settings.kafka)?
            .ensure(topic, settings.topic_partitions, settings.topic_replication_factor, &[])
            .await
    }

    /// Asks about a topic whose events time out. They do so while Kafka is away,
    /// when they may well go on to wait in the queue, hence beside the events; and
    /// when it is gone, which the next event has to know.
    fn reconsider(&self, topic: &str) {
        let Ok(asking) = Arc::clone(&self.0.asking).try_lock_owned() else { return };
        let (producer, topic) = (self.clone(), topic.to_owned());
        tokio::spawn(async move {
            let _asking = asking;
            match producer.is_there(&topic).await {
                Ok(true) => producer.0.topics.insert(&topic),
                Ok(false) => producer.0.topics.remove(&topic),
                // Nobody answers; there will be more events to ask again.
                Err(error) => tracing::debug!(%error, topic, "topic still in doubt"),
            }
        });
    }

    /// Asked through the producer's own connections: in the long run a service
    /// has no others, and it needs no right to make what is there.
    async fn is_there(&self, topic: &str) -> Result<bool, TopicsError> {
        let (inner, name) = (Arc::clone(&self.0), topic.to_owned());
        let metadata = tokio::task::spawn_blocking(move || {
            reach(&inner.settings.kafka, &inner.heard, REQUEST_TIMEOUT, |wait| {
                inner.client.client().fetch_metadata(Some(&name), wait)
            })
        })
        .await
        .map_err(TopicsError::Worker)??;
        Ok(metadata.topics().first().is_some_and(|topic| !topic.partitions().is_empty()))
    }
}
