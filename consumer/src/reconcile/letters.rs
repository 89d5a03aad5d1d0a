//! What is in the dead letters: records that a table is not to have.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use outpour_schemas::wire::{dead_letter as name, mark};
use rdkafka::{
    Message,
    message::{BorrowedHeaders, BorrowedMessage, Headers},
};

use super::{bounds::Topic, offsets::Offsets};

/// The letters of one topic's records, as far as these are compared.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// By partition and table, then by route: each of two routes into one table
    /// has its own. Without a table: no route took the record.
    all: BTreeMap<i32, BTreeMap<String, BTreeMap<String, Offsets>>>,
    /// Letters whose rows have come to their tables since, by where they are
    /// themselves.
    replayed: HashSet<(i32, i64)>,
    /// Whether Kafka has removed letters.
    pub(super) some_are_gone: bool,
}

impl Letters {
    /// To be called with all records first: a mark comes after its letter.
    pub(super) fn take_mark(&mut self, message: &BorrowedMessage<'_>) {
        let texts = message.headers().into_iter().flat_map(texts);
        if let Some(letter) = replayed_letter(texts) {
            self.replayed.insert((message.partition(), letter));
        }
    }

    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, topic: &Topic) {
        if self.replayed.contains(&(message.partition(), message.offset())) {
            return;
        }
        let Some(letter) = Letter::of(message).filter(|letter| letter.topic == &*topic.name) else {
            return;
        };
        let bounds = topic.partitions.get(&letter.partition);
        if bounds.is_none_or(|bounds| !bounds.in_kafka().contains(&letter.offset)) {
            return;
        }
        let by_table = self.all.entry(letter.partition).or_default();
        if !by_table.contains_key(letter.table) {
            by_table.insert(letter.table.to_owned(), BTreeMap::new());
        }
        let by_route = by_table.get_mut(letter.table);
        let routes = by_route.and_then(|by_route| match by_route.contains_key(letter.route) {
            true => by_route.get_mut(letter.route),
            false => Some(by_route.entry(letter.route.to_owned()).or_default()),
        });
        if let Some(offsets) = routes {
            offsets.add(letter.offset);
        }
    }

    /// To be called once all have been taken.
    pub(super) fn settle(&mut self, logs: &BTreeMap<i32, Range<i64>>) {
        self.some_are_gone = logs.values().any(|log| log.start > 0);
        let tables = self.all.values_mut().flat_map(BTreeMap::values_mut);
        tables.flat_map(BTreeMap::values_mut).for_each(Offsets::settle);
    }

    /// What of `partition` is parked for `table`, by route.
    pub(super) fn of(&self, partition: i32, table: &str) -> Vec<&Offsets> {
        let by_table = self.all.get(&partition).and_then(|tables| tables.get(table));
        by_table.map_or_else(Vec::new, |routes| routes.values().collect())
    }
}

/// Where a letter came from.
#[derive(Debug, PartialEq, Eq)]
struct Letter<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    table: &'a str,
    route: &'a str,
}

impl<'a> Letter<'a> {
    /// `None` for what is no letter.
    fn of(message: &'a BorrowedMessage<'_>) -> Option<Self> {
        Self::parse(texts(message.headers()?))
    }

    /// The record's own headers come first, and may have been a letter's before.
    fn parse(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (mut topic, mut partition, mut offset) = (None, None, None);
        let (mut table, mut route, mut reason) = ("", "", None);
        for (key, value) in headers {
            match key {
                name::SOURCE_TOPIC => {
                    topic = Some(value);
                    (table, route, reason) = ("", "", None);
                }
                name::SOURCE_PARTITION => partition = value.parse().ok(),
                name::SOURCE_OFFSET => offset = value.parse().ok(),
                name::TABLE => table = value,
                name::ROUTE => route = value,
                name::REASON => reason = Some(value),
                _ => {}
            }
        }
        reason?;
        Some(Letter { topic: topic?, partition: partition?, offset: offset?, table, route })
    }
}

fn texts(headers: &BorrowedHeaders) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|header| Some((header.key, std::str::from_utf8(header.value?).ok()?)))
}

/// The offset of the letter that a mark says has its row in the table by now.
/// `None` for letters, which may have been marks once, and for other marks.
fn replayed_letter<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<i64> {
    let (mut outcome, mut letter) = (None, None);
    for (key, value) in headers {
        match key {
            name::SOURCE_TOPIC => return None,
            mark::OUTCOME => outcome = Some(value),
            mark::LETTER => letter = value.parse().ok(),
            _ => {}
        }
    }
    letter.filter(|_| outcome == Some(mark::REPLAYED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_was_replayed_is_none_any_more_and_one_that_was_superseded_is() {
        let mark = |outcome| [("outpour-mark", outcome), ("outpour-mark-letter", "7")].into_iter();
        assert_eq!(replayed_letter(mark("replayed")), Some(7));
        assert_eq!(replayed_letter(mark("superseded")), None);
        assert_eq!(replayed_letter(mark("replayed").chain([(name::SOURCE_TOPIC, "t")])), None);
    }

    #[test]
    fn the_last_source_counts_and_what_has_no_reason_is_no_letter() {
        let headers = [
            ("id", "x"),
            ("outpour-source-topic", "old"),
            ("outpour-source-partition", "1"),
            ("outpour-source-offset", "2"),
            ("outpour-route", "route 4"),
            ("outpour-table", "db.t"),
            ("outpour-reason", "missing"),
            ("outpour-source-topic", "new"),
            ("outpour-source-partition", "4"),
            ("outpour-source-offset", "5"),
            ("outpour-reason", "no_route"),
        ];
        let letter = Letter { topic: "new", partition: 4, offset: 5, table: "", route: "" };
        assert_eq!(Letter::parse(headers.into_iter()), Some(letter));
        assert_eq!(Letter::parse(headers[..6].iter().copied()), None);
        let first = Letter::parse(headers[..7].iter().copied()).unwrap();
        assert_eq!((first.topic, first.table, first.route), ("old", "db.t", "route 4"));
    }
}
