//! Every event at every station, by its id: nothing missing, nothing twice,
//! nothing that was never committed.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

/// One station compared with what was committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Station {
    pub(super) events: u64,
    /// Committed and not here.
    pub(super) missing: u64,
    /// Here more often than once, each further time counted.
    pub(super) duplicates: u64,
    /// Here and never committed …
    pub(super) unexpected: u64,
    /// … of which were rolled back.
    pub(super) rolled_back: u64,
}

impl Station {
    pub(super) fn compare(
        committed: &HashSet<Uuid>,
        rolled_back: &HashSet<Uuid>,
        found: &[Uuid],
    ) -> Self {
        let mut times = HashMap::<Uuid, u64>::with_capacity(found.len());
        for id in found {
            *times.entry(*id).or_default() += 1;
        }
        let count = |n: usize| n as u64;
        Self {
            events: count(found.len()),
            missing: count(committed.iter().filter(|id| !times.contains_key(id)).count()),
            duplicates: times.values().map(|times| times - 1).sum(),
            unexpected: count(times.keys().filter(|id| !committed.contains(id)).count()),
            rolled_back: count(times.keys().filter(|id| rolled_back.contains(id)).count()),
        }
    }

    pub(super) fn differences(&self, name: &str) -> Vec<String> {
        let counts = [
            ("missing", self.missing),
            ("there more than once", self.duplicates),
            ("never committed", self.unexpected),
            ("rolled back", self.rolled_back),
        ];
        let wrong = counts.into_iter().filter(|(_, count)| *count > 0);
        wrong.map(|(what, count)| format!("{name}: {count} events {what}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_counted_for_itself() {
        let id = Uuid::from_u128;
        let committed = [1, 2, 3].map(id).into();
        let rolled_back = [8].map(id).into();
        let found = [1, 2, 2, 2, 8, 9].map(id);
        let station = Station::compare(&committed, &rolled_back, &found);
        let expected =
            Station { events: 6, missing: 1, duplicates: 2, unexpected: 2, rolled_back: 1 };
        assert_eq!(station, expected);
        assert_eq!(station.differences("x").len(), 4);
        let whole = Station::compare(&committed, &rolled_back, &[3, 1, 2].map(id));
        assert_eq!(whole, Station { events: 3, ..Station::default() });
        assert!(whole.differences("x").is_empty());
    }
}
