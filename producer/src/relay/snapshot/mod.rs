//! The rows that are older than the slot, once, before everything streamed.
//!
//! ```text
//!   slot, at p ──stream──▶ ids ──▶ temporary table ─┐
//!                                                   ▼
//!   outbox ──as of S── rows whose id is not there ─────▶ Router ──▶ Publisher
//!                                                                   + Checkpoint
//! ```
//!
//! The slot may be older than the relay, and anybody's, so that no snapshot was
//! exported with it. What belongs to the snapshot is found afterwards:
//!
//! 1. Everything that committed before p becomes visible ([`Source::settle`]).
//! 2. The reader takes a snapshot S of the database, and a mark is written to
//!    the log behind it. Whatever S shows committed before the mark.
//! 3. The stream is read from p to the mark, without publishing and without
//!    confirming. A row of S that committed after p is in it, and one from before
//!    p is not. So the rows of S whose ids the stream does not have are those from
//!    before p, all of them and no others. What the stream has is left to the
//!    stream, which also has what was deleted since, and the order of commits.
//! 4. They are published in the order of (`occurred_at`, id), page by page, each
//!    in one Kafka transaction with the checkpoint that names its last row.
//! 5. The session ends, and the next one streams from p.
//!
//! Rows are told apart by id and not by `xmin`: a row that was written under a
//! savepoint has the number of a subtransaction, which the stream does not tell,
//! and one that was updated since has that of the update.
//!
//! A relay that dies goes through all of it again, with another S, and goes on
//! behind the last row that was published. The rows from before p only ever
//! become fewer, since nothing is added to what has passed; and p stays, because
//! nothing is confirmed before the snapshot is done.
//!
//! S is taken after the bulk of the stream has been read, as it holds back the
//! cleaning of dead rows in the whole database for as long as it is kept.

mod select;
mod source;
mod state;

use std::time::{Duration, Instant};

use bytes::Bytes;
use outpour_schemas::{Lsn, config::Config};
use tokio_util::sync::CancellationToken;

pub(super) use self::state::decide;
pub use self::state::{Place, Snapshot, SnapshotProgress, TimePlace};
use self::{
    select::Select,
    source::{Rows, Source, SourceError},
};
use super::{Checkpoint, Ended, Limits, Router, moment_ms, session::Session};
use crate::{
    error::RelayError,
    postgres::Target,
    sql::{legible, quoted},
    wal::{
        WalEvent, oid,
        pgoutput::Cell,
        row::OutboxRow,
        transaction::{Layout, Progress},
    },
};

/// What keeps the rows older than the slot from being published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error(
        "the snapshot of the outbox needs a privilege; run: GRANT {what} TO {}, \
         or set relay.snapshot = \"never\" to leave out rows older than the slot",
        legible(.user)
    )]
    NotGranted { what: String, user: String },
    #[error(
        "row-level security hides rows of {table} from user `{user}`, and the snapshot takes all \
         of them; run: ALTER ROLE {} BYPASSRLS, or set relay.snapshot = \"never\" to leave out \
         rows older than the slot",
        legible(.user)
    )]
    RowSecurity { table: String, user: String },
    #[error(
        "a row of {table} has no {column}, by which the snapshot tells rows apart; \
         delete it, or set relay.snapshot = \"never\""
    )]
    NoId { table: String, column: String },
    #[error(
        "the snapshot of {table} was begun in the order of column `{column}`, which is gone or no \
         time any more; give the column its name back until the snapshot is done, or set \
         relay.snapshot = \"never\" to leave out the rest of the rows older than the slot"
    )]
    NoOrder { table: String, column: String },
}

impl From<SourceError> for RelayError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Postgres(error) => error.into(),
            SourceError::Snapshot(error) => error.into(),
        }
    }
}

/// Publishes them, or goes on doing so, until done or told to stop.
///
/// # Errors
/// When either side fails. What the checkpoint says stays true.
pub(super) async fn take(
    mut session: Session,
    config: &Config,
    target: &Target,
    stop: &CancellationToken,
) -> Result<Ended, RelayError> {
    let reading = tokio::select! {
        () = stop.cancelled() => None,
        reading = Reading::begin(&mut session, config, target) => reading?,
    };
    let ended = match reading {
        _ if stop.is_cancelled() => Ended::Stopped,
        None => Ended::SnapshotTaken,
        Some(mut reading) => publish(&mut session, &mut reading, config, stop).await?,
    };
    let mut snapshot = started(&session);
    match ended {
        Ended::Stopped => tracing::info!(rows = snapshot.rows, "snapshot interrupted"),
        Ended::SnapshotTaken => {
            snapshot.done = true;
            tracing::info!(rows = snapshot.rows, "snapshot done");
            commit(&mut session, snapshot).await?;
        }
    }
    session.wal.close().await;
    Ok(ended)
}

