//! From an outbox row to a Kafka record. Pure.
//!
//! The contract is that of Debezium's outbox event router; where its defaults
//! are kept, a reader cannot tell which relay wrote a record.

use jiff::{
    Timestamp,
    fmt::temporal::{DateTimeParser, DateTimePrinter},
};
use outpour_schemas::{
    Record,
    config::Relay,
    wire::{self, TopicError, header},
};
use regex::Regex;

use crate::wal::transaction::OutboxRow;

/// Where records go and what they hold.
pub struct Router {
    topic_pattern: Regex,
    topic_replacement: String,
    tombstone_on_empty_payload: bool,
    max_record_size: usize,
}

/// A row that no record can carry. It is parked, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    #[error("the aggregate type is NULL")]
    NoAggregateType,
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("the record has {size} bytes, more than relay.max_record_size = {limit}")]
    TooLarge { size: usize, limit: usize },
}

impl Unroutable {
    /// A stable name for headers and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Unroutable::NoAggregateType => "null_aggregate_type",
            Unroutable::Topic(_) => "invalid_topic",
            Unroutable::TooLarge { .. } => "record_too_large",
        }
    }
}

/// What becomes of a row.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed {
    Publish(Record),
    Park(Record, Unroutable),
}

impl Router {
    /// # Errors
    /// When the topic pattern is no regular expression.
    pub fn new(config: &Relay) -> Result<Self, regex::Error> {
        Ok(Router {
            // The pattern has to match the whole value.
            topic_pattern: Regex::new(&format!("^(?:{})$", config.route_topic_regex))?,
            topic_replacement: braced_groups(&config.route_topic_replacement),
            tombstone_on_empty_payload: config.tombstone_on_empty_payload,
            max_record_size: usize::try_from(config.max_record_size.as_u64()).unwrap_or(usize::MAX),
        })
    }

    /// The record for `row`: for its topic, or for the dead letters.
    #[must_use]
    pub fn route(&self, row: OutboxRow) -> Routed {
        let topic = match self.topic(&row) {
            Ok(topic) => topic,
            Err(reason) => {
                return Routed::Park(
                    self.dead_letter(self.record(String::new(), row), &reason),
                    reason,
                );
            }
        };
        let record = self.record(topic, row);
        let size = record.wire_size();
        if size > self.max_record_size {
            let reason = Unroutable::TooLarge { size, limit: self.max_record_size };
            return Routed::Park(self.dead_letter(record, &reason), reason);
        }
        Routed::Publish(record)
    }

    fn topic(&self, row: &OutboxRow) -> Result<String, Unroutable> {
        let by = row.aggregate_type.as_deref().ok_or(Unroutable::NoAggregateType)?;
        let by = String::from_utf8_lossy(by);
        let topic = match self.topic_pattern.captures(&by) {
            Some(groups) => {
                let mut topic = String::new();
                groups.expand(&self.topic_replacement, &mut topic);
                topic
            }
            // As in Debezium: the value itself, without a prefix.
            None => by.into_owned(),
        };
        wire::check_topic(&topic)?;
        Ok(topic)
    }

    fn record(&self, topic: String, row: OutboxRow) -> Record {
        let bytes = |text: bytes::Bytes| text.to_vec();
        let mut headers = vec![(header::ID.to_owned(), row.id.map(bytes))];
        let optional = [
            (header::EVENT_TYPE, row.event_type),
            (header::SCHEMA_VERSION, row.schema_version),
            (header::OCCURRED_AT, row.occurred_at.map(|text| text.map(rfc3339))),
            (header::TRACEPARENT, row.traceparent),
        ];
        for (name, column) in optional {
            if let Some(value) = column {
                headers.push((name.to_owned(), value.map(bytes)));
            }
        }
        headers.push((header::LSN.to_owned(), Some(row.position.to_string().into_bytes())));
        let blank = |payload: &bytes::Bytes| payload.iter().all(u8::is_ascii_whitespace);
        let value = row
            .payload
            .filter(|payload| !(self.tombstone_on_empty_payload && blank(payload)))
            .map(bytes);
        Record {
            topic,
            key: row.aggregate_id.map(bytes),
            value,
            timestamp_ms: row.committed_at_us.div_euclid(1000),
            headers,
        }
    }

    /// The same record for the dead-letter topic. Of a value that is too large
    /// its beginning is kept.
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
        if let Some(value) = &record.value {
            add(name::ORIGINAL_SIZE, value.len().to_string());
        }
        wire::RELAY_DEAD_LETTER_TOPIC.clone_into(&mut record.topic);
        let excess = record.wire_size().saturating_sub(self.max_record_size);
        if let Some(value) = &mut record.value {
            value.truncate(value.len().saturating_sub(excess));
        }
        record
    }
}

/// `$1` in Java's replacement syntax ends with its digits; in ours `$1x` would
/// name a group `1x`. Hence `${1}x`.
fn braced_groups(replacement: &str) -> String {
    let mut braced = String::with_capacity(replacement.len());
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        braced.push_str(before);
        let digits = dollar[1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            braced.push_str(&format!("${{{}}}", &dollar[1..=digits]));
        } else {
            braced.push('$');
        }
        rest = &dollar[1 + digits..];
    }
    braced.push_str(rest);
    braced
}

