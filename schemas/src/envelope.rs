//! The outbox row: an event with everything the relay needs to route it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    Event, Record, identity,
    wire::{self, header},
};

/// One row of the outbox table, in the shape that Debezium's outbox router
/// expects plus Outpour's optional columns. As JSON it is one line of
/// `outpour-relay emit`, in which only the first four fields after `id` are
/// required.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Identity of the event; see [`identity`].
    #[serde(default = "identity::new_event_id")]
    pub id: Uuid,
    /// Names the topic.
    #[serde(rename = "aggregatetype")]
    pub aggregate_type: String,
    /// The Kafka key.
    #[serde(rename = "aggregateid")]
    pub aggregate_id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: String,
    /// JSON text. `None` is SQL's NULL, which the relay may publish as a
    /// tombstone; absent or `null` on a line of `emit`.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// When it happened; the database's clock if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// Version of the payload's shape.
    #[serde(default = "first_version")]
    pub schema_version: i32,
    /// W3C trace context of the request that caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

fn first_version() -> i32 {
    1
}

/// Why an event cannot become an outbox row.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// PostgreSQL's text and jsonb have no NUL character.
    #[error("`{0}` holds a NUL character, which PostgreSQL cannot store")]
    NulCharacter(&'static str),
    #[error("the payload is not JSON: {0}")]
    Payload(#[from] serde_json::Error),
}

impl Envelope {
    /// The row for `event`, with a fresh id and the database's clock.
    ///
    /// # Errors
    /// When the event cannot be written as JSON or names nothing to route by.
    pub fn of<E: Event>(event: &E) -> Result<Self, EnvelopeError> {
        let envelope = Envelope {
            id: identity::new_event_id(),
            aggregate_type: E::AGGREGATE_TYPE.to_owned(),
            aggregate_id: event.aggregate_id(),
            event_type: E::event_type().into_owned(),
            payload: Some(serde_json::value::to_raw_value(event)?),
            occurred_at: None,
            schema_version: E::SCHEMA_VERSION,
            traceparent: None,
        };
        envelope.validate()?;
        Ok(envelope)
    }

    /// Checks what the database or Kafka would refuse later and less clearly.
    ///
    /// # Errors
    /// Names the first field that is empty or cannot be stored.
    pub fn validate(&self) -> Result<(), EnvelopeError> {
        let fields = [
            ("aggregatetype", &self.aggregate_type),
            ("aggregateid", &self.aggregate_id),
            ("type", &self.event_type),
        ];
        for (name, text) in fields {
            if text.is_empty() {
                return Err(EnvelopeError::Empty(name));
            }
            if text.contains('\0') {
                return Err(EnvelopeError::NulCharacter(name));
            }
        }
        if self.payload_text().is_some_and(holds_escaped_nul) {
            return Err(EnvelopeError::NulCharacter("payload"));
        }
        if self.traceparent.as_deref().is_some_and(|text| text.contains('\0')) {
            return Err(EnvelopeError::NulCharacter("traceparent"));
        }
        Ok(())
    }

    #[must_use]
    pub fn payload_text(&self) -> Option<&str> {
        self.payload.as_deref().map(RawValue::get)
    }

    /// [`Self::occurred_at`] as RFC 3339 in UTC, microseconds.
    #[must_use]
    pub fn occurred_at_text(&self) -> Option<String> {
        self.occurred_at.as_ref().map(wire::rfc3339)
    }

    /// The record that the relay, with its defaults, makes of such a row, but for
    /// the position in the log, which only it knows. `now` is the record's time,
    /// and that of an event which does not say when it happened.
    #[must_use]
    pub fn record(&self, topic_prefix: &str, now: Timestamp) -> Record {
        let occurred_at = self.occurred_at_text().unwrap_or_else(|| wire::rfc3339(&now));
        let headers = [
            (header::ID, Some(self.id.to_string())),
            (header::EVENT_TYPE, Some(self.event_type.clone())),
            (header::SCHEMA_VERSION, Some(self.schema_version.to_string())),
            (header::OCCURRED_AT, Some(occurred_at)),
            (header::TRACEPARENT, self.traceparent.clone()),
        ];
        Record {
            topic: format!("{topic_prefix}{}", self.aggregate_type),
            partition: None,
            key: Some(self.aggregate_id.clone().into_bytes()),
            value: self.payload_text().map(|text| text.as_bytes().to_vec()),
            timestamp_ms: now.as_millisecond(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.map(String::into_bytes)))
                .into(),
        }
    }
}

