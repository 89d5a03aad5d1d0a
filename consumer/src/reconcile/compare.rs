//! Offset by offset: what Kafka holds against what a table has. Pure.

use serde::Serialize;

use super::offsets::Offsets;

/// What is the matter with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Matter {
    Missing,
    Duplicated,
    /// Kafka holds no record at the row's offset.
    NotInKafka,
    /// The record belongs in other tables.
    RoutedElsewhere,
    /// The record is in the dead letters, and was stored too.
    Parked,
}

/// Consecutive records of one table of which the same is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) matter: Matter,
    pub(super) from: i64,
    /// One past the last.
    pub(super) to: i64,
    /// Rows too few or too many.
    pub(super) rows: u64,
}

/// Rows of one table from one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Rows that the table should have: records, by route, less what is parked.
    pub(crate) expected: u64,
    pub(crate) stored: u64,
    pub(crate) parked: u64,
    pub(crate) missing: u64,
    /// Rows that are not there, in a table that merges rows: nothing is said about them.
    pub(crate) merged: u64,
    pub(crate) duplicated: u64,
    /// Rows that do not hold what their records say, where that is asked.
    pub(crate) different: u64,
    pub(crate) unexpected: u64,
    /// Rows of records that Kafka has removed since; nothing is said about them.
    pub(crate) no_longer_in_kafka: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.expected += other.expected;
        self.stored += other.stored;
        self.parked += other.parked;
        self.missing += other.missing;
        self.merged += other.merged;
        self.duplicated += other.duplicated;
        self.different += other.different;
        self.unexpected += other.unexpected;
        self.no_longer_in_kafka += other.no_longer_in_kafka;
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicated == 0 && self.different == 0 && self.unexpected == 0
    }
}

/// One table and one partition, looked at window after window.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) counts: Counts,
    open: Option<Stretch>,
}

/// What a comparison is told of one window of offsets, all of it ascending.
pub(super) struct Window<'a> {
    /// Offsets of records in Kafka, and how many rows each has in the table.
    pub(super) held: &'a [(i64, u32)],
    /// Offsets of rows in the table, and how many each has.
    pub(super) stored: &'a [(i64, u64)],
    /// What is in the dead letters, by route.
    pub(super) parked: &'a [&'a Offsets],
    /// Where Kafka begins by now.
    pub(super) low: i64,
    /// Kafka removes single records, too.
    pub(super) is_compacted: bool,
}

impl Comparison {
    /// `found` gets what is the matter, once it is known how far it reaches.
    pub(super) fn window(&mut self, window: &Window<'_>, found: &mut impl FnMut(Stretch)) {
        let (mut held, mut stored) =
            (window.held.iter().peekable(), window.stored.iter().peekable());
        loop {
            let next = match (held.peek(), stored.peek()) {
                (Some((held, _)), Some((stored, _))) => *held.min(stored),
                (Some((offset, _)), None) | (None, Some((offset, _))) => *offset,
                (None, None) => break,
            };
            let takes = held.next_if(|(offset, _)| *offset == next).map(|(_, takes)| *takes);
            let rows = stored.next_if(|(offset, _)| *offset == next).map_or(0, |(_, rows)| *rows);
            let is_gone = next < window.low || (takes.is_none() && window.is_compacted);
            if is_gone {
                self.counts.no_longer_in_kafka += rows;
                continue;
            }
            self.counts.stored += rows;
            match takes {
                None => self.unexpected(Matter::NotInKafka, next, rows, found),
                Some(0) if rows == 0 => {}
                Some(0) => self.unexpected(Matter::RoutedElsewhere, next, rows, found),
                Some(takes) => self.record(window, next, takes, rows, found),
            }
        }
    }

    fn record(
        &mut self,
        window: &Window<'_>,
        offset: i64,
        takes: u32,
        rows: u64,
        found: &mut impl FnMut(Stretch),
    ) {
        let parked = window.parked.iter().filter(|parked| parked.contains(offset)).count() as u64;
        let parked = parked.min(takes.into());
        let expected = u64::from(takes) - parked;
        self.counts.parked += parked;
        self.counts.expected += expected;
        if rows < expected {
            self.counts.missing += expected - rows;
            self.extend(Matter::Missing, offset, expected - rows, found);
        } else if rows == expected {
            self.close(found);
        } else if expected == 0 {
            self.unexpected(Matter::Parked, offset, rows, found);
        } else {
            self.counts.duplicated += rows - expected;
            self.extend(Matter::Duplicated, offset, rows - expected, found);
        }
    }

    fn unexpected(
        &mut self,
        matter: Matter,
        offset: i64,
        rows: u64,
        found: &mut impl FnMut(Stretch),
    ) {
        self.counts.unexpected += rows;
        self.extend(matter, offset, rows, found);
    }

    fn extend(&mut self, matter: Matter, offset: i64, rows: u64, found: &mut impl FnMut(Stretch)) {
        match &mut self.open {
            Some(open) if open.matter == matter => {
                open.to = offset + 1;
                open.rows += rows;
            }
            _ => {
                self.close(found);
                self.open = Some(Stretch { matter, from: offset, to: offset + 1, rows });
            }
        }
    }

