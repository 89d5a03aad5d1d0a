//! The Kafka record: topic, key, value, timestamp and headers.
//!
//! The defaults are those of Debezium's outbox router where it has one.

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

/// Prefix of the topics that the relay publishes to by default.
pub const TOPIC_PREFIX: &str = "outbox.event.";

/// Compacted topic in which the relay keeps how far it has published.
pub const CHECKPOINT_TOPIC: &str = "outpour.relay.checkpoints";

/// Where the relay parks a record that Kafka will never take, by default.
pub const RELAY_DEAD_LETTER_TOPIC: &str = "outbox.dead-letter";

/// Prefix of the topics in which the consumer parks what fits no table.
pub const DEAD_LETTER_PREFIX: &str = "outpour.dead-letter.";

/// Names of the headers of a published event, in the order they are written.
pub mod header {
    /// The event's id, as text.
    pub const ID: &str = "id";
    /// The outbox column `type`.
    pub const EVENT_TYPE: &str = "eventType";
    pub const SCHEMA_VERSION: &str = "schemaVersion";
    /// RFC 3339 in UTC, microseconds.
    pub const OCCURRED_AT: &str = "occurredAt";
    pub const TRACEPARENT: &str = "traceparent";
    /// The event's [`crate::Position`].
    pub const LSN: &str = "outpour-lsn";
}

/// Names of the headers that a dead letter has besides its own.
pub mod dead_letter {
    pub const SOURCE_TOPIC: &str = "outpour-source-topic";
    pub const SOURCE_PARTITION: &str = "outpour-source-partition";
    pub const SOURCE_OFFSET: &str = "outpour-source-offset";
    /// Milliseconds since the Unix epoch.
    pub const SOURCE_TIMESTAMP: &str = "outpour-source-timestamp";
    /// Which of the configured routes rejected it, the first being `route 1`.
    pub const ROUTE: &str = "outpour-route";
    pub const TABLE: &str = "outpour-table";
    pub const COLUMN: &str = "outpour-column";
    pub const EXPECTED_TYPE: &str = "outpour-expected-type";
    /// The value that did not fit, cut to 256 bytes.
    pub const VALUE: &str = "outpour-value";
    /// A stable snake_case name for the kind of failure.
    pub const REASON: &str = "outpour-reason";
    /// One sentence for people.
    pub const ERROR: &str = "outpour-error";
    /// How often it has been parked.
    pub const ATTEMPTS: &str = "outpour-attempts";
    /// When it was parked, RFC 3339.
    pub const PARKED_AT: &str = "outpour-parked-at";
    /// Size in bytes of a value that was too large to be kept whole.
    pub const ORIGINAL_SIZE: &str = "outpour-original-size";
}

/// Names of the headers of a mark: a record without a value, in the partition of a
/// dead letter, that says what became of it. It has none of the letters' headers.
pub mod mark {
    /// [`REPLAYED`] or [`SUPERSEDED`].
    pub const OUTCOME: &str = "outpour-mark";
    /// The row is in the table.
    pub const REPLAYED: &str = "replayed";
    /// It did not fit again: a newer letter, written with the mark, stands for it.
    pub const SUPERSEDED: &str = "superseded";
    /// The letter's offset in the same partition.
    pub const LETTER: &str = "outpour-mark-letter";
    /// RFC 3339.
    pub const MARKED_AT: &str = "outpour-marked-at";
}

/// A header; Kafka tells a null value from an empty one.
pub type Header = (String, Option<Vec<u8>>);

/// A time as headers carry it: RFC 3339 in UTC, microseconds.
#[must_use]
pub fn rfc3339(time: &Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(time)
}

/// A record on its way to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    /// `None`: it follows from the key.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes it takes in Kafka's record format before compression, rounded up:
    /// what a broker compares with `max.message.bytes` less the fixed cost of
    /// a record and of the batch it stands in.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        const RECORD_AND_BATCH_OVERHEAD: usize = 128;
        const LENGTHS_PER_HEADER: usize = 10;
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| {
                name.len() + value.as_ref().map_or(0, Vec::len) + LENGTHS_PER_HEADER
            })
            .sum();
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + headers
            + RECORD_AND_BATCH_OVERHEAD
    }

    /// The value of the first header of this name, unless it is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        value.as_deref()
    }

    /// Cuts it down to a size of `limit` bytes: the value first, then the key,
    /// then the longest headers.
    pub fn cut_to(&mut self, limit: usize) {
        let excess = self.wire_size().saturating_sub(limit);
        cut(&mut self.value, excess);
        let excess = self.wire_size().saturating_sub(limit);
        cut(&mut self.key, excess);
        let length = |(_, value): &Header| value.as_ref().map_or(0, Vec::len);
        let mut by_length: Vec<_> = (0..self.headers.len()).collect();
        by_length.sort_by_key(|at| std::cmp::Reverse(length(&self.headers[*at])));
        for at in by_length {
            let excess = self.wire_size().saturating_sub(limit);
            cut(&mut self.headers[at].1, excess);
        }
    }
}

