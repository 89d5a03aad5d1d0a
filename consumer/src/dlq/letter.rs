//! Dead letters and the marks that settle them, as records hold them. Pure.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use outpour_schemas::wire::{DEAD_LETTER_PREFIX, Header, dead_letter as name, mark};

use crate::source::RecordView;

/// The place of a letter: `<source topic>/<partition>/<offset>`, the latter two in
/// the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LetterId {
    /// The topic that the record came from, which names the dead-letter topic.
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let topic = topic.strip_prefix(DEAD_LETTER_PREFIX).unwrap_or(topic);
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (!topic.is_empty()).then(|| LetterId { topic: topic.into(), partition, offset })
        };
        parse().ok_or_else(|| {
            "a letter is named <topic>/<partition>/<offset>, as `dlq list --letters` prints it"
                .to_owned()
        })
    }
}

/// A record that a table did not take.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) id: LetterId,
    /// Where the record is in its own topic.
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch.
    pub(crate) timestamp_ms: Option<i64>,
    /// Empty if no route took it.
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) expected: String,
    /// What did not fit.
    pub(crate) refused: String,
    pub(crate) reason: String,
    pub(crate) error: String,
    pub(crate) attempts: u32,
    pub(crate) parked_at: Option<Timestamp>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// Bytes of the payload, kept here or not.
    pub(crate) value_size: usize,
    /// Those of the record itself.
    pub(crate) headers: Vec<Header>,
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its row is in the table.
    Replayed,
    /// A newer letter stands for it.
    Superseded,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Replayed => mark::REPLAYED,
            Outcome::Superseded => mark::SUPERSEDED,
        }
    }
}

/// A record of a dead-letter topic.
#[derive(Debug)]
pub(crate) enum Entry {
    Letter(Box<Letter>),
    Mark { letter: LetterId, outcome: Outcome },
}

