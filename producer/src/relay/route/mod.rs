//! From an outbox row to a Kafka record. Pure.
//!
//! ```text
//!                ┌─ topic.rs      which topic
//! OutboxRow ─────┼─ placement.rs  which column goes where   ──▶ Record
//!                ├─ payload.rs    the payload, expanded
//!                └─ text.rs       a column's value as bytes or JSON
//! ```
//!
//! The contract is that of Debezium's outbox event router, docs/debezium.md has
//! it option by option; where its defaults are kept, a reader cannot tell which
//! relay wrote a record.

mod payload;
mod placement;
#[cfg(test)]
mod tests;
mod text;
mod topic;

use bytes::Bytes;
use outpour_schemas::{
    OutboxTable, Record,
    config::{ConfigError, Relay},
    wire::{self, TopicError, header},
};

pub use self::payload::NotExpanded;
pub(crate) use self::text::moment_ms;
use self::{
    payload::Expansion,
    placement::{ID, KEY, PAYLOAD, Plan, ROUTE},
    topic::TopicRule,
};
use crate::wal::{
    message::{InvalidMessage, MessageError},
    oid,
    row::{OutboxRow, Value, Wanted},
};

/// Where records go and what they hold.
pub struct Router {
    topics: TopicRule,
    plan: Plan,
    expansion: Option<Expansion>,
    tombstone_on_empty_payload: bool,
    max_record_size: usize,
    dead_letter_topic: String,
}

/// A row that no record can carry. It is parked, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    #[error("column `{column}`, which names the topic, is NULL")]
    NoTopic { column: String },
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(
        "Kafka does not take topic `{topic}`; is there one whose name differs in `.` and `_` alone?"
    )]
    RefusedTopic { topic: String },
    #[error("topic `{topic}` is compacted, and takes no record without a key")]
    NoKey { topic: String },
    #[error("Kafka refuses the record for topic `{topic}`: {error}")]
    RefusedRecord { topic: String, error: String },
    #[error("column `{column}` holds {value}, which is no partition of topic `{topic}`")]
    Partition { column: String, value: String, topic: String },
    #[error("column `{column}` holds `{value}`, which is no timestamp from 1970 on")]
    Timestamp { column: String, value: String },
    #[error(
        "column `{column}` holds bytes that are no text: the database's encoding gives them no \
         meaning, or they are not UTF-8 where it is SQL_ASCII"
    )]
    Encoding { column: String },
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the record has {size} bytes, more than relay.max_record_size = {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error(
        "the record has {size} bytes, more than max.message.bytes = {limit} of topic `{topic}`"
    )]
    TooLargeForTopic { size: usize, limit: usize, topic: String },
}

impl Unroutable {
    /// A stable name for headers and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Unroutable::NoTopic { .. } => "null_topic_column",
            Unroutable::Topic(_) | Unroutable::RefusedTopic { .. } => "invalid_topic",
            Unroutable::NoKey { .. } => "null_key_on_compacted_topic",
            Unroutable::RefusedRecord { .. } => "refused_by_kafka",
            Unroutable::Partition { .. } => "invalid_partition",
            Unroutable::Timestamp { .. } => "invalid_timestamp",
            Unroutable::Encoding { .. } => "invalid_encoding",
            Unroutable::Message(_) => "invalid_message",
            Unroutable::TooLarge { .. } | Unroutable::TooLargeForTopic { .. } => "record_too_large",
        }
    }
}

/// What becomes of a row.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed {
    Publish(Record),
    /// To be published with its payload as it is, though it should have been
    /// expanded.
    PublishUnexpanded(Record, NotExpanded),
    /// To be published in the dead-letter topic.
    Park(Record, Unroutable),
}

impl Router {
    /// # Errors
    /// Names the key whose value makes no sense.
    pub fn new(outbox: &OutboxTable, relay: &Relay) -> Result<Self, ConfigError> {
        Ok(Router {
            topics: TopicRule::of(relay)?,
            plan: Plan::of(outbox, relay),
            expansion: Expansion::of(relay),
            tombstone_on_empty_payload: relay.tombstone_on_empty_payload,
            max_record_size: usize::try_from(relay.max_record_size.as_u64()).unwrap_or(usize::MAX),
            dead_letter_topic: relay.dead_letter_topic.clone(),
        })
    }

    /// The columns that [`Self::route`] expects of a row, in this order.
    #[must_use]
    pub fn wanted(&self) -> &[Wanted] {
        &self.plan.wanted
    }

