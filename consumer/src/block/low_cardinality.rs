//! `LowCardinality`: every value once in a dictionary, a number for each row.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::cell::Cell;
use super::column::Absent;
use super::error::Refusal;
use super::types::ScalarType;
use super::wire::{Chunks, put_u64s, put_varint, varint_width};

/// The version of the dictionary's serialization, in the state prefix.
const SHARED_DICTIONARIES_WITH_ADDITIONAL_KEYS: u64 = 1;
/// The block brings its keys along,
const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;
/// and they replace those of a block before.
const NEED_UPDATE_DICTIONARY: u64 = 1 << 10;

/// The values of one column and the dictionary they share.
///
/// Key 0 stands for NULL where there is one, else for the type's zero value;
/// the others follow in the order of their first appearance.
#[derive(Debug)]
pub(super) struct LowCardinality {
    kind: ScalarType,
    absent: Absent,
    /// The keys' wire form, one after the other.
    arena: Vec<u8>,
    /// Where each key's value is in it: behind the length that strings begin with.
    keys: Vec<Range<usize>>,
    /// Finds keys by their values; holds their numbers.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The number of the last key: it often comes again, and is compared before
    /// anything is hashed.
    last: Option<u32>,
    /// A key number for each row.
    rows: Vec<u32>,
    mark: (usize, usize),
    /// A key that has to be written before it is known.
    written: Vec<u8>,
}

impl LowCardinality {
    pub(super) fn new(kind: ScalarType, absent: Absent) -> Self {
        let mut this = Self {
            kind,
            absent,
            arena: Vec::new(),
            keys: Vec::new(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: None,
            rows: Vec::new(),
            mark: (0, 0),
            written: Vec::new(),
        };
        this.clear();
        this
    }

    #[inline]
    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Refusal> {
        if self.absent.is(cell) {
            self.rows.push(0);
            return Ok(());
        }
        let number = match cell.borrowed_text() {
            Some(text) if matches!(self.kind, ScalarType::String) => self.number(text),
            _ => self.number_of_other(cell)?,
        };
        self.last = Some(number);
        self.rows.push(number);
        Ok(())
    }

    #[inline]
    fn number(&mut self, value: &[u8]) -> u32 {
        match self.last {
            Some(last) if value_of(&self.arena, &self.keys, last) == value => last,
            _ => self.intern(value),
        }
    }

    fn number_of_other(&mut self, cell: &Cell<'_>) -> Result<u32, Refusal> {
        let mut written = std::mem::take(&mut self.written);
        written.clear();
        let outcome = self.kind.write(*cell, &mut written);
        let number = outcome.map(|()| {
            let value = match self.kind {
                ScalarType::String => &written[varint_width(&written)..],
                _ => &written,
            };
            self.number(value)
        });
        self.written = written;
        Ok(number?)
    }

    /// The number of the key with this value.
    fn intern(&mut self, value: &[u8]) -> u32 {
        let Self { arena, keys, hasher, .. } = self;
        let entry = self.numbers.entry(
            hasher.hash_one(value),
            |&number| value_of(arena, keys, number) == value,
            |&number| hasher.hash_one(value_of(arena, keys, number)),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                // Memory runs out long before 2^32 keys do.
                let number = keys.len() as u32;
                place.insert(number);
                if matches!(self.kind, ScalarType::String) {
                    put_varint(arena, value.len() as u64);
                }
                let start = arena.len();
                arena.extend_from_slice(value);
                keys.push(start..arena.len());
                number
            }
        }
    }

    pub(super) fn mark(&mut self) {
        self.mark = (self.rows.len(), self.keys.len());
    }

    pub(super) fn rollback(&mut self) {
        let (rows, known) = self.mark;
        self.rows.truncate(rows);
        self.last = None;
        while self.keys.len() > known {
            let number = (self.keys.len() - 1) as u32;
            let hash = self.hasher.hash_one(value_of(&self.arena, &self.keys, number));
            if let Ok(entry) = self.numbers.find_entry(hash, |&n| n == number) {
                entry.remove();
            }
            self.keys.pop();
            self.arena.truncate(self.keys.last().map_or(0, |key| key.end));
        }
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.keys.clear();
        self.numbers.clear();
        self.rows.clear();
        self.last = None;
        self.mark = (0, 0);
        self.kind.put_filler(&mut self.arena);
        let filler = match self.kind {
            ScalarType::String => 1..1,
            _ => 0..self.arena.len(),
        };
        // Where key 0 is NULL, a value of the same bytes is another key.
        if self.absent == Absent::Never {
            let hash = self.hasher.hash_one(&self.arena[filler.clone()]);
            self.numbers.insert_unique(hash, 0, |_| hash);
        }
        self.keys.push(filler);
    }

