//! The outbox table against Kafka: every event in it is to have been published.
//!
//! ```text
//! snapshot of the table ─▶ end of the log ─▶ the relay's slot is past it ─▶ ends of the topics ─▶ ids
//! ```
//!
//! In this order, so that what committed before the snapshot is in what is read of
//! Kafka: a relay confirms a position only after Kafka has committed everything
//! before it (I7). If no relay gets that far, nothing that is not found is called
//! missing.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    time::{Duration, Instant},
};

use outpour_schemas::{
    config::{Config, Mode, PollAfter, Relay},
    kafka::{Watched, client_config, reach_consumer},
    postgres::Target,
    wire::{CHECKPOINT_TOPIC, DEAD_LETTER_PREFIX, header},
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    metadata::{Metadata, MetadataTopic},
};
use serde::Serialize;
use tokio::task::block_in_place;
use tokio_postgres::{Client, IsolationLevel, Portal, Row, Transaction};
use twox_hash::XxHash3_128;

use super::{error::ReconcileError, reader::Reader};
use crate::{
    error::ConsumerError,
    source::{Subscription, kafka::REQUEST_TIMEOUT},
};

/// What became of the rows of the outbox table.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outbox {
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) in_kafka: u64,
    /// Committed, passed by the relay, and not in Kafka.
    pub(crate) missing: u64,
    /// Not in Kafka, and the relay has not passed them yet.
    pub(crate) waiting: u64,
    /// Not in Kafka, which has removed what is as old.
    pub(crate) no_longer_in_kafka: u64,
    /// Ids of what is missing, up to a hundred thousand.
    pub(crate) missing_ids: Vec<MissingRow>,
}

/// A row that Kafka has no record of: its id.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct MissingRow {
    pub(crate) id: String,
    /// The transaction that wrote it: another one is another row.
    #[serde(skip)]
    pub(super) xmin: String,
}

/// Rows of which ids are held at a time; for more, Kafka is read again.
const MOST_HELD: usize = 2_000_000;
const MOST_LISTED: usize = 100_000;

/// A row, as it is held: hash of its id, and when it happened, in milliseconds
/// since the Unix epoch.
type Held = (u128, Option<i64>);

/// Compares the outbox of the configuration with the topics that its relay writes.
///
/// # Errors
/// When there is no such table, or either side cannot be read.
pub(super) async fn compare(config: &Config) -> Result<Outbox, ConsumerError> {
    let (schema, name) = config.outbox.qualified();
    if !config.outbox.has_table() {
        return Err(ReconcileError::NoOutbox.into());
    }
    let mut found = Outbox { table: format!("{schema}.{name}"), ..Outbox::default() };
    let target = Target::of(&config.postgres)?;
    let mut reading = target.connect().await.map_err(ReconcileError::from)?;
    let failed = || {
        let target = target.clone();
        move |source| ReconcileError::from(target.failed("reading the outbox")(source))
    };
    let snapshot = reading.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let snapshot = snapshot.read_only(true).start().await.map_err(failed())?;
    let sql = select(config, &snapshot).await.map_err(failed())?;
    let sql = sql.ok_or_else(|| ReconcileError::NoOutboxTable { table: found.table.clone() })?;
    let asking = target.connect().await.map_err(ReconcileError::from)?;
    let has_passed = match config.relay.mode {
        // What was polled is marked once Kafka has it.
        Mode::Poll => true,
        Mode::Wal => passed(&asking, &config.relay.slot).await.map_err(failed())?,
    };
    let client = client_config(&config.kafka)?;
    let topics = block_in_place(|| Topics::ask(config, &client))?;
    let (mut missing, mut after) = (HashSet::new(), Vec::new());
    let statement = snapshot.prepare(&sql).await.map_err(failed())?;
    let portal = snapshot.bind(&statement, &[]).await.map_err(failed())?;
    loop {
        const FETCHED: i32 = 10_000;
        let rows = snapshot.query_portal(&portal, FETCHED).await.map_err(failed())?;
        let is_last = rows.is_empty();
        found.rows += rows.len() as u64;
        after.extend(rows.iter().map(|row| (hash(id(row)), row.get::<_, Option<i64>>(1))));
        if (is_last && !after.is_empty()) || after.len() >= MOST_HELD {
            let unseen = block_in_place(|| topics.unseen(std::mem::take(&mut after)))?;
            for (id, happened) in unseen.rows {
                let is_old = happened.zip(unseen.horizon).is_some_and(|(at, first)| at < first);
                match (is_old, has_passed) {
                    (true, _) => found.no_longer_in_kafka += 1,
                    (false, false) => found.waiting += 1,
                    (false, true) => {
                        found.missing += 1;
                        if missing.len() < MOST_LISTED {
                            missing.insert(id);
                        }
                    }
                }
            }
        }
        if is_last {
            break;
        }
    }
    found.in_kafka = found.rows - found.missing - found.waiting - found.no_longer_in_kafka;
    if !missing.is_empty() {
        let again = snapshot.bind(&statement, &[]).await.map_err(failed())?;
        found.missing_ids = named(&snapshot, &again, &missing).await.map_err(failed())?;
    }
    Ok(found)
}

