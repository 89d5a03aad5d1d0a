//! Letters through the present routes again.
//!
//! ```text
//! open letters ─▶ rows, by table ─▶ INSERT of what is missing ─▶ marks and new letters,
//!                  what does not fit ──────────────────────────▶ in one transaction
//! ```
//!
//! A row that is there already is not inserted again, so that whatever was done
//! before a crash may be done again. What a letter came to is known only when the
//! transaction is committed; until then it is open.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use twox_hash::XxHash3_128;

use super::{
    DlqError,
    letter::Letter,
    store::{Settled, Store},
};
use crate::{
    batch::{Insert, Parked, RowOffsets},
    block::Block,
    decode::{Mapping, Rejection},
    error::ConsumerError,
    sink::{Class, ClickHouse, Inquiry, Part, Sink, SinkError},
    source::TopicPartition,
    tables::{self, HeldBack},
    trace::Attempt,
};

/// Letters of one insert.
const AT_ONCE: usize = 1000;

/// What came of it, or would.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) replayed: usize,
    /// Parked again, by what the new letter says: reason and column.
    pub(super) again: BTreeMap<(String, String), usize>,
}

impl Came {
    fn count(&mut self, settled: &Settled<'_>) {
        match settled.again.first() {
            None => self.replayed += 1,
            Some(parked) => {
                let rejection = &parked.rejection;
                let key = (rejection.reason.to_owned(), rejection.column.clone());
                *self.again.entry(key).or_default() += 1;
            }
        }
    }

    pub(super) fn add(&mut self, more: Came) {
        self.replayed += more.replayed;
        for (kind, letters) in more.again {
            *self.again.entry(kind).or_default() += letters;
        }
    }

    pub(super) fn letters(&self) -> usize {
        self.replayed + self.again.values().sum::<usize>()
    }
}

/// The routes, as they are now.
pub(super) struct Routes {
    pub(super) joined: tables::Routes,
    pub(super) environment: String,
}

impl Routes {
    /// Those that take a letter: into its table, or, if no route took the record,
    /// into any.
    pub(super) fn of(&self, letter: &Letter) -> Vec<&Arc<Mapping>> {
        let record = letter.record();
        let event_type = record.header(outpour_schemas::wire::header::EVENT_TYPE);
        self.joined
            .mappings
            .iter()
            .filter(|mapping| mapping.takes_topic(record.topic) && mapping.takes_type(event_type))
            .filter(|mapping| letter.table.is_empty() || *mapping.table == *letter.table)
            .filter(|mapping| !mapping.passes_over(record.value))
            .collect()
    }

    /// The route that it waits for, since its table cannot be written to.
    pub(super) fn held_back<'a>(&'a self, letter: &'a Letter) -> Option<&'a HeldBack> {
        let mut held_back = self.joined.held_back_of(&letter.id.topic);
        held_back.find(|held| letter.table.is_empty() || *letter.table == held.table.to_string())
    }

    fn row(
        &self,
        letter: &Letter,
        mapping: &Mapping,
        block: &mut Block,
    ) -> Result<(), Box<Rejection>> {
        mapping.push(&letter.record(), &self.environment, block)
    }

    /// What would come of it, if ClickHouse took every row that fits.
    pub(super) fn would(&self, letters: &[&Letter]) -> Came {
        let mut came = Came::default();
        for letter in letters {
            let mut again = Vec::new();
            for mapping in self.of(letter) {
                let mut block = Block::new(Arc::clone(&mapping.columns));
                if let Err(rejection) = self.row(letter, mapping, &mut block) {
                    again.push(parked(letter, mapping, *rejection));
                }
            }
            came.count(&Settled { letter, again });
        }
        came
    }
}

/// Sends letters, and has every one settled that was sent.
pub(super) struct Sender<'a> {
    pub(super) routes: &'a Routes,
    pub(super) clickhouse: &'a ClickHouse,
    pub(super) store: &'a Store,
    /// Tells this Kafka cluster from others.
    pub(super) cluster: &'a str,
    pub(super) stop: &'a CancellationToken,
}