impl Entry {
    /// `None` for a record that is neither.
    pub(crate) fn of(record: &RecordView<'_>) -> Option<Entry> {
        let topic: Arc<str> = record.topic.strip_prefix(DEAD_LETTER_PREFIX)?.into();
        let id = LetterId { topic, partition: record.partition, offset: record.offset };
        let owned =
            |(name, value): &(&str, Option<&[u8]>)| ((*name).to_owned(), value.map(<[u8]>::to_vec));
        // The record's own headers come first, and may have the same names: it may
        // have been a dead letter before.
        let own = record.headers.iter().rposition(|(header, _)| *header == name::SOURCE_TOPIC);
        let ours = |name: &str| {
            let ours = &record.headers[own.unwrap_or(0)..];
            let found = ours.iter().find(|(header, _)| *header == name);
            let value = found.and_then(|(_, value)| *value)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let Some(own) = own else {
            let outcome = match ours(mark::OUTCOME)?.as_str() {
                mark::REPLAYED => Outcome::Replayed,
                mark::SUPERSEDED => Outcome::Superseded,
                _ => return None,
            };
            let letter = LetterId { offset: ours(mark::LETTER)?.parse().ok()?, ..id };
            return Some(Entry::Mark { letter, outcome });
        };
        Some(Entry::Letter(Box::new(Letter {
            partition: ours(name::SOURCE_PARTITION)?.parse().ok()?,
            offset: ours(name::SOURCE_OFFSET)?.parse().ok()?,
            timestamp_ms: ours(name::SOURCE_TIMESTAMP).and_then(|text| text.parse().ok()),
            table: ours(name::TABLE).unwrap_or_default(),
            column: ours(name::COLUMN).unwrap_or_default(),
            expected: ours(name::EXPECTED_TYPE).unwrap_or_default(),
            refused: ours(name::VALUE).unwrap_or_default(),
            reason: ours(name::REASON).unwrap_or_default(),
            error: ours(name::ERROR).unwrap_or_default(),
            attempts: ours(name::ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or(1),
            parked_at: ours(name::PARKED_AT).and_then(|text| text.parse().ok()),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            value_size: record.value.map_or(0, <[u8]>::len),
            headers: record.headers[..own].iter().map(owned).collect(),
            id,
        })))
    }
}

impl Letter {
    /// The record that was parked, where it came from.
    pub(crate) fn record(&self) -> RecordView<'_> {
        RecordView {
            topic: &self.id.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect(),
        }
    }
}

/// The headers of the mark that settles the letter at `offset` of its partition.
pub(crate) fn mark_headers(offset: i64, outcome: Outcome, now: Timestamp) -> Vec<Header> {
    let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
    vec![
        header(mark::OUTCOME, outcome.name().to_owned()),
        header(mark::LETTER, offset.to_string()),
        header(mark::MARKED_AT, now.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = Vec<(&'static str, Option<&'static [u8]>)>;

    fn record(headers: Headers) -> RecordView<'static> {
        RecordView {
            topic: "outpour.dead-letter.shop.orders",
            partition: 2,
            offset: 17,
            timestamp_ms: Some(1),
            key: Some(b"key"),
            value: Some(b"{}"),
            headers: headers.into(),
        }
    }

    fn letter_headers() -> Headers {
        vec![
            (name::SOURCE_TOPIC, Some(b"shop.orders")),
            (name::SOURCE_PARTITION, Some(b"4")),
            (name::SOURCE_OFFSET, Some(b"123")),
            (name::TABLE, Some(b"db.t")),
            (name::REASON, Some(b"out_of_range")),
            (name::ATTEMPTS, Some(b"3")),
        ]
    }

    #[test]
    fn an_id_names_a_letter_and_is_read_as_it_is_printed() {
        let id = LetterId { topic: "shop.orders".into(), partition: 2, offset: 17 };
        assert_eq!(id.to_string(), "shop.orders/2/17");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!("outpour.dead-letter.shop.orders/2/17".parse(), Ok(id));
        for text in ["", "17", "2/17", "/2/17", "t/x/17", "t/2/"] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_letter_gives_its_record_back() {
        let own: Headers = vec![("id", Some(b"1")), ("gone", None)];
        let Some(Entry::Letter(letter)) =
            Entry::of(&record([own.clone(), letter_headers()].concat()))
        else {
            panic!("no letter")
        };
        assert_eq!((letter.partition, letter.offset, letter.attempts), (4, 123, 3));
        assert_eq!((letter.table.as_str(), letter.reason.as_str()), ("db.t", "out_of_range"));
        let back = letter.record();
        assert_eq!((back.topic, back.partition, back.offset), ("shop.orders", 4, 123));
        assert_eq!((back.headers.to_vec(), back.key), (own, Some(&b"key"[..])));
    }

    #[test]
    fn a_letter_of_a_letter_keeps_to_the_newer_headers() {
        let older: Headers = vec![
            (name::SOURCE_TOPIC, Some(b"other")),
            (name::COLUMN, Some(b"old")),
            (mark::OUTCOME, Some(b"replayed")),
        ];
        let Some(Entry::Letter(letter)) =
            Entry::of(&record([older.clone(), letter_headers()].concat()))
        else {
            panic!("no letter")
        };
        assert_eq!((letter.offset, letter.column.as_str()), (123, ""));
        assert_eq!(letter.record().headers.to_vec(), older);
    }

    #[test]
    fn a_mark_settles_a_letter_of_its_partition() {
        for outcome in [Outcome::Replayed, Outcome::Superseded] {
            let headers = mark_headers(9, outcome, Timestamp::UNIX_EPOCH);
            let headers =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let mark = RecordView { headers, value: None, ..record(Vec::new()) };
            let Some(Entry::Mark { letter, outcome: found }) = Entry::of(&mark) else {
                panic!("no mark")
            };
            assert_eq!((letter.to_string().as_str(), found), ("shop.orders/2/9", outcome));
        }
    }

    #[test]
    fn what_is_neither_is_nothing() {
        assert!(Entry::of(&record(Vec::new())).is_none());
        assert!(Entry::of(&record(vec![(mark::OUTCOME, Some(b"later"))])).is_none());
        let elsewhere = RecordView { topic: "shop.orders", ..record(letter_headers()) };
        assert!(Entry::of(&elsewhere).is_none());
    }
}
