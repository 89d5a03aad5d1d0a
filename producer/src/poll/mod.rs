//! The outbox without logical replication: rows are asked for, published, and
//! removed or marked.
//!
//! ```text
//!  BEGIN ─▶ claim: FOR UPDATE SKIP LOCKED ──rows──▶ Router ──▶ Publisher
//!    ▲                                                            │
//!    └── COMMIT ◀── DELETE, or published_at ◀── Kafka acknowledged ┘
//! ```
//!
//! At-least-once: what dies between the acknowledgement and the commit has
//! published rows that still wait, and they are published again.
//!
//! One relay works at a time, or a key's rows could overtake each other in
//! Kafka. An advisory lock sees to that. It belongs to the connection that
//! claims the rows, so that it can not be lost while they are kept.

pub(crate) mod claim;
mod settle;
mod status;
mod table;

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use outpour_schemas::{Lsn, Position, config::Config};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::sync::CancellationToken;

pub(crate) use self::status::status;
use self::{
    claim::{Order, Statements},
    settle::Settling,
};
use crate::{
    error::RelayError,
    health::Monitor,
    kafka::{learned::Learned, publisher::Publisher},
    postgres::{PostgresError, Target},
    relay::{Router, moment_ms, row_publisher::RowPublisher},
    wal::{pgoutput::Cell, row::OutboxRow, table as catalog, transaction::Layout},
};

/// Why the outbox cannot be polled.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("table {table} does not exist on {target}; run `outpour-relay init`")]
    NoTable { table: String, target: String },
    #[error(
        "table {table} has no column `{column}` (outbox.column_published_at), \
         which relay.poll_after = \"mark\" needs; run `outpour-relay init`"
    )]
    NoMark { table: String, column: String },
    #[error(
        "rows of {table} wait as before after {verb} ({rows}, the first with id {example}): a \
         trigger or a rule keeps them, and they would be published again and again. Take it \
         away, or choose the other relay.poll_after"
    )]
    Kept { rows: usize, table: String, verb: &'static str, example: String },
    #[error("the lock of relay `{slot}` is held by another relay")]
    Held { slot: String },
}

impl PollError {
    /// Whether the same attempt may work later without anybody's doing.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            PollError::Postgres(_) | PollError::Held { .. } => true,
            PollError::NoTable { .. } | PollError::NoMark { .. } | PollError::Kept { .. } => false,
        }
    }
}

/// One session of polling: from taking the lock to losing or leaving it.
pub(crate) struct Poller {
    client: Client,
    rows: RowPublisher,
    monitor: Arc<Monitor>,
    layout: Layout,
    /// Places of what the relay itself looks at among the cells.
    id: usize,
    key: usize,
    time: Option<usize>,
    settling: Settling,
    claim: String,
    batch_rows: u32,
    interval: Duration,
    /// Whether it was told that rows are locked: once will do.
    told_locked: bool,
}

/// A row that was handed to Kafka.
struct SentRow {
    /// As a constant of SQL, unless it is NULL.
    id: Option<String>,
    key: Option<Bytes>,
    /// Of its record in this session.
    number: usize,
}

/// What a round has claimed.
#[derive(Default)]
struct Claimed {
    found: u32,
    has_locked: bool,
    /// In the order of the rows.
    sent: Vec<SentRow>,
    /// Why Kafka was not given all of them.
    broken: Option<RelayError>,
}

/// What one round did.
struct Round {
    found: u32,
    published: usize,
}

/// Cells before those of the table.
const CLAIMED: usize = 0;
const NOW_US: usize = 1;
const FIRST_CELL: usize = 2;

impl Poller {
    /// Takes the lock, after it has made sure that the table can be read, and
    /// before it talks to Kafka.
    pub(crate) async fn open(
        config: &Config,
        target: &Target,
        monitor: &Arc<Monitor>,
        learned: &Arc<Learned>,
    ) -> Result<Self, RelayError> {
        /// Beyond the longest wait for Kafka, which is within a transaction.
        const SPARE: Duration = Duration::from_secs(10);
        let router = Router::new(&config.outbox, &config.relay)?;
        let client = target.connect().await?;
        let interval = config.relay.poll_interval.0;
        let longest = config.relay.transaction_timeout.0.max(interval) + SPARE;
        table::prepare(&client, target, longest).await?;
        let time_column = &config.outbox.column_occurred_at;
        let relation = table::columns(&client, target, config, |name| {
            name == time_column || router.wanted().iter().any(|wanted| wanted.column == name)
        })
        .await?;
        let layout = Layout::of(&relation, router.wanted()).fit()?;
        let charset = catalog::charset(&client, target).await?;
        let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let time = place(time_column);
        table::lock(&client, target, &config.relay.slot).await?;
        let settling = Settling {
            statements: Statements::of(config, time.is_some()),
            table: config.outbox.table.clone(),
            target: target.clone(),
            charset,
        };
        settling.rehearse(&client).await?;
        let publisher = Publisher::connect(config, Arc::clone(monitor), learned).await?;
        let publisher = publisher.fence().await?;
        monitor.started(Lsn::ZERO);
        let names = relation.columns.iter().map(|column| column.name.as_str());
        tracing::info!(
            slot = config.relay.slot,
            table = config.outbox.table,
            after = ?config.relay.poll_after,
            "relay started; it polls, which is at-least-once: \
             should it die, rows are published again that it had not yet settled"
        );
        if time.is_none() {
            tracing::warn!(
                column = time_column,
                "the table lacks the column that orders it (outbox.column_occurred_at): \
                 rows go out by id, and a key is in order only if its ids are"
            );
        }
        Ok(Poller {
            // The layout has made sure that both are there.
            id: place(&config.outbox.column_id).unwrap_or_default(),
            key: place(&config.outbox.column_aggregate_id).unwrap_or_default(),
            time,
            claim: settling.statements.claim(names, &settling.charset),
            settling,
            layout,
            rows: RowPublisher::new(router, publisher),
            client,
            monitor: Arc::clone(monitor),
            batch_rows: config.relay.poll_batch_rows,
            interval,
            told_locked: false,
        })
    }

