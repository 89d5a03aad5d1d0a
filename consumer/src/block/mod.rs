//! Typed, range-checked, columnar encoding of ClickHouse's Native format.
//!
//! ClickHouse's own JSON reading bends values without a word: 300 becomes 44 in a
//! `UInt8`, 1.239 becomes 1.23 in a `Decimal(5, 2)`, null becomes 0. Here a value
//! either fits its column exactly or is refused, with the column, the type and
//! the reason; and the server gets columns that it need not parse.
//!
//! ```text
//! cells of a row ─▶ Block::push_row ─▶ one Buffer per column ─▶ Block::take ─▶ bytes
//!                        │                 ScalarType::write        header, then per column
//!                        ▼                 checks and appends       name, type, state, data
//!                    CellError (and nothing of the row is kept)
//! ```
//!
//! # What fits where
//!
//! A JSON string, [`Cell::Text`] and [`Cell::Bytes`] of UTF-8 count as the same
//! text. NULL (JSON null or [`Cell::Null`]) fits `Nullable` columns only.
//!
//! | type | takes | refuses |
//! | --- | --- | --- |
//! | `Int8`…`UInt256` | integral numbers (`1e3` and `5.0` too), text of such a number | fractions and booleans (`wrong_type`), `"007"` (`malformed`) |
//! | `Decimal(P, S)` | numbers and text of numbers, exponents too, digit by digit | digits beyond S that are not zeros (`too_many_digits`), more than P − S before the point (`out_of_range`) |
//! | `BFloat16`, `Float32`, `Float64` | numbers and text of numbers, to the nearest float; `"NaN"`, `"Infinity"`, `"-Infinity"` in any case, `"inf"` too | numbers that round to infinity (`out_of_range`), other text (`malformed`) |
//! | `Bool` | true, false | everything else |
//! | `String` | text; of any other JSON its text as it stands; any bytes | halves of surrogate pairs |
//! | `FixedString(N)` | text and bytes up to N bytes, zeros fill up | longer ones |
//! | `UUID` | text | other text than a UUID |
//! | `IPv4`, `IPv6` | text; IPv4 into `IPv6` as `::ffff:a.b.c.d` | numbers |
//! | `Date`, `Date32` | `YYYY-MM-DD`, alone or with midnight UTC | any other time of day, numbers |
//! | `DateTime` | `YYYY-MM-DD[(T\| )HH:MM[:SS]][Z\|±HH:MM]`; numbers are seconds | fractions of a second |
//! | `DateTime64(p)` | the same with fractions; numbers are ticks of 10⁻ᵖ s, ClickHouse's own reading | digits beyond p that are not zeros |
//! | `Time`, `Time64(p)` | `[-]H:MM:SS[.fraction]` up to 999 hours; numbers are seconds, ticks of 10⁻ᵖ s | digits beyond p that are not zeros |
//! | `Enum8`, `Enum16` | text is a name, a number is a value | unknown ones |
//! | `LowCardinality(T)`, `Nullable(T)` | what T takes | what T refuses |
//! | `Array(T)` | JSON arrays | |
//! | `Map(K, V)` | JSON objects; K takes each name as text | |
//! | `Tuple(…)` | JSON arrays by position; objects by name, absent ones as NULL | unknown and doubled names, other lengths |
//! | `JSON` | JSON objects, text of them; the server parses them | other JSON |
//!
//! Times without an offset are in the column's time zone, in UTC if it has none;
//! when clocks change and such a time is missing or comes twice, it is refused
//! (`invalid_date`). [`Cell::Timestamp`] is the one value that may lose digits: a
//! record's own time is floored to what the column holds.
//!
//! `JSON` is the one type whose content is the server's to read, and it reads in
//! its own way: nulls and empty objects vanish, integers beyond 64 bits become
//! strings, fractions become `Float64`, text that looks like a time becomes one,
//! and a typed path that is absent or null is its type's zero. Whoever needs a
//! document back as it was keeps it in a `String`.
//!
//! # With the INSERT
//!
//! The server has to convert where a block names another type than the table:
//! `input_format_native_allow_types_conversion = 1`, for `JSON` and for types
//! stored as others; `input_format_null_as_default = 1` for [`Cell::Default`].
//! Both are its defaults. It would convert as willingly if the table had become another:
//! [`insert_sql`](crate::table::TableSchema::insert_sql) has it compare.

