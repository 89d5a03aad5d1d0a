//! The offsets of a block's rows, a bit for each offset of its range.

use std::ops::Range;

const BITS: i64 = u64::BITS as i64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowOffsets {
    /// The offset of the first bit.
    start: i64,
    words: Vec<u64>,
}

impl RowOffsets {
    /// Adds an offset above all others.
    pub(crate) fn add(&mut self, offset: i64) {
        if self.words.is_empty() {
            self.start = offset;
        }
        let at = offset - self.start;
        let word = usize::try_from(at / BITS).unwrap_or(0);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (at % BITS);
    }

    /// That of the row `row` of those within `range`, the first being 1.
    pub(crate) fn of_row(&self, range: &Range<i64>, row: usize) -> Option<i64> {
        self.iter().filter(|offset| range.contains(offset)).nth(row.checked_sub(1)?)
    }

    /// Whether any is within `range`.
    pub(crate) fn has_any(&self, range: &Range<i64>) -> bool {
        self.iter().any(|offset| range.contains(&offset))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = i64> {
        let of_word = |(index, word): (i64, &u64)| {
            let (first, word) = (self.start + index * BITS, *word);
            (0..BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        };
        (0..).zip(&self.words).flat_map(of_word)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_offset_of_each_row_is_found(
            offsets in btree_set(0_i64..500, 0..100),
            shift in 0..=i64::MAX - 500,
            (from, to) in (0_i64..500, 0_i64..500),
        ) {
            let offsets: BTreeSet<_> = offsets.into_iter().map(|offset| offset + shift).collect();
            let range = from + shift..to + shift;
            let mut kept = RowOffsets::default();
            offsets.iter().for_each(|offset| kept.add(*offset));
            let within: Vec<_> = offsets.into_iter().filter(|at| range.contains(at)).collect();
            let found: Vec<_> = (1..=within.len()).map_while(|row| kept.of_row(&range, row)).collect();
            prop_assert_eq!(kept.of_row(&range, within.len() + 1), None);
            prop_assert_eq!(kept.of_row(&range, 0), None);
            prop_assert_eq!(found, within);
        }
    }
}
