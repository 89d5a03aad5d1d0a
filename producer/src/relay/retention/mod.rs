//! Removing events from the outbox that are old and published.
//!
//! ```text
//! choose what is old ─▶ mark the log ─▶ wait until Kafka has everything before
//!                                       the mark ─▶ remove what was chosen
//! ```
//!
//! What was seen before the mark committed before it, so that nothing is removed
//! that Kafka does not have: not even an event that claims to be old but has only
//! just been written, and nothing at all while Kafka is away. (The log would have
//! it still. But the table is what an operator falls back on when a slot is lost.)
//!
//! It is a task of its own with connections of its own, and lives as long as its
//! session streams. Whatever fails is told, and tried again later.

mod partitions;

use std::time::Duration;

use outpour_schemas::{Lsn, config::Config, program::error_line};
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    postgres::{PostgresError, Target},
    sql::{legible, legible_table, quoted},
    wal::{mark, table::BASE_TYPE},
};

/// Chosen together, since each choice waits for a commit in Kafka.
const CHOSEN: i64 = 50_000;
/// Removed together: no row is locked for long.
const REMOVED_AT_ONCE: usize = 1_000;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After errors the pause doubles up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// Removes what is older than the configuration allows, until dropped. `published`
/// says up to where Kafka has everything.
pub(super) fn start(
    config: &Config,
    target: &Target,
    published: watch::Receiver<Lsn>,
) -> Option<AbortOnDropHandle<()>> {
    let keep_for = config.relay.retention?.0;
    if !config.outbox.has_table() {
        return None;
    }
    let retention = Retention {
        target: target.clone(),
        schema: config.outbox.qualified().0.to_owned(),
        table: config.outbox.qualified().1.to_owned(),
        id: config.outbox.column_id.clone(),
        time: config.outbox.column_occurred_at.clone(),
        keep_for,
        published,
    };
    Some(AbortOnDropHandle::new(tokio::spawn(retention.run())))
}

struct Retention {
    target: Target,
    schema: String,
    table: String,
    id: String,
    time: String,
    keep_for: Duration,
    published: watch::Receiver<Lsn>,
}

/// What the database says about the table, asked before every pass.
struct Shape {
    /// Whether old partitions can be taken out as a whole, and are ours to take.
    by_partition: bool,
    /// The table whose rows are removed one by one: a partition for what has no
    /// other, where partitions are taken out.
    rows_of: Option<String>,
    id_type: String,
    time_type: String,
}

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("table {table} has no column {column}, by which events grow old")]
    NoTime { table: String, column: String },
    #[error(
        "it needs a privilege; run: GRANT SELECT, DELETE ON {} TO {}",
        legible_table(.table), legible(.user)
    )]
    NotGranted { table: String, user: String },
    #[error(
        "{kept} old events of {table} are still there after DELETE: a trigger or a rule keeps them"
    )]
    Kept { kept: i64, table: String },
    #[error("the session has ended")]
    Ended,
}

