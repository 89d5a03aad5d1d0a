//! Old partitions, which go as a whole.
//!
//! ```text
//! comment ─▶ wait for Kafka ─▶ detach ─▶ wait for Kafka ─▶ drop
//! ```
//!
//! Once detached, a partition takes no more events, so that the second wait is
//! for the last of them. The comment is how a relay that was stopped in between
//! finds again what it has detached.

use tokio_postgres::{Client, error::SqlState};

use super::{Retention, RetentionError, Shape};
use crate::sql::{literal, quoted};

impl Retention {
    pub(super) async fn remove_partitions(
        &mut self,
        client: &Client,
        shape: &Shape,
    ) -> Result<(), RetentionError> {
        let root = format!("{}.{}", quoted(&self.schema), quoted(&self.table));
        let note = literal(&format!("outpour: expired partition of {root}"));
        let old = self.old_partitions(client, shape).await?;
        for (partition, is_pending) in old {
            self.execute(client, &format!("COMMENT ON TABLE {partition} IS {note}")).await?;
            self.published_so_far(client).await?;
            self.detach(client, &root, &partition, is_pending).await?;
        }
        let detached = self.detached_partitions(client, &note).await?;
        if detached.is_empty() {
            return Ok(());
        }
        self.published_so_far(client).await?;
        for partition in detached {
            self.execute_in_time(client, &format!("DROP TABLE {partition}")).await?;
            tracing::info!(partition, "old partition of the outbox removed");
        }
        Ok(())
    }

    /// Partitions whose whole range is old, and whether somebody began to detach
    /// them.
    async fn old_partitions(
        &self,
        client: &Client,
        shape: &Shape,
    ) -> Result<Vec<(String, bool)>, RetentionError> {
        // Of its own first, so that no bound of another table is taken for a time.
        let sql = format!(
            "WITH part AS MATERIALIZED (
                 SELECT format('%I.%I', pn.nspname, part.relname) AS name,
                        coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false) AS pending,
                        substring(pg_get_expr(part.relpartbound, part.oid)
                                  FROM 'TO \\(''([^'']*)''\\)$') AS upper_bound
                 FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_inherits i ON i.inhparent = c.oid
                 JOIN pg_class part ON part.oid = i.inhrelid
                 JOIN pg_namespace pn ON pn.oid = part.relnamespace
                 WHERE n.nspname = $1 AND c.relname = $2)
             SELECT name, pending FROM part
             WHERE upper_bound::{} <= (now() - make_interval(secs => {}))::{}
             ORDER BY upper_bound::{}",
            shape.time_type,
            self.keep_for.as_secs_f64(),
            shape.time_type,
            shape.time_type
        );
        let rows = client.query(&sql, &[&self.schema, &self.table]).await.map_err(self.failed())?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn detach(
        &self,
        client: &Client,
        root: &str,
        partition: &str,
        is_pending: bool,
    ) -> Result<(), RetentionError> {
        let detach = format!("ALTER TABLE {root} DETACH PARTITION {partition}");
        if is_pending {
            return self.execute(client, &format!("{detach} FINALIZE")).await;
        }
        match client.batch_execute(&format!("{detach} CONCURRENTLY")).await {
            Ok(()) => Ok(()),
            // Beside a default partition this way cannot be gone.
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                self.execute_in_time(client, &detach).await
            }
            Err(error) => Err(self.failed()(error).into()),
        }
    }

    async fn detached_partitions(
        &self,
        client: &Client,
        note: &str,
    ) -> Result<Vec<String>, RetentionError> {
        let sql = format!(
            "SELECT format('%I.%I', nspname, relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE obj_description(c.oid, 'pg_class') = {note}
               AND NOT c.relispartition AND c.relkind IN ('r', 'p')"
        );
        let rows = client.query(&sql, &[]).await.map_err(self.failed())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn execute(&self, client: &Client, sql: &str) -> Result<(), RetentionError> {
        Ok(client.batch_execute(sql).await.map_err(self.failed())?)
    }

    /// The same for what keeps out everybody while it waits for a lock, services
    /// that write events among them: rather later than for long.
    async fn execute_in_time(&self, client: &Client, sql: &str) -> Result<(), RetentionError> {
        self.execute(client, &format!("BEGIN; SET LOCAL lock_timeout = '2s'; {sql}; COMMIT")).await
    }
}
