//! A logical message as a row of the outbox. Pure.
//!
//! ```text
//! outpour_emit(…) ─▶ {"id": …, "payload": "…", "extra": {…}} ─▶ one value for each wanted column
//! ```
//!
//! The content is one JSON object. Its fields stand for the columns of the
//! outbox, whatever those are called in the configuration; the fields of
//! `extra` stand for further columns, by name. The payload is a string, so that
//! its text survives to the byte.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use outpour_schemas::{OutboxTable, Position};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    oid,
    row::{Value, Wanted},
};

/// Content that `outpour_emit` would not have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the message is not what outpour_emit writes: {0}")]
    Content(String),
    #[error(
        "the message is not UTF-8: in a database of another encoding the outpour_emit of an earlier \
         version writes such; `outpour-relay init` brings it up to date"
    )]
    Encoding,
    #[error("the message's `id` is `{0}`, which is no UUID")]
    Id(String),
    #[error("the message's `occurred_at` is `{0}`, which is no timestamp with time zone")]
    OccurredAt(String),
}

impl From<serde_json::Error> for MessageError {
    fn from(error: serde_json::Error) -> Self {
        MessageError::Content(error.to_string())
    }
}

/// A message with the prefix of events that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidMessage {
    pub position: Position,
    /// Microseconds since the Unix epoch.
    pub committed_at_us: i64,
    pub content: Bytes,
    pub reason: MessageError,
}

/// What `outpour_emit` writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'a> {
    id: String,
    aggregatetype: String,
    aggregateid: String,
    r#type: String,
    payload: Option<String>,
    occurred_at: String,
    schema_version: i32,
    traceparent: Option<String>,
    #[serde(borrow)]
    extra: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// Where the value of a wanted column is.
#[derive(Debug)]
enum Source {
    /// Place among [`Content::into_columns`].
    Field(usize),
    Extra {
        column: String,
        /// A column that must be there is NULL in a message that does not name
        /// it, as in a row that does not; another one is not there.
        required: bool,
    },
}

/// Which parts of a message are the wanted columns.
#[derive(Debug)]
pub(super) struct MessageLayout {
    sources: Vec<Source>,
}

impl MessageLayout {
    pub(super) fn of(outbox: &OutboxTable, wanted: &[Wanted]) -> Self {
        let columns: [&String; 8] = [
            &outbox.column_id,
            &outbox.column_aggregate_type,
            &outbox.column_aggregate_id,
            &outbox.column_type,
            &outbox.column_payload,
            &outbox.column_occurred_at,
            &outbox.column_schema_version,
            &outbox.column_traceparent,
        ];
        let source = |wanted: &Wanted| {
            let field = columns.iter().position(|&column| *column == wanted.column);
            field.map_or_else(
                || Source::Extra { column: wanted.column.clone(), required: wanted.required },
                Source::Field,
            )
        };
        MessageLayout { sources: wanted.iter().map(source).collect() }
    }

    /// Whether `outpour_emit` would have written it.
    pub(super) fn is_event(&self, content: &[u8]) -> bool {
        self.values(content).is_ok()
    }

    /// The wanted columns' values, in the types that the outbox table has.
    ///
    /// # Errors
    /// Says what `outpour_emit` would have written otherwise.
    pub(super) fn values(&self, content: &[u8]) -> Result<Vec<Option<Value>>, MessageError> {
        let content = std::str::from_utf8(content).map_err(|_| MessageError::Encoding)?;
        let mut content: Content<'_> = serde_json::from_str(content)?;
        if Uuid::try_parse(&content.id).is_err() {
            return Err(MessageError::Id(shortened(&content.id)));
        }
        if !is_timestamptz(&content.occurred_at) {
            return Err(MessageError::OccurredAt(shortened(&content.occurred_at)));
        }
        let extra = content.extra.take().unwrap_or_default();
        let columns = content.into_columns();
        let value = |source: &Source| match source {
            // A column may be wanted more than once; its bytes are shared.
            Source::Field(at) => Ok(Some(columns[*at].clone())),
            Source::Extra { column, required } => match extra.get(column.as_str()) {
                Some(json) => column_value(json.get()).map(Some),
                None => Ok(required.then_some(Value { type_oid: oid::TEXT, text: None })),
            },
        };
        self.sources.iter().map(value).collect()
    }
}

