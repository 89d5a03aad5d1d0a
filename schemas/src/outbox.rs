//! The outbox table, by name: what services write to and the relay reads.

use serde::{Deserialize, Serialize};

/// `[outbox]`: the table and its columns. The defaults are the table that
/// `outpour-relay init` creates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxTable {
    /// `schema.table`; empty if there is no table, and every event comes as a
    /// logical message.
    pub table: String,
    pub column_id: String,
    pub column_aggregate_type: String,
    pub column_aggregate_id: String,
    pub column_type: String,
    pub column_payload: String,
    pub column_occurred_at: String,
    pub column_schema_version: String,
    pub column_traceparent: String,
    /// When the row was published; `relay.poll_after = "mark"` alone uses it.
    pub column_published_at: String,
}

/// A name that PostgreSQL does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: `{name}` is not a PostgreSQL name of 1 to 63 bytes")]
pub struct NameError {
    pub key: &'static str,
    pub name: String,
}

impl Default for OutboxTable {
    fn default() -> Self {
        let name = str::to_owned;
        OutboxTable {
            table: name("public.outbox"),
            column_id: name("id"),
            column_aggregate_type: name("aggregatetype"),
            column_aggregate_id: name("aggregateid"),
            column_type: name("type"),
            column_payload: name("payload"),
            column_occurred_at: name("occurred_at"),
            column_schema_version: name("schema_version"),
            column_traceparent: name("traceparent"),
            column_published_at: name("published_at"),
        }
    }
}

impl OutboxTable {
    /// Whether there is a table at all.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.table.is_empty()
    }

    /// Schema and table name. Without a table the schema is `public`, which is
    /// where the function is that writes messages.
    #[must_use]
    pub fn qualified(&self) -> (&str, &str) {
        self.table.split_once('.').unwrap_or(("public", &self.table))
    }

    /// # Errors
    /// Names the first key whose value is no PostgreSQL name.
    pub fn validate(&self) -> Result<(), NameError> {
        // Without a table there is no name of it to be wrong.
        let (schema, table) = if self.has_table() { self.qualified() } else { ("-", "-") };
        let names = [
            ("outbox.table", schema),
            ("outbox.table", table),
            ("outbox.column_id", &self.column_id),
            ("outbox.column_aggregate_type", &self.column_aggregate_type),
            ("outbox.column_aggregate_id", &self.column_aggregate_id),
            ("outbox.column_type", &self.column_type),
            ("outbox.column_payload", &self.column_payload),
            ("outbox.column_occurred_at", &self.column_occurred_at),
            ("outbox.column_schema_version", &self.column_schema_version),
            ("outbox.column_traceparent", &self.column_traceparent),
            ("outbox.column_published_at", &self.column_published_at),
        ];
        for (key, name) in names {
            // Everything else can be quoted.
            if name.is_empty() || name.len() > 63 || name.contains('\0') {
                return Err(NameError { key, name: name.to_owned() });
            }
        }
        Ok(())
    }
}