impl Retention {
    async fn run(mut self) {
        let pause = (self.keep_for / 100).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut retry = pause;
        loop {
            match self.pass().await {
                Ok(()) => {
                    retry = pause;
                    tokio::time::sleep(pause).await;
                }
                Err(RetentionError::Ended) => return,
                Err(error) => {
                    tracing::warn!(
                        error = error_line(&error),
                        retry_in_s = retry.as_secs(),
                        "relay.retention removes nothing"
                    );
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Removes everything that is old now.
    async fn pass(&mut self) -> Result<(), RetentionError> {
        let client = self.target.connect().await?;
        let shape = self.shape(&client).await?;
        if shape.by_partition {
            self.remove_partitions(&client, &shape).await?;
        }
        if let Some(table) = &shape.rows_of {
            self.remove_rows(&client, table, &shape).await?;
        }
        Ok(())
    }

    async fn shape(&self, client: &Client) -> Result<Shape, RetentionError> {
        // DELETE on a partitioned table does for its partitions, but not for one
        // that is named itself.
        let shape = format!(
            "SELECT format_type(id.atttypid, id.atttypmod) AS id_type,
                   format_type(at.atttypid, at.atttypmod) AS time_type,
                   p.partrelid IS NOT NULL AND pg_has_role(c.relowner, 'USAGE') AS by_partition,
                   CASE WHEN p.partrelid IS NOT NULL AND pg_has_role(c.relowner, 'USAGE')
                        THEN (SELECT format('%I.%I', nspname, relname)
                              FROM pg_class d JOIN pg_namespace ON pg_namespace.oid = relnamespace
                              WHERE d.oid = p.partdefid)
                        ELSE format('%I.%I', n.nspname, c.relname) END AS rows_of,
                   has_table_privilege(c.oid, 'SELECT')
                     AND has_table_privilege(c.oid, 'DELETE') AS granted
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_attribute id ON id.attrelid = c.oid AND id.attname = $3
            LEFT JOIN (SELECT a.*, {BASE_TYPE} AS base_type FROM pg_attribute a) at
              ON at.attrelid = c.oid AND at.attname = $4 AND at.base_type
                 IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
            LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid AND p.partstrat = 'r'
              AND p.partnatts = 1 AND p.partattrs[0] = at.attnum
            WHERE n.nspname = $1 AND c.relname = $2"
        );
        let row = client
            .query_opt(&shape, &[&self.schema, &self.table, &self.id, &self.time])
            .await
            .map_err(self.failed())?;
        let named =
            |column: &str| row.as_ref().and_then(|row| row.get::<_, Option<String>>(column));
        let missing = |column: &String| RetentionError::NoTime {
            table: self.table.clone(),
            column: column.clone(),
        };
        let id_type = named("id_type").ok_or_else(|| missing(&self.id))?;
        let time_type = named("time_type").ok_or_else(|| missing(&self.time))?;
        let rows_of = named("rows_of");
        let is = |column: &str| row.as_ref().is_some_and(|row| row.get(column));
        let by_partition = is("by_partition");
        if !is("granted") && !by_partition {
            return Err(RetentionError::NotGranted {
                table: format!("{}.{}", self.schema, self.table),
                user: self.target.user.clone(),
            });
        }
        Ok(Shape { by_partition, rows_of, id_type, time_type })
    }

    async fn remove_rows(
        &mut self,
        client: &Client,
        table: &str,
        shape: &Shape,
    ) -> Result<(), RetentionError> {
        let (id, is_old) = (quoted(&self.id), self.is_old(&quoted(&self.time), shape));
        let choose =
            format!("SELECT format('%s', {id}) FROM {table} WHERE {is_old} LIMIT {CHOSEN}");
        let chosen_ones = format!("{id} = ANY($1::text[]::{}[]) AND {is_old}", shape.id_type);
        let remove = format!("DELETE FROM {table} WHERE {chosen_ones}");
        let count = format!("SELECT count(*) FROM {table} WHERE {chosen_ones}");
        loop {
            let chosen = client.query(&choose, &[]).await.map_err(self.failed())?;
            if chosen.is_empty() {
                return Ok(());
            }
            self.published_so_far(client).await?;
            let ids: Vec<String> = chosen.iter().map(|row| row.get(0)).collect();
            let mut removed = 0;
            for ids in ids.chunks(REMOVED_AT_ONCE) {
                removed += client.execute(&remove, &[&ids]).await.map_err(self.failed())?;
            }
            tracing::debug!(rows = removed, "old events removed from the outbox");
            if removed == ids.len() as u64 {
                continue;
            }
            // Somebody else may remove them, too.
            let kept = client.query_one(&count, &[&ids]).await.map_err(self.failed())?.get(0);
            if kept > 0 {
                return Err(RetentionError::Kept { kept, table: table.to_owned() });
            }
            if removed == 0 {
                // A row has no id.
                return Ok(());
            }
        }
    }

    /// Waits until Kafka has everything that committed before now.
    async fn published_so_far(&mut self, client: &Client) -> Result<(), RetentionError> {
        let mark = mark::write(client, &self.target).await?;
        let reached = self.published.wait_for(|published| *published >= mark).await;
        reached.map(drop).map_err(|_| RetentionError::Ended)
    }

    /// Whether a value of the time column's type is old, as a condition.
    fn is_old(&self, value: &str, shape: &Shape) -> String {
        format!(
            "{value} < (now() - make_interval(secs => {}))::{}",
            self.keep_for.as_secs_f64(),
            shape.time_type
        )
    }

    fn failed(&self) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        self.target.failed("removing old events")
    }
}