/// The table's rows, with what is needed to make events of them.
struct Reading {
    rows: Rows,
    layout: Layout,
    /// Where the id and the time are among the cells.
    id: usize,
    time: Option<usize>,
    select: Select,
    /// Microseconds since the Unix epoch.
    now_us: i64,
}

impl Reading {
    /// `None` if the table is empty.
    async fn begin(
        session: &mut Session,
        config: &Config,
        target: &Target,
    ) -> Result<Option<Self>, RelayError> {
        let source = Source::open(target, config).await?;
        source.settle().await?;
        let (schema, table) = config.outbox.qualified();
        let table = format!("{}.{}", quoted(schema), quoted(table));
        let after = started(session).after;
        if after.is_none() && !source.has_rows(&table).await? {
            return Ok(None);
        }
        // Where a snapshot was begun, its order stays.
        let time = match &after {
            Some(place) => place.time.as_ref().map(|time| time.column.clone()),
            None => Some(config.outbox.column_occurred_at.clone()),
        };
        let wanted = session.rows.wanted();
        let relation = source
            .columns(|name| {
                wanted.iter().any(|wanted| wanted.column == name) || time.as_deref() == Some(name)
            })
            .await?;
        let layout = Layout::of(&relation, wanted).fit()?;
        let position = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let orders = |at: &usize| {
            [oid::TIMESTAMP, oid::TIMESTAMPTZ, oid::INT8].contains(&relation.columns[*at].type_oid)
        };
        let time_at = time.as_deref().and_then(position).filter(orders);
        if let Some(TimePlace { column, .. }) = after.as_ref().and_then(|place| place.time.as_ref())
            && time_at.is_none()
        {
            let column = column.clone();
            return Err(SnapshotError::NoOrder { table, column }.into());
        }
        let charset = session.charset.clone();
        let select = Select {
            table,
            columns: relation.columns.iter().map(|column| column.name.clone()).collect(),
            id: config.outbox.column_id.clone(),
            time: time.filter(|_| time_at.is_some()),
            filter: source.filter(&config.relay.publication).await?,
            charset,
        };
        let now_us = collect(session, &source).await?;
        Ok(Some(Reading {
            // The layout has made sure that there is such a column.
            id: position(&config.outbox.column_id).unwrap_or_default(),
            time: time_at,
            rows: source.rows(&select, after.as_ref()).await?,
            layout,
            select,
            now_us,
        }))
    }

    fn text(cells: &[Cell], at: usize) -> Option<&Bytes> {
        match &cells[at] {
            Cell::Text(text) => Some(text),
            Cell::Null | Cell::Unchanged => None,
        }
    }

    /// A row as an event, and its place in the order; none if its id is no text,
    /// which no query could name. When it committed is not known any more: its own
    /// time stands for that.
    fn event(
        &self,
        cells: &[Cell],
        snapshot: &Snapshot,
    ) -> Result<(OutboxRow, Option<Place>), RelayError> {
        let charset = &self.select.charset;
        let owned = |text: &Bytes| {
            let text = charset.decode(text)?;
            Some(String::from_utf8_lossy(&text).into_owned())
        };
        let id = Self::text(cells, self.id).ok_or_else(|| SnapshotError::NoId {
            table: self.select.table.clone(),
            column: self.select.id.clone(),
        })?;
        let time = self.time.and_then(|at| Self::text(cells, at));
        let occurred_at_us = time.and_then(|time| moment_ms(time)?.checked_mul(1000));
        let (values, unreadable) = self.layout.values(cells, charset)?;
        let row = OutboxRow {
            position: snapshot.next_position(),
            committed_at_us: occurred_at_us.unwrap_or(self.now_us),
            values,
            unreadable,
        };
        let time = self
            .select
            .time
            .clone()
            .map(|column| TimePlace { column, value: time.and_then(owned) });
        Ok((row, owned(id).map(|id| Place { id, time })))
    }
}

