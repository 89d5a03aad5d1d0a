use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{
    ConfigError, Span, check_listen,
    record::{AdditionalFields, Compat, FieldMissing, JsonEmptyArray, JsonNull, OpInvalid},
};

/// How sure a published record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Records and progress go out in one transaction.
    #[default]
    ExactlyOnce,
    /// No transaction: lower latency, and duplicates after a crash.
    AtLeastOnce,
}

/// What happens to rows that are older than the replication slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotMode {
    /// The first start publishes them, before anything else.
    #[default]
    Initial,
    /// They are not published.
    Never,
    /// They are published, and the relay ends.
    Only,
}

/// How events come out of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// From the write-ahead log, by logical replication.
    #[default]
    Wal,
    /// By asking the table for rows, again and again: at-least-once.
    Poll,
}

/// What becomes of a row that was polled and published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PollAfter {
    #[default]
    Delete,
    /// It stays, with the time in `outbox.column_published_at`.
    Mark,
}

/// `[relay]`: from the outbox to Kafka.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    pub mode: Mode,
    /// Replication slot. It names the relay: two relays that should both
    /// publish need two slots.
    pub slot: String,
    pub publication: String,
    /// Of the logical messages that are events. It goes into the SQL function
    /// that `outpour-relay init` creates.
    pub message_prefix: String,
    /// Of reading from the log; polling is at-least-once.
    pub delivery: Delivery,
    pub snapshot: SnapshotMode,
    /// Published events older than this are removed from the table.
    pub retention: Option<Span>,
    /// The most rows that are polled, published and removed together.
    pub poll_batch_rows: u32,
    /// How long to wait for more once every row has been polled.
    pub poll_interval: Span,
    pub poll_after: PollAfter,
    /// Whose record: the defaults of what follows are Outpour's or Debezium's.
    pub compat: Compat,
    /// The column that the topic is made of; the aggregate type unless set.
    pub route_by_field: Option<String>,
    /// Matched against the whole of that column's value.
    pub route_topic_regex: String,
    /// The topic; `${name}` and `$1` stand for groups of the regex.
    pub route_topic_replacement: String,
    /// Columns that are part of the record besides id, key and payload.
    pub additional_fields: Option<AdditionalFields>,
    pub additional_field_missing: FieldMissing,
    /// The column that is the record's timestamp; the commit time unless set. The
    /// time of publication where Kafka would not keep a record of that time.
    pub timestamp_column: Option<String>,
    /// A null or blank payload becomes a record without a value.
    pub tombstone_on_empty_payload: bool,
    /// A JSON payload is published in its compact form, and in an envelope as
    /// an object instead of a string.
    pub expand_json_payload: bool,
    pub json_payload_null_behavior: JsonNull,
    pub json_payload_empty_array_behavior: JsonEmptyArray,
    pub op_invalid_behavior: OpInvalid,
    /// Where what no topic takes is parked.
    pub dead_letter_topic: String,
    /// Partitions of a topic that the relay creates; the brokers' default if unset.
    pub topic_partitions: Option<u32>,
    /// Replicas of it, likewise.
    pub topic_replication_factor: Option<u16>,
    /// The largest record; what is larger is parked.
    pub max_record_size: ByteSize,
    /// A transaction in Kafka is closed once it holds so many records …
    pub max_transaction_rows: usize,
    /// … or so many bytes …
    pub max_transaction_size: ByteSize,
    /// … or has been open for so long.
    pub max_transaction_delay: Span,
    /// Kafka aborts a transaction of a relay that has been silent for so long.
    pub transaction_timeout: Span,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, `host:port`;
    /// empty: nowhere.
    pub http_listen: String,
    /// `/readyz` fails once work has waited this long without progress.
    pub stall_after: Span,
}

