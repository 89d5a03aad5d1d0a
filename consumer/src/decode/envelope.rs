//! Values of a record that are not in its payload.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::Timestamp;
use outpour_schemas::{
    config::PayloadFormat,
    wire::{TOPIC_PREFIX, header},
};
use serde_json::value::RawValue;

use super::form;
use crate::{block::Cell, source::RecordView};

/// What a column may be filled with instead of a payload field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeValue {
    Id,
    Type,
    Key,
    Topic,
    Partition,
    Offset,
    /// The record's timestamp: by default, when the transaction committed.
    Timestamp,
    /// When the event happened; the record's timestamp where it does not say.
    OccurredAt,
    SchemaVersion,
    /// The topic without the relay's prefix.
    AggregateType,
    /// `consumer.environment`.
    Environment,
    Payload,
    Header(String),
}

/// A `$name` that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no envelope value: expected $id, $type, $key, $topic, $partition, $offset, $timestamp, \
     $occurred_at, $schema_version, $aggregate_type, $environment, $payload or $headers.<name>"
)]
pub struct EnvelopeValueError(String);

impl FromStr for EnvelopeValue {
    type Err = EnvelopeValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "$id" => EnvelopeValue::Id,
            "$type" => EnvelopeValue::Type,
            "$key" => EnvelopeValue::Key,
            "$topic" => EnvelopeValue::Topic,
            "$partition" => EnvelopeValue::Partition,
            "$offset" => EnvelopeValue::Offset,
            "$timestamp" => EnvelopeValue::Timestamp,
            "$occurred_at" => EnvelopeValue::OccurredAt,
            "$schema_version" => EnvelopeValue::SchemaVersion,
            "$aggregate_type" => EnvelopeValue::AggregateType,
            "$environment" => EnvelopeValue::Environment,
            "$payload" => EnvelopeValue::Payload,
            other => match other.strip_prefix("$headers.") {
                Some(name) if !name.is_empty() => EnvelopeValue::Header(name.to_owned()),
                _ => return Err(EnvelopeValueError(text.to_owned())),
            },
        })
    }
}

impl fmt::Display for EnvelopeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnvelopeValue::Id => "$id",
            EnvelopeValue::Type => "$type",
            EnvelopeValue::Key => "$key",
            EnvelopeValue::Topic => "$topic",
            EnvelopeValue::Partition => "$partition",
            EnvelopeValue::Offset => "$offset",
            EnvelopeValue::Timestamp => "$timestamp",
            EnvelopeValue::OccurredAt => "$occurred_at",
            EnvelopeValue::SchemaVersion => "$schema_version",
            EnvelopeValue::AggregateType => "$aggregate_type",
            EnvelopeValue::Environment => "$environment",
            EnvelopeValue::Payload => "$payload",
            EnvelopeValue::Header(name) => return write!(f, "$headers.{name}"),
        })
    }
}

impl EnvelopeValue {
    /// Where a record has it.
    pub(super) fn described(&self) -> String {
        let header = |name: &str| format!("the header `{name}`");
        match self {
            EnvelopeValue::Id => header(header::ID),
            EnvelopeValue::Type => header(header::EVENT_TYPE),
            EnvelopeValue::SchemaVersion => header(header::SCHEMA_VERSION),
            EnvelopeValue::Header(name) => header(name),
            EnvelopeValue::Key => "the record's key".to_owned(),
            EnvelopeValue::Payload => "the record's value".to_owned(),
            EnvelopeValue::Timestamp | EnvelopeValue::OccurredAt => "the record's time".to_owned(),
            EnvelopeValue::Topic
            | EnvelopeValue::Partition
            | EnvelopeValue::Offset
            | EnvelopeValue::AggregateType
            | EnvelopeValue::Environment => "part of every record".to_owned(),
        }
    }

    /// The value in `record`, whose payload is `document`; `None` where there is
    /// none.
    pub(super) fn of<'a>(
        &self,
        record: &'a RecordView<'_>,
        document: Option<&'a [u8]>,
        format: PayloadFormat,
        environment: &'a str,
    ) -> Option<Cell<'a>> {
        let header = |name| record.header(name).and_then(|value| converted(format, value));
        match self {
            EnvelopeValue::Id => header(header::ID),
            EnvelopeValue::Type => header(header::EVENT_TYPE),
            EnvelopeValue::Key => record.key.and_then(|key| converted(format, key)),
            EnvelopeValue::Topic => Some(Cell::Text(record.topic)),
            EnvelopeValue::Partition => Some(Cell::Int(record.partition.into())),
            EnvelopeValue::Offset => Some(Cell::Int(record.offset)),
            EnvelopeValue::Timestamp => timestamp(record),
            EnvelopeValue::OccurredAt => match header(header::OCCURRED_AT) {
                // Text that is no time is for the column to refuse.
                Some(cell) => Some(moment(cell).unwrap_or(cell)),
                None => timestamp(record),
            },
            EnvelopeValue::SchemaVersion => header(header::SCHEMA_VERSION),
            EnvelopeValue::AggregateType => {
                Some(Cell::Text(record.topic.strip_prefix(TOPIC_PREFIX).unwrap_or(record.topic)))
            }
            EnvelopeValue::Environment => Some(Cell::Text(environment)),
            EnvelopeValue::Payload => document.map(Cell::Bytes),
            EnvelopeValue::Header(name) => header(name),
        }
    }
}

/// Whether a header's value is this text.
pub(super) fn is_text(format: PayloadFormat, value: &[u8], text: &str) -> bool {
    match converted(format, value) {
        Some(Cell::Json(raw)) => serde_json::from_str(raw).is_ok_and(|found: String| found == text),
        Some(Cell::Bytes(bytes)) => bytes == text.as_bytes(),
        _ => false,
    }
}

/// A key or the value of a header. Where `JsonConverter` made the payload, it may
/// have made these too, with schemas or without: then a text is a JSON string.
fn converted(format: PayloadFormat, value: &[u8]) -> Option<Cell<'_>> {
    if !matches!(format, PayloadFormat::Escaped | PayloadFormat::Connect) {
        return Some(Cell::Bytes(value));
    }
    let raw = match value {
        [b'"', ..] => serde_json::from_slice(value).ok().map(RawValue::get),
        [b'{', ..] => form::connect(value).ok().map(RawValue::get),
        _ => None,
    };
    match raw {
        Some("null") => None,
        Some(raw) => Some(Cell::Json(raw)),
        None => Some(Cell::Bytes(value)),
    }
}

fn timestamp<'a>(record: &RecordView<'_>) -> Option<Cell<'a>> {
    record.timestamp_ms.map(Cell::milliseconds)
}

fn moment<'a>(cell: Cell<'_>) -> Option<Cell<'a>> {
    /// Which would be read as the second before.
    const LEAP_SECOND: &str = ":60";
    let text: Cow<'_, str> = match cell {
        Cell::Bytes(text) => str::from_utf8(text).ok()?.into(),
        Cell::Json(raw) => serde_json::from_str(raw).ok()?,
        _ => return None,
    };
    let moment: Timestamp = text.parse().ok()?;
    (!text.contains(LEAP_SECOND)).then(|| moment.into())
}
