//! Which part of a refused insert to try next. Pure.
//!
//! ```text
//! a part is refused ─▶ half of it, or what is before the row that was named
//! a part is taken   ─▶ the one after it, twice as long
//! the named row is passed ─▶ all that follows
//! ```

use std::ops::Range;

/// A walk over the offsets of an insert, from the first to the last, in parts.
#[derive(Debug)]
pub(super) struct Bisection {
    /// The part that is tried.
    part: Range<i64>,
    end: i64,
    /// Before it, somebody else has stored what is neither known nor planned.
    known_from: i64,
    /// Where the part ends that somebody else had under way at `known_from`.
    under_way: Option<i64>,
    /// The offset of the row that the server named.
    suspect: Option<i64>,
    width: i64,
}

impl Bisection {
    /// Over all of `offsets`. Nothing is known of what lies before `known_from`;
    /// `under_way` is where a part ends that began there; `suspect` is the row
    /// that was named when the whole was refused.
    pub(super) fn new(
        offsets: Range<i64>,
        known_from: i64,
        under_way: Option<i64>,
        suspect: Option<i64>,
    ) -> Self {
        let length = offsets.end - offsets.start;
        let width = match under_way {
            // The whole is known to be refused.
            None => (length / 2).max(1),
            Some(_) => length,
        };
        let part = offsets.start..offsets.start;
        Bisection { part, end: offsets.end, known_from, under_way, suspect, width }
    }

    /// The next part, or `None` after the last.
    pub(super) fn next_part(&mut self) -> Option<Range<i64>> {
        let from = self.part.start;
        if from >= self.end {
            return None;
        }
        let bound = if from < self.known_from { self.known_from } else { self.end };
        let planned = self.under_way.take_if(|_| from == self.known_from);
        let guessed = self.suspect.map(|suspect| suspect.max(from + 1));
        let to = planned.or(guessed).unwrap_or(from + self.width).min(bound);
        self.part = from..to;
        Some(self.part.clone())
    }

    /// The part is stored.
    pub(super) fn taken(&mut self) {
        self.width = (self.part.end - self.part.start) * 2;
        self.pass();
    }

    /// Something of the part was refused, by name of `suspect` if the server gave
    /// one. If it is a row by itself, that is returned, and passed.
    pub(super) fn refused(&mut self, suspect: Option<i64>) -> Option<i64> {
        let Range { start, end } = self.part;
        if end - start > 1 {
            self.suspect = suspect;
            self.width = (end - start) / 2;
            return None;
        }
        self.pass();
        Some(start)
    }

    fn pass(&mut self) {
        self.part.start = self.part.end;
        if self.suspect.take_if(|suspect| *suspect < self.part.start).is_some() {
            self.width = self.end - self.part.start;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    /// What a server does that refuses these rows, and names the first of a part
    /// if it is one that does. The rows found, and all parts that were tried.
    fn walk(mut walk: Bisection, bad: &[i64], names: bool) -> (Vec<i64>, Vec<Range<i64>>) {
        let (mut found, mut parts) = (Vec::new(), Vec::new());
        while let Some(part) = walk.next_part() {
            assert!(!part.is_empty() && parts.len() < 10_000, "{part:?}");
            parts.push(part.clone());
            match bad.iter().find(|row| part.contains(row)) {
                None => walk.taken(),
                Some(&row) => found.extend(walk.refused(names.then_some(row))),
            }
        }
        (found, parts)
    }

    #[test]
    fn a_row_that_is_named_takes_three_parts() {
        let (found, parts) = walk(Bisection::new(0..1000, 0, None, Some(700)), &[700], true);
        assert_eq!((found, parts), (vec![700], vec![0..700, 700..701, 701..1000]));
    }

    #[test]
    fn a_row_that_is_not_named_is_found_by_halves() {
        let (found, parts) = walk(Bisection::new(0..1024, 0, None, None), &[700], false);
        assert_eq!(found, [700]);
        assert_eq!(parts[..3], [0..512, 512..1024, 512..768]);
        assert!(parts.len() <= 3 * 10, "{}", parts.len());
    }

    #[test]
    fn a_part_that_was_under_way_is_tried_as_it_was() {
        let (found, parts) = walk(Bisection::new(0..100, 40, Some(47), None), &[], true);
        assert_eq!((found, &parts[..2]), (vec![], &[0..40, 40..47][..]));
    }

    proptest! {
        #[test]
        fn every_row_is_stored_once_or_found(
            bad in btree_set(0..200_i64, 0..12),
            length in 1..200_i64,
            known_from in 0..200_i64,
            under_way in proptest::option::of(1..50_i64),
            names: bool,
        ) {
            let bad: Vec<_> = bad.into_iter().filter(|row| *row < length).collect();
            let known_from = known_from.min(length);
            let under_way = under_way.map(|width| known_from + width);
            let bisection = Bisection::new(0..length, known_from, under_way, None);
            let (found, parts) = walk(bisection, &bad, names);
            prop_assert_eq!(&found, &bad);
            let taken = |part: &&Range<i64>| !bad.iter().any(|row| part.contains(row));
            let stored: Vec<_> = parts.iter().filter(taken).flat_map(Range::clone).collect();
            let good: Vec<_> = (0..length).filter(|row| !bad.contains(row)).collect();
            prop_assert_eq!(stored, good);
            let crosses = |part: &Range<i64>| part.start < known_from && part.end > known_from;
            prop_assert!(!parts.iter().any(crosses), "what is known and what is not");
        }
    }
}
