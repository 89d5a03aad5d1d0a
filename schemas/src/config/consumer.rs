use std::collections::BTreeMap;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{
    ConfigError, Delivery, PayloadFormat, Span, Tombstones, TopicPattern, UnknownFields,
    check_listen,
};

/// `[consumer]`: the group that reads the topics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consumer {
    pub group: String,
    /// Topic names; one that starts with `^` is a regular expression.
    pub topics: Vec<String>,
    pub delivery: Delivery,
    /// What payloads look like where a route does not say.
    pub payload_format: PayloadFormat,
    /// What becomes of records without a value where a route does not say.
    pub tombstones: Tombstones,
    /// Written to the column `environment` of `event_log`.
    pub environment: String,
    /// Shown by Kafka's tools for this member of the group.
    pub client_id: String,
    /// A member that is silent for so long loses its partitions. With
    /// `group_protocol = "consumer"` the brokers decide.
    pub session_timeout: Span,
    pub group_protocol: GroupProtocol,
    /// A name that this member keeps over restarts, its own in the group; empty:
    /// none; [`AUTO`]: made of the host's. Whoever comes back with it within the
    /// session time-out has its partitions again without a rebalance.
    pub group_instance_id: String,
    /// One budget: a quarter for the Kafka client's queue, another for batches, and
    /// room for both to work in.
    pub memory: ByteSize,
    /// Partitions and replicas of a dead-letter topic that is created; the brokers'
    /// defaults if unset.
    pub dead_letter_partitions: Option<u32>,
    pub dead_letter_replication_factor: Option<u16>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, `host:port`;
    /// empty: nowhere.
    pub http_listen: String,
    /// `/readyz` fails once a partition has waited this long without progress.
    pub stall_after: Span,
}

/// A [`Consumer::group_instance_id`] that the program chooses.
pub const AUTO: &str = "auto";

/// How the members of the group share partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// All partitions are given up and dealt out anew when members come or go.
    #[default]
    Classic,
    /// KIP-848: the brokers move single partitions. Needs Kafka 4.0.
    Consumer,
}

impl Default for Consumer {
    fn default() -> Self {
        Consumer {
            group: "outpour".to_owned(),
            topics: vec![r"^outbox\.event\..*".to_owned()],
            delivery: Delivery::ExactlyOnce,
            payload_format: PayloadFormat::Auto,
            tombstones: Tombstones::Take,
            environment: "production".to_owned(),
            client_id: "outpour-consumer".to_owned(),
            session_timeout: Span::secs(6),
            group_protocol: GroupProtocol::Classic,
            group_instance_id: AUTO.to_owned(),
            memory: ByteSize::mib(256),
            dead_letter_partitions: None,
            dead_letter_replication_factor: None,
            http_listen: "127.0.0.1:9465".to_owned(),
            stall_after: Span::secs(120),
        }
    }
}

impl Consumer {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.group.is_empty() {
            return Err(ConfigError::invalid("consumer.group", "is empty"));
        }
        if self.topics.is_empty() {
            return Err(ConfigError::invalid("consumer.topics", "names no topic"));
        }
        for topic in &self.topics {
            check_topic_pattern("consumer.topics", topic)?;
        }
        for (key, count) in [
            ("consumer.dead_letter_partitions", self.dead_letter_partitions),
            (
                "consumer.dead_letter_replication_factor",
                self.dead_letter_replication_factor.map(u32::from),
            ),
        ] {
            if count == Some(0) {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        check_listen("consumer.http_listen", &self.http_listen)?;
        // The client tells every five seconds where partitions end.
        if self.stall_after < Span::secs(10) {
            return Err(ConfigError::invalid("consumer.stall_after", "must be at least 10s"));
        }
        if self.memory < ByteSize::mib(16) {
            return Err(ConfigError::invalid("consumer.memory", "must be at least 16 MiB"));
        }
        Ok(())
    }
}

/// `[batch]`: what makes an insert. Whichever is reached first closes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    pub max_rows: usize,
    /// Encoded, before compression.
    pub max_bytes: ByteSize,
    /// From the first record of the batch; up to ten times as long in a backlog.
    pub max_delay: Span,
}

impl Default for Batch {
    fn default() -> Self {
        Batch { max_rows: 100_000, max_bytes: ByteSize::mib(16), max_delay: Span::secs(1) }
    }
}

impl Batch {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.max_rows == 0 {
            return Err(ConfigError::invalid("batch.max_rows", "must be at least 1"));
        }
        if self.max_bytes.as_u64() == 0 {
            return Err(ConfigError::invalid("batch.max_bytes", "must be at least 1"));
        }
        Ok(())
    }
}

/// `[[routes]]`: which records go to which table. A record goes to every route
/// that matches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A topic name, or a regular expression if it starts with `^`.
    pub topic: String,
    /// Only these event types; all if empty.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// `table` or `database.table`.
    pub table: String,
    /// Column → where its value comes from: a path into the payload (`a.b`; `\.`
    /// is a dot in a name) or an envelope value (`$id`, `$headers.x`, …). A column
    /// that is not named takes the payload's field of the same name.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Columns of type `Array`, `Map`, `Tuple` or `JSON` that are empty where the record
    /// has no value for them.
    #[serde(default)]
    pub empty_if_absent: Vec<String>,
    #[serde(default)]
    pub unknown_fields: UnknownFields,
    /// `consumer.payload_format` if unset.
    #[serde(default)]
    pub payload_format: Option<PayloadFormat>,
    /// `consumer.tombstones` if unset.
    #[serde(default)]
    pub tombstones: Option<Tombstones>,
}

impl Route {
    /// How messages name the route at `index` of the configuration: the first is 1.
    #[must_use]
    pub fn number(index: usize) -> String {
        format!("route {}", index + 1)
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{}, {name}", Route::number(index));
        check_topic_pattern(&key("topic"), &self.topic)?;
        if self.table.is_empty() {
            return Err(ConfigError::invalid(key("table"), "is empty"));
        }
        if let UnknownFields::Collect(column) = &self.unknown_fields
            && self.columns.contains_key(column)
        {
            return Err(ConfigError::invalid(
                key("unknown_fields"),
                format!("column `{column}` collects, so it cannot be in routes.columns as well"),
            ));
        }
        Ok(())
    }
}

fn check_topic_pattern(key: &str, topic: &str) -> Result<(), ConfigError> {
    let parsed = topic.parse::<TopicPattern>();
    parsed.map(drop).map_err(|error| ConfigError::invalid(key, error.to_string()))
}