    pub(super) fn byte_size(&self) -> usize {
        // A range is 16 bytes, its entry in the table 5, with room for growth.
        self.arena.len() + self.keys.len() * 28 + self.rows.len() * 4
    }

    pub(super) fn write_prefix(&self, out: &mut Vec<u8>) {
        put_u64s(out, &[SHARED_DICTIONARIES_WITH_ADDITIONAL_KEYS]);
    }

    pub(super) fn give_values(&mut self, chunks: &mut Chunks) {
        self.write_values(&mut chunks.open);
        self.clear();
    }

    fn write_values(&self, out: &mut Vec<u8>) {
        // Without rows the server reads nothing, not even an empty dictionary.
        if self.rows.is_empty() {
            return;
        }
        let index_width = match self.keys.len() {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        let flags = HAS_ADDITIONAL_KEYS | NEED_UPDATE_DICTIONARY | index_width;
        put_u64s(out, &[flags, self.keys.len() as u64]);
        out.extend_from_slice(&self.arena);
        put_u64s(out, &[self.rows.len() as u64]);
        // The casts are exact: no number exceeds the count of keys.
        match index_width {
            0 => out.extend(self.rows.iter().map(|&number| number as u8)),
            1 => {
                out.reserve(self.rows.len() * 2);
                for &number in &self.rows {
                    out.extend_from_slice(&(number as u16).to_le_bytes());
                }
            }
            _ => {
                out.reserve(self.rows.len() * 4);
                for &number in &self.rows {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}

#[inline]
fn value_of<'a>(arena: &'a [u8], keys: &[Range<usize>], number: u32) -> &'a [u8] {
    &arena[keys[number as usize].clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(absent: Absent, cells: &[Cell<'_>]) -> Vec<u8> {
        let mut column = LowCardinality::new(ScalarType::String, absent);
        for cell in cells {
            column.push(cell).unwrap();
        }
        let mut out = Vec::new();
        column.write_values(&mut out);
        out
    }

    fn expected(flags: u64, key_count: u64, keys: &[u8], rows: u64, numbers: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64s(&mut out, &[flags, key_count]);
        out.extend_from_slice(keys);
        put_u64s(&mut out, &[rows]);
        out.extend_from_slice(numbers);
        out
    }

    #[test]
    fn key_zero_is_the_empty_string() {
        let cells = ["b", "", "a", "b"].map(Cell::Text);
        assert_eq!(
            strings(Absent::Never, &cells),
            expected(0x600, 3, b"\0\x01b\x01a", 4, &[1, 0, 2, 1])
        );
    }

    #[test]
    fn key_zero_is_null_where_there_is_one() {
        let cells = [Cell::Text(""), Cell::Null, Cell::Text("a"), Cell::Json("null")];
        assert_eq!(
            strings(Absent::Null, &cells),
            expected(0x600, 3, b"\0\0\x01a", 4, &[1, 0, 2, 0])
        );
    }

    #[test]
    fn indexes_grow_with_the_dictionary() {
        let width_of = |keys: usize| {
            let mut column = LowCardinality::new(ScalarType::String, Absent::Never);
            // One key less than asked for: the empty string is there already.
            for n in 1..keys {
                column.push(&Cell::Int(n as i64)).unwrap();
            }
            let mut out = Vec::new();
            column.write_values(&mut out);
            out[0]
        };
        assert_eq!(width_of(256), 0);
        assert_eq!(width_of(257), 1);
        assert_eq!(width_of(65_536), 1);
        assert_eq!(width_of(65_537), 2);
    }

    #[test]
    fn rolled_back_keys_are_forgotten() {
        let mut column = LowCardinality::new(ScalarType::String, Absent::Never);
        column.push(&Cell::Text("kept")).unwrap();
        column.mark();
        for n in 0..1000 {
            column.push(&Cell::Int(n)).unwrap();
        }
        column.rollback();
        assert_eq!(column.numbers.len(), 2);
        column.push(&Cell::Text("next")).unwrap();
        column.push(&Cell::Text("kept")).unwrap();
        let mut out = Vec::new();
        column.write_values(&mut out);
        assert_eq!(out, expected(0x600, 3, b"\0\x04kept\x04next", 3, &[1, 2, 1]));
    }
}
