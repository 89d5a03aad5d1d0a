//! What a replay does otherwise than consuming does. Pure.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::source::RecordView;

/// Which records are taken. What is empty takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) keys: Vec<String>,
    pub(crate) event_types: Vec<String>,
    /// Of each partition, if anything is named at all.
    pub(crate) offsets: HashMap<i32, Vec<Range<i64>>>,
}

impl Selection {
    fn takes(&self, record: &RecordView<'_>, event_type: Option<&[u8]>) -> bool {
        is_one_of(&self.keys, record.key)
            && is_one_of(&self.event_types, event_type)
            && (self.offsets.is_empty()
                || self.offsets.get(&record.partition).is_some_and(|ranges| {
                    ranges.iter().any(|range| range.contains(&record.offset))
                }))
    }

    /// Whether it takes some records of a partition and leaves others.
    pub(crate) fn is_partial(&self) -> bool {
        *self != Selection::default()
    }
}

/// Text may stand between quotation marks, as some converters write it.
fn is_one_of(wanted: &[String], found: Option<&[u8]>) -> bool {
    wanted.is_empty()
        || found.is_some_and(|found| {
            let bare = found.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            wanted.iter().map(String::as_bytes).any(|text| text == found || Some(text) == bare)
        })
}

/// The letters that are there: table, then offset, by partition.
pub(crate) type Parked = HashMap<i32, HashMap<Arc<str>, HashSet<i64>>>;

/// One for all partitions of a run.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) selection: Selection,
    pub(crate) parked: Parked,
    /// The table that is written to in the place of a live one, and that one, by which
    /// the letters may know a record.
    pub(crate) known_as: Option<(Arc<str>, Arc<str>)>,
    /// Whether new letters name the live one, since it is about to be it.
    pub(crate) is_renamed: bool,
    pub(crate) counts: Counts,
}

/// What this process came across. A batch that is read again counts again.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) parked: AtomicU64,
    pub(crate) parked_before: AtomicU64,
}

impl Terms {
    pub(crate) fn takes(&self, record: &RecordView<'_>, event_type: Option<&[u8]>) -> bool {
        self.selection.takes(record, event_type)
    }

    /// By which table a letter names `table`.
    pub(crate) fn name_in_letters<'a>(&'a self, table: &'a Arc<str>) -> &'a Arc<str> {
        match &self.known_as {
            Some((target, name)) if self.is_renamed && target == table => name,
            _ => table,
        }
    }

    /// Whether the dead letters have what `table` has just refused.
    pub(crate) fn is_parked(&self, record: &RecordView<'_>, table: &str) -> bool {
        let known_as = self.known_as.as_ref().filter(|(target, _)| **target == *table);
        let is_there = self.parked.get(&record.partition).is_some_and(|tables| {
            let has = |table: &str| tables.get(table).is_some_and(|o| o.contains(&record.offset));
            has(table) || known_as.is_some_and(|(_, name)| has(name))
        });
        let count = if is_there { &self.counts.parked_before } else { &self.counts.parked };
        count.fetch_add(1, Relaxed);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Headers;

    fn record<'a>(offset: i64, key: Option<&'a str>) -> RecordView<'a> {
        RecordView {
            topic: "t",
            partition: 1,
            offset,
            timestamp_ms: None,
            key: key.map(str::as_bytes),
            value: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn everything_named_has_to_fit() {
        let all = Selection::default();
        assert!(all.takes(&record(5, None), None) && !all.is_partial());
        let selection = Selection {
            keys: vec!["a".into()],
            event_types: vec!["x".into(), "y".into()],
            offsets: [(1, vec![0..3, 5..6])].into(),
        };
        assert!(selection.is_partial());
        assert!(selection.takes(&record(5, Some("a")), Some(b"y")));
        assert!(selection.takes(&record(5, Some("\"a\"")), Some(b"y")));
        assert!(!selection.takes(&record(5, Some("b")), Some(b"y")));
        assert!(!selection.takes(&record(5, None), Some(b"y")));
        assert!(!selection.takes(&record(5, Some("a")), None));
        assert!(!selection.takes(&record(4, Some("a")), Some(b"x")));
    }

    #[test]
    fn what_is_parked_for_the_live_table_is_not_parked_for_another_as_well() {
        let of_live: HashMap<Arc<str>, HashSet<i64>> = [("live".into(), [7].into())].into();
        let terms = Terms {
            parked: [(1, of_live)].into(),
            known_as: Some(("new".into(), "live".into())),
            ..Terms::default()
        };
        assert!(terms.is_parked(&record(7, None), "new"));
        assert!(terms.is_parked(&record(7, None), "live"));
        assert!(!terms.is_parked(&record(7, None), "other"));
        assert!(!terms.is_parked(&record(8, None), "new"));
        let counted = [&terms.counts.parked_before, &terms.counts.parked].map(|n| n.load(Relaxed));
        assert_eq!(counted, [2, 2]);
    }
}
