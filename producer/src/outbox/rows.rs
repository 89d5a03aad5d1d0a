//! Envelopes as the parameters of one INSERT: an array for each column. Pure.

use outpour_schemas::{Envelope, EnvelopeError, OutboxTable};
use uuid::Uuid;

use crate::sql::quoted;

/// The same for both drivers and for any number of rows, so that a server
/// prepares it once.
pub(super) fn insert_into(table: &OutboxTable) -> String {
    let (schema, name) = table.qualified();
    // The occurrence time falls back to the database's clock row by row.
    format!(
        "INSERT INTO {}.{} ({}, {}, {}, {}, {}, {}, {}, {}) \
         SELECT id, aggregate_type, aggregate_id, type, payload::jsonb, \
                coalesce(occurred_at::timestamptz, clock_timestamp()), schema_version, traceparent \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
                     $7::int[], $8::text[]) \
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
    )
}

/// Valid rows, column by column.
pub struct Rows<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) aggregate_types: Vec<&'a str>,
    pub(super) aggregate_ids: Vec<&'a str>,
    pub(super) event_types: Vec<&'a str>,
    pub(super) payloads: Vec<Option<&'a str>>,
    /// As text, which either driver has a type for.
    pub(super) occurred_at: Vec<Option<String>>,
    pub(super) schema_versions: Vec<i32>,
    pub(super) traceparents: Vec<Option<&'a str>>,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// When PostgreSQL or Kafka would refuse one of them.
    pub(super) fn of(rows: &'a [Envelope]) -> Result<Self, EnvelopeError> {
        rows.iter().try_for_each(Envelope::validate)?;
        let text = |of: fn(&Envelope) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        Ok(Rows {
            ids: rows.iter().map(|row| row.id).collect(),
            aggregate_types: text(|row| &row.aggregate_type),
            aggregate_ids: text(|row| &row.aggregate_id),
            event_types: text(|row| &row.event_type),
            payloads: rows.iter().map(Envelope::payload_text).collect(),
            occurred_at: rows.iter().map(Envelope::occurred_at_text).collect(),
            schema_versions: rows.iter().map(|row| row.schema_version).collect(),
            traceparents: rows.iter().map(|row| row.traceparent.as_deref()).collect(),
        })
    }
}
