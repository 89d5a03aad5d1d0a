//! `Array`, `Map` and `Tuple`: columns made of columns.

use super::cell::{Cell, unquote};
use super::column::Buffer;
use super::error::{Reason, Refusal};
use super::json::Parts;
use super::types::{ColumnType, TupleElement};
use super::wire::{Chunks, put_u64s};

/// The JSON of a cell that must be an array or an object.
fn composite(cell: Cell<'_>) -> Result<&str, Reason> {
    match cell {
        Cell::Json("null") | Cell::Null | Cell::Default => Err(Reason::NullNotAllowed),
        Cell::Json(raw) => Ok(raw),
        _ => Err(Reason::WrongType),
    }
}

/// Appends a part and, if it is refused, names it in the error.
fn push_part(buffer: &mut Buffer, raw: &str) -> Result<(), Refusal> {
    buffer.push(Cell::Json(raw)).map_err(|refusal| refusal.at(raw))
}

/// Where each row's elements end, counted through the whole column.
#[derive(Debug, Default)]
struct Offsets {
    ends: Vec<u64>,
    mark: usize,
}

impl Offsets {
    fn push(&mut self, count: u64) {
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(start + count);
    }

    fn mark(&mut self) {
        self.mark = self.ends.len();
    }

    fn rollback(&mut self) {
        self.ends.truncate(self.mark);
    }

    fn byte_size(&self) -> usize {
        self.ends.len() * size_of::<u64>()
    }

    fn give(&mut self, out: &mut Chunks) {
        put_u64s(&mut out.open, &self.ends);
        self.ends.clear();
        self.mark = 0;
    }
}

/// Any number of elements in each row.
#[derive(Debug)]
pub(super) struct ArrayBuffer {
    offsets: Offsets,
    items: Box<Buffer>,
}

impl ArrayBuffer {
    pub(super) fn new(item: &ColumnType) -> Self {
        Self { offsets: Offsets::default(), items: Box::new(Buffer::new(item)) }
    }

    pub(super) fn push(&mut self, cell: Cell<'_>) -> Result<(), Refusal> {
        let mut parts = Parts::of_array(composite(cell)?).ok_or(Reason::WrongType)?;
        let mut count = 0;
        while let Some(element) = parts.next_element()? {
            push_part(&mut self.items, element)?;
            count += 1;
        }
        self.offsets.push(count);
        Ok(())
    }

    pub(super) fn mark(&mut self) {
        self.offsets.mark();
        self.items.mark();
    }

    pub(super) fn rollback(&mut self) {
        self.offsets.rollback();
        self.items.rollback();
    }

    pub(super) fn byte_size(&self) -> usize {
        self.offsets.byte_size() + self.items.byte_size()
    }

    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        self.items.write_prefix(out);
    }

    pub(super) fn give_values(&mut self, out: &mut Chunks) {
        self.offsets.give(out);
        self.items.give_values(out);
    }
}

/// Any number of pairs in each row: on the wire, an array of tuples of two.
#[derive(Debug)]
pub(super) struct MapBuffer {
    offsets: Offsets,
    keys: Box<Buffer>,
    values: Box<Buffer>,
}

impl MapBuffer {
    pub(super) fn new(key: &ColumnType, value: &ColumnType) -> Self {
        Self {
            offsets: Offsets::default(),
            keys: Box::new(Buffer::new(key)),
            values: Box::new(Buffer::new(value)),
        }
    }

    pub(super) fn push(&mut self, cell: Cell<'_>) -> Result<(), Refusal> {
        let mut parts = Parts::of_object(composite(cell)?).ok_or(Reason::WrongType)?;
        let mut count = 0;
        while let Some((key, value)) = parts.next_member()? {
            push_part(&mut self.keys, key)?;
            push_part(&mut self.values, value)?;
            count += 1;
        }
        self.offsets.push(count);
        Ok(())
    }

    pub(super) fn mark(&mut self) {
        self.offsets.mark();
        self.keys.mark();
        self.values.mark();
    }