impl Default for Relay {
    fn default() -> Self {
        Relay {
            mode: Mode::Wal,
            slot: "outpour".to_owned(),
            publication: "outpour".to_owned(),
            message_prefix: "outpour".to_owned(),
            delivery: Delivery::ExactlyOnce,
            snapshot: SnapshotMode::Initial,
            retention: None,
            poll_batch_rows: 1000,
            poll_interval: Span::millis(200),
            poll_after: PollAfter::Delete,
            compat: Compat::Outpour,
            route_by_field: None,
            route_topic_regex: "(?<routedByValue>.*)".to_owned(),
            route_topic_replacement: format!("{}${{routedByValue}}", crate::wire::TOPIC_PREFIX),
            additional_fields: None,
            additional_field_missing: FieldMissing::Error,
            timestamp_column: None,
            tombstone_on_empty_payload: false,
            expand_json_payload: false,
            json_payload_null_behavior: JsonNull::Ignore,
            json_payload_empty_array_behavior: JsonEmptyArray::Ignore,
            op_invalid_behavior: OpInvalid::Warn,
            dead_letter_topic: crate::wire::RELAY_DEAD_LETTER_TOPIC.to_owned(),
            topic_partitions: None,
            topic_replication_factor: None,
            max_record_size: ByteSize(1_048_588),
            max_transaction_rows: 50_000,
            max_transaction_size: ByteSize::mib(16),
            max_transaction_delay: Span::millis(10),
            transaction_timeout: Span::secs(60),
            http_listen: "127.0.0.1:9464".to_owned(),
            stall_after: Span::secs(30),
        }
    }
}

impl Relay {
    /// How sure a record is. Polling knows no progress to hold together with the
    /// records, so that a transaction would add nothing.
    #[must_use]
    pub fn effective_delivery(&self) -> Delivery {
        match self.mode {
            Mode::Wal => self.delivery,
            Mode::Poll => Delivery::AtLeastOnce,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        // The rule of PostgreSQL for slots; it keeps the name safe to send unquoted.
        if self.slot.is_empty() || self.slot.len() > 63 || !self.slot.chars().all(valid) {
            return Err(ConfigError::invalid(
                "relay.slot",
                format!("`{}`: a slot name is 1 to 63 of a-z, 0-9 and _", self.slot),
            ));
        }
        // It is quoted wherever it is sent.
        if self.publication.is_empty()
            || self.publication.len() > 63
            || self.publication.contains('\0')
        {
            return Err(ConfigError::invalid(
                "relay.publication",
                format!("`{}` is not a PostgreSQL name of 1 to 63 bytes", self.publication),
            ));
        }
        if self.message_prefix.is_empty() || self.message_prefix.contains('\0') {
            return Err(ConfigError::invalid(
                "relay.message_prefix",
                "expected a text of one or more characters",
            ));
        }
        regex::Regex::new(&self.route_topic_regex).map_err(|error| {
            // The library draws the place over several lines; the last one says why.
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default();
            ConfigError::invalid(
                "relay.route_topic_regex",
                format!("`{}`: {}", self.route_topic_regex, reason.trim_start_matches("error: ")),
            )
        })?;
        crate::wire::check_topic(&self.dead_letter_topic)
            .map_err(|error| ConfigError::invalid("relay.dead_letter_topic", error.to_string()))?;
        let columns = [
            ("relay.route_by_field", &self.route_by_field),
            ("relay.timestamp_column", &self.timestamp_column),
        ];
        for (key, column) in columns {
            if column.as_ref().is_some_and(String::is_empty) {
                return Err(ConfigError::invalid(key, "is empty; name a column or remove the key"));
            }
        }
        if self.retention.is_some_and(|retention| retention.0 < Duration::from_secs(1)) {
            return Err(ConfigError::invalid(
                "relay.retention",
                "must be at least 1s; remove the key to keep everything",
            ));
        }
        let positive = [
            ("relay.poll_batch_rows", u64::from(self.poll_batch_rows)),
            ("relay.topic_partitions", self.topic_partitions.map_or(1, u64::from)),
            ("relay.topic_replication_factor", self.topic_replication_factor.map_or(1, u64::from)),
            ("relay.max_record_size", self.max_record_size.as_u64()),
            ("relay.max_transaction_rows", self.max_transaction_rows as u64),
            ("relay.max_transaction_size", self.max_transaction_size.as_u64()),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        check_listen("relay.http_listen", &self.http_listen)?;
        // PostgreSQL says once a second how far it has read: the ordinary pause
        // between two such messages, on a busy host, must not count.
        if self.stall_after < Span::secs(5) {
            return Err(ConfigError::invalid("relay.stall_after", "must be at least 5s"));
        }
        if self.mode == Mode::Poll && self.retention.is_some() {
            return Err(ConfigError::invalid(
                "relay.retention",
                "is for relay.mode = \"wal\"; remove the key: polling deletes what it has published",
            ));
        }
        if self.mode == Mode::Poll && self.poll_interval >= self.stall_after {
            return Err(ConfigError::invalid(
                "relay.poll_interval",
                "must be shorter than relay.stall_after, or waiting looks like standing still",
            ));
        }
        Ok(())
    }
}
