//! The table, as the snapshot sees it: connections and statements.

use std::{pin::Pin, time::Duration};

use futures_util::StreamExt;
use outpour_schemas::{Lsn, OutboxTable, config::Config};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use super::{
    SnapshotError,
    select::{STREAMED, Select},
};
use crate::{
    postgres::{PostgresError, Target},
    sql::{legible, legible_table},
    wal::{
        charset::Charset,
        mark,
        pgoutput::{Cell, Relation},
        table,
    },
};

/// Two connections: the one that reads the table keeps a transaction open that
/// must not write, and the marks in the log are the other one's.
pub(super) struct Source {
    reader: Client,
    marker: Client,
    target: Target,
    outbox: OutboxTable,
}

/// A transaction that may have committed without being visible yet.
struct Unsettled {
    xid: String,
    holder: String,
}

impl Source {
    /// # Errors
    /// When the database refuses, or what is needed is not granted.
    pub(super) async fn open(target: &Target, config: &Config) -> Result<Self, SourceError> {
        let source = Source {
            reader: target.connect().await?,
            marker: target.connect().await?,
            target: target.clone(),
            outbox: config.outbox.clone(),
        };
        source.prepare_connections().await.map_err(target.failed("preparing the snapshot"))?;
        source.check_grants(config).await?;
        Ok(source)
    }

    async fn prepare_connections(&self) -> Result<(), tokio_postgres::Error> {
        // Nothing that it commits outlives the connection.
        self.reader.batch_execute("SET synchronous_commit = local").await
    }

    async fn check_grants(&self, config: &Config) -> Result<(), SourceError> {
        let (schema, table) = self.outbox.qualified();
        let row = self
            .reader
            .query_one(
                "SELECT has_table_privilege(outbox, 'SELECT'),
                        has_database_privilege(current_database(), 'TEMPORARY'),
                        row_security_active(outbox)
                 FROM CAST(to_regclass(format('%I.%I', $1::text, $2::text)) AS oid) AS outbox",
                &[&schema, &table],
            )
            .await
            .map_err(self.target.failed("reading privileges"))?;
        let missing = |what| SnapshotError::NotGranted { what, user: self.target.user.clone() };
        if row.get::<_, Option<bool>>(0) != Some(true) {
            return Err(
                missing(format!("SELECT ON {}", legible_table(&config.outbox.table))).into()
            );
        }
        if !row.get::<_, bool>(1) {
            return Err(missing(format!(
                "TEMPORARY ON DATABASE {}",
                legible(&self.target.database)
            ))
            .into());
        }
        if row.get::<_, Option<bool>>(2) == Some(true) {
            let (table, user) = (config.outbox.table.clone(), self.target.user.clone());
            return Err(SnapshotError::RowSecurity { table, user }.into());
        }
        Ok(())
    }

