//! Offsets in ranges, each told from another by a count and a sum. Pure.
//!
//! Kafka's side and ClickHouse's compute the same over the same ranges, and only
//! ranges that differ are looked at more closely. The sum is of hashes, so that
//! rows that are missing and rows that are there twice do not make up for each
//! other.

use std::collections::{BTreeMap, BTreeSet};

/// ClickHouse's `intHash64`.
pub(super) fn hash(offset: u64) -> u64 {
    let mut x = offset ^ 0x4CF2_D2BA_AE6D_A887;
    x ^= x >> 33;
    x = x.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x ^= x >> 33;
    x = x.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^ (x >> 33)
}

/// How many rows there are, and the sum of their offsets' hashes, which wraps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: u64,
    pub(super) hash: u64,
}

impl Sum {
    /// Adds `times` rows of one offset.
    pub(super) fn add(&mut self, offset: u64, times: u32) {
        let times = u64::from(times);
        self.rows = self.rows.wrapping_add(times);
        self.hash = self.hash.wrapping_add(hash(offset).wrapping_mul(times));
    }

    fn remove(&mut self, offset: u64) {
        self.rows = self.rows.wrapping_sub(1);
        self.hash = self.hash.wrapping_sub(hash(offset));
    }
}

/// Sums by the number of the range: an offset divided by the ranges' width.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums(BTreeMap<u64, Sum>);

impl Sums {
    pub(super) fn add(&mut self, range: u64, sum: Sum) {
        let there = self.0.entry(range).or_default();
        there.rows = there.rows.wrapping_add(sum.rows);
        there.hash = there.hash.wrapping_add(sum.hash);
    }

    /// Without one row of `offset`.
    pub(super) fn remove(&mut self, offset: u64, width: u64) {
        self.0.entry(offset / width).or_default().remove(offset);
    }

    /// The ranges in which the two are not the same.
    pub(super) fn differences(&self, other: &Sums) -> BTreeSet<u64> {
        let all = self.0.keys().chain(other.0.keys());
        all.filter(|range| self.of(**range) != other.of(**range)).copied().collect()
    }

    fn of(&self, range: u64) -> Sum {
        self.0.get(&range).copied().unwrap_or_default()
    }

    /// Rows in all ranges but those of `left_out`.
    pub(super) fn rows_without(&self, left_out: &BTreeSet<u64>) -> u64 {
        self.0.iter().filter(|(range, _)| !left_out.contains(range)).map(|(_, sum)| sum.rows).sum()
    }
}

/// The width of ranges where `offsets` are looked at: as narrow as is worth a
/// closer look, and no more ranges than can be held easily.
pub(super) fn width(offsets: u64) -> u64 {
    const NARROWEST: u64 = 10_000;
    const MOST_RANGES: u64 = 200_000;
    NARROWEST * offsets.div_ceil(NARROWEST * MOST_RANGES).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sums(offsets: impl IntoIterator<Item = u64>) -> Sums {
        let mut sums = Sums::default();
        for offset in offsets {
            let mut sum = Sum::default();
            sum.add(offset, 1);
            sums.add(offset / 10, sum);
        }
        sums
    }

    #[test]
    fn a_lost_row_is_not_made_up_for_by_one_that_is_there_twice() {
        let difference = sums([1, 2, 3]).differences(&sums([1, 2, 2]));
        assert_eq!(difference.into_iter().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn ranges_grow_with_what_is_looked_at() {
        assert_eq!(width(0), 10_000);
        assert_eq!(width(2_000_000_000), 10_000);
        assert_eq!(width(2_000_000_001), 20_000);
    }

    proptest! {
        #[test]
        fn the_ranges_that_differ_are_those_of_the_rows_that_differ(
            mut offsets in vec(0..1000_u64, 1..60), at: prop::sample::Index
        ) {
            let whole = sums(offsets.clone());
            prop_assert!(whole.differences(&whole).is_empty());
            let lost = offsets.remove(at.index(offsets.len()));
            let mut rest = sums(offsets);
            let difference = whole.differences(&rest);
            prop_assert_eq!(&difference, &BTreeSet::from([lost / 10]));
            prop_assert_eq!(
                whole.rows_without(&difference), rest.rows_without(&difference)
            );
            rest.add(lost / 10, { let mut sum = Sum::default(); sum.add(lost, 1); sum });
            prop_assert!(whole.differences(&rest).is_empty());
            rest.remove(lost, 10);
            prop_assert_eq!(whole.differences(&rest), difference);
        }
    }
}