impl Content<'_> {
    fn into_columns(self) -> [Value; 8] {
        let value = |type_oid, text: String| Value { type_oid, text: Some(text.into()) };
        let nullable =
            |type_oid, text: Option<String>| Value { type_oid, text: text.map(Bytes::from) };
        [
            value(oid::UUID, self.id),
            value(oid::TEXT, self.aggregatetype),
            value(oid::TEXT, self.aggregateid),
            value(oid::TEXT, self.r#type),
            nullable(oid::JSONB, self.payload),
            value(oid::TIMESTAMPTZ, self.occurred_at),
            value(oid::INT4, self.schema_version.to_string()),
            nullable(oid::TEXT, self.traceparent),
        ]
    }
}

/// A field of `extra` as the column that it stands for: text, boolean, bigint
/// or else numeric, jsonb, or NULL.
fn column_value(json: &str) -> Result<Value, MessageError> {
    let (type_oid, text) = match json.as_bytes().first() {
        Some(b'n') => return Ok(Value { type_oid: oid::TEXT, text: None }),
        Some(b't') => (oid::BOOL, "t".to_owned()),
        Some(b'f') => (oid::BOOL, "f".to_owned()),
        Some(b'{' | b'[') => (oid::JSONB, json.to_owned()),
        Some(b'"') => (oid::TEXT, serde_json::from_str(json)?),
        _ if json.parse::<i64>().is_ok() => (oid::INT8, json.to_owned()),
        _ => (oid::NUMERIC, json.to_owned()),
    };
    Ok(Value { type_oid, text: Some(text.into()) })
}