impl Sender<'_> {
    pub(super) async fn send(&self, letters: &[&Letter]) -> Result<Came, ConsumerError> {
        let mut by_partition: BTreeMap<TopicPartition, Vec<&Letter>> = BTreeMap::new();
        for letter in letters {
            let source =
                TopicPartition { topic: Arc::clone(&letter.id.topic), partition: letter.partition };
            by_partition.entry(source).or_default().push(letter);
        }
        let mut came = Came::default();
        for (source, mut letters_of_it) in by_partition {
            letters_of_it.sort_by_key(|letter| (letter.offset, letter.id.offset));
            for some in letters_of_it.chunks(AT_ONCE) {
                if self.stop.is_cancelled() {
                    return Err(DlqError::Interrupted.into());
                }
                let settled = self.through(&source, some).await?;
                self.store.settle(&settled).await?;
                settled.iter().for_each(|settled| came.count(settled));
            }
        }
        Ok(came)
    }

    /// Inserts what fits of `letters`, which are of one partition, by offset.
    async fn through<'l>(
        &self,
        source: &TopicPartition,
        letters: &[&'l Letter],
    ) -> Result<Vec<Settled<'l>>, ConsumerError> {
        let mut again: HashMap<&super::letter::LetterId, Vec<Parked>> = HashMap::new();
        for mapping in &self.routes.joined.mappings {
            let takes = |letter: &&&Letter| {
                self.routes.of(letter).iter().any(|taken| taken.index() == mapping.index())
            };
            let ours: Vec<_> = letters.iter().filter(takes).copied().collect();
            let (mut open, mut code) = (vec![ours], None);
            while let Some(some) = open.pop().filter(|some| !some.is_empty()) {
                let (insert, refused) = self.encode(mapping, &some);
                let inserted = match &insert {
                    Some(insert) => self.insert(source, insert, &some, code).await?,
                    None => None,
                };
                if let Some(error) = &inserted {
                    code = error.code;
                }
                match (inserted, some.as_slice()) {
                    (None, _) => {
                        for (letter, rejection) in refused {
                            let parked = parked(letter, mapping, rejection);
                            again.entry(&letter.id).or_default().push(parked);
                        }
                    }
                    (Some(error), [letter]) => {
                        let rejection = Rejection::refused(mapping, &error);
                        let parked = parked(letter, mapping, rejection);
                        again.entry(&letter.id).or_default().push(parked);
                    }
                    // One refusal says nothing about the others.
                    (Some(_), some) => {
                        let (first, last) = some.split_at(some.len() / 2);
                        open.extend([last.to_vec(), first.to_vec()]);
                    }
                }
            }
        }
        let settle = |letter: &&'l Letter| Settled {
            letter,
            again: again.remove(&letter.id).unwrap_or_default(),
        };
        Ok(letters.iter().map(settle).collect())
    }

    /// The rows of `letters`, which are in the order of their offsets, each record once,
    /// and what does not fit.
    fn encode<'l>(
        &self,
        mapping: &Arc<Mapping>,
        letters: &[&'l Letter],
    ) -> (Option<Insert>, Vec<(&'l Letter, Rejection)>) {
        let mut block = Block::new(Arc::clone(&mapping.columns));
        let (mut refused, mut offsets) = (Vec::new(), RowOffsets::default());
        let mut last = None;
        for letter in letters {
            if last == Some(letter.offset) {
                continue;
            }
            match self.routes.row(letter, mapping, &mut block) {
                Ok(()) => {
                    offsets.add(letter.offset);
                    last = Some(letter.offset);
                }
                Err(rejection) => refused.push((*letter, *rejection)),
            }
        }
        let rows = block.rows();
        let insert = (rows > 0).then(|| Insert {
            mapping: Arc::clone(mapping),
            rows,
            body: block.take().into_iter().collect::<Vec<Bytes>>(),
            offsets,
        });
        (insert, refused)
    }

    /// Returns once it is stored, or the error if it is refused for what is in it; `code` is
    /// what others were refused with.
    async fn insert(
        &self,
        source: &TopicPartition,
        insert: &Insert,
        letters: &[&Letter],
        code: Option<u32>,
    ) -> Result<Option<SinkError>, ConsumerError> {
        const MAX_DELAY: Duration = Duration::from_secs(10);
        let first = letters.first().map_or(0, |letter| letter.offset);
        let last = letters.last().map_or(0, |letter| letter.offset);
        let token = self.token(source, insert, letters);
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .build();
        let mut inquiry = Inquiry::of_some(code, letters.len() > 1);
        loop {
            let attempt = Attempt::new(None);
            let part = Part {
                partition: source,
                range: first..last + 1,
                token: token.clone(),
                is_asked: true,
            };
            let Err(error) = self.clickhouse.insert_part(insert, part, &attempt).await else {
                return Ok(None);
            };
            match inquiry.judge(self.clickhouse, &insert.mapping, &error).await {
                Class::Data => return Ok(Some(error)),
                Class::SchemaDrift => return Err(DlqError::TableChanged.into()),
                Class::Configuration => {
                    let doing = "inserting what letters hold";
                    return Err(ConsumerError::clickhouse(doing, self.clickhouse, error));
                }
                Class::Transient | Class::Unclear => {
                    let query_id = attempt.query_id();
                    tracing::warn!(%source, query_id, %error, "insert failed; trying again");
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(DlqError::Interrupted.into()),
                () = tokio::time::sleep(delays.next().unwrap_or(MAX_DELAY)) => {}
            }
        }
    }

    /// The same for the same letters with the same rows: what was asked before a
    /// crash may still be under way.
    fn token(&self, source: &TopicPartition, insert: &Insert, letters: &[&Letter]) -> String {
        let mut hash = XxHash3_128::new();
        for letter in letters {
            hash.write(&letter.id.partition.to_le_bytes());
            hash.write(&letter.id.offset.to_le_bytes());
        }
        insert.body.iter().for_each(|piece| hash.write(piece));
        format!(
            "outpour/{}/dlq/{}/{}/{:032x}/{}",
            self.cluster,
            source.topic,
            source.partition,
            hash.finish_128(),
            insert.mapping.target()
        )
    }
}

/// The letter as it is parked again.
fn parked(letter: &Letter, mapping: &Mapping, rejection: Rejection) -> Parked {
    Parked {
        offset: letter.offset,
        timestamp_ms: letter.timestamp_ms,
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: letter.headers.clone(),
        route: Some(mapping.index()),
        rejection,
    }
}