    /// The event's id, in PostgreSQL's text.
    #[must_use]
    pub fn id(row: &OutboxRow) -> Option<&Bytes> {
        content(row, ID)
    }

    /// The record for `row`: for its topic, or for the dead letters.
    #[must_use]
    pub fn route(&self, row: &OutboxRow) -> Routed {
        let (value, not_expanded) = self.value(row);
        let mut record = Record {
            topic: String::new(),
            partition: None,
            key: column(row, KEY).and_then(text::bytes),
            value,
            timestamp_ms: row.committed_at_us.div_euclid(1000),
            headers: self.headers(row),
        };
        if let Err(reason) = self.place(row, &mut record) {
            return Routed::Park(self.dead_letter(record, &reason), reason);
        }
        match not_expanded {
            None => Routed::Publish(record),
            Some(reason) => Routed::PublishUnexpanded(record, reason),
        }
    }

    /// The dead letter for a record whose topic Kafka refuses to make.
    #[must_use]
    pub fn park_without_topic(&self, record: Record) -> (Record, Unroutable) {
        let reason = Unroutable::RefusedTopic { topic: record.topic.clone() };
        (self.dead_letter(record, &reason), reason)
    }

    /// The dead letter for a record without a key whose topic is compacted.
    #[must_use]
    pub fn park_without_key(&self, record: Record) -> (Record, Unroutable) {
        let reason = Unroutable::NoKey { topic: record.topic.clone() };
        (self.dead_letter(record, &reason), reason)
    }

    /// The dead letter for a record that Kafka has refused with this error.
    #[must_use]
    pub fn park_refused(&self, record: Record, error: &str) -> (Record, Unroutable) {
        let (topic, error) = (record.topic.clone(), error.to_owned());
        let reason = Unroutable::RefusedRecord { topic, error };
        (self.dead_letter(record, &reason), reason)
    }

    /// The dead letter for a record whose topic lacks the partition that the
    /// row asks for, which only Kafka can tell.
    #[must_use]
    pub fn park_without_partition(&self, record: Record, partition: i32) -> (Record, Unroutable) {
        let reason = Unroutable::Partition {
            column: self.plan.partition.map_or_else(String::new, |at| self.name(at)),
            value: partition.to_string(),
            topic: record.topic.clone(),
        };
        (self.dead_letter(record, &reason), reason)
    }

    /// The dead letter for a record that is larger than its topic takes, which
    /// only Kafka can tell.
    #[must_use]
    pub fn park_too_large(&self, record: Record, limit: usize) -> (Record, Unroutable) {
        let topic = record.topic.clone();
        let reason = Unroutable::TooLargeForTopic { size: record.wire_size(), limit, topic };
        (self.dead_letter(record, &reason), reason)
    }

    /// The dead letter for a message that is no event: all of its content.
    #[must_use]
    pub fn park_message(&self, message: InvalidMessage) -> (Record, Unroutable) {
        let reason = Unroutable::Message(message.reason);
        let position = message.position.to_string().into_bytes();
        let record = Record {
            topic: String::new(),
            partition: None,
            key: None,
            value: Some(message.content.into()),
            timestamp_ms: message.committed_at_us.div_euclid(1000),
            headers: vec![(header::LSN.to_owned(), Some(position))],
        };
        (self.dead_letter(record, &reason), reason)
    }

    fn name(&self, at: usize) -> String {
        self.plan.wanted[at].column.clone()
    }

    /// Topic, partition and timestamp: what can be wrong about a row.
    fn place(&self, row: &OutboxRow, record: &mut Record) -> Result<(), Unroutable> {
        if let Some(at) = row.unreadable {
            return Err(Unroutable::Encoding { column: self.name(at) });
        }
        let by =
            content(row, ROUTE).ok_or_else(|| Unroutable::NoTopic { column: self.name(ROUTE) })?;
        record.topic = self.topics.topic(&String::from_utf8_lossy(by))?;
        if let Some((at, number)) = given(row, self.plan.partition) {
            let number = String::from_utf8_lossy(number);
            let partition = number.parse().ok().filter(|&partition: &i32| partition >= 0);
            record.partition = Some(partition.ok_or_else(|| Unroutable::Partition {
                column: self.name(at),
                value: number.into_owned(),
                topic: record.topic.clone(),
            })?);
        }
        if let Some((at, moment)) = given(row, self.plan.timestamp) {
            record.timestamp_ms = text::moment_ms(moment).ok_or_else(|| Unroutable::Timestamp {
                column: self.name(at),
                value: String::from_utf8_lossy(moment).chars().take(64).collect(),
            })?;
        }
        let (size, limit) = (record.wire_size(), self.max_record_size);
        if size > limit { Err(Unroutable::TooLarge { size, limit }) } else { Ok(()) }
    }

