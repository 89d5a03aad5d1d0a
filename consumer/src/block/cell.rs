//! One value on its way into a column, borrowed from its record.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::datetime;
use super::error::{Reason, cut};
use crate::json::unquoted;

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
    /// Text, treated as a JSON string of this content.
    Text(&'a str),
    /// Bytes: as they are for `String` and `FixedString`, as text elsewhere.
    Bytes(&'a [u8]),
    /// An integer.
    Int(i64),
    /// A moment in microseconds since the Unix epoch.
    Timestamp(i64),
}

impl<'a> Cell<'a> {
    /// Whether this is NULL, in either of its spellings.
    #[inline]
    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Null | Self::Json("null"))
    }

    /// The text of a cell that is text: what a JSON string says, not how it is
    /// written. `None` for every other kind of cell.
    #[inline]
    pub(super) fn text(self) -> Result<Option<Cow<'a, str>>, Reason> {
        match self {
            Self::Json(raw) if raw.starts_with('"') => {
                unquoted(raw).map(Some).ok_or(Reason::InvalidUtf8)
            }
            Self::Text(text) => Ok(Some(Cow::Borrowed(text))),
            Self::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(_) => Err(Reason::InvalidUtf8),
            },
            _ => Ok(None),
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
            // A cut may split a character, which then reads as a replacement.
            Self::Bytes(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
                cut(&text).to_owned()
            }
            Self::Int(value) => value.to_string(),
            Self::Timestamp(micros) => {
                let mut text = String::new();
                datetime::write_rfc3339(micros, &mut text);
                text
            }
        }
    }

    /// The text a `String` column keeps for a cell that is not text itself.
    pub(super) fn write_plain(self, out: &mut String) {
        // Writing to a `String` cannot fail.
        let _infallible = match self {
            Self::Int(value) => write!(out, "{value}"),
            Self::Timestamp(micros) => {
                datetime::write_rfc3339(micros, out);
                Ok(())
            }
            Self::Null | Self::Default | Self::Json(_) | Self::Text(_) | Self::Bytes(_) => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_bounded() {
        assert_eq!(Cell::Json(&"9".repeat(1000)).excerpt().len(), 256);
        assert!(Cell::Bytes(&[0xff; 1000]).excerpt().len() <= 256);
        assert_eq!(Cell::Timestamp(1).excerpt(), "1970-01-01T00:00:00.000001Z");
    }
}