    /// Publishes until told to stop or until something breaks.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), RelayError> {
        /// So long a round may go on when told to stop. Cut short, it would
        /// leave what it has published to be published again.
        const GRACE: Duration = Duration::from_secs(5);
        while !stop.is_cancelled() {
            let round = tokio::select! {
                round = self.round() => round?,
                () = async {
                    stop.cancelled().await;
                    tokio::time::sleep(GRACE).await;
                } => {
                    tracing::warn!("stopped before Kafka had acknowledged everything");
                    break;
                }
            };
            if round.found == self.batch_rows && round.published > 0 {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.interval) => {}
            }
        }
        tracing::info!("relay stopped");
        Ok(())
    }

    /// Claims rows, publishes them, waits for Kafka, and settles them. Dropped
    /// half-way, the connection goes, and with it the claim.
    ///
    /// # Errors
    /// If it was Kafka, what it has acknowledged is settled all the same: nothing
    /// that it has goes out again because of what it has not.
    async fn round(&mut self) -> Result<Round, RelayError> {
        self.client.batch_execute("BEGIN").await.map_err(self.failed())?;
        let Claimed { found, has_locked, sent, mut broken } = self.send().await?;
        if has_locked && !std::mem::replace(&mut self.told_locked, true) {
            tracing::warn!(
                "rows are locked by another session; they wait, and so do later ones of their \
                 keys; said once"
            );
        }
        if !sent.is_empty()
            && let Err(error) = self.rows.flush().await
        {
            broken.get_or_insert(error);
        }
        let undelivered = broken.as_ref().map_or_else(HashSet::new, |_| self.rows.undelivered());
        let published = acknowledged(sent, &undelivered);
        if !published.is_empty() {
            self.settling.settle(&self.client, &published).await?;
        }
        self.client.batch_execute("COMMIT").await.map_err(self.failed())?;
        if let Some(error) = broken {
            return Err(error);
        }
        self.monitor.polled(found > 0 && published.is_empty());
        tracing::debug!(found, published = published.len(), "polled");
        Ok(Round { found, published: published.len() })
    }

    /// Claims rows and hands them to Kafka.
    async fn send(&mut self) -> Result<Claimed, RelayError> {
        let rows = self.client.simple_query_raw(&self.claim).await.map_err(self.failed())?;
        let mut rows = pin!(rows);
        let mut order = Order::default();
        let mut claimed = Claimed::default();
        // Rows come as fast as they are taken, so that few are in memory.
        while let Some(message) = rows.next().await {
            let SimpleQueryMessage::Row(row) = message.map_err(self.failed())? else { continue };
            let cells: Vec<_> =
                (FIRST_CELL..row.len()).map(|at| self.settling.charset.cell(row.get(at))).collect();
            claimed.found += 1;
            let key = text(&cells, self.key);
            if order.admits(row.get(CLAIMED) == Some("t"), key) {
                let row = self.event(&row, &cells, claimed.found)?;
                self.monitor.took(row.committed_at_us);
                let number = match self.rows.publish(&row).await {
                    Ok(sent) => sent.number,
                    // Others have other topics.
                    Err(error) if error.is_of_topic() => {
                        order.hold(key);
                        claimed.broken.get_or_insert(error);
                        continue;
                    }
                    Err(error) => {
                        claimed.broken = Some(error);
                        break;
                    }
                };
                let id = text(&cells, self.id).map(|id| self.settling.charset.literal(id));
                claimed.sent.push(SentRow { id, key: key.cloned(), number });
            }
        }
        claimed.has_locked = order.has_locked;
        Ok(claimed)
    }

    /// A row as an event. When it committed nobody knows: its own time stands
    /// for that, or else the time of the claim.
    fn event(
        &self,
        row: &SimpleQueryRow,
        cells: &[Cell],
        number: u32,
    ) -> Result<OutboxRow, RelayError> {
        let occurred_at = self.time.and_then(|at| text(cells, at));
        let now_us = || row.get(NOW_US).and_then(|now| now.parse().ok()).unwrap_or_default();
        let (values, unreadable) = self.layout.values(cells, &self.settling.charset)?;
        Ok(OutboxRow {
            // Only its place among the claimed ones.
            position: Position { commit_lsn: Lsn::ZERO, ordinal: number },
            committed_at_us: occurred_at
                .and_then(|time| moment_ms(time)?.checked_mul(1000))
                .unwrap_or_else(now_us),
            values,
            unreadable,
        })
    }

    fn failed(&self) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        self.settling.failed()
    }
}

/// The ids of the rows that Kafka has, but for those behind one of their key that it
/// has not: they go out again, behind it.
fn acknowledged(sent: Vec<SentRow>, undelivered: &HashSet<usize>) -> Vec<String> {
    let mut order = Order::default();
    let is_done =
        |row: &SentRow| order.admits(!undelivered.contains(&row.number), row.key.as_ref());
    sent.into_iter().filter(is_done).filter_map(|row| row.id).collect()
}

fn text(cells: &[Cell], at: usize) -> Option<&Bytes> {
    match &cells[at] {
        Cell::Text(text) => Some(text),
        Cell::Null | Cell::Unchanged => None,
    }
}