    /// Waits until everything that committed before now is visible.
    ///
    /// A transaction is in the log a moment before others see it, or for long if
    /// it waits for a standby. One from before the slot is in neither the stream
    /// nor the table then. Hence all that are under way now have to end, but for
    /// those that wait for their client: they have not begun to commit, so that
    /// the slot will have them.
    pub(super) async fn settle(&self) -> Result<(), PostgresError> {
        const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
        const TELL_AFTER: u32 = 5;
        let mut waited_for = self.unsettled().await?;
        let mut pause = PAUSES.0;
        let mut polls = 0;
        while let Some(first) = waited_for.first() {
            polls += 1;
            if pause == PAUSES.1 && polls % TELL_AFTER == 0 {
                tracing::info!(
                    transactions = waited_for.len(),
                    holder = first.holder,
                    "snapshot waits for transactions under way to end"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            let now = self.unsettled().await?;
            waited_for.retain(|one| now.iter().any(|other| other.xid == one.xid));
        }
        Ok(())
    }

    async fn unsettled(&self) -> Result<Vec<Unsettled>, PostgresError> {
        // Transactions of other databases cannot have written to the table. The
        // state of another user's session may be hidden: it counts as at work.
        let rows = self
            .reader
            .query(
                "SELECT backend_xid::text, format('backend %s', pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND backend_xid IS NOT NULL
                   AND coalesce(state, '') NOT LIKE 'idle in transaction%'
                 UNION ALL
                 SELECT transaction::text, format('prepared transaction %L', gid)
                 FROM pg_prepared_xacts WHERE database = current_database()",
                &[],
            )
            .await
            .map_err(self.target.failed("looking for transactions under way"))?;
        let unsettled =
            |row: &tokio_postgres::Row| Unsettled { xid: row.get(0), holder: row.get(1) };
        Ok(rows.iter().map(unsettled).collect())
    }

    /// The columns of the table that `is_wanted`, with their types.
    pub(super) async fn columns(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Relation, PostgresError> {
        table::columns(&self.reader, &self.target, &self.outbox, is_wanted).await
    }

    /// What the publication leaves out; servers before 15 know no such thing.
    pub(super) async fn filter(&self, publication: &str) -> Result<Option<String>, PostgresError> {
        let (schema, table) = self.outbox.qualified();
        let row = self
            .reader
            .query_opt(
                "SELECT to_jsonb(t) ->> 'rowfilter' FROM pg_publication_tables t
                 WHERE pubname = $1 AND schemaname = $2 AND tablename = $3",
                &[&publication, &schema, &table],
            )
            .await
            .map_err(self.target.failed("reading the publication"))?;
        Ok(row.and_then(|row| row.get(0)))
    }

    pub(super) async fn has_rows(&self, table: &str) -> Result<bool, PostgresError> {
        let row = self
            .reader
            .query_one(&format!("SELECT EXISTS (SELECT FROM {table})"), &[])
            .await
            .map_err(self.target.failed("reading the outbox"))?;
        Ok(row.get(0))
    }

    /// Writes a mark to the log, behind everything that the reader sees.
    pub(super) async fn mark(&self) -> Result<Lsn, PostgresError> {
        mark::write(&self.marker, &self.target).await
    }

    /// Makes the place for [`Self::remember`].
    pub(super) async fn create_streamed(&self) -> Result<(), PostgresError> {
        self.run(&format!("CREATE TEMPORARY TABLE {STREAMED} (id text)")).await
    }

    /// Keeps ids that the stream has, on the server: there may be millions.
    pub(super) async fn remember(&self, ids: &[String]) -> Result<(), PostgresError> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = format!("INSERT INTO {STREAMED} SELECT unnest($1::text[])");
        let inserted = self.reader.execute(&sql, &[&ids]).await;
        inserted.map(drop).map_err(self.target.failed("remembering streamed ids"))
    }

    /// From here on the reader sees the table as it is now. Returns the time, in
    /// microseconds since the Unix epoch.
    pub(super) async fn freeze(&self) -> Result<i64, PostgresError> {
        self.run(&format!("ANALYZE {STREAMED}")).await?;
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The first query takes the snapshot.
        let row = self
            .reader
            .query_one("SELECT (extract(epoch FROM now()) * 1000000)::bigint", &[])
            .await
            .map_err(self.target.failed("taking a snapshot"))?;
        Ok(row.get(0))
    }

    /// Begins to read. Rows come as fast as they are taken.
    pub(super) async fn rows(
        self,
        select: &Select,
        after: Option<&super::Place>,
    ) -> Result<Rows, PostgresError> {
        let stream = self
            .reader
            .simple_query_raw(&select.sql(after))
            .await
            .map_err(self.target.failed("reading the outbox"))?;
        Ok(Rows { stream: Box::pin(stream), charset: select.charset.clone(), source: self })
    }

    async fn run(&self, sql: &str) -> Result<(), PostgresError> {
        self.reader.batch_execute(sql).await.map_err(self.target.failed("preparing the snapshot"))
    }
}

/// The table's rows on their way.
pub(super) struct Rows {
    /// The simple protocol: every value as the text that the log has of it.
    stream: Pin<Box<SimpleQueryStream>>,
    charset: Charset,
    source: Source,
}

impl Rows {
    /// The cells of the next row; `None` after the last.
    ///
    /// Cancellation: may be dropped at its await without losing a row.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Cell>>, PostgresError> {
        loop {
            match self.stream.next().await {
                None => return Ok(None),
                Some(Ok(SimpleQueryMessage::Row(row))) => return Ok(Some(self.cells(&row))),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(self.source.target.failed("reading the outbox")(error));
                }
            }
        }
    }

    fn cells(&self, row: &SimpleQueryRow) -> Vec<Cell> {
        (0..row.len()).map(|at| self.charset.cell(row.get(at))).collect()
    }
}

/// Why the table could not be prepared for reading.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}