    fn headers(&self, row: &OutboxRow) -> Vec<wire::Header> {
        let mut headers = Vec::with_capacity(self.plan.headers.len() + 2);
        headers.push((header::ID.to_owned(), column(row, ID).and_then(text::bytes)));
        for (name, at) in &self.plan.headers {
            if let Some(value) = column(row, *at) {
                headers.push((name.clone(), text::bytes(value)));
            }
        }
        if self.plan.has_position {
            headers.push((header::LSN.to_owned(), Some(row.position.to_string().into_bytes())));
        }
        headers
    }

    /// The payload, alone or in its envelope, and why it was not expanded.
    fn value(&self, row: &OutboxRow) -> (Option<Vec<u8>>, Option<NotExpanded>) {
        let payload = column(row, PAYLOAD);
        let text = content(row, PAYLOAD);
        // Binary data of no bytes is data.
        let is_binary = payload.is_some_and(|payload| payload.type_oid == oid::BYTEA);
        let is_blank = |text: &Bytes| !is_binary && text.iter().all(|&byte| byte <= b' ');
        let is_empty = text.is_none_or(is_blank);
        if is_empty && self.tombstone_on_empty_payload {
            return (None, None);
        }
        // Nothing to expand is nothing to complain about.
        let expansion = self.expansion.filter(|_| !is_empty);
        let (expanded, not_expanded) = match (expansion, text) {
            (Some(expansion), Some(text)) => match expansion.expand(text) {
                Ok(expanded) => (Some(expanded), None),
                Err(reason) => (None, Some(reason)),
            },
            _ => (None, None),
        };
        if self.plan.envelope.is_empty() {
            let value = expanded.map(String::into_bytes);
            return (value.or_else(|| payload.and_then(text::bytes)), not_expanded);
        }
        let mut json = String::from("{\"payload\":");
        match (expanded, text) {
            (Some(expanded), _) => json.push_str(&expanded),
            // As a text even if it is a number: what it is must not depend on
            // what it happens to hold.
            (None, Some(text)) => {
                text::write_json_string(&String::from_utf8_lossy(text), &mut json);
            }
            (None, None) => json.push_str("null"),
        }
        for (alias, at) in &self.plan.envelope {
            if let Some(value) = column(row, *at) {
                json.push(',');
                text::write_json_string(alias, &mut json);
                json.push(':');
                text::write_json(value, &mut json);
            }
        }
        json.push('}');
        (Some(json.into_bytes()), not_expanded)
    }

    /// The same record for the dead-letter topic. Of what is too large its
    /// beginning is kept.
    fn dead_letter(&self, mut record: Record, reason: &Unroutable) -> Record {
        use outpour_schemas::wire::dead_letter as name;
        let mut add = |name: &str, value: String| {
            record.headers.push((name.to_owned(), Some(value.into_bytes())));
        };
        add(name::REASON, reason.reason().to_owned());
        add(name::ERROR, reason.to_string());
        if !record.topic.is_empty() {
            add(name::SOURCE_TOPIC, std::mem::take(&mut record.topic));
        }
        if let Some(partition) = record.partition.take() {
            add(name::SOURCE_PARTITION, partition.to_string());
        }
        if let Some(value) = &record.value {
            add(name::ORIGINAL_SIZE, value.len().to_string());
        }
        record.topic.clone_from(&self.dead_letter_topic);
        record.cut_to(self.max_record_size);
        record
    }
}

/// A column of the row, unless the table does not have it.
fn column(row: &OutboxRow, at: usize) -> Option<&Value> {
    row.values.get(at)?.as_ref()
}

/// What a column holds, unless it is NULL.
fn content(row: &OutboxRow, at: usize) -> Option<&Bytes> {
    column(row, at)?.text.as_ref()
}

/// What a column holds that need not be configured.
fn given(row: &OutboxRow, at: Option<usize>) -> Option<(usize, &Bytes)> {
    Some((at?, content(row, at?)?))
}
