use std::sync::Arc;

use tokio_postgres::{Client, GenericClient, Transaction, types::Type};

use super::{Insert, OutboxError, Rows};
use crate::outbox::{OutboxDatabase, OutboxTransaction};

/// Unprepared and with its types, which takes one round trip and leaves nothing
/// behind in the connection: a pooler may hand it to anybody next.
async fn insert(
    client: &(impl GenericClient + Sync),
    sql: &str,
    rows: Rows<'_>,
) -> Result<(), OutboxError> {
    client
        .execute_typed(
            sql,
            &[
                (&rows.ids, Type::UUID_ARRAY),
                (&rows.aggregate_types, Type::TEXT_ARRAY),
                (&rows.aggregate_ids, Type::TEXT_ARRAY),
                (&rows.event_types, Type::TEXT_ARRAY),
                (&rows.payloads, Type::TEXT_ARRAY),
                (&rows.occurred_at, Type::TEXT_ARRAY),
                (&rows.schema_versions, Type::INT4_ARRAY),
                (&rows.traceparents, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(())
}

impl Insert for &Transaction<'_> {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(self, sql, rows).await
    }
}

impl Insert for &mut Transaction<'_> {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(&*self, sql, rows).await
    }
}

impl Insert for &Client {
    async fn insert(self, sql: &Arc<str>, rows: Rows<'_>) -> Result<(), OutboxError> {
        insert(self, sql, rows).await
    }
}

impl OutboxTransaction for &Transaction<'_> {}
impl OutboxTransaction for &mut Transaction<'_> {}
impl OutboxDatabase for &Client {}
