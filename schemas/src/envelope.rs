//! The outbox row: an event with everything the relay needs to route it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Event, identity};

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

    fn parse(line: &str) -> Result<Envelope, serde_json::Error> {
        serde_json::from_str(line)
    }

    #[test]
    fn the_payload_keeps_its_text_to_the_byte() {
        let line = r#"{"aggregatetype":"order","aggregateid":"1","type":"t","payload":{"b": 0.10, "a":1e2}}"#;
        assert_eq!(parse(line).unwrap().payload_text(), Some(r#"{"b": 0.10, "a":1e2}"#));
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
