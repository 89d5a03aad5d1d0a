//! A column's value in the forms that a record wants it in.

use jiff::{fmt::temporal::DateTimeParser, tz::TimeZone};
use outpour_schemas::wire;

use crate::wal::{
    oid,
    row::{self, Value},
};

const PARSER: DateTimeParser = DateTimeParser::new();

/// As key, header, or value of its own: what Debezium's converters write, so
/// `true` for a boolean, the bytes themselves for a bytea, and RFC 3339 in UTC
/// with microseconds for a timestamptz. All else is PostgreSQL's text.
pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    let text = value.text.as_deref()?;
    Some(match value.type_oid {
        oid::BOOL => boolean(text).to_vec(),
        oid::BYTEA => row::bytea(text).unwrap_or_else(|| text.to_vec()),
        oid::TIMESTAMPTZ => rfc3339(text).map_or_else(|| text.to_vec(), String::into_bytes),
        _ => text.to_vec(),
    })
}

/// Appends it as JSON. A numeric is a string, or a reader's float would bend it.
pub(super) fn write_json(value: &Value, json: &mut String) {
    let Some(text) = value.text.as_deref() else {
        json.push_str("null");
        return;
    };
    let plain = match value.type_oid {
        oid::BOOL => boolean(text),
        oid::INT2 | oid::INT4 | oid::INT8 => text,
        // Those that JSON has no number for start with a letter: NaN, Infinity.
        oid::FLOAT4 | oid::FLOAT8 if text.last().is_some_and(u8::is_ascii_digit) => text,
        oid::TIMESTAMPTZ => {
            let formatted = rfc3339(text);
            let text = String::from_utf8_lossy(text);
            write_json_string(formatted.as_deref().unwrap_or(&text), json);
            return;
        }
        _ => {
            write_json_string(&String::from_utf8_lossy(text), json);
            return;
        }
    };
    json.push_str(&String::from_utf8_lossy(plain));
}

pub(super) fn write_json_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// Milliseconds since the Unix epoch: a timestamp, which without a zone counts
/// as UTC, or an integer that is milliseconds already. `None` if it is neither,
/// or before 1970, where Kafka has no timestamps.
pub(crate) fn moment_ms(text: &[u8]) -> Option<i64> {
    let integer = std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let ms = integer.or_else(|| {
        let timestamp = PARSER.parse_timestamp(text).ok().or_else(|| {
            let local = PARSER.parse_datetime(text).ok()?;
            local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        })?;
        Some(timestamp.as_microsecond().div_euclid(1000))
    })?;
    (ms >= 0).then_some(ms)
}

fn boolean(text: &[u8]) -> &'static [u8] {
    if text == b"t" { b"true" } else { b"false" }
}

/// `2026-01-02 03:04:05.6+00` as `2026-01-02T03:04:05.600000Z`.
fn rfc3339(text: &[u8]) -> Option<String> {
    let timestamp = PARSER.parse_timestamp(text).ok()?;
    Some(wire::rfc3339(&timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(type_oid: u32, text: &'static str) -> Value {
        Value { type_oid, text: Some(text.into()) }
    }

    #[test]
    fn every_type_has_its_bytes() {
        let cases: &[(u32, &str, &[u8])] = &[
            (oid::TEXT, "Grüße", "Grüße".as_bytes()),
            (oid::INT4, "42", b"42"),
            (oid::BOOL, "t", b"true"),
            (oid::BOOL, "f", b"false"),
            (oid::BYTEA, "\\x00ffA0", b"\0\xff\xa0"),
            (oid::BYTEA, "\\x", b""),
            (oid::TIMESTAMPTZ, "2026-01-02 05:34:05.6+02:30", b"2026-01-02T03:04:05.600000Z"),
            (oid::TIMESTAMPTZ, "infinity", b"infinity"),
        ];
        for &(type_oid, text, expected) in cases {
            assert_eq!(bytes(&value(type_oid, text)).unwrap(), expected, "{text}");
        }
        assert_eq!(bytes(&Value { type_oid: oid::TEXT, text: None }), None);
    }

    #[test]
    fn every_type_has_its_json() {
        let cases = [
            (oid::TEXT, "a \"b\"\n", r#""a \"b\"\n""#),
            (oid::INT8, "-9223372036854775808", "-9223372036854775808"),
            (oid::BOOL, "f", "false"),
            (oid::FLOAT8, "1e+20", "1e+20"),
            (oid::FLOAT8, "NaN", "\"NaN\""),
            (1700, "0.10", "\"0.10\""),
        ];
        for (type_oid, text, expected) in cases {
            let mut json = String::new();
            write_json(&value(type_oid, text), &mut json);
            assert_eq!(json, expected);
        }
    }

    #[test]
    fn moments_are_timestamps_or_milliseconds() {
        let cases = [
            ("2026-01-02 03:04:05.678901+00", Some(1_767_323_045_678)),
            ("2026-01-02T03:04:05Z", Some(1_767_323_045_000)),
            ("2026-01-02 03:04:05.6", Some(1_767_323_045_600)),
            ("1767323045678", Some(1_767_323_045_678)),
            ("1969-12-31 23:59:59+00", None),
            ("infinity", None),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(moment_ms(text.as_bytes()), expected, "{text}");
        }
    }
}
