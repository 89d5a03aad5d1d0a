//! Why a value was refused, in words that headers and metrics can carry.

use std::fmt;

use crate::json::JsonError;

/// The longest piece of an offending value that an error keeps, in bytes.
const VALUE_LIMIT: usize = 256;

/// Why a value does not fit its column.
///
/// The names are stable: dead-letter headers and metric labels use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The right kind of value, beyond what the type can hold.
    OutOfRange,
    /// Another kind of value than the type takes, such as text for a number.
    WrongType,
    /// Finer than the type: storing it would drop digits that are not zeros.
    TooManyDigits,
    /// Text that is not Unicode, such as half of a surrogate pair.
    InvalidUtf8,
    /// Not a date or time, or not one that exists once in its time zone.
    InvalidDate,
    /// Neither a name nor a value of the enumeration.
    UnknownEnumValue,
    /// Nothing, for a column (or a part of it) that needs something.
    NullNotAllowed,
    /// Too many bytes for a `FixedString`, or too many or few parts for a tuple.
    WrongLength,
    /// Text that does not follow the grammar of the type.
    Malformed,
}

impl Reason {
    /// Every reason, for a metric that must exist before it first counts.
    pub const ALL: [Self; 9] = [
        Self::OutOfRange,
        Self::WrongType,
        Self::TooManyDigits,
        Self::InvalidUtf8,
        Self::InvalidDate,
        Self::UnknownEnumValue,
        Self::NullNotAllowed,
        Self::WrongLength,
        Self::Malformed,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfRange => "out_of_range",
            Self::WrongType => "wrong_type",
            Self::TooManyDigits => "too_many_digits",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidDate => "invalid_date",
            Self::UnknownEnumValue => "unknown_enum_value",
            Self::NullNotAllowed => "null_not_allowed",
            Self::WrongLength => "wrong_length",
            Self::Malformed => "malformed",
        }
    }

    /// What is wrong with the value, as the end of a sentence.
    fn in_words(self) -> &'static str {
        match self {
            Self::OutOfRange => "it is out of the type's range",
            Self::WrongType => "it is a value of another type",
            Self::TooManyDigits => "it has more digits than the type keeps",
            Self::InvalidUtf8 => "it is not UTF-8, or holds half of a surrogate pair",
            Self::InvalidDate => {
                "it is no date or time, or one that the column's zone skips or has twice"
            }
            Self::UnknownEnumValue => "it is none of the enumeration's values",
            Self::NullNotAllowed => "the column takes no NULL",
            Self::WrongLength => "its length is not the type's",
            Self::Malformed => "it is not written as the type asks",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One value that did not fit its column. Nothing of its row was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` of type {expected} refuses {value}: {}", reason.in_words())]
pub struct CellError {
    /// The column's name.
    pub column: String,
    /// The column's ClickHouse type.
    pub expected: String,
    /// Why the value does not fit.
    pub reason: Reason,
    /// The offending value, or the offending part of it, cut to 256 bytes.
    pub value: String,
}

/// A [`CellError`] before it knows its column. In a box, since nearly every value
/// fits and what says so goes through a register then.
#[derive(Debug)]
pub(super) struct Refusal(Box<Refused>);

#[derive(Debug)]
struct Refused {
    reason: Reason,
    /// The part that was refused, where that is less than the whole cell.
    part: Option<String>,
}

impl From<Reason> for Refusal {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self(Box::new(Refused { reason, part: None }))
    }
}

impl From<JsonError> for Refusal {
    fn from(_: JsonError) -> Self {
        Reason::Malformed.into()
    }
}

impl Refusal {
    /// Names the part at fault, unless a part within it has been named already.
    pub(super) fn at(mut self, part: &str) -> Self {
        self.0.part.get_or_insert_with(|| cut(part).to_owned());
        self
    }

    pub(super) fn reason(&self) -> Reason {
        self.0.reason
    }

    pub(super) fn part(&self) -> Option<&str> {
        self.0.part.as_deref()
    }
}

/// The beginning of a text, as much of it as an error keeps.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_LIMIT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let text = format!("{}é", "x".repeat(VALUE_LIMIT - 1));
        assert_eq!(cut(&text).len(), VALUE_LIMIT - 1);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