/// PostgreSQL's text for a timestamptz, `2026-01-02 03:04:05.6+00`, as RFC 3339
/// in UTC with microseconds. What is no timestamp stays as it is.
fn rfc3339(text: bytes::Bytes) -> bytes::Bytes {
    const PARSER: DateTimeParser = DateTimeParser::new();
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    let parsed: Option<Timestamp> = PARSER.parse_timestamp(&text).ok();
    match parsed {
        Some(timestamp) => PRINTER.timestamp_to_string(&timestamp).into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use outpour_schemas::{Lsn, Position, example};

    use super::*;

    fn router(change: impl FnOnce(&mut Relay)) -> Router {
        let mut config = Relay::default();
        change(&mut config);
        Router::new(&config).unwrap()
    }

    fn row(aggregate_type: &'static str, payload: &'static str) -> OutboxRow {
        OutboxRow {
            position: Position { commit_lsn: Lsn(1), ordinal: 0 },
            committed_at_us: 0,
            id: Some(Bytes::from_static(b"e1")),
            aggregate_type: Some(aggregate_type.into()),
            aggregate_id: Some(Bytes::from_static(b"k")),
            event_type: None,
            payload: Some(payload.into()),
            occurred_at: None,
            schema_version: None,
            traceparent: None,
        }
    }

    fn published(routed: Routed) -> Record {
        match routed {
            Routed::Publish(record) => record,
            Routed::Park(_, reason) => panic!("parked: {reason}"),
        }
    }

    fn parked(routed: Routed) -> (Record, Unroutable) {
        match routed {
            Routed::Park(record, reason) => (record, reason),
            Routed::Publish(record) => panic!("published to {}", record.topic),
        }
    }

    fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
        let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
        Some(std::str::from_utf8(value.as_deref()?).unwrap())
    }

    #[test]
    fn every_golden_row_becomes_its_golden_record() {
        for example in example::all().unwrap() {
            let column = |name: &str| example.outbox[name].clone().map(Bytes::from);
            let row = OutboxRow {
                position: Position { commit_lsn: example.commit_lsn, ordinal: example.ordinal },
                committed_at_us: example.committed_at_us,
                id: column("id"),
                aggregate_type: column("aggregatetype"),
                aggregate_id: column("aggregateid"),
                payload: column("payload"),
                event_type: Some(column("type")),
                occurred_at: Some(column("occurred_at")),
                schema_version: Some(column("schema_version")),
                traceparent: Some(column("traceparent")),
            };
            assert_eq!(published(router(|_| {}).route(row)), example.record(), "{}", example.says);
        }
    }

    #[test]
    fn the_topic_pattern_must_match_the_whole_value() {
        let router = router(|config| {
            config.route_topic_regex = "(shop|store)_(.*)".into();
            config.route_topic_replacement = "events.$2_v1".into();
        });
        assert_eq!(published(router.route(row("shop_order", "{}"))).topic, "events.order_v1");
        assert_eq!(published(router.route(row("my_shop_order", "{}"))).topic, "my_shop_order");
    }

    #[test]
    fn a_blank_payload_is_a_tombstone_only_where_asked_for() {
        assert_eq!(published(router(|_| {}).route(row("o", " "))).value, Some(b" ".to_vec()));
        let tombstones = router(|config| config.tombstone_on_empty_payload = true);
        assert_eq!(published(tombstones.route(row("o", " \n"))).value, None);
        assert_eq!(published(tombstones.route(row("o", "null"))).value, Some(b"null".to_vec()));
    }

    #[test]
    fn a_topic_that_kafka_refuses_is_parked_with_the_reason() {
        let (record, reason) = parked(router(|_| {}).route(row("Bücher", "{}")));
        assert_eq!(record.topic, wire::RELAY_DEAD_LETTER_TOPIC);
        assert_eq!(reason.reason(), "invalid_topic");
        assert!(header(&record, "outpour-error").unwrap().contains("'ü'"));
        assert_eq!(header(&record, "id"), Some("e1"));
        assert_eq!(record.value, Some(b"{}".to_vec()));
    }

    #[test]
    fn a_null_aggregate_type_is_parked() {
        let row = OutboxRow { aggregate_type: None, ..row("", "{}") };
        assert_eq!(parked(router(|_| {}).route(row)).1, Unroutable::NoAggregateType);
    }

    #[test]
    fn a_record_too_large_is_parked_with_its_beginning_and_fits() {
        let payload = format!("\"{}\"", "x".repeat(5000));
        let router = router(|config| config.max_record_size = bytesize::ByteSize(2000));
        let mut large = row("o", "");
        large.payload = Some(payload.clone().into());
        let (record, reason) = parked(router.route(large));
        assert_eq!(reason.reason(), "record_too_large");
        assert!(record.wire_size() <= 2000);
        assert_eq!(header(&record, "outpour-source-topic"), Some("outbox.event.o"));
        assert_eq!(header(&record, "outpour-original-size"), Some("5002"));
        assert!(payload.as_bytes().starts_with(&record.value.unwrap()));
    }
}
