//! The one call a service makes: append an event to the outbox, inside its own
//! transaction.
//!
//! The event is in the outbox exactly when that transaction commits. The call
//! talks to the database that the service talks to anyway, and to nothing else,
//! so no trouble of Kafka or ClickHouse can reach the service.
//!
//! ```no_run
//! use outpour_producer::Outbox;
//! use outpour_schemas::{Event, Money};
//!
//! #[derive(serde::Serialize)]
//! struct OrderPlaced { order_id: i64, total: Money }
//!
//! impl Event for OrderPlaced {
//!     const AGGREGATE_TYPE: &'static str = "order";
//!     fn aggregate_id(&self) -> String { self.order_id.to_string() }
//! }
//!
//! async fn place(
//!     client: &mut tokio_postgres::Client,
//!     outbox: &Outbox,
//!     event: OrderPlaced,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let tx = client.transaction().await?;
//!     tx.execute("INSERT INTO orders (id) VALUES ($1)", &[&event.order_id]).await?;
//!     outbox.append(&tx, &event).await?;
//!     tx.commit().await?;
//!     Ok(())
//! }
//! ```

use outpour_schemas::{Envelope, EnvelopeError, Event, OutboxTable};
use tokio_postgres::{Transaction, types::Type};
use uuid::Uuid;

use crate::sql::quoted;

/// An outbox table, ready to be written to. Cheap to share; make it once.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
}

/// Why an event was not appended. The caller's transaction is unusable after a
/// database error, as after any failed statement.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("cannot append to the outbox")]
    Database(#[from] tokio_postgres::Error),
}

impl Default for Outbox {
    /// The table `public.outbox` that `outpour-relay init` creates.
    fn default() -> Self {
        Outbox::of(&OutboxTable::default())
    }
}

impl Outbox {
    /// The outbox in `table`, with its column names.
    #[must_use]
    pub fn of(table: &OutboxTable) -> Self {
        let (schema, name) = table.qualified();
        // The occurrence time falls back to the database's clock row by row.
        let insert = format!(
            "INSERT INTO {}.{} ({}, {}, {}, {}, {}, {}, {}, {}) \
             SELECT id, aggregate_type, aggregate_id, type, payload::jsonb, \
                    coalesce(occurred_at, clock_timestamp()), schema_version, traceparent \
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) \
               AS event (id, aggregate_type, aggregate_id, type, payload, \
                         occurred_at, schema_version, traceparent)",
            quoted(schema),
            quoted(name),
            quoted(&table.column_id),
            quoted(&table.column_aggregate_type),
            quoted(&table.column_aggregate_id),
            quoted(&table.column_type),
            quoted(&table.column_payload),
            quoted(&table.column_occurred_at),
            quoted(&table.column_schema_version),
            quoted(&table.column_traceparent),
        );
        Outbox { insert }
    }

    /// Appends `event` inside `tx` and returns its id.
    ///
    /// # Errors
    /// When the event cannot be written as JSON, or the database refuses it.
    pub async fn append<E: Event>(
        &self,
        tx: &Transaction<'_>,
        event: &E,
    ) -> Result<Uuid, OutboxError> {
        let envelope = Envelope::of(event)?;
        let id = envelope.id;
        self.append_all(tx, std::slice::from_ref(&envelope)).await?;
        Ok(id)
    }

    /// Appends prepared rows in their order, in one round trip.
    ///
    /// # Errors
    /// When a row is invalid, before any is written, or the database refuses one.
    pub async fn append_all(
        &self,
        tx: &Transaction<'_>,
        rows: &[Envelope],
    ) -> Result<(), OutboxError> {
        rows.iter().try_for_each(Envelope::validate)?;
        let column = |of: fn(&Envelope) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let aggregate_types = column(|row| &row.aggregate_type);
        let aggregate_ids = column(|row| &row.aggregate_id);
        let event_types = column(|row| &row.event_type);
        let payloads: Vec<_> = rows.iter().map(Envelope::payload_text).collect();
        let times: Vec<_> = rows.iter().map(|row| row.occurred_at).collect();
        let versions: Vec<_> = rows.iter().map(|row| row.schema_version).collect();
        let traces: Vec<_> = rows.iter().map(|row| row.traceparent.as_deref()).collect();
        tx.query_typed(
            &self.insert,
            &[
                (&ids, Type::UUID_ARRAY),
                (&aggregate_types, Type::TEXT_ARRAY),
                (&aggregate_ids, Type::TEXT_ARRAY),
                (&event_types, Type::TEXT_ARRAY),
                (&payloads, Type::TEXT_ARRAY),
                (&times, Type::TIMESTAMPTZ_ARRAY),
                (&versions, Type::INT4_ARRAY),
                (&traces, Type::TEXT_ARRAY),
            ],
        )
        .await?;
        Ok(())
    }
}
