//! A column: its name and type, and the buffer that its values gather in.

use super::cell::Cell;
use super::error::Refusal;
use super::integer;
use super::low_cardinality::LowCardinality;
use super::nested::{ArrayBuffer, MapBuffer, TupleBuffer};
use super::types::{ColumnType, ScalarType};
use super::wire::Chunks;
use crate::json::Cursor;

/// A column to be filled: its name and type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    name: String,
    kind: ColumnType,
    default: bool,
}

impl Column {
    /// A column that needs a value in every row.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, default: false }
    }

    /// The same column, able to take [`Cell::Default`]: the server then computes
    /// the column's DEFAULT for that row.
    ///
    /// The block names the type as `Nullable` for it, and a NULL asks for the
    /// DEFAULT. That needs `input_format_null_as_default = 1` with the INSERT, and
    /// a type that can stand in `Nullable` and does not already: other columns
    /// stay as they are. So does `JSON`: the server would parse the text beneath
    /// the NULL.
    #[must_use]
    pub fn with_default(mut self) -> Self {
        self.default = match &self.kind {
            ColumnType::Scalar(kind) => !matches!(kind, ScalarType::Json(_)),
            ColumnType::LowCardinality { nullable, .. } => !nullable,
            _ => false,
        };
        self
    }

    /// The column's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The column's type in the table.
    #[must_use]
    pub fn column_type(&self) -> &ColumnType {
        &self.kind
    }

    /// Whether it takes [`Cell::Default`].
    #[must_use]
    pub fn takes_default(&self) -> bool {
        self.default
    }

    /// The type in the block's header.
    pub(crate) fn wire_type(&self) -> ColumnType {
        let kind = self.kind.on_the_wire();
        match kind {
            ColumnType::Scalar(of) if self.default => ColumnType::Nullable(of),
            ColumnType::LowCardinality { of, .. } if self.default => {
                ColumnType::LowCardinality { of, nullable: true }
            }
            kind => kind,
        }
    }

    pub(super) fn buffer(&self) -> Buffer {
        match &self.kind {
            ColumnType::Scalar(kind) if self.default => {
                Buffer::Nullable(NullableBuffer::new(kind.clone(), Absent::Default))
            }
            ColumnType::LowCardinality { of, .. } if self.default => {
                Buffer::LowCardinality(LowCardinality::new(of.clone(), Absent::Default))
            }
            kind => Buffer::new(kind),
        }
    }
}

/// Which cell a column takes as the absence of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Never,
    Null,
    Default,
}

impl Absent {
    #[inline]
    pub(super) fn is(self, cell: &Cell<'_>) -> bool {
        match self {
            Self::Never => false,
            Self::Null => cell.is_null(),
            Self::Default => matches!(cell, Cell::Default),
        }
    }
}

/// The values of one column or of one part of it, in their wire form.
///
/// A row that is refused half-way is taken back: [`mark`](Self::mark) notes where
/// the row begins and [`rollback`](Self::rollback) returns there.
#[derive(Debug)]
pub(super) enum Buffer {
    Scalar(ScalarBuffer),
    Nullable(NullableBuffer),
    LowCardinality(LowCardinality),
    Array(ArrayBuffer),
    Map(MapBuffer),
    Tuple(TupleBuffer),
}

/// Does the same to whichever buffer it is.
macro_rules! each {
    ($buffer:expr, $inner:ident => $action:expr) => {
        match $buffer {
            Self::Scalar($inner) => $action,
            Self::Nullable($inner) => $action,
            Self::LowCardinality($inner) => $action,
            Self::Array($inner) => $action,
            Self::Map($inner) => $action,
            Self::Tuple($inner) => $action,
        }
    };
}

impl Buffer {
    pub(super) fn new(kind: &ColumnType) -> Self {
        match kind {
            ColumnType::Scalar(kind) => Self::Scalar(ScalarBuffer::new(kind.clone())),
            ColumnType::Nullable(kind) => {
                Self::Nullable(NullableBuffer::new(kind.clone(), Absent::Null))
            }
            ColumnType::LowCardinality { of, nullable } => {
                let absent = if *nullable { Absent::Null } else { Absent::Never };
                Self::LowCardinality(LowCardinality::new(of.clone(), absent))
            }
            ColumnType::Array(item) => Self::Array(ArrayBuffer::new(item)),
            ColumnType::Map(key, value) => Self::Map(MapBuffer::new(key, value)),
            ColumnType::Tuple(elements) => Self::Tuple(TupleBuffer::new(elements)),
        }
    }