/// Whether PostgreSQL could have written it, years before Christ and past 9999
/// included, which no library for dates reads.
fn is_timestamptz(text: &str) -> bool {
    let digits = text.strip_suffix(" BC").unwrap_or(text);
    matches!(text, "infinity" | "-infinity")
        || digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.contains(':')
            && digits.bytes().all(|b| b.is_ascii_digit() || b" :.+-TZ".contains(&b))
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::row::Expects;

    const WRITTEN: &str = r#"{"id" : "0198c0de-0000-7000-8000-000000000001", "aggregatetype" : "order", "aggregateid" : "4711", "type" : "order_placed", "payload" : "{\"a\": 12345678901234567890.10, \"b\": \"Grüße\"}", "occurred_at" : "2026-01-02 03:04:05.6+00", "schema_version" : 2, "traceparent" : null, "extra" : {"flag": true, "shard": 3, "total": 1.50, "tenant": "a\"b", "where": {"x": [1, 2]}, "note": null}}"#;

    fn layout(columns: &[(&str, bool)]) -> MessageLayout {
        let wanted: Vec<_> = columns
            .iter()
            .map(|&(column, required)| Wanted {
                column: column.to_owned(),
                key: "relay.additional_fields",
                required,
                expects: Expects::Anything,
            })
            .collect();
        let outbox = OutboxTable { column_payload: "body".to_owned(), ..OutboxTable::default() };
        MessageLayout::of(&outbox, &wanted)
    }

    fn value(type_oid: u32, text: &'static str) -> Option<Value> {
        Some(Value { type_oid, text: Some(text.into()) })
    }

    #[test]
    fn fields_are_found_by_the_configured_columns_and_the_payload_keeps_its_bytes() {
        let columns =
            ["body", "id", "type", "aggregateid", "occurred_at", "schema_version", "body"]
                .map(|column| (column, true));
        let payload = value(oid::JSONB, r#"{"a": 12345678901234567890.10, "b": "Grüße"}"#);
        let expected = [
            payload.clone(),
            value(oid::UUID, "0198c0de-0000-7000-8000-000000000001"),
            value(oid::TEXT, "order_placed"),
            value(oid::TEXT, "4711"),
            value(oid::TIMESTAMPTZ, "2026-01-02 03:04:05.6+00"),
            value(oid::INT4, "2"),
            payload,
        ];
        assert_eq!(layout(&columns).values(WRITTEN.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn fields_of_extra_are_columns_of_the_nearest_type() {
        let columns = ["flag", "shard", "total", "tenant", "where", "note", "payload"];
        let expected = [
            value(oid::BOOL, "t"),
            value(oid::INT8, "3"),
            value(oid::NUMERIC, "1.50"),
            value(oid::TEXT, "a\"b"),
            value(oid::JSONB, r#"{"x": [1, 2]}"#),
            Some(Value { type_oid: oid::TEXT, text: None }),
            // The configuration calls another column so; this one is not there.
            None,
        ];
        let values = layout(&columns.map(|column| (column, false))).values(WRITTEN.as_bytes());
        assert_eq!(values.unwrap(), expected);
    }

    #[test]
    fn what_must_be_there_is_null_in_a_message_without_it() {
        let values = layout(&[("traceparent", true), ("color", true), ("colour", false)]);
        let null = Some(Value { type_oid: oid::TEXT, text: None });
        assert_eq!(values.values(WRITTEN.as_bytes()).unwrap(), [null.clone(), null, None]);
    }

    #[test]
    fn a_message_of_another_encoding_says_what_to_do() {
        let mut latin1 = WRITTEN.as_bytes().to_vec();
        latin1[10] = 0xfc;
        let error = layout(&[("body", true)]).values(&latin1).unwrap_err();
        assert_eq!(error, MessageError::Encoding);
        assert!(error.to_string().contains("outpour-relay init"));
    }

    #[test]
    fn what_the_function_would_not_write_is_refused_in_one_line() {
        let cases = [
            ("", "", "EOF"),
            (r#""schema_version" : 2, "#, "", "schema_version"),
            (r#""order""#, "null", "null"),
            (r#""order""#, "7", "7"),
            (r#" : 2,"#, r#" : "2","#, "i32"),
            ("0198c0de", "0198c0d", "`id`"),
            ("2026-01-02 03", "soon", "`occurred_at`"),
            (r#""type""#, r#""typ""#, "`typ`"),
            (r#"{"flag""#, r#"["flag""#, "expected"),
            (r#""a\"b""#, r#""\ud800""#, "escape"),
        ];
        let layout = layout(&[("tenant", true)]);
        for (from, to, part) in cases {
            let content =
                if from.is_empty() { String::new() } else { WRITTEN.replacen(from, to, 1) };
            assert_ne!(content, WRITTEN);
            let error = layout.values(content.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "`{error}` should say `{part}`");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn every_timestamp_of_postgres_is_one() {
        for text in ["infinity", "0044-03-15 00:00:00+00 BC", "12026-01-02 03:04:05+00"] {
            assert!(is_timestamptz(text), "{text}");
        }
        for text in ["", "2026-01-02", "now", "12:x"] {
            assert!(!is_timestamptz(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let layout = layout(&[("body", true), ("tenant", false)]);
            // Random bytes are no message, but must not be a panic either.
            prop_assert!(layout.values(&bytes).is_err());
        }

        #[test]
        fn a_message_with_any_damage_is_a_message_or_refused(
            at in 0..WRITTEN.len(),
            cut in 0..40_usize,
            put in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let layout = layout(&[("body", true), ("tenant", false), ("where", true)]);
            let mut bytes = WRITTEN.as_bytes().to_vec();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put);
            if let Ok(values) = layout.values(&bytes) {
                prop_assert_eq!(values.len(), 3);
            }
        }

        #[test]
        fn any_text_survives_the_way_through_a_message(payload: String, key: String, tenant: String) {
            let content = serde_json::json!({
                "id": "0198c0de-0000-7000-8000-000000000001", "aggregatetype": "o",
                "aggregateid": key, "type": "t", "payload": payload,
                "occurred_at": "2026-01-02 03:04:05+00", "schema_version": 1,
                "extra": {"tenant": tenant},
            });
            let layout = layout(&[("body", true), ("aggregateid", true), ("tenant", true)]);
            let values = layout.values(content.to_string().as_bytes()).unwrap();
            let texts: Vec<_> = values.into_iter().map(|value| value.unwrap().text.unwrap()).collect();
            prop_assert_eq!(texts, [payload, key, tenant]);
        }
    }
}