/// Takes `excess` bytes off the end, as far as there are so many.
fn cut(bytes: &mut Option<Vec<u8>>, excess: usize) {
    if let Some(bytes) = bytes {
        bytes.truncate(bytes.len().saturating_sub(excess));
    }
}

/// Why a name cannot be a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("an empty topic name")]
    Empty,
    #[error("topic `{0}` has more than 249 characters")]
    TooLong(String),
    #[error("topic `{0}` holds {1:?}; Kafka allows letters, digits, `.`, `_` and `-`")]
    Character(String, char),
    #[error("`{0}` is reserved by Kafka")]
    Reserved(String),
    #[error("`{0}` is a topic that Outpour or Kafka keeps for itself, and not one for events")]
    Internal(String),
}

/// The same for a topic that events go to: whoever writes events could otherwise put what
/// they like in the place of a relay's checkpoints.
///
/// # Errors
/// Says which rule is broken.
pub fn check_event_topic(name: &str) -> Result<(), TopicError> {
    check_topic(name)?;
    let is_internal = name.starts_with("__")
        || name.starts_with(DEAD_LETTER_PREFIX)
        || [CHECKPOINT_TOPIC, RELAY_DEAD_LETTER_TOPIC].contains(&name);
    if is_internal { Err(TopicError::Internal(name.to_owned())) } else { Ok(()) }
}

/// Checks a topic name against Kafka's rules, which a broker would answer with
/// nothing more than `INVALID_TOPIC_EXCEPTION`.
///
/// # Errors
/// Says which rule is broken.
pub fn check_topic(name: &str) -> Result<(), TopicError> {
    const MAX_LENGTH: usize = 249;
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicError::Reserved(name.to_owned()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(wrong) = name.chars().find(|&c| !allowed(c)) {
        return Err(TopicError::Character(name.to_owned(), wrong));
    }
    if name.len() > MAX_LENGTH {
        return Err(TopicError::TooLong(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_checkpoints_letters_and_kafka_are_none_for_events() {
        for name in [
            CHECKPOINT_TOPIC,
            RELAY_DEAD_LETTER_TOPIC,
            "outpour.dead-letter.outbox.event.order",
            "__consumer_offsets",
        ] {
            assert_eq!(check_topic(name).map_err(|error| error.to_string()), Ok(()));
            assert!(matches!(check_event_topic(name), Err(TopicError::Internal(_))), "{name}");
        }
        assert!(check_event_topic("outbox.event.order").is_ok());
    }

    fn record(value: usize, key: usize, headers: &[usize]) -> Record {
        let header = |length: &usize| ("h".to_owned(), Some(vec![b'x'; *length]));
        Record {
            topic: "t".to_owned(),
            partition: None,
            key: Some(vec![b'k'; key]),
            value: Some(vec![b'v'; value]),
            timestamp_ms: 0,
            headers: headers.iter().map(header).collect(),
        }
    }

    fn lengths(record: &Record) -> (usize, usize, Vec<usize>) {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().unwrap().len();
        let headers = record.headers.iter().map(|(_, value)| length(value)).collect();
        (length(&record.value), length(&record.key), headers)
    }

    #[test]
    fn a_record_is_cut_where_most_can_be_spared() {
        for (whole, left) in [
            (record(100, 10, &[5]), (100, 10, vec![5])),
            (record(5000, 10, &[5]), (846, 10, vec![5])),
            (record(100, 5000, &[5]), (0, 856, vec![5])),
            (record(100, 10, &[5, 5000, 7]), (0, 0, vec![5, 827, 7])),
        ] {
            let mut record = whole;
            record.cut_to(1000);
            assert_eq!(lengths(&record), left);
            assert!(record.wire_size() <= 1000);
        }
    }

    #[test]
    fn topic_names_follow_kafkas_rules() {
        check_topic("outbox.event.order_line-2").unwrap();
        check_topic(&"x".repeat(249)).unwrap();
        assert_eq!(check_topic(""), Err(TopicError::Empty));
        assert!(matches!(check_topic(".."), Err(TopicError::Reserved(_))));
        assert!(matches!(check_topic("a b"), Err(TopicError::Character(_, ' '))));
        assert!(matches!(check_topic("größe"), Err(TopicError::Character(_, 'ö'))));
        assert!(matches!(check_topic(&"x".repeat(250)), Err(TopicError::TooLong(_))));
    }
}
