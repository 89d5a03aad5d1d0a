//! Services that do their work: transactions of every size over the same keys,
//! with events in the outbox table and in messages, some of them rolled back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use fastrand::Rng;
use outpour_producer::Outbox;
use outpour_schemas::Lsn;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::{Client, NoTls, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    event::{Event, Fate, KINDS},
    ledger,
};

pub(super) const WRITERS: u64 = 4;
/// By which the database tells their sessions.
pub(super) const NAME: &str = "torture writer";
/// Of all writers together.
const EVENTS_PER_S: f64 = 400.0;
const KEYS: usize = 24;
/// One transaction in so many is large …
const LARGE: usize = 150;
const LARGE_EVENTS: usize = 2000;
/// … and one in so many is rolled back.
const ROLLED_BACK: usize = 12;

/// What the writers know at once, without asking the database.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Events whose commit was acknowledged, and that have to become rows.
    stored: AtomicU64,
    transactions: AtomicU64,
    /// Also of events whose commit was not acknowledged.
    fates: Mutex<HashMap<Uuid, Fate>>,
    rolled_back: AtomicU64,
    /// Events that have to become rows, with a place in Postgres' log that is
    /// behind their commit; in the order of these places, nearly.
    commits: Mutex<Vec<(Lsn, Vec<Uuid>)>>,
    /// Whether there is nothing to say for now.
    idle: AtomicBool,
}

impl Books {
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(super) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    pub(super) fn fate(&self, id: &Uuid) -> Option<Fate> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// From now on there are no events, or some again.
    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Takes out what was committed before this place.
    pub(super) fn left_behind(&self, lsn: Lsn) -> Vec<Uuid> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = commits.extract_if(.., |(behind, _)| *behind <= lsn);
        taken.flat_map(|(_, ids)| ids).collect()
    }

    /// Events of transactions that were rolled back.
    pub(super) fn rolled_back(&self) -> u64 {
        self.rolled_back.load(Ordering::Relaxed)
    }
}

pub(super) struct Writer<'a> {
    pub(super) url: &'a str,
    pub(super) books: &'a Books,
    pub(super) random: Rng,
    pub(super) outbox: Outbox,
}

impl Writer<'_> {
    /// Works until told to stop. What fails is somebody else's trouble: whether it
    /// was committed, the ledger says.
    pub(super) async fn work(&mut self, stop: &CancellationToken) {
        const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(300);
        while !stop.is_cancelled() {
            let session = stop.run_until_cancelled(self.session());
            if let Some(Err(_)) = session.await {
                sleep(BEFORE_ANOTHER_TRY).await;
            }
        }
    }

    async fn session(&mut self) -> Result<()> {
        const A_MOMENT: Duration = Duration::from_millis(20);
        let mut config: tokio_postgres::Config = self.url.parse()?;
        let (mut client, connection) = config.application_name(NAME).connect(NoTls).await?;
        tokio::spawn(connection);
        let mut due = Instant::now();
        loop {
            sleep_until(due).await;
            if self.books.idle.load(Ordering::Relaxed) {
                ledger::other_work(&client).await?;
                sleep(A_MOMENT).await;
                continue;
            }
            let events = self.transaction(&mut client).await?;
            // What was missed is not made up for.
            let share = EVENTS_PER_S / WRITERS as f64;
            due = due.max(Instant::now() - Duration::from_secs(1));
            due += Duration::from_secs_f64(events as f64 / share);
        }
    }

    async fn transaction(&mut self, client: &mut Client) -> Result<usize> {
        let size = match self.random.usize(0..LARGE) {
            0 => LARGE_EVENTS,
            1..30 => self.random.usize(1..100),
            _ => self.random.usize(1..8),
        };
        let tx = client.transaction().await?;
        let events = self.events(&tx, size).await?;
        ledger::note(&tx, &events).await?;
        self.emit(&tx, &events).await?;
        if self.random.usize(0..ROLLED_BACK) == 0 {
            self.books.rolled_back.fetch_add(size as u64, Ordering::Relaxed);
            tx.rollback().await?;
            return Ok(size);
        }
        {
            let mut fates = self.books.fates.lock().unwrap_or_else(PoisonError::into_inner);
            fates.extend(events.iter().map(|event| (event.envelope.id, event.fate)));
        }
        tx.commit().await?;
        let stored = events.iter().filter(|event| event.fate == Fate::Stored);
        let stored: Vec<_> = stored.map(|event| event.envelope.id).collect();
        self.books.stored.fetch_add(stored.len() as u64, Ordering::Relaxed);
        self.books.transactions.fetch_add(1, Ordering::Relaxed);
        let behind = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        let behind: Lsn = behind.get::<_, &str>(0).parse()?;
        let mut commits = self.books.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.push((behind, stored));
        Ok(size)
    }

    /// Events of some keys, mixed; those of one key in the order of their numbers.
    async fn events(&mut self, tx: &Transaction<'_>, size: usize) -> Result<Vec<Event>> {
        let mut keys: Vec<(usize, usize)> = (0..size)
            .map(|_| (self.random.usize(0..KINDS.len()), self.random.usize(0..KEYS)))
            .collect();
        let mut counts: BTreeMap<(usize, usize), i64> = BTreeMap::new();
        keys.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
        // In the order of the keys, or two writers would wait for each other.
        for (key, numbers) in &mut counts {
            let last = ledger::take_numbers(tx, KINDS[key.0], &name(key.1), *numbers).await?;
            *numbers = last - *numbers;
        }
        self.random.shuffle(&mut keys);
        let events = keys.into_iter().map(|key| {
            let number = counts.entry(key).or_default();
            *number += 1;
            Event::new(&mut self.random, KINDS[key.0], &name(key.1), *number)
        });
        Ok(events.collect())
    }

    /// In runs of either way.
    async fn emit(&mut self, tx: &Transaction<'_>, events: &[Event]) -> Result<()> {
        const MESSAGE: &str = "SELECT outpour_emit($1, $2, $3, $4::text::jsonb, id => $5)";
        let mut rest = events;
        while !rest.is_empty() {
            let (run, others) = rest.split_at(self.random.usize(1..=rest.len()));
            rest = others;
            if self.random.u8(0..3) > 0 {
                let rows: Vec<_> = run.iter().map(|event| event.envelope.clone()).collect();
                self.outbox.append_all(tx, &rows).await?;
                continue;
            }
            for event in run {
                let row = &event.envelope;
                let payload = row.payload_text();
                tx.execute(
                    MESSAGE,
                    &[&row.aggregate_type, &row.aggregate_id, &row.event_type, &payload, &row.id],
                )
                .await?;
            }
        }
        Ok(())
    }
}

fn name(key: usize) -> String {
    format!("k{key}")
}