/// Empty for a row without one, which no relay publishes.
fn id(row: &Row) -> &str {
    row.get::<_, Option<&str>>(0).unwrap_or_default()
}

fn hash(id: &str) -> u128 {
    XxHash3_128::oneshot(id.as_bytes())
}

/// The ids that hash to one of `missing`.
async fn named(
    snapshot: &Transaction<'_>,
    portal: &Portal,
    missing: &HashSet<u128>,
) -> Result<Vec<MissingRow>, tokio_postgres::Error> {
    let mut names = Vec::new();
    loop {
        let rows = snapshot.query_portal(portal, 10_000).await?;
        if rows.is_empty() || names.len() >= missing.len() {
            return Ok(names);
        }
        let is_missing = |row: &&Row| missing.contains(&hash(id(row)));
        let name = |row: &Row| MissingRow { id: id(row).to_owned(), xmin: row.get(2) };
        names.extend(rows.iter().filter(is_missing).map(name));
    }
}

/// The query for id, time and version of every row that a relay says is published; `None` if
/// there is no such table.
async fn select(
    config: &Config,
    snapshot: &Transaction<'_>,
) -> Result<Option<String>, tokio_postgres::Error> {
    /// Of the column's type, or of what it is a domain over.
    const TIME: &str = "WITH RECURSIVE type (oid) AS (
            SELECT atttypid FROM pg_attribute
            WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped
            UNION ALL
            SELECT typbasetype FROM pg_type JOIN type USING (oid) WHERE typbasetype <> 0
        )
        SELECT EXISTS (SELECT FROM type WHERE oid IN ('timestamptz'::regtype, 'timestamp'::regtype)),
            EXISTS (SELECT FROM type WHERE oid = 'bigint'::regtype),
            to_regclass($1) IS NOT NULL";
    let outbox = &config.outbox;
    let (schema, name) = outbox.qualified();
    let table = format!("{}.{}", quoted(schema), quoted(name));
    let found = snapshot.query_one(TIME, &[&table, &outbox.column_occurred_at]).await?;
    let (is_timestamp, is_bigint, is_there): (bool, bool, bool) =
        (found.get(0), found.get(1), found.get(2));
    if !is_there {
        return Ok(None);
    }
    let column = quoted(&outbox.column_occurred_at);
    let time = match (is_timestamp, is_bigint) {
        (true, _) => format!(
            "CASE WHEN isfinite({column}) THEN floor(extract(epoch FROM {column}) * 1000)::bigint END"
        ),
        // Milliseconds, as the relay takes them.
        (_, true) => format!("{column}::bigint"),
        _ => "NULL::bigint".to_owned(),
    };
    let only = match (config.relay.mode, config.relay.poll_after) {
        (Mode::Wal, _) => String::new(),
        // What is there is not published yet.
        (Mode::Poll, PollAfter::Delete) => " WHERE false".to_owned(),
        (Mode::Poll, PollAfter::Mark) => {
            format!(" WHERE {} IS NOT NULL", quoted(&outbox.column_published_at))
        }
    };
    let id = quoted(&outbox.column_id);
    Ok(Some(format!("SELECT {id}::text, {time}, xmin::text FROM {table}{only}")))
}

