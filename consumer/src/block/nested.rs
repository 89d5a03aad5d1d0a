//! `Array`, `Map` and `Tuple`: columns made of columns.

use super::cell::Cell;
use super::column::Buffer;
use super::error::{Reason, Refusal};
use super::types::{ColumnType, TupleElement};
use super::wire::{Chunks, put_u64s};
use crate::json::{Cursor, Entered, Name, unquoted};

/// The JSON of a cell that must be an array or an object.
fn composite(cell: Cell<'_>) -> Result<Cursor<'_>, Reason> {
    match cell {
        Cell::Null | Cell::Default => Err(Reason::NullNotAllowed),
        Cell::Json(raw) => Ok(Cursor::new(raw)),
        _ => Err(Reason::WrongType),
    }
}

/// Why what begins here could not be entered.
fn not_entered(cursor: &Cursor<'_>) -> Reason {
    if cursor.is_null() { Reason::NullNotAllowed } else { Reason::WrongType }
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

    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        self.push_at(&mut composite(*cell)?)
    }

    pub(super) fn push_at(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        let mut array = cursor.enter_array().ok_or_else(|| not_entered(cursor))?;
        let mut count = 0;
        while cursor.next(&mut array)? {
            self.items.push_at(cursor)?;
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

    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        self.push_at(&mut composite(*cell)?)
    }

    pub(super) fn push_at(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        let mut object = cursor.enter_object().ok_or_else(|| not_entered(cursor))?;
        let mut count = 0;
        while cursor.next(&mut object)? {
            let key = cursor.name()?;
            self.keys.push(&Cell::Json(key)).map_err(|refusal| refusal.at(key))?;
            self.values.push_at(cursor)?;
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
    written: Option<Name>,
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
                    written: element.name.as_deref().map(Name::new),
                    values: Buffer::new(&element.kind),
                    seen: false,
                })
                .collect(),
            rows: 0,
            mark: 0,
        }
    }

    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        self.push_at(&mut composite(*cell)?)
    }

    pub(super) fn push_at(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        if let Some(array) = cursor.enter_array() {
            self.push_by_position(cursor, array)?;
        } else if let Some(object) = cursor.enter_object() {
            self.push_by_name(cursor, object)?;
        } else {
            return Err(not_entered(cursor).into());
        }
        self.rows += 1;
        Ok(())
    }

    fn push_by_position(
        &mut self,
        cursor: &mut Cursor<'_>,
        mut array: Entered,
    ) -> Result<(), Refusal> {
        for element in &mut self.elements {
            if !cursor.next(&mut array)? {
                return Err(Reason::WrongLength.into());
            }
            element.values.push_at(cursor)?;
        }
        match cursor.next(&mut array)? {
            false => Ok(()),
            true => Err(Reason::WrongLength.into()),
        }
    }

    /// A member that the tuple has no element for is refused: leaving it out
    /// would be a loss that nobody sees.
    fn push_by_name(
        &mut self,
        cursor: &mut Cursor<'_>,
        mut object: Entered,
    ) -> Result<(), Refusal> {
        if self.elements.iter().any(|element| element.name.is_none()) {
            return Err(Reason::WrongType.into());
        }
        for element in &mut self.elements {
            element.seen = false;
        }
        let mut expected = 0;
        while cursor.next(&mut object)? {
            let index = match self.elements.get(expected) {
                // Members mostly come in the order of the elements.
                Some(Element { written: Some(name), seen: false, .. })
                    if cursor.takes_name(name) =>
                {
                    expected
                }
                _ => self.element(cursor.name()?)?,
            };
            expected = index + 1;
            self.elements[index].seen = true;
            self.elements[index].values.push_at(cursor)?;
        }
        for element in self.elements.iter_mut().filter(|element| !element.seen) {
            element.values.push(&Cell::Null)?;
        }
        Ok(())
    }

    /// Which element a member's name is that of.
    fn element(&self, quoted: &str) -> Result<usize, Refusal> {
        let name = unquoted(quoted).ok_or(Reason::InvalidUtf8)?;
        let is_it = |element: &Element| element.name.as_deref() == Some(&*name) && !element.seen;
        let index = self.elements.iter().position(is_it);
        index.ok_or_else(|| Refusal::from(Reason::Malformed).at(quoted))
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
