use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[outbox]`: the table that services write to. The defaults are the table
/// that `outpour-relay init` creates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// `schema.table`.
    pub table: String,
    pub column_id: String,
    pub column_aggregate_type: String,
    pub column_aggregate_id: String,
    pub column_type: String,
    pub column_payload: String,
    pub column_occurred_at: String,
    pub column_schema_version: String,
    pub column_traceparent: String,
}

impl Default for Outbox {
    fn default() -> Self {
        let name = str::to_owned;
        Outbox {
            table: name("public.outbox"),
            column_id: name("id"),
            column_aggregate_type: name("aggregatetype"),
            column_aggregate_id: name("aggregateid"),
            column_type: name("type"),
            column_payload: name("payload"),
            column_occurred_at: name("occurred_at"),
            column_schema_version: name("schema_version"),
            column_traceparent: name("traceparent"),
        }
    }
}

impl Outbox {
    /// Schema and table name.
    #[must_use]
    pub fn qualified(&self) -> (&str, &str) {
        self.table
            .split_once('.')
            .unwrap_or(("public", &self.table))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let (schema, table) = self.qualified();
        check_identifier("outbox.table", schema)?;
        check_identifier("outbox.table", table)?;
        let columns = [
            ("outbox.column_id", &self.column_id),
            ("outbox.column_aggregate_type", &self.column_aggregate_type),
            ("outbox.column_aggregate_id", &self.column_aggregate_id),
            ("outbox.column_type", &self.column_type),
            ("outbox.column_payload", &self.column_payload),
            ("outbox.column_occurred_at", &self.column_occurred_at),
            ("outbox.column_schema_version", &self.column_schema_version),
            ("outbox.column_traceparent", &self.column_traceparent),
        ];
        for (key, name) in columns {
            check_identifier(key, name)?;
        }
        Ok(())
    }
}

/// PostgreSQL's rule: 1 to 63 bytes, no NUL. Anything else is quoted.
fn check_identifier(key: &'static str, name: &str) -> Result<(), ConfigError> {
    const MAX_BYTES: usize = 63;
    if name.is_empty() || name.len() > MAX_BYTES || name.contains('\0') {
        return Err(ConfigError::invalid(
            key,
            format!("`{name}` is not a PostgreSQL name of 1 to {MAX_BYTES} bytes"),
        ));
    }
    Ok(())
}
