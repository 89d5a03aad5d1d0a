//! From a record to rows. Pure.
//!
//! ```text
//!             ┌─ envelope.rs  headers, key, offset ───────┐
//! RecordView ─┤                                           ├─ row.rs ─▶ Block
//!             └─ form.rs ─▶ payload/    fields of the JSON ┤      │
//!                           unknown.rs  the others  ───────┘  Rejection
//! ```
//!
//! `mapping.rs` joins a route with its table beforehand and says what goes where.
//!
//! A record goes to every route that takes it. What a table refuses is parked
//! for that table alone; its rows in other tables stay.

mod envelope;
mod form;
mod mapping;
mod path;
mod payload;
mod row;
#[cfg(test)]
mod tests;
mod unknown;

use std::sync::Arc;

pub(crate) use self::mapping::{EVENT_LOG, PROVENANCE, default_route};
pub use self::{
    envelope::{EnvelopeValue, EnvelopeValueError},
    mapping::{Mapping, MappingError},
};
use crate::{
    block::{CellError, Column},
    sink::SinkError,
};

/// Why a record has no row in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Empty if no route takes the record.
    pub table: Arc<str>,
    pub column: String,
    /// The column's ClickHouse type.
    pub expected: String,
    /// A stable snake_case name for the kind of failure.
    pub reason: &'static str,
    /// The value that did not fit, cut to 256 bytes.
    pub value: String,
    /// One sentence.
    pub error: String,
}

impl Rejection {
    pub(crate) fn no_route() -> Self {
        Rejection {
            table: "".into(),
            column: String::new(),
            expected: String::new(),
            reason: "no_route",
            value: String::new(),
            error: "no route takes this topic and event type".to_owned(),
        }
    }

    /// ClickHouse does not take the row.
    pub(crate) fn refused(mapping: &Mapping, error: &SinkError) -> Self {
        Rejection {
            table: Arc::clone(&mapping.table),
            column: String::new(),
            expected: String::new(),
            reason: "refused_by_clickhouse",
            value: String::new(),
            error: error.to_string(),
        }
    }

    fn cell(mapping: &Mapping, error: CellError) -> Self {
        Rejection {
            table: Arc::clone(&mapping.table),
            error: error.to_string(),
            reason: error.reason.as_str(),
            column: error.column,
            expected: error.expected,
            value: error.value,
        }
    }

    fn missing(mapping: &Mapping, column: &Column, source: Option<&EnvelopeValue>) -> Self {
        Rejection {
            table: Arc::clone(&mapping.table),
            column: column.name().to_owned(),
            expected: column.column_type().to_string(),
            reason: "missing",
            value: String::new(),
            error: match (source, column.column_type().empty()) {
                (Some(source), _) => format!(
                    "column `{}` is filled with {source}, {}, which this record does not have; for \
                     records that the relay did not write, a route of their own says in routes.columns \
                     what fills it, or the column can have a DEFAULT",
                    column.name(),
                    source.described()
                ),
                (None, Some(_)) => format!(
                    "column `{}` has no value in the record and no constant DEFAULT; \
                     routes.empty_if_absent has it be empty",
                    column.name()
                ),
                (None, None) => format!(
                    "column `{}` has no value in the record, is not Nullable, and has no DEFAULT",
                    column.name()
                ),
            },
        }
    }

    fn payload(mapping: &Mapping, reason: &'static str, error: String, value: &[u8]) -> Self {
        const EXCERPT: usize = 256;
        Rejection {
            table: Arc::clone(&mapping.table),
            column: String::new(),
            expected: String::new(),
            reason,
            value: String::from_utf8_lossy(&value[..value.len().min(EXCERPT)]).into_owned(),
            error,
        }
    }
}
