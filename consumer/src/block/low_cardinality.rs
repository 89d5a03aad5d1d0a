//! `LowCardinality`: every value once in a dictionary, a number for each row.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::cell::Cell;
use super::column::Absent;
use super::error::Refusal;
use super::types::ScalarType;
use super::wire::{Chunks, put_u64s};

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
    keys: Vec<u8>,
    /// Where each key starts.
    starts: Vec<usize>,
    /// Finds keys by their bytes; holds their numbers.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The number of the last key: it often comes again, and is compared before
    /// anything is hashed.
    last: Option<u32>,
    /// A key number for each row.
    rows: Vec<u32>,
    mark: (usize, usize),
}

impl LowCardinality {
    pub(super) fn new(kind: ScalarType, absent: Absent) -> Self {
        let mut this = Self {
            kind,
            absent,
            keys: Vec::new(),
            starts: Vec::new(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: None,
            rows: Vec::new(),
            mark: (0, 0),
        };
        this.clear();
        this
    }

    #[inline]
    pub(super) fn push(&mut self, cell: Cell<'_>) -> Result<(), Refusal> {
        if self.absent.is(cell) {
            self.rows.push(0);
            return Ok(());
        }
        // The key goes to where it would stay, and leaves again if it is known.
        let start = self.keys.len();
        self.kind.write(cell, &mut self.keys)?;
        let (known, key) = self.keys.split_at(start);
        let number = match self.last {
            Some(last) if key_bytes(known, &self.starts, last) == key => {
                self.keys.truncate(start);
                last
            }
            _ => self.intern(start),
        };
        self.last = Some(number);
        self.rows.push(number);
        Ok(())
    }

    /// The number of the key whose bytes begin at `start` and end the arena.
    fn intern(&mut self, start: usize) -> u32 {
        let (starts, hasher) = (&self.starts, &self.hasher);
        // The new key has no start yet: the known keys end where it begins.
        let (known, bytes) = self.keys.split_at(start);
        let entry = self.numbers.entry(
            hasher.hash_one(bytes),
            |&number| key_bytes(known, starts, number) == bytes,
            |&number| hasher.hash_one(key_bytes(known, starts, number)),
        );
        match entry {
            Entry::Occupied(known) => {
                let number = *known.get();
                self.keys.truncate(start);
                number
            }
            Entry::Vacant(place) => {
                // Memory runs out long before 2^32 keys do.
                let number = self.starts.len() as u32;
                place.insert(number);
                self.starts.push(start);
                number
            }
        }
    }

    pub(super) fn mark(&mut self) {
        self.mark = (self.rows.len(), self.starts.len());
    }

    pub(super) fn rollback(&mut self) {
        let (rows, known) = self.mark;
        self.rows.truncate(rows);
        self.last = None;
        while self.starts.len() > known {
            let number = (self.starts.len() - 1) as u32;
            let hash = self.hasher.hash_one(key_bytes(&self.keys, &self.starts, number));
            if let Ok(entry) = self.numbers.find_entry(hash, |&n| n == number) {
                entry.remove();
            }
            if let Some(start) = self.starts.pop() {
                self.keys.truncate(start);
            }
        }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.starts.clear();
        self.numbers.clear();
        self.rows.clear();
        self.last = None;
        self.mark = (0, 0);
        self.kind.put_filler(&mut self.keys);
        if self.absent == Absent::Never {
            self.intern(0);
        } else {
            // Key 0 is NULL then. A value of the same bytes is another key.
            self.starts.push(0);
        }
    }

    pub(super) fn byte_size(&self) -> usize {
        // A start is 8 bytes, its entry in the table 5, with room for growth.
        self.keys.len() + self.starts.len() * 20 + self.rows.len() * 4
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
        let index_width = match self.starts.len() {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        let flags = HAS_ADDITIONAL_KEYS | NEED_UPDATE_DICTIONARY | index_width;
        put_u64s(out, &[flags, self.starts.len() as u64]);
        out.extend_from_slice(&self.keys);
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
fn key_bytes<'a>(keys: &'a [u8], starts: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let end = starts.get(number + 1).copied().unwrap_or(keys.len());
    &keys[starts[number]..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(absent: Absent, cells: &[Cell<'_>]) -> Vec<u8> {
        let mut column = LowCardinality::new(ScalarType::String, absent);
        for cell in cells {
            column.push(*cell).unwrap();
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
                column.push(Cell::Int(n as i64)).unwrap();
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
        column.push(Cell::Text("kept")).unwrap();
        column.mark();
        for n in 0..1000 {
            column.push(Cell::Int(n)).unwrap();
        }
        column.rollback();
        assert_eq!(column.numbers.len(), 2);
        column.push(Cell::Text("next")).unwrap();
        column.push(Cell::Text("kept")).unwrap();
        let mut out = Vec::new();
        column.write_values(&mut out);
        assert_eq!(out, expected(0x600, 3, b"\0\x04kept\x04next", 3, &[1, 2, 1]));
    }
}
