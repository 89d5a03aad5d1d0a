//! The encoded form of a block, read from its beginning. `None` where it is not what
//! the columns say.

use bytes::Bytes;

use super::{ColumnType, wire::varint_width};

/// A block in one piece.
pub(super) fn whole(block: &[Bytes]) -> Bytes {
    match block {
        [one] => one.clone(),
        pieces => pieces.concat().into(),
    }
}

/// How many dictionaries a column has, each of which has a state before all data.
pub(super) fn dictionaries(kind: &ColumnType) -> usize {
    match kind {
        ColumnType::Scalar(_) | ColumnType::Nullable(_) => 0,
        ColumnType::LowCardinality { .. } => 1,
        ColumnType::Array(item) => dictionaries(item),
        ColumnType::Map(key, value) => dictionaries(key) + dictionaries(value),
        ColumnType::Tuple(elements) => {
            elements.iter().map(|element| dictionaries(&element.kind)).sum()
        }
    }
}

pub(super) fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

pub(super) fn take_u64(from: &mut &[u8]) -> Option<u64> {
    take(from, size_of::<u64>())?.try_into().ok().map(u64::from_le_bytes)
}

pub(super) fn take_varint(from: &mut &[u8]) -> Option<usize> {
    let width = varint_width(from);
    let bytes = take(from, width)?;
    let value = bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    usize::try_from(value).ok()
}

/// A string with the length that it begins with.
pub(super) fn take_string<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut behind = *from;
    let length = take_varint(&mut behind)?;
    take(from, from.len() - behind.len() + length)
}