    pub(super) fn rollback(&mut self) {
        self.offsets.rollback();
        self.keys.rollback();
        self.values.rollback();
    }

    pub(super) fn byte_size(&self) -> usize {
        self.offsets.byte_size() + self.keys.byte_size() + self.values.byte_size()
    }

    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        self.keys.write_prefix(out);
        self.values.write_prefix(out);
    }

    pub(super) fn give_values(&mut self, out: &mut Chunks) {
        self.offsets.give(out);
        self.keys.give_values(out);
        self.values.give_values(out);
    }
}

/// One value of each element in each row.
#[derive(Debug)]
pub(super) struct TupleBuffer {
    elements: Vec<Element>,
    /// Rows: all that a tuple without elements has.
    rows: usize,
    mark: usize,
}

#[derive(Debug)]
struct Element {
    name: Option<String>,
    values: Buffer,
    /// Whether the row at hand has brought a value.
    seen: bool,
}

impl TupleBuffer {
    pub(super) fn new(elements: &[TupleElement]) -> Self {
        Self {
            elements: elements
                .iter()
                .map(|element| Element {
                    name: element.name.clone(),
                    values: Buffer::new(&element.kind),
                    seen: false,
                })
                .collect(),
            rows: 0,
            mark: 0,
        }
    }

    pub(super) fn push(&mut self, cell: Cell<'_>) -> Result<(), Refusal> {
        let raw = composite(cell)?;
        if let Some(parts) = Parts::of_array(raw) {
            self.push_by_position(parts)?;
        } else if let Some(parts) = Parts::of_object(raw) {
            self.push_by_name(parts)?;
        } else {
            return Err(Reason::WrongType.into());
        }
        self.rows += 1;
        Ok(())
    }

    fn push_by_position(&mut self, mut parts: Parts<'_>) -> Result<(), Refusal> {
        for element in &mut self.elements {
            let raw = parts.next_element()?.ok_or(Reason::WrongLength)?;
            push_part(&mut element.values, raw)?;
        }
        match parts.next_element()? {
            None => Ok(()),
            Some(_) => Err(Reason::WrongLength.into()),
        }
    }

    /// A member that the tuple has no element for is refused: leaving it out
    /// would be a loss that nobody sees.
    fn push_by_name(&mut self, mut parts: Parts<'_>) -> Result<(), Refusal> {
        if self.elements.iter().any(|element| element.name.is_none()) {
            return Err(Reason::WrongType.into());
        }
        for element in &mut self.elements {
            element.seen = false;
        }
        while let Some((quoted, raw)) = parts.next_member()? {
            let name = unquote(quoted)?;
            let element = self
                .elements
                .iter_mut()
                .find(|element| element.name.as_deref() == Some(&*name) && !element.seen)
                .ok_or_else(|| Refusal::from(Reason::Malformed).at(quoted))?;
            element.seen = true;
            push_part(&mut element.values, raw)?;
        }
        for element in self.elements.iter_mut().filter(|element| !element.seen) {
            element.values.push(Cell::Null)?;
        }
        Ok(())
    }

    pub(super) fn mark(&mut self) {
        self.mark = self.rows;
        for element in &mut self.elements {
            element.values.mark();
        }
    }

    pub(super) fn rollback(&mut self) {
        self.rows = self.mark;
        for element in &mut self.elements {
            element.values.rollback();
        }
    }

    pub(super) fn byte_size(&self) -> usize {
        self.elements.iter().map(|element| element.values.byte_size()).sum()
    }

    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        for element in &self.elements {
            element.values.write_prefix(out);
        }
    }

    pub(super) fn give_values(&mut self, out: &mut Chunks) {
        if self.elements.is_empty() {
            // A tuple of nothing still has a byte for each row.
            out.open.resize(out.open.len() + self.rows, b'0');
        }
        (self.rows, self.mark) = (0, 0);
        for element in &mut self.elements {
            element.values.give_values(out);
        }
    }
}