    /// To be called at the end, and where windows do not follow one another.
    pub(super) fn close(&mut self, found: &mut impl FnMut(Stretch)) {
        if let Some(stretch) = self.open.take() {
            found(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn compare(
        held: &[(i64, u32)],
        stored: &[(i64, u64)],
        parked: &[i64],
    ) -> (Counts, Vec<Stretch>) {
        let mut offsets = Offsets::default();
        parked.iter().for_each(|offset| offsets.add(*offset));
        offsets.settle();
        let window = Window { held, stored, parked: &[&offsets], low: 0, is_compacted: false };
        let (mut comparison, mut all) = (Comparison::default(), Vec::new());
        comparison.window(&window, &mut |stretch| all.push(stretch));
        comparison.close(&mut |stretch| all.push(stretch));
        (comparison.counts, all)
    }

    fn stretch(matter: Matter, from: i64, to: i64, rows: u64) -> Stretch {
        Stretch { matter, from, to, rows }
    }

    #[test]
    fn every_matter_is_told_with_its_range() {
        // At 3 and 7 there are markers; 5 belongs in another table.
        let held =
            [(0, 1), (1, 1), (2, 1), (4, 1), (5, 0), (6, 1), (8, 1), (9, 1), (10, 1), (11, 1)];
        let stored = [(0, 1), (5, 1), (7, 2), (8, 2), (9, 3), (10, 1), (11, 1)];
        let (counts, all) = compare(&held, &stored, &[1, 11]);
        assert_eq!(
            all,
            [
                stretch(Matter::Missing, 2, 5, 2),
                stretch(Matter::RoutedElsewhere, 5, 6, 1),
                stretch(Matter::Missing, 6, 7, 1),
                stretch(Matter::NotInKafka, 7, 8, 2),
                stretch(Matter::Duplicated, 8, 10, 3),
                stretch(Matter::Parked, 11, 12, 1),
            ]
        );
        let expected = Counts {
            expected: 7,
            stored: 11,
            parked: 2,
            merged: 0,
            different: 0,
            missing: 3,
            duplicated: 3,
            unexpected: 4,
            no_longer_in_kafka: 0,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn what_is_missing_on_both_sides_of_a_marker_is_one_stretch_and_on_both_sides_of_a_row_two() {
        let held = [(0, 1), (2, 1), (3, 1), (4, 1)];
        let (_, all) = compare(&held, &[(3, 1)], &[]);
        let expected = [stretch(Matter::Missing, 0, 3, 2), stretch(Matter::Missing, 4, 5, 1)];
        assert_eq!(all, expected);
    }

    #[test]
    fn two_routes_into_one_table_make_two_rows_unless_one_of_them_is_parked() {
        assert_eq!(compare(&[(0, 2), (1, 2)], &[(0, 2), (1, 1)], &[1]).1, []);
        assert_eq!(compare(&[(0, 2)], &[(0, 1)], &[]).1, [stretch(Matter::Missing, 0, 1, 1)]);
    }

    #[test]
    fn rows_from_before_the_log_are_counted_apart() {
        let (mut comparison, mut all) = (Comparison::default(), Vec::new());
        let mut window = Window {
            held: &[(4, 1), (6, 1)],
            stored: &[(3, 1), (4, 2), (5, 1), (6, 1)],
            parked: &[],
            low: 5,
            is_compacted: true,
        };
        comparison.window(&window, &mut |stretch| all.push(stretch));
        assert_eq!((comparison.counts.no_longer_in_kafka, all.len()), (4, 0));
        window.is_compacted = false;
        comparison.window(&window, &mut |stretch| all.push(stretch));
        comparison.close(&mut |stretch| all.push(stretch));
        assert_eq!(all, [stretch(Matter::NotInKafka, 5, 6, 1)]);
    }

    proptest! {
        #[test]
        fn the_counts_add_up_and_the_stretches_hold_them(
            held in btree_map(0..40_i64, 0..3_u32, 0..30),
            stored in btree_map(0..40_i64, 1..4_u64, 0..30),
            parked in btree_map(0..40_i64, Just(()), 0..10),
            cut in 0..40_i64,
        ) {
            let list = |map: &BTreeMap<i64, u32>| map.iter().map(|(o, n)| (*o, *n)).collect::<Vec<_>>();
            let held = list(&held);
            let stored: Vec<_> = stored.into_iter().collect();
            let parked: Vec<_> = parked.into_keys().collect();
            let (counts, all) = compare(&held, &stored, &parked);
            prop_assert_eq!(
                counts.stored + counts.missing,
                counts.expected + counts.duplicated + counts.unexpected
            );
            let rows = |matter| all.iter().filter(|s| s.matter == matter).map(|s| s.rows).sum::<u64>();
            prop_assert_eq!(rows(Matter::Missing), counts.missing);
            prop_assert_eq!(rows(Matter::Duplicated), counts.duplicated);
            let others = [Matter::NotInKafka, Matter::RoutedElsewhere, Matter::Parked];
            prop_assert_eq!(others.into_iter().map(rows).sum::<u64>(), counts.unexpected);
            prop_assert!(all.iter().all(|s| s.from < s.to));

            // In two windows it is the same.
            let mut offsets = Offsets::default();
            parked.iter().for_each(|offset| offsets.add(*offset));
            offsets.settle();
            let (mut comparison, mut again) = (Comparison::default(), Vec::new());
            for part in [0..cut, cut..40] {
                let held: Vec<_> = held.iter().filter(|(o, _)| part.contains(o)).copied().collect();
                let stored: Vec<_> =
                    stored.iter().filter(|(o, _)| part.contains(o)).copied().collect();
                let window = Window {
                    held: &held, stored: &stored, parked: &[&offsets], low: 0, is_compacted: false,
                };
                comparison.window(&window, &mut |stretch| again.push(stretch));
            }
            comparison.close(&mut |stretch| again.push(stretch));
            prop_assert_eq!(again, all);
            prop_assert_eq!(comparison.counts, counts);
        }
    }
}
