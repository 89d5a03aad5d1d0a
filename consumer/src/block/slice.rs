//! Some rows of a block, taken out of its encoded form: what is left is a block like
//! the whole, with the same types, for the same INSERT.

use std::ops::Range;

use bytes::Bytes;

use super::{
    Column, ColumnType,
    encoded::{dictionaries, take, take_string, take_u64, take_varint, whole},
    types::ScalarType,
    wire::{put_u64s, put_varint},
};

/// The rows at `rows`, which ascend, of a block of `columns` in pieces. `None` if that
/// is not what the pieces hold.
pub(crate) fn slice(columns: &[Column], block: &[Bytes], rows: Vec<Range<usize>>) -> Option<Bytes> {
    let whole = whole(block);
    let from = &mut &whole[..];
    let (width, all) = (take_varint(from)?, take_varint(from)?);
    let kept = Kept { all, rows };
    let mut to = Vec::new();
    put_varint(&mut to, width as u64);
    put_varint(&mut to, kept.count() as u64);
    for column in columns {
        let kind = column.wire_type();
        // Its name, and its type.
        to.extend_from_slice(take_string(from)?);
        to.extend_from_slice(take_string(from)?);
        to.extend_from_slice(take(from, dictionaries(&kind) * size_of::<u64>())?);
        copy(&kind, &kept, from, &mut to)?;
    }
    (width == columns.len() && from.is_empty()).then(|| to.into())
}

/// Which of the values of a column are kept.
#[derive(Debug)]
struct Kept {
    all: usize,
    rows: Vec<Range<usize>>,
}

impl Kept {
    fn every(all: usize) -> Self {
        Kept { all, rows: std::iter::once(0..all).collect() }
    }

    fn count(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }
}

fn copy(kind: &ColumnType, kept: &Kept, from: &mut &[u8], to: &mut Vec<u8>) -> Option<()> {
    match kind {
        ColumnType::Scalar(kind) => copy_scalars(kind, kept, from, to),
        ColumnType::Nullable(kind) => {
            copy_fixed(1, kept, from, to)?;
            copy_scalars(kind, kept, from, to)
        }
        ColumnType::LowCardinality { of, .. } => copy_low_cardinality(of, kept, from, to),
        ColumnType::Array(item) => {
            let items = copy_ends(kept, from, to)?;
            copy(item, &items, from, to)
        }
        ColumnType::Map(key, value) => {
            let pairs = copy_ends(kept, from, to)?;
            copy(key, &pairs, from, to)?;
            copy(value, &pairs, from, to)
        }
        ColumnType::Tuple(elements) if elements.is_empty() => copy_fixed(1, kept, from, to),
        ColumnType::Tuple(elements) => {
            elements.iter().try_for_each(|element| copy(&element.kind, kept, from, to))
        }
    }
}

fn copy_scalars(kind: &ScalarType, kept: &Kept, from: &mut &[u8], to: &mut Vec<u8>) -> Option<()> {
    if let Some(width) = kind.width() {
        return copy_fixed(width, kept, from, to);
    }
    let mut at = 0;
    for rows in kept.rows.iter().chain([&(kept.all..kept.all)]) {
        while at < rows.start {
            take_string(from)?;
            at += 1;
        }
        while at < rows.end {
            to.extend_from_slice(take_string(from)?);
            at += 1;
        }
    }
    Some(())
}

fn copy_fixed(width: usize, kept: &Kept, from: &mut &[u8], to: &mut Vec<u8>) -> Option<()> {
    let values = take(from, width.checked_mul(kept.all)?)?;
    for rows in &kept.rows {
        to.extend_from_slice(values.get(rows.start * width..rows.end * width)?);
    }
    Some(())
}

/// The dictionary stays whole, whichever of its keys are used.
fn copy_low_cardinality(
    of: &ScalarType,
    kept: &Kept,
    from: &mut &[u8],
    to: &mut Vec<u8>,
) -> Option<()> {
    // Without rows there is not even an empty dictionary.
    if kept.all == 0 {
        return Some(());
    }
    let (flags, keys) = (take_u64(from)?, take_u64(from)?);
    let every = Kept::every(keys as usize);
    let mut dictionary = Vec::new();
    copy_scalars(of, &every, from, &mut dictionary)?;
    let rows = take_u64(from)?;
    let mut numbers = Vec::new();
    copy_fixed(1 << (flags & 0xff), kept, from, &mut numbers)?;
    if kept.count() > 0 {
        put_u64s(to, &[flags, keys]);
        to.extend_from_slice(&dictionary);
        put_u64s(to, &[kept.count() as u64]);
        to.extend_from_slice(&numbers);
    }
    (rows == kept.all as u64).then_some(())
}

/// Copies where each row's elements end. Which elements are kept then.
fn copy_ends(kept: &Kept, from: &mut &[u8], to: &mut Vec<u8>) -> Option<Kept> {
    let ends = take(from, kept.all.checked_mul(size_of::<u64>())?)?;
    let ends: Vec<_> =
        ends.as_chunks().0.iter().map(|end| u64::from_le_bytes(*end) as usize).collect();
    let start = |row: usize| row.checked_sub(1).map_or(0, |before| ends[before]);
    let mut of_elements = Vec::with_capacity(kept.rows.len());
    let mut count = 0;
    for rows in kept.rows.iter().filter(|rows| !rows.is_empty()) {
        let elements = start(rows.start)..*ends.get(rows.end - 1)?;
        for row in rows.clone() {
            count += ends[row].checked_sub(start(row))?;
            put_u64s(to, &[count as u64]);
        }
        of_elements.push(elements);
    }
    Some(Kept { all: ends.last().copied().unwrap_or(0), rows: of_elements })
}

