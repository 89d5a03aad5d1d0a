//! The invariants of docs/architecture.md as predicates on plain values. Pure.
//!
//! The programs assert them where they act (`debug_assert!`), and the model of
//! both protocols (`integration-tests/model`) evaluates the same functions in
//! every state that it can reach. I8 is about bytes, and is not here.
//!
//! | | | holds |
//! | --- | --- | --- |
//! | I1 | [`all_arrive`] | of committed rows and what Kafka has |
//! | I2 | [`each_once`], [`follows`] | of what readers of committed records find |
//! | I3 | [`in_order`], [`follows`] | of their positions |
//! | I4 | [`all_arrive`], [`is_kept`] | of records and what is stored or parked |
//! | I5 | [`each_once`], [`follows`] | of the offsets in a table |
//! | I6 | [`passes_nothing_open`], [`begins_at`] | of the group's offset and records that are not kept |
//! | I7 | [`passes_nothing_open`] | of the slot's position and rows that Kafka lacks |

use std::{collections::BTreeSet, ops::Range};

/// I1, I4: whether everything that is `expected` is `found`.
pub fn all_arrive<T: Ord>(
    expected: impl IntoIterator<Item = T>,
    found: impl IntoIterator<Item = T>,
) -> bool {
    let found: BTreeSet<_> = found.into_iter().collect();
    expected.into_iter().all(|expected| found.contains(&expected))
}

/// I2, I5: whether nothing is `found` a second time.
pub fn each_once<T: Ord>(found: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    found.into_iter().all(|found| seen.insert(found))
}

/// I2, I3, I5: whether `next` may come after what came last: strictly after it,
/// and so neither again nor out of order.
pub fn follows<T: Ord>(last: Option<T>, next: T) -> bool {
    last.is_none_or(|last| last < next)
}

/// I3: whether each one [`follows`] the one before.
pub fn in_order<T: Ord + Copy>(found: impl IntoIterator<Item = T>) -> bool {
    let mut last = None;
    found.into_iter().all(|next| follows(last.replace(next), next))
}

/// I4: whether a record has come to something, by how many rows and dead letters
/// it became.
#[must_use]
pub fn is_kept(rows: usize, letters: usize) -> bool {
    rows + letters > 0
}

/// I6, I7: whether `position`, before which everything may be forgotten, has
/// passed none of the places that are still `open`. It may stand at one.
pub fn passes_nothing_open<T: Ord>(position: T, open: impl IntoIterator<Item = T>) -> bool {
    open.into_iter().all(|open| position <= open)
}

/// I6: whether a plan begins at the offset in whose metadata it stands, and has
/// something in it. One that begins elsewhere says nothing about what is stored
/// before it.
pub fn begins_at<T: Ord>(plan: &Range<T>, committed: &T) -> bool {
    plan.start == *committed && plan.start < plan.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_seen_and_what_is_more_is_not() {
        assert!(all_arrive([1, 2], [2, 1, 3, 3]));
        assert!(!all_arrive([1, 2], [2]));
        assert!(all_arrive([0; 0], []));
    }

    #[test]
    fn a_second_one_is_seen_wherever_it_stands() {
        assert!(each_once([3, 1, 2]));
        assert!(!each_once([3, 1, 3]));
    }

    #[test]
    fn order_is_strict() {
        assert!(in_order([1, 2, 9]) && in_order([0; 0]));
        assert!(!in_order([1, 1]) && !in_order([2, 3, 1]));
        assert!(follows(None, 0) && follows(Some(1), 2) && !follows(Some(2), 2));
    }

    #[test]
    fn a_position_may_stand_at_what_is_open_and_not_behind_it() {
        assert!(passes_nothing_open(4, [4, 7]) && passes_nothing_open(9, []));
        assert!(!passes_nothing_open(5, [7, 4]));
    }

    #[test]
    fn a_plan_begins_where_it_stands_and_is_not_empty() {
        assert!(begins_at(&(3..5), &3));
        assert!(!begins_at(&(3..5), &2) && !begins_at(&(3..3), &3));
    }

    #[test]
    fn a_record_that_became_nothing_is_lost() {
        assert!(is_kept(0, 1) && is_kept(2, 0) && !is_kept(0, 0));
    }
}