/// Whether JSON text holds the escape `\u0000`, as opposed to an escaped
/// backslash before `u0000`.
fn holds_escaped_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let backslashes_before = json[..at].bytes().rev().take_while(|&b| b == b'\\').count();
        backslashes_before % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn parse(line: &str) -> Result<Envelope, serde_json::Error> {
        serde_json::from_str(line)
    }

    #[test]
    fn the_payload_keeps_its_text_to_the_byte() {
        let line = r#"{"aggregatetype":"order","aggregateid":"1","type":"t","payload":{"b": 0.10, "a":1e2}}"#;
        assert_eq!(parse(line).unwrap().payload_text(), Some(r#"{"b": 0.10, "a":1e2}"#));
    }

    #[test]
    fn the_record_is_the_one_that_the_relay_makes_of_the_row() {
        for example in example::all().unwrap() {
            let column = |name: &str| example.outbox[name].clone();
            let text = |name: &str| column(name).unwrap();
            let row = Envelope {
                id: text("id").parse().unwrap(),
                aggregate_type: text("aggregatetype"),
                aggregate_id: text("aggregateid"),
                event_type: text("type"),
                payload: column("payload").map(|text| RawValue::from_string(text).unwrap()),
                occurred_at: column("occurred_at").map(|text| text.parse().unwrap()),
                schema_version: text("schema_version").parse().unwrap(),
                traceparent: column("traceparent"),
            };
            let mut expected = example.record();
            expected.headers.retain(|(name, _)| name != header::LSN);
            let now = Timestamp::from_millisecond(expected.timestamp_ms).unwrap();
            assert_eq!(row.record(wire::TOPIC_PREFIX, now), expected, "{}", example.says);
        }
    }

    #[test]
    fn an_event_that_does_not_say_when_it_happened_happens_now() {
        let mut row = parse(r#"{"aggregatetype":"o","aggregateid":"1","type":"t"}"#).unwrap();
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let occurred_at = |row: &Envelope| {
            let headers = row.record("", now).headers;
            let (_, value) = headers.into_iter().find(|(name, _)| name == header::OCCURRED_AT)?;
            value.map(|value| String::from_utf8(value).unwrap())
        };
        assert_eq!(occurred_at(&row).unwrap(), "2026-01-02T03:04:05.600000Z");
        row.occurred_at = Some("2025-12-31T23:59:59.123456789Z".parse().unwrap());
        assert_eq!(occurred_at(&row).unwrap(), "2025-12-31T23:59:59.123456Z");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = parse(r#"{"aggregatetype":"order","type":"t"}"#).unwrap_err();
        assert!(error.to_string().contains("aggregateid"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let line = r#"{"aggregatetype":"o","aggregateid":"1","type":"t","paylod":{}}"#;
        assert!(parse(line).unwrap_err().to_string().contains("paylod"));
    }

    #[test]
    fn what_postgres_cannot_store_is_refused_by_name() {
        let line = r#"{"aggregatetype":"o","aggregateid":"1","type":"t","payload":{"a":"\u0000"}}"#;
        let error = parse(line).unwrap().validate().unwrap_err();
        assert!(error.to_string().contains("`payload` holds a NUL"), "{error}");
        let escaped =
            r#"{"aggregatetype":"o","aggregateid":"1","type":"t","payload":{"a":"\\u0000"}}"#;
        parse(escaped).unwrap().validate().unwrap();
    }
}
