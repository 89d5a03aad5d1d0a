//! A row of the outbox: the columns that somebody wants, and nothing else.

use std::fmt;

use bytes::Bytes;
use outpour_schemas::Position;

use super::oid;

/// A column that the caller wants to have of every row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub column: String,
    /// The configuration key that names it.
    pub key: &'static str,
    /// Whether the table must have it.
    pub required: bool,
    pub expects: Expects,
}

/// What a wanted column has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    Anything,
    Integer,
    /// A timestamp, an integer, or text that may hold either.
    Moment,
}

impl Expects {
    pub(crate) fn takes(self, type_oid: u32) -> bool {
        match self {
            Expects::Anything => true,
            Expects::Integer => matches!(type_oid, oid::INT2 | oid::INT4 | oid::INT8),
            Expects::Moment => {
                Expects::Integer.takes(type_oid)
                    || matches!(
                        type_oid,
                        oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::TEXT | oid::VARCHAR
                    )
            }
        }
    }
}

impl fmt::Display for Expects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expects::Anything => "of any type",
            Expects::Integer => "smallint, integer or bigint",
            Expects::Moment => "a timestamp, milliseconds in an integer, or text",
        })
    }
}

/// A value in the text form of its type; without a text it is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub type_oid: u32,
    pub text: Option<Bytes>,
}

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub position: Position,
    /// Microseconds since the Unix epoch.
    pub committed_at_us: i64,
    /// One for each wanted column, in that order; `None` is a column that the
    /// table does not have.
    pub values: Vec<Option<Value>>,
    /// The first of them whose bytes are no text in the database's encoding.
    pub unreadable: Option<usize>,
}

/// The bytes of `\x6f75…`.
pub(crate) fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?)).collect()
}