    /// Appends one value. On error, some of it may be left for
    /// [`rollback`](Self::rollback) to remove.
    #[inline]
    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        each!(self, buffer => buffer.push(cell))
    }

    /// The same, behind a mark.
    #[inline(always)]
    pub(super) fn push_marked(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        each!(self, buffer => {
            buffer.mark();
            buffer.push(cell)
        })
    }

    /// Appends the value that begins at `cursor`, which moves behind it. A refusal
    /// names the innermost part that is at fault.
    pub(super) fn push_at(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        let start = cursor.clone();
        let outcome = match self {
            Self::Array(buffer) => buffer.push_at(cursor),
            Self::Map(buffer) => buffer.push_at(cursor),
            Self::Tuple(buffer) => buffer.push_at(cursor),
            Self::Scalar(buffer) => buffer.push(&cursor.value()?.into()),
            Self::Nullable(buffer) => buffer.push(&cursor.value()?.into()),
            Self::LowCardinality(buffer) => buffer.push(&cursor.value()?.into()),
        };
        outcome.map_err(|refusal| refusal.at(start.clone().value().map_or("", |value| value.raw())))
    }

    /// Notes the end as the place to return to.
    #[inline]
    pub(super) fn mark(&mut self) {
        each!(self, buffer => buffer.mark());
    }

    /// Removes what came after the mark.
    pub(super) fn rollback(&mut self) {
        each!(self, buffer => buffer.rollback());
    }

    #[inline]
    pub(super) fn byte_size(&self) -> usize {
        each!(self, buffer => buffer.byte_size())
    }

    /// Appends the state that precedes all data of a column, parts included.
    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        each!(self, buffer => buffer.write_prefix(out));
    }

    /// Gives the data away. What is left is empty.
    pub(super) fn give_values(&mut self, out: &mut Chunks) {
        each!(self, buffer => buffer.give_values(out));
    }
}

/// Values one after the other.
#[derive(Debug)]
pub(super) struct ScalarBuffer {
    kind: ScalarType,
    bytes: Vec<u8>,
    mark: usize,
}

impl ScalarBuffer {
    fn new(kind: ScalarType) -> Self {
        Self { kind, bytes: Vec::new(), mark: 0 }
    }

    #[inline]
    fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        match (&self.kind, cell) {
            // The way that most values go, without a call.
            (ScalarType::Integer(kind), Cell::Int(value)) => {
                integer::put(*kind, *value, &mut self.bytes)?;
            }
            _ => self.kind.write(*cell, &mut self.bytes)?,
        }
        Ok(())
    }

    #[inline]
    fn mark(&mut self) {
        self.mark = self.bytes.len();
    }

    fn rollback(&mut self) {
        self.bytes.truncate(self.mark);
    }

    #[inline]
    fn byte_size(&self) -> usize {
        self.bytes.len()
    }

    fn write_prefix(&self, _out: &mut Vec<u8>) {}

    fn give_values(&mut self, out: &mut Chunks) {
        out.give(&mut self.bytes);
        self.mark = 0;
    }
}

/// A byte for each value, 1 where there is none, then the values.
#[derive(Debug)]
pub(super) struct NullableBuffer {
    absent: Absent,
    nulls: Vec<u8>,
    values: ScalarBuffer,
    mark: usize,
}

impl NullableBuffer {
    fn new(kind: ScalarType, absent: Absent) -> Self {
        Self { absent, nulls: Vec::new(), values: ScalarBuffer::new(kind), mark: 0 }
    }

    #[inline]
    fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        if self.absent.is(cell) {
            self.values.kind.put_filler(&mut self.values.bytes);
            self.nulls.push(1);
        } else {
            self.values.push(cell)?;
            self.nulls.push(0);
        }
        Ok(())
    }

    #[inline]
    fn mark(&mut self) {
        self.mark = self.nulls.len();
        self.values.mark();
    }

    fn rollback(&mut self) {
        self.nulls.truncate(self.mark);
        self.values.rollback();
    }

    #[inline]
    fn byte_size(&self) -> usize {
        self.nulls.len() + self.values.byte_size()
    }

    fn write_prefix(&self, _out: &mut Vec<u8>) {}

    fn give_values(&mut self, out: &mut Chunks) {
        out.give(&mut self.nulls);
        self.mark = 0;
        self.values.give_values(out);
    }
}
