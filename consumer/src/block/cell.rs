//! One value on its way into a column, borrowed from its record.

use std::borrow::Cow;

use jiff::Timestamp;

use super::datetime;
use super::error::{Reason, cut};
use crate::json::{Kind, Value, unquoted};

/// One value on its way into a column.
///
/// Each kind is made of whole machine words, since cells are copied for every value
/// of every row: pieces of odd sizes are slow to read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Nothing: NULL, which only a `Nullable` column takes.
    Null,
    /// Let ClickHouse compute the column's DEFAULT for this row. Only a column
    /// made with [`Column::with_default`](super::Column::with_default) takes it.
    Default,
    /// The raw JSON text of one value: valid, without surrounding whitespace.
    Json(&'a str),
    /// What a JSON string without escapes has between its quotes.
    Plain(&'a str),
    /// Text, treated as a JSON string of this content.
    Text(&'a str),
    /// Bytes: as they are for `String` and `FixedString`, as text elsewhere.
    Bytes(&'a [u8]),
    /// An integer.
    Int(i64),
    /// A moment: whole seconds since the Unix epoch, and the nanoseconds after them.
    Timestamp { seconds: i64, nanos: i64 },
}

impl<'a> From<Value<'a>> for Cell<'a> {
    #[inline(always)]
    fn from(value: Value<'a>) -> Self {
        match value.kind {
            Kind::Null => Self::Null,
            Kind::Plain => Self::Plain(value.inner()),
            Kind::Int(value) => Self::Int(value),
            Kind::Other => Self::Json(value.raw()),
        }
    }
}

impl From<Timestamp> for Cell<'_> {
    fn from(moment: Timestamp) -> Self {
        let (seconds, nanos) = (moment.as_second(), i64::from(moment.subsec_nanosecond()));
        // Before the epoch both are negative.
        let borrowed = i64::from(nanos < 0);
        Self::Timestamp { seconds: seconds - borrowed, nanos: nanos + borrowed * 1_000_000_000 }
    }
}

impl<'a> Cell<'a> {
    /// A moment in milliseconds since the Unix epoch.
    pub(crate) fn milliseconds(ms: i64) -> Self {
        Self::Timestamp { seconds: ms.div_euclid(1000), nanos: ms.rem_euclid(1000) * 1_000_000 }
    }

    /// Whether this is NULL, in either of its spellings.
    #[inline]
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::Json("null"))
    }

    /// The text of a cell that is text: what a JSON string says, not how it is
    /// written. `None` for every other kind of cell.
    #[inline]
    pub(super) fn text(self) -> Result<Option<Cow<'a, str>>, Reason> {
        match self {
            Self::Plain(text) | Self::Text(text) => Ok(Some(Cow::Borrowed(text))),
            Self::Json(raw) if raw.starts_with('"') => {
                unquoted(raw).map(Some).ok_or(Reason::InvalidUtf8)
            }
            Self::Bytes(bytes) => match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(_) => Err(Reason::InvalidUtf8),
            },
            _ => Ok(None),
        }
    }

    /// The bytes of a cell that is text, where they are there as they are.
    #[inline]
    pub(super) fn borrowed_text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Plain(text) | Self::Text(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The raw JSON, when it is a number.
    #[inline]
    pub(super) fn json_number(self) -> Option<&'a str> {
        match self {
            Self::Json(raw) if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                Some(raw)
            }
            _ => None,
        }
    }

    /// How an error shows the cell.
    pub(super) fn excerpt(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Default => "DEFAULT".to_owned(),
            Self::Json(text) | Self::Text(text) => cut(text).to_owned(),
            Self::Plain(text) => cut(&format!("\"{text}\"")).to_owned(),
            // A cut may split a character, which then reads as a replacement.
            Self::Bytes(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
                cut(&text).to_owned()
            }
            Self::Int(value) => value.to_string(),
            Self::Timestamp { seconds, nanos } => datetime::rfc3339(seconds, nanos),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{ColumnType, Reason};
    use crate::json::Cursor;

    /// Every kind of type, by its text.
    const TYPES: &str = "Int8 Int16 Int32 Int64 Int128 UInt8 UInt16 UInt32 UInt64 UInt256 BFloat16 \
        Float32 Float64 Bool Decimal(18,4) Decimal(60,0) String FixedString(3) UUID Date Date32 \
        DateTime DateTime64(3) DateTime64(9) Time Time64(6) Enum8('a'=1,'12'=2) IPv4 IPv6 JSON";

    fn encoded(kind: &ColumnType, cell: Cell<'_>) -> Result<Vec<u8>, Reason> {
        let ColumnType::Scalar(kind) = kind else { panic!("{kind}") };
        let mut out = Vec::new();
        kind.write(cell, &mut out).map(|()| out)
    }

    proptest! {
        /// What is known of a value for having gone through it changes nothing about
        /// what it becomes.
        #[test]
        fn a_value_that_has_been_gone_through_is_its_text(
            text in r#"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,3})?([eE][-+]?[0-9]{1,2})?|-?[0-9]{1,3}|null|true|false|\{\}|\[\]|"([ -!#-\[\]-~é]|\\["n/]|\\u[0-9a-d]{4}){0,12}"|"-?[0-9]{1,21}(\.[0-9])?"|"20[0-9]{2}-0[1-9]-[0-2][0-9]([T ][012][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,4})?)?Z?)?"|"[0-9]{1,3}(\.[0-9]{1,3}){3}""#
        ) {
            prop_assume!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
            let cell = Cell::from(Cursor::new(&text).value().unwrap());
            prop_assert_eq!(cell.excerpt(), Cell::Json(&text).excerpt());
            prop_assert_eq!(cell.is_null(), text == "null");
            for kind in TYPES.split_whitespace().map(|kind| kind.parse().unwrap()) {
                let as_text = encoded(&kind, Cell::Json(&text));
                prop_assert_eq!(encoded(&kind, cell), as_text, "{} as {}", text, kind);
            }
        }
    }

    #[test]
    fn integers_are_known_to_their_limits() {
        for (text, known) in [
            ("0", Cell::Int(0)),
            ("-1", Cell::Int(-1)),
            ("9223372036854775807", Cell::Int(i64::MAX)),
            ("9223372036854775808", Cell::Json("9223372036854775808")),
            ("18446744073709551616", Cell::Json("18446744073709551616")),
            ("-9223372036854775807", Cell::Int(-i64::MAX)),
            ("-0", Cell::Json("-0")),
            ("1.0", Cell::Json("1.0")),
            ("1e2", Cell::Json("1e2")),
            (r#""""#, Cell::Plain("")),
            (r#""é""#, Cell::Plain("é")),
            (r#""\n""#, Cell::Json(r#""\n""#)),
            ("null", Cell::Null),
        ] {
            assert_eq!(Cell::from(Cursor::new(text).value().unwrap()), known);
        }
    }

    #[test]
    fn excerpts_are_bounded() {
        assert_eq!(Cell::Json(&"9".repeat(1000)).excerpt().len(), 256);
        assert!(Cell::Bytes(&[0xff; 1000]).excerpt().len() <= 256);
        assert_eq!(Cell::milliseconds(1).excerpt(), "1970-01-01T00:00:00.001Z");
    }
}
