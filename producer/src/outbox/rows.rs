//! Envelopes as the parameters of one INSERT: an array for each column. Pure.

use outpour_schemas::{Envelope, EnvelopeError, OutboxTable};
use uuid::Uuid;

use crate::sql::quoted;

/// The columns of a row: what the table calls each, what it is called among the
/// parameters, and what is written to it.
fn columns(table: &OutboxTable) -> [(&str, &'static str, &'static str); 8] {
    [
        (&table.column_id, "id", "id"),
        (&table.column_aggregate_type, "aggregate_type", "aggregate_type"),
        (&table.column_aggregate_id, "aggregate_id", "aggregate_id"),
        (&table.column_type, "type", "type"),
        (&table.column_payload, "payload", "payload::jsonb"),
        (
            &table.column_occurred_at,
            "occurred_at",
            // The occurrence time falls back to the database's clock row by row.
            "coalesce(occurred_at::timestamptz, clock_timestamp())",
        ),
        (&table.column_schema_version, "schema_version", "schema_version"),
        (&table.column_traceparent, "traceparent", "traceparent"),
    ]
}

/// The same for both drivers and for any number of rows, so that a server
/// prepares it once. Columns that are not `written` get their default.
pub(super) fn insert_into(table: &OutboxTable, written: impl Fn(&str) -> bool) -> String {
    let (schema, name) = table.qualified();
    let columns = columns(table);
    let written = || columns.iter().filter(|(column, ..)| written(column));
    let names: Vec<_> = written().map(|(column, ..)| quoted(column)).collect();
    let values: Vec<_> = written().map(|(.., value)| *value).collect();
    format!(
        "INSERT INTO {}.{} ({}) SELECT {} \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
                     $7::int[], $8::text[]) \
           AS event ({})",
        quoted(schema),
        quoted(name),
        names.join(", "),
        values.join(", "),
        columns.map(|(_, parameter, _)| parameter).join(", "),
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