/// Reads the stream to where the snapshot of the database is, and leaves the
/// ids that it has with `source`. Returns the snapshot's time, in microseconds
/// since the Unix epoch.
async fn collect(session: &mut Session, source: &Source) -> Result<i64, RelayError> {
    /// So few rows are read in no time.
    const FEW: usize = 10_000;
    /// Writers faster than the relay would otherwise keep it here for ever.
    const MOST_ROUNDS: usize = 10;
    source.create_streamed().await?;
    let mut streamed = 0;
    for _ in 0..MOST_ROUNDS {
        let mark = source.mark().await?;
        let found = collect_to(session, source, mark).await?;
        streamed += found;
        if found < FEW {
            break;
        }
    }
    let now_us = source.freeze().await?;
    let mark = source.mark().await?;
    streamed += collect_to(session, source, mark).await?;
    tracing::info!(streamed, up_to = %mark, "snapshot of the outbox taken");
    Ok(now_us)
}

/// Reads the stream to `mark`; returns how many rows there were.
async fn collect_to(
    session: &mut Session,
    source: &Source,
    mark: Lsn,
) -> Result<usize, RelayError> {
    const AT_ONCE: usize = 10_000;
    let mut ids = Vec::new();
    let mut found = 0;
    loop {
        let event = session.wal.next().await?.ok_or(RelayError::StreamEnded)?;
        // Transactions come in the order of their commits, so that one which
        // committed behind the mark comes after all from before it.
        let is_behind = matches!(event, WalEvent::Begin { commit_lsn, .. } if commit_lsn >= mark);
        let has_passed = match session.progress(event).await? {
            Progress::Row(row) | Progress::Unfit { row, .. } => {
                ids.extend(Router::id(&row).map(|id| String::from_utf8_lossy(id).into_owned()));
                found += 1;
                false
            }
            Progress::Committed { end_lsn } => end_lsn >= mark,
            Progress::CaughtUp { wal_end } => wal_end >= mark,
            // What is none of the table's rows is none of the snapshot's either.
            Progress::Updated { .. }
            | Progress::InvalidMessage(_)
            | Progress::NonTransactional
            | Progress::OtherPrefix { .. }
            | Progress::Stranger { .. }
            | Progress::Nothing => is_behind,
        };
        if has_passed || ids.len() >= AT_ONCE {
            source.remember(&ids).await?;
            ids.clear();
        }
        if has_passed {
            return Ok(found);
        }
    }
}

/// Publishes page by page until the rows end.
async fn publish(
    session: &mut Session,
    reading: &mut Reading,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Ended, RelayError> {
    /// A page waits no longer for rows: Kafka ends transactions that stay open.
    const PATIENCE: Duration = Duration::from_secs(1);
    const TELL_EVERY: Duration = Duration::from_secs(10);
    let limits = Limits::from(&config.relay);
    let mut told_at = Instant::now();
    let mut snapshot = started(session);
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => break,
            next = tokio::time::timeout(PATIENCE, reading.rows.next()) => next,
        };
        let is_due = match next {
            Ok(next) => {
                let Some(cells) = next? else { break };
                let (row, place) = reading.event(&cells, &snapshot)?;
                bytes += session.rows.publish(&row).await?.bytes;
                rows += 1;
                snapshot.rows += 1;
                snapshot.after = place.or(snapshot.after);
                rows >= limits.rows || bytes >= limits.bytes
            }
            Err(_) => rows > 0,
        };
        if is_due {
            commit(session, snapshot.clone()).await?;
            (rows, bytes) = (0, 0);
        }
        if told_at.elapsed() >= TELL_EVERY {
            told_at = Instant::now();
            tracing::info!(rows = snapshot.rows, "snapshot in progress");
        }
    }
    if rows > 0 {
        commit(session, snapshot).await?;
    }
    Ok(if stop.is_cancelled() { Ended::Stopped } else { Ended::SnapshotTaken })
}

fn started(session: &Session) -> Snapshot {
    session.ledger.committed().snapshot.clone().unwrap_or_default()
}

/// Makes a page visible, with the checkpoint that says so.
async fn commit(session: &mut Session, snapshot: Snapshot) -> Result<(), RelayError> {
    let committed = session.ledger.committed();
    let checkpoint = Checkpoint {
        snapshot: Some(snapshot),
        sequence: committed.sequence + 1,
        ..committed.clone()
    };
    session.rows.commit(&checkpoint).await?;
    session.ledger.commit(checkpoint, Instant::now());
    Ok(())
}