/// An identifier of PostgreSQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Waits until the slot is confirmed past where the log ends now. `false` if nobody
/// brings it there.
async fn passed(client: &Client, slot: &str) -> Result<bool, tokio_postgres::Error> {
    /// An idle relay confirms every ten seconds.
    const PATIENCE: Duration = Duration::from_secs(60);
    const WITHOUT_RELAY: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(200);
    const STANDS: &str = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn, active
        FROM pg_replication_slots WHERE slot_name = $1";
    let end = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
    let end: String = end.get(0);
    let (since, mut active_at) = (Instant::now(), Instant::now());
    loop {
        let Some(row) = client.query_opt(STANDS, &[&slot, &end]).await? else { return Ok(false) };
        if row.get::<_, Option<bool>>(0) == Some(true) {
            return Ok(true);
        }
        if row.get(1) {
            active_at = Instant::now();
        }
        if since.elapsed() > PATIENCE || active_at.elapsed() > WITHOUT_RELAY {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The topics that a relay may have written to, as far as they were written when
/// this was asked.
struct Topics {
    reader: Reader,
    logs: BTreeMap<String, BTreeMap<i32, Range<i64>>>,
}

/// Rows that no record has the id of.
struct Unseen {
    rows: Vec<Held>,
    /// What happened before it may have been removed from Kafka, in milliseconds
    /// since the Unix epoch; `None` if nothing was.
    horizon: Option<i64>,
}

impl Topics {
    fn ask(config: &Config, client: &ClientConfig) -> Result<Self, ConsumerError> {
        let asking: BaseConsumer<Watched> =
            client.create_with_context(Watched::default()).map_err(|source| {
                let brokers = config.kafka.brokers.clone();
                ConsumerError::Kafka { doing: "connecting", brokers, source }
            })?;
        let metadata = reach_consumer(&config.kafka, &asking, REQUEST_TIMEOUT, |client, wait| {
            client.fetch_metadata(None, wait)
        })?;
        let reader = Reader::connect(config, client)?;
        let mut logs = BTreeMap::new();
        for (topic, partitions) in written_topics(config, &metadata) {
            let log = reader.settled(config, client, &topic, partitions)?;
            logs.insert(topic, log);
        }
        Ok(Topics { reader, logs })
    }

    /// Reads all of it once.
    fn unseen(&self, mut rows: Vec<Held>) -> Result<Unseen, ConsumerError> {
        rows.sort_unstable();
        let mut seen = vec![false; rows.len()];
        let mut horizon = None;
        for (topic, logs) in &self.logs {
            let mut cut: HashSet<i32> =
                logs.iter().filter(|(_, log)| log.start > 0).map(|(number, _)| *number).collect();
            self.reader.read(topic, logs, |record| {
                if cut.remove(&record.partition()) {
                    horizon = horizon.max(record.timestamp().to_millis());
                }
                let headers = record.headers();
                let id = headers.and_then(|headers| headers.iter().find(|h| h.key == header::ID));
                let id = id.and_then(|id| std::str::from_utf8(id.value?).ok());
                if let Some(id) = id.map(hash) {
                    let from = rows.partition_point(|(row, _)| *row < id);
                    let same = rows[from..].iter().take_while(|(row, _)| *row == id).count();
                    seen[from..from + same].fill(true);
                }
                Ok(())
            })?;
        }
        let mut seen = seen.into_iter();
        rows.retain(|_| seen.next() == Some(false));
        Ok(Unseen { rows, horizon })
    }
}

/// What the consumer reads, and where else the relay may put records.
fn written_topics(config: &Config, metadata: &Metadata) -> BTreeMap<String, i32> {
    let subscription = Subscription::of(&config.consumer.topics);
    let prefix = topic_prefix(&config.relay);
    let is_written = |name: &str| {
        let is_own = name.starts_with("__")
            || name == CHECKPOINT_TOPIC
            || name.starts_with(DEAD_LETTER_PREFIX);
        subscription.takes(name)
            || name == config.relay.dead_letter_topic
            || (!is_own && name.starts_with(&prefix))
    };
    let size = |topic: &MetadataTopic| {
        // Partitions are few.
        (topic.name().to_owned(), topic.partitions().len() as i32)
    };
    let written = metadata.topics().iter().filter(|topic| is_written(topic.name())).map(size);
    written.filter(|(_, partitions)| *partitions > 0).collect()
}

/// What all topics of the relay begin with, as far as the configuration tells:
/// what does not match the pattern is a topic under its own name.
fn topic_prefix(relay: &Relay) -> String {
    if relay.route_topic_regex != Relay::default().route_topic_regex {
        return String::new();
    }
    let text = &relay.route_topic_replacement;
    text.chars().take_while(|c| !matches!(c, '$' | '\\')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_by_what_the_replacement_begins_with() {
        let mut relay = Relay::default();
        assert_eq!(topic_prefix(&relay), "outbox.event.");
        "shop.${routedByValue}.v1".clone_into(&mut relay.route_topic_replacement);
        assert_eq!(topic_prefix(&relay), "shop.");
        "(a|b)".clone_into(&mut relay.route_topic_regex);
        assert_eq!(topic_prefix(&relay), "");
    }
}
