use std::time::Duration;

use outpour_schemas::{
    config::{ConfigError, Kafka},
    wire,
};

/// What an event producer is made of. Name what differs from the defaults:
///
/// ```
/// use outpour_producer::event_producer::{Kafka, Settings};
///
/// let settings = Settings {
///     kafka: Kafka { brokers: "kafka-1:9092,kafka-2:9092".into(), ..Kafka::default() },
///     queue_bytes: 64 << 20,
///     ..Settings::default()
/// };
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster, as in the programs' configuration; 127.0.0.1:9092.
    pub kafka: Kafka,
    /// How Kafka's tools and quotas name this client; `outpour-producer`.
    pub client_id: String,
    /// With the aggregate type behind it the topic; `outbox.event.`.
    pub topic_prefix: String,
    /// Partitions of a topic that is made here; as many as the brokers choose if unset.
    pub topic_partitions: Option<u32>,
    /// Replicas of a topic that is made here, likewise.
    pub topic_replication_factor: Option<u16>,
    /// Bytes of memory for events that Kafka has not acknowledged; 32 MiB. Each
    /// takes twice its record and a little more: the client's copy, and the event
    /// that is handed back if it cannot be delivered. When they are used up,
    /// further events wait.
    pub queue_bytes: usize,
    /// The largest record that the brokers take, their `max.message.bytes`, in
    /// bytes; 1,048,588.
    pub max_record_bytes: usize,
    /// How long an event may wait for room in the queue, and then again for
    /// Kafka's acknowledgement; 30 s.
    pub delivery_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            kafka: Kafka::default(),
            client_id: "outpour-producer".to_owned(),
            topic_prefix: wire::TOPIC_PREFIX.to_owned(),
            topic_partitions: None,
            topic_replication_factor: None,
            queue_bytes: 32 << 20,
            max_record_bytes: 1_048_588,
            delivery_timeout: Duration::from_secs(30),
        }
    }
}

/// The largest that the Kafka client can be set to.
const MAX_RECORD_BYTES: usize = 1_000_000_000;
/// The Kafka client counts milliseconds in 31 bits.
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

impl Settings {
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        self.kafka = self.kafka.checked()?;
        wire::check_topic(&format!("{}x", self.topic_prefix))
            .map_err(|error| ConfigError::invalid("topic_prefix", error.to_string()))?;
        if self.topic_partitions == Some(0) {
            return Err(ConfigError::invalid("topic_partitions", "must be at least 1"));
        }
        if self.topic_replication_factor == Some(0) {
            return Err(ConfigError::invalid("topic_replication_factor", "must be at least 1"));
        }
        if !(1..=MAX_RECORD_BYTES).contains(&self.max_record_bytes) {
            return Err(ConfigError::invalid(
                "max_record_bytes",
                format!("must be 1 to {MAX_RECORD_BYTES}"),
            ));
        }
        let largest = super::queue::charge(self.max_record_bytes);
        if self.queue_bytes < largest {
            return Err(ConfigError::invalid(
                "queue_bytes",
                format!(
                    "{} has no room for one event of max_record_bytes = {}; it takes {largest}",
                    self.queue_bytes, self.max_record_bytes
                ),
            ));
        }
        if !(Duration::from_millis(1)..=MAX_TIMEOUT).contains(&self.delivery_timeout) {
            return Err(ConfigError::invalid("delivery_timeout", "must be 1 ms to 24 days"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_usable() {
        Settings::default().checked().unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        /// What to name, and what to change.
        type Case = (&'static str, fn(&mut Settings));
        let cases: [Case; 7] = [
            ("kafka.brokers", |settings| settings.kafka.brokers = "nowhere".into()),
            ("topic_prefix", |settings| settings.topic_prefix = "a b".into()),
            ("topic_partitions", |settings| settings.topic_partitions = Some(0)),
            ("topic_replication_factor", |settings| settings.topic_replication_factor = Some(0)),
            ("max_record_bytes", |settings| settings.max_record_bytes = 0),
            ("queue_bytes", |settings| settings.queue_bytes = settings.max_record_bytes),
            ("delivery_timeout", |settings| settings.delivery_timeout = Duration::ZERO),
        ];
        for (key, change) in cases {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.checked().unwrap_err().to_string();
            assert!(error.starts_with(key), "`{error}` should name {key}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
