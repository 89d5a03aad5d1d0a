//! How a payload is read, and what becomes of the fields that nobody asked for.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

/// The form in which a record's value holds its JSON document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PayloadFormat {
    /// Any of the next three, told by the value itself.
    #[default]
    Auto,
    /// The document as it is.
    Json,
    /// A JSON string that holds the document: a text of Kafka Connect's
    /// `JsonConverter`, without schemas.
    Escaped,
    /// A zero byte, a schema id of four bytes, and the document: Confluent's
    /// JSON Schema serializer.
    Confluent,
    /// `{"schema":…,"payload":…}`: Kafka Connect's `JsonConverter`, with schemas.
    Connect,
}

/// What becomes of a record without a value: on a compacted topic, a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstones {
    /// It is a record like others: a row of what it has, or parked.
    #[default]
    Take,
    /// Nothing.
    Skip,
}

/// What becomes of a payload field that no column takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownFields {
    #[default]
    Ignore,
    /// The record is parked.
    Reject,
    /// They go to this column, as one JSON object.
    Collect(String),
}

impl<'de> Deserialize<'de> for UnknownFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnknownFieldsVisitor)
    }
}

struct UnknownFieldsVisitor;

/// Derived, the error for a lone `"collect"` would speak of variants.
const EXPECTED: &str = "\"ignore\", \"reject\" or { collect = \"column\" }";

impl<'de> Visitor<'de> for UnknownFieldsVisitor {
    type Value = UnknownFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<UnknownFields, E> {
        match text {
            "ignore" => Ok(UnknownFields::Ignore),
            "reject" => Ok(UnknownFields::Reject),
            other => Err(E::custom(format!("`{other}` is not {EXPECTED}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UnknownFields, A::Error> {
        let entry: Option<(String, String)> = map.next_entry()?;
        match entry {
            Some((key, column))
                if key == "collect"
                    && !column.is_empty()
                    && map.next_key::<String>()?.is_none() =>
            {
                Ok(UnknownFields::Collect(column))
            }
            _ => Err(A::Error::custom(format!("expected {EXPECTED}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Route;

    fn route(key: &str, value: serde_json::Value) -> Result<Route, String> {
        let mut route = serde_json::json!({ "topic": "t", "table": "t" });
        route[key] = value;
        serde_json::from_value(route).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_fields_are_a_word_or_a_column() {
        for (written, expected) in [
            (json!("ignore"), UnknownFields::Ignore),
            (json!("reject"), UnknownFields::Reject),
            (json!({ "collect": "extra" }), UnknownFields::Collect("extra".into())),
        ] {
            assert_eq!(serde_json::to_value(&expected).unwrap(), written);
            assert_eq!(route("unknown_fields", written).unwrap().unknown_fields, expected);
        }
        for wrong in [
            json!("collect"),
            json!("keep"),
            json!({}),
            json!({ "collect": "" }),
            json!({ "into": "extra" }),
            json!({ "collect": "extra", "other": "x" }),
        ] {
            let error = route("unknown_fields", wrong).unwrap_err();
            assert!(error.contains("{ collect = \"column\" }"), "{error}");
        }
    }

    #[test]
    fn a_format_is_one_of_five_words() {
        let format = |word| route("payload_format", json!(word)).map(|route| route.payload_format);
        assert_eq!(route("event_types", json!([])).unwrap().payload_format, None);
        assert_eq!(format("connect"), Ok(Some(PayloadFormat::Connect)));
        let error = format("avro").unwrap_err();
        assert!(error.contains("avro") && error.contains("confluent"), "{error}");
    }
}
