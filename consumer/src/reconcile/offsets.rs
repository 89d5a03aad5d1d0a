//! A set of offsets, small where they follow one another. Pure.

use std::ops::Range;

/// Added in any order; [`Self::settle`] comes before the first question.
#[derive(Debug, Clone, Default)]
pub(super) struct Offsets {
    /// Ascending, none touching another.
    runs: Vec<Range<i64>>,
    added: Vec<i64>,
}

/// So many gather before they are put in order.
const MOST_ADDED: usize = 1 << 16;

impl Offsets {
    pub(super) fn add(&mut self, offset: i64) {
        self.added.push(offset);
        if self.added.len() >= MOST_ADDED {
            self.settle();
        }
    }

    pub(super) fn settle(&mut self) {
        let mut all = std::mem::take(&mut self.runs);
        all.extend(self.added.drain(..).map(|offset| offset..offset + 1));
        all.sort_unstable_by_key(|run| run.start);
        for run in all {
            match self.runs.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => self.runs.push(run),
            }
        }
    }

    pub(super) fn contains(&self, offset: i64) -> bool {
        let after = self.runs.partition_point(|run| run.start <= offset);
        after.checked_sub(1).is_some_and(|at| self.runs[at].contains(&offset))
    }

    /// Ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = i64> {
        self.runs.iter().cloned().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_was_added_is_there_once(all in vec(0..50_i64, 0..80), early in 0..80_usize) {
            let mut offsets = Offsets::default();
            for (n, offset) in all.iter().enumerate() {
                offsets.add(*offset);
                if n == early {
                    offsets.settle();
                }
            }
            offsets.settle();
            let expected: BTreeSet<_> = all.into_iter().collect();
            for offset in 0..51 {
                prop_assert_eq!(offsets.contains(offset), expected.contains(&offset));
            }
            prop_assert!(offsets.iter().eq(expected));
            prop_assert!(offsets.runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