mod cell;
mod column;
mod concat;
mod datetime;
mod decimal;
mod empty;
mod encoded;
mod enumeration;
mod error;
mod integer;
mod low_cardinality;
mod nested;
mod number;
mod scalar;
mod slice;
mod text;
mod time;
mod timestamp_text;
mod type_parser;
pub mod types;
mod wire;

use std::sync::Arc;

use bytes::Bytes;

pub use cell::Cell;
pub use column::Column;
pub use error::{CellError, Reason};
pub use types::{ColumnType, TypeError};

pub(crate) use concat::concat;
pub(crate) use slice::slice;

use column::Buffer;
use error::Refusal;
use wire::{Chunks, put_string, put_varint};

/// Why there is no row. Nothing of it was kept.
#[derive(Debug)]
pub(crate) enum RowError {
    /// No cell for the column at this place.
    Missing(usize),
    Cell(CellError),
}

/// Rows on their way into one table, held column by column.
#[derive(Debug)]
pub struct Block {
    columns: Arc<[Column]>,
    /// Name and type of each column, as the header names them.
    headers: Vec<Vec<u8>>,
    buffers: Vec<Buffer>,
    rows: usize,
}

impl Block {
    /// An empty block of these columns.
    #[must_use]
    pub fn new(columns: Arc<[Column]>) -> Self {
        Self {
            headers: columns.iter().map(header).collect(),
            buffers: columns.iter().map(Column::buffer).collect(),
            columns,
            rows: 0,
        }
    }

    /// The columns, in the order of a row's cells.
    #[must_use]
    pub fn columns(&self) -> &Arc<[Column]> {
        &self.columns
    }

    /// Appends a row: a cell for each column, in their order. All or nothing: on
    /// error no column keeps anything of the row.
    ///
    /// # Errors
    ///
    /// The first cell that does not fit its column.
    ///
    /// # Panics
    ///
    /// If there are more or fewer cells than columns.
    pub fn push_row(&mut self, cells: &[Cell<'_>]) -> Result<(), CellError> {
        assert_eq!(cells.len(), self.buffers.len(), "a cell for each column");
        let found: Vec<_> = cells.iter().copied().map(Some).collect();
        self.push_found(&found).map_err(|error| match error {
            RowError::Cell(error) => error,
            RowError::Missing(index) => unreachable!("there is a cell {index}"),
        })
    }

    /// The same with what has been found for each column.
    #[inline]
    pub(crate) fn push_found(&mut self, cells: &[Option<Cell<'_>>]) -> Result<(), RowError> {
        for (index, (buffer, cell)) in self.buffers.iter_mut().zip(cells).enumerate() {
            let Some(cell) = cell else {
                self.rollback(index);
                return Err(RowError::Missing(index));
            };
            if let Err(refusal) = buffer.push_marked(cell) {
                self.rollback(index + 1);
                return Err(RowError::Cell(self.error(index, *cell, refusal)));
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Takes back what the first columns have of a row. The others have not been
    /// touched.
    #[cold]
    fn rollback(&mut self, columns: usize) {
        for buffer in &mut self.buffers[..columns] {
            buffer.rollback();
        }
    }

    /// The rows held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The bytes held: what the batch limit and the memory budget count. The
    /// room that buffers keep for growth comes on top, at most as much again.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.buffers.iter().map(Buffer::byte_size).sum()
    }

    /// Takes all rows out, encoded as one block: what follows `INSERT INTO t (…)
    /// FORMAT Native`, with the columns' names in the same order, in pieces to be
    /// sent one after the other. A block without rows is no bytes at all, as the
    /// server refuses one that lacks some of the table's columns; there is nothing
    /// to send then.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut out = Chunks::default();
        if self.is_empty() {
            return out.finish();
        }
        put_varint(&mut out.open, self.columns.len() as u64);
        put_varint(&mut out.open, self.rows as u64);
        for (header, buffer) in self.headers.iter().zip(&mut self.buffers) {
            out.open.extend_from_slice(header);
            buffer.write_prefix(&mut out.open);
            buffer.give_values(&mut out);
        }
        self.rows = 0;
        out.finish()
    }

    #[cold]
    fn error(&self, index: usize, cell: Cell<'_>, refusal: Refusal) -> CellError {
        let column = &self.columns[index];
        CellError {
            column: column.name().to_owned(),
            expected: column.column_type().to_string(),
            reason: refusal.reason(),
            value: refusal.part().map_or_else(|| cell.excerpt(), str::to_owned),
        }
    }
}

fn header(column: &Column) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, column.name().as_bytes());
    put_string(&mut out, column.wire_type().to_string().as_bytes());
    out
}

#[cfg(test)]
mod tests;
