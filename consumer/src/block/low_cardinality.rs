//! `LowCardinality`: every value once in a dictionary, a number for each row.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable, hash_table::Entry};

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
    /// Finds short keys, which most are.
    shorts: HashMap<Short, u32>,
    /// Finds the others by their values; holds their numbers.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The number of the last key that was not short: it often comes again, and is
    /// compared before anything is hashed.
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
            shorts: HashMap::new(),
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
        self.rows.push(number);
        Ok(())
    }

    /// The number of the key with this value.
    #[inline]
    fn number(&mut self, value: &[u8]) -> u32 {
        match Short::of(value) {
            Some(short) => match self.shorts.get(&short) {
                Some(number) => *number,
                None => self.add_short(short, value),
            },
            None => self.number_of_long(value),
        }
    }

    #[cold]
    fn add_short(&mut self, short: Short, value: &[u8]) -> u32 {
        let number = add(&mut self.arena, &mut self.keys, &self.kind, value);
        self.shorts.insert(short, number);
        number
    }

    fn number_of_long(&mut self, value: &[u8]) -> u32 {
        let Self { arena, keys, hasher, last, .. } = self;
        if let Some(last) = *last
            && value_of(arena, keys, last) == value
        {
            return last;
        }
        let entry = self.numbers.entry(
            hasher.hash_one(value),
            |&number| value_of(arena, keys, number) == value,
            |&number| hasher.hash_one(value_of(arena, keys, number)),
        );
        let number = match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let number = add(arena, keys, &self.kind, value);
                place.insert(number);
                number
            }
        };
        *last = Some(number);
        number
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

    pub(super) fn mark(&mut self) {
        self.mark = (self.rows.len(), self.keys.len());
    }

    pub(super) fn rollback(&mut self) {
        let (rows, known) = self.mark;
        self.rows.truncate(rows);
        self.last = None;
        while self.keys.len() > known {
            let number = (self.keys.len() - 1) as u32;
            let value = value_of(&self.arena, &self.keys, number);
            if let Some(short) = Short::of(value) {
                self.shorts.remove(&short);
            } else if let Ok(entry) =
                self.numbers.find_entry(self.hasher.hash_one(value), |&n| n == number)
            {
                entry.remove();
            }
            self.keys.pop();
            self.arena.truncate(self.keys.last().map_or(0, |key| key.end));
        }
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.keys.clear();
        self.shorts.clear();
        self.numbers.clear();
        self.rows.clear();
        self.last = None;
        self.mark = (0, 0);
        self.kind.put_filler(&mut self.arena);
        let filler = match self.kind {
            ScalarType::String => 1..1,
            _ => 0..self.arena.len(),
        };
        self.keys.push(filler);
        // Where key 0 is NULL, a value of the same bytes is another key.
        if self.absent == Absent::Never {
            let value = value_of(&self.arena, &self.keys, 0);
            match Short::of(value) {
                Some(short) => {
                    self.shorts.insert(short, 0);
                }
                None => {
                    let hash = self.hasher.hash_one(value);
                    self.numbers.insert_unique(hash, 0, |_| hash);
                }
            }
        }
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
        put_u64s(out, &[index_flags(self.keys.len()), self.keys.len() as u64]);
        out.extend_from_slice(&self.arena);
        put_index(out, self.keys.len(), &self.rows);
    }
}

/// What stands before a dictionary of so many keys: that it comes along, and how wide
/// the numbers of its keys are, as a power of two.
pub(super) fn index_flags(keys: usize) -> u64 {
    let index_width = match keys {
        0..=0x100 => 0,
        0x101..=0x1_0000 => 1,
        _ => 2,
    };
    HAS_ADDITIONAL_KEYS | NEED_UPDATE_DICTIONARY | index_width
}

/// How many rows there are, and for each the number of its key among `keys`.
pub(super) fn put_index(out: &mut Vec<u8>, keys: usize, rows: &[u32]) {
    put_u64s(out, &[rows.len() as u64]);
    // The casts are exact: no number exceeds the count of keys.
    match index_flags(keys) & 0xff {
        0 => out.extend(rows.iter().map(|&number| number as u8)),
        1 => {
            out.reserve(rows.len() * 2);
            for &number in rows {
                out.extend_from_slice(&(number as u16).to_le_bytes());
            }
        }
        _ => {
            out.reserve(rows.len() * 4);
            for &number in rows {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

/// A value of up to seven bytes, with their number in the eighth: codes and names of
/// categories are found without being hashed and compared byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Short(u64);

impl Short {
    #[inline]
    fn of(value: &[u8]) -> Option<Self> {
        let length = value.len();
        // From both ends: where these meet, they have the same bytes.
        let bytes = match (value.first_chunk(), value.last_chunk()) {
            (Some(first), Some(last)) => {
                let behind = u64::from(u32::from_le_bytes(*last)) << (8 * (length - 4).min(4));
                u64::from(u32::from_le_bytes(*first)) | behind
            }
            _ => value.iter().rev().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)),
        };
        (length < 8).then_some(Self(bytes | (length as u64) << 56))
    }
}

/// A further key, and its number.
fn add(arena: &mut Vec<u8>, keys: &mut Vec<Range<usize>>, kind: &ScalarType, value: &[u8]) -> u32 {
    if matches!(kind, ScalarType::String) {
        put_varint(arena, value.len() as u64);
    }
    let start = arena.len();
    arena.extend_from_slice(value);
    keys.push(start..arena.len());
    // Memory runs out long before 2^32 keys do.
    (keys.len() - 1) as u32
}

#[inline]
fn value_of<'a>(arena: &'a [u8], keys: &[Range<usize>], number: u32) -> &'a [u8] {
    &arena[keys[number as usize].clone()]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

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
            column.push(&Cell::Text(&format!("a longer key {n}"))).unwrap();
        }
        column.rollback();
        assert_eq!((column.shorts.len(), column.numbers.len()), (2, 0));
        column.push(&Cell::Text("next")).unwrap();
        column.push(&Cell::Text("a longer key 0")).unwrap();
        column.push(&Cell::Text("kept")).unwrap();
        let mut out = Vec::new();
        column.write_values(&mut out);
        let keys = b"\0\x04kept\x04next\x0ea longer key 0";
        assert_eq!(out, expected(0x600, 4, keys, 4, &[1, 2, 3, 1]));
    }

    proptest! {
        #[test]
        fn each_value_has_one_number_in_the_order_of_appearance(
            values in vec(vec(prop_oneof![Just(0), Just(b'a'), Just(0xff), any::<u8>()], 0..12), 0..100),
            nullable: bool,
        ) {
            let absent = if nullable { Absent::Null } else { Absent::Never };
            let mut column = LowCardinality::new(ScalarType::String, absent);
            // Key 0 is NULL or the empty string.
            let mut known: Vec<Option<&[u8]>> = vec![(!nullable).then_some(&[])];
            for value in &values {
                column.push(&Cell::Bytes(value)).unwrap();
                let number = known.iter().position(|key| *key == Some(value)).unwrap_or(known.len());
                if number == known.len() {
                    known.push(Some(value));
                }
                prop_assert_eq!(column.rows.last(), Some(&(number as u32)));
            }
            let found: Vec<_> = (0..column.keys.len() as u32)
                .map(|number| value_of(&column.arena, &column.keys, number))
                .collect();
            let known: Vec<_> = known.into_iter().map(Option::unwrap_or_default).collect();
            prop_assert_eq!(found, known);
        }
    }
}