/// Rows of columns of every shape.
#[cfg(test)]
pub(super) mod samples {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::{Block, Cell, Column};

    pub(crate) fn columns() -> Arc<[Column]> {
        let kinds = [
            ("n", "UInt16"),
            ("s", "String"),
            ("f", "FixedString(3)"),
            ("o", "Nullable(String)"),
            ("low", "LowCardinality(String)"),
            ("lows", "Array(LowCardinality(Nullable(String)))"),
            ("deep", "Array(Array(Tuple(a UInt8, b LowCardinality(String))))"),
            ("map", "Map(LowCardinality(String), Nullable(UInt32))"),
            ("none", "Tuple()"),
            ("json", "JSON"),
        ];
        let column = |(name, kind): (&str, &str)| Column::new(name, kind.parse().unwrap());
        let with_default = Column::new("d", "LowCardinality(UInt16)".parse().unwrap());
        kinds.map(column).into_iter().chain([with_default.with_default()]).collect()
    }

    fn push(block: &mut Block, n: u16) {
        let s = "ä".repeat(usize::from(n % 200));
        let lows = match n % 3 {
            0 => "[]".to_owned(),
            1 => format!("[null, \"{}\"]", n % 7),
            _ => format!("[\"{n}\", \"x\", null]"),
        };
        let deep = match n % 4 {
            0 => "[]".to_owned(),
            1 => "[[], []]".to_owned(),
            _ => format!("[[{{\"a\": {}, \"b\": \"{n}\"}}], [{{\"a\": 1, \"b\": \"\"}}]]", n % 256),
        };
        let map = format!("{{\"a\": {n}, \"{}\": null}}", n % 5);
        let json = format!("{{\"n\": {n}}}");
        let low = format!("{}", n % 300);
        let absent = if n.is_multiple_of(2) { Cell::Null } else { Cell::Text("there") };
        let default = if n.is_multiple_of(5) { Cell::Default } else { Cell::Int(i64::from(n)) };
        let cells = [
            Cell::Int(i64::from(n)),
            Cell::Text(&s),
            Cell::Text("ab"),
            absent,
            Cell::Text(&low),
            Cell::Json(&lows),
            Cell::Json(&deep),
            Cell::Json(&map),
            Cell::Json("[]"),
            Cell::Json(&json),
            default,
        ];
        block.push_row(&cells).unwrap();
    }

    pub(crate) fn encoded(rows: impl IntoIterator<Item = u16>) -> Vec<Bytes> {
        let mut block = Block::new(columns());
        rows.into_iter().for_each(|n| push(&mut block, n));
        block.take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{Block, Cell},
        samples::{columns, encoded},
        *,
    };

    fn one(rows: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(rows).collect()
    }

    proptest! {
        /// The dictionaries hold more than they need, so that bytes are compared once
        /// more rows with the same keys are in front.
        #[test]
        fn a_slice_is_the_block_of_its_rows(
            numbers in vec(0..2000_u16, 1..60), from in 0..60_usize, length in 1..60_usize,
        ) {
            let rows = from.min(numbers.len() - 1)..(from + length).min(numbers.len());
            let rows = rows.start..rows.end.max(rows.start + 1);
            let whole = encoded(numbers.iter().copied());
            let kept = slice(&columns(), &whole, one(rows.clone())).unwrap();
            // What is left out and taken in again is what there was.
            let again = slice(&columns(), std::slice::from_ref(&kept), one(0..rows.len())).unwrap();
            prop_assert_eq!(&again, &kept);
            let all: Vec<_> = (0..numbers.len()).map(|row| row..row + 1).collect();
            prop_assert_eq!(slice(&columns(), &whole, all).unwrap(), whole.concat());
        }
    }

    #[test]
    fn rows_without_a_dictionary_are_encoded_as_if_alone() {
        let plain: Arc<[Column]> = columns()
            .iter()
            .filter(|column| dictionaries(&column.wire_type()) == 0)
            .cloned()
            .collect();
        let encoded = |rows: &[u16]| {
            let mut block = Block::new(Arc::clone(&plain));
            for n in rows {
                let s = "ä".repeat(usize::from(*n));
                let json = format!("{{\"n\": {n}}}");
                let absent = if n.is_multiple_of(2) { Cell::Null } else { Cell::Text("there") };
                let (n, s, json) = (Cell::Int(i64::from(*n)), Cell::Text(&s), Cell::Json(&json));
                block.push_row(&[n, s, Cell::Text("ab"), absent, Cell::Json("[]"), json]).unwrap();
            }
            block.take().concat()
        };
        let whole = [Bytes::from(encoded(&[1, 2, 300, 4, 5, 6]))];
        let kept = slice(&plain, &whole, vec![0..1, 2..4, 5..6]).unwrap();
        assert_eq!(kept, encoded(&[1, 300, 4, 6]));
    }

    #[test]
    fn the_numbers_of_a_dictionary_are_those_of_the_rows() {
        let columns: Arc<[Column]> =
            Arc::new([Column::new("c", "LowCardinality(String)".parse().unwrap())]);
        let mut block = Block::new(Arc::clone(&columns));
        for text in ["a", "b", "c", "b"] {
            block.push_row(&[Cell::Text(text)]).unwrap();
        }
        let kept = slice(&columns, &block.take(), vec![1..2, 3..4]).unwrap();
        assert!(kept.ends_with(b"\0\x01a\x01b\x01c\x02\0\0\0\0\0\0\0\x02\x02"), "{kept:?}");
    }

    #[test]
    fn other_bytes_are_refused() {
        let whole = encoded(0..5).concat();
        for end in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            assert_eq!(slice(&columns(), &[cut], one(0..1)), None);
        }
    }
}
