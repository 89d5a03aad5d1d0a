//! Several encoded blocks of the same columns as one: the bytes that all their rows
//! would have in a single block.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    Column, ColumnType,
    encoded::{dictionaries, take, take_string, take_u64, take_varint, whole},
    low_cardinality::{index_flags, put_index},
    types::ScalarType,
    wire::{put_u64s, put_varint},
};

/// The rows of `blocks`, one block after the other; each is in pieces and has `columns`.
/// `None` if that is not what the pieces hold.
pub(crate) fn concat(columns: &[Column], blocks: &[&[Bytes]]) -> Option<Bytes> {
    let blocks: Vec<Bytes> = blocks.iter().map(|block| whole(block)).collect();
    let mut parts = Vec::with_capacity(blocks.len());
    for block in &blocks {
        let mut from = &block[..];
        let (width, rows) = (take_varint(&mut from)?, take_varint(&mut from)?);
        if width != columns.len() {
            return None;
        }
        parts.push(Part { from, count: rows });
    }
    let mut to = Vec::with_capacity(blocks.iter().map(Bytes::len).sum());
    put_varint(&mut to, columns.len() as u64);
    put_varint(&mut to, parts.iter().map(|part| part.count as u64).sum());
    for column in columns {
        let kind = column.wire_type();
        let mut header: Option<Vec<u8>> = None;
        for part in &mut parts {
            let mut this = Vec::new();
            // Its name, its type, and the state of its dictionaries.
            this.extend_from_slice(take_string(&mut part.from)?);
            this.extend_from_slice(take_string(&mut part.from)?);
            this.extend_from_slice(take(&mut part.from, dictionaries(&kind) * size_of::<u64>())?);
            if *header.get_or_insert_with(|| this.clone()) != this {
                return None;
            }
        }
        to.extend_from_slice(&header?);
        join(&kind, &mut parts, &mut to)?;
    }
    parts.iter().all(|part| part.from.is_empty()).then(|| to.into())
}

/// One block's share of a column that is being read.
#[derive(Debug)]
struct Part<'a> {
    from: &'a [u8],
    /// Values in it.
    count: usize,
}

fn join(kind: &ColumnType, parts: &mut [Part<'_>], to: &mut Vec<u8>) -> Option<()> {
    match kind {
        ColumnType::Scalar(kind) => join_scalars(kind, parts, to),
        ColumnType::Nullable(kind) => {
            join_fixed(1, parts, to)?;
            join_scalars(kind, parts, to)
        }
        ColumnType::LowCardinality { of, .. } => join_low_cardinality(of, parts, to),
        ColumnType::Array(item) => within(parts, to, |items, to| join(item, items, to)),
        ColumnType::Map(key, value) => within(parts, to, |pairs, to| {
            join(key, pairs, to)?;
            join(value, pairs, to)
        }),
        ColumnType::Tuple(elements) if elements.is_empty() => join_fixed(1, parts, to),
        ColumnType::Tuple(elements) => {
            elements.iter().try_for_each(|element| join(&element.kind, parts, to))
        }
    }
}

fn join_fixed(width: usize, parts: &mut [Part<'_>], to: &mut Vec<u8>) -> Option<()> {
    for part in parts {
        to.extend_from_slice(take(&mut part.from, width.checked_mul(part.count)?)?);
    }
    Some(())
}

fn join_scalars(kind: &ScalarType, parts: &mut [Part<'_>], to: &mut Vec<u8>) -> Option<()> {
    if let Some(width) = kind.width() {
        return join_fixed(width, parts, to);
    }
    for part in parts {
        for _ in 0..part.count {
            to.extend_from_slice(take_string(&mut part.from)?);
        }
    }
    Some(())
}

/// Joins where each row's elements end, and then the elements themselves.
fn within(
    parts: &mut [Part<'_>],
    to: &mut Vec<u8>,
    elements: impl FnOnce(&mut [Part<'_>], &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    let mut before = 0_u64;
    let mut counts = Vec::with_capacity(parts.len());
    for part in &mut *parts {
        let mut end = 0;
        for _ in 0..part.count {
            end = take_u64(&mut part.from)?;
            put_u64s(to, &[before.checked_add(end)?]);
        }
        before = before.checked_add(end)?;
        counts.push(usize::try_from(end).ok()?);
    }
    let mut within: Vec<_> =
        parts.iter().zip(counts).map(|(part, count)| Part { from: part.from, count }).collect();
    elements(&mut within, to)?;
    parts.iter_mut().zip(within).for_each(|(part, within)| part.from = within.from);
    Some(())
}

/// One dictionary of all keys, each once, and the numbers that they have there.
fn join_low_cardinality(of: &ScalarType, parts: &mut [Part<'_>], to: &mut Vec<u8>) -> Option<()> {
    let (mut keys, mut count) = (Vec::new(), 0_u32);
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut rows: Vec<u32> = Vec::new();
    // Without rows there is not even an empty dictionary.
    for part in parts.iter_mut().filter(|part| part.count > 0) {
        let (flags, all) = (take_u64(&mut part.from)?, take_u64(&mut part.from)?);
        let mut numbers = Vec::new();
        for place in 0..all {
            let key = match of.width() {
                Some(width) => take(&mut part.from, width)?,
                None => take_string(&mut part.from)?,
            };
            // The first is NULL, or the type's zero: the same in each block, and no other.
            let number = match place {
                0 => (count > 0).then_some(0),
                _ => known.get(key).copied(),
            };
            numbers.push(number.unwrap_or_else(|| {
                keys.extend_from_slice(key);
                if place > 0 {
                    known.insert(key, count);
                }
                count += 1;
                count - 1
            }));
        }
        let width = 1_usize.checked_shl(u32::try_from(flags & 0xff).ok()?)?;
        if take_u64(&mut part.from)? != part.count as u64 {
            return None;
        }
        let indexes = take(&mut part.from, width.checked_mul(part.count)?)?;
        for index in indexes.chunks_exact(width) {
            let index = index.iter().rev().fold(0, |index, byte| index << 8 | usize::from(*byte));
            rows.push(*numbers.get(index)?);
        }
    }
    if !rows.is_empty() {
        let count = count as usize;
        put_u64s(to, &[index_flags(count), count as u64]);
        to.extend_from_slice(&keys);
        put_index(to, count, &rows);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::slice::samples::{columns, encoded},
        *,
    };

    proptest! {
        #[test]
        fn blocks_together_are_the_block_of_all_their_rows(
            blocks in vec(vec(0..2000_u16, 1..40), 1..6)
        ) {
            let apart: Vec<_> = blocks.iter().map(|rows| encoded(rows.iter().copied())).collect();
            let apart: Vec<_> = apart.iter().map(Vec::as_slice).collect();
            let whole = encoded(blocks.iter().flatten().copied()).concat();
            prop_assert_eq!(concat(&columns(), &apart).unwrap(), whole);
        }
    }

    #[test]
    fn a_dictionary_that_grows_has_wider_numbers() {
        let (low, high) = (encoded(0..200), encoded(200..400));
        let whole = encoded(0..400).concat();
        assert_eq!(concat(&columns(), &[&low, &high]).unwrap(), whole);
    }

    #[test]
    fn other_bytes_are_refused() {
        let (good, bad) = (encoded(0..5), encoded(5..9).concat());
        for end in 0..bad.len() {
            let cut = [Bytes::copy_from_slice(&bad[..end])];
            assert_eq!(concat(&columns(), &[&good, &cut]), None);
        }
    }
}
