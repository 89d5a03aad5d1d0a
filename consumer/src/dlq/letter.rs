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
