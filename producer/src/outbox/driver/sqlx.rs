use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool, PgTransaction};

use super::{Insert, OutboxError, Rows};
use crate::outbox::{OutboxDatabase, OutboxTransaction};

/// Prepared as the connection's options say.
async fn insert<'c>(
    executor: impl PgExecutor<'c>,
    sql: &Arc<str>,
    rows: Rows<'_>,
) -> Result<(), OutboxError> {
    // Every name in it is quoted, and every value a parameter.
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
        .bind(rows.ids)
        .bind(rows.aggregate_types)
        .bind(rows.aggregate_ids)
        .bind(rows.event_types)
        .bind(rows.payloads)
        .bind(rows.occurred_at)
        .bind(rows.schema_versions)
        .bind(rows.traceparents)
        .execute(executor)
        .await?;
    Ok(())
}

impl Insert for &mut PgConnection {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(self, sql, rows).await
    }
}

impl Insert for &mut PgTransaction<'_> {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(&mut **self, sql, rows).await
    }
}

impl Insert for &PgPool {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(self, sql, rows).await
    }
}

impl OutboxTransaction for &mut PgConnection {}
impl OutboxTransaction for &mut PgTransaction<'_> {}
impl OutboxDatabase for &PgPool {}
