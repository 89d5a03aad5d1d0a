//! Events of the outbox that never came to Kafka, written to the log once more.
//!
//! Each row is deleted and inserted as it was, in one statement: the relay reads
//! the log, and publishes what is inserted. A row is taken only as the comparison
//! saw it, so that whoever else repairs the same has it published once.

use outpour_schemas::{config::Config, postgres::Target};

use super::{
    error::ReconcileError,
    outbox::{MissingRow, quoted},
};
use crate::error::ConsumerError;

/// Returns how many rows were written anew: those that are still there.
///
/// # Errors
/// When the database refuses; nothing is changed then.
pub(super) async fn republish(config: &Config, rows: &[MissingRow]) -> Result<u64, ConsumerError> {
    /// What is computed from the others cannot be inserted.
    const COLUMNS: &str = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
            coalesce(bool_or(attname = $2), false)
        FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    let target = Target::of(&config.postgres)?;
    let client = target.connect().await.map_err(ReconcileError::from)?;
    let failed = || {
        let target = target.clone();
        move |source| ReconcileError::from(target.failed("writing events anew")(source))
    };
    let outbox = &config.outbox;
    let (schema, name) = outbox.qualified();
    let table = format!("{}.{}", quoted(schema), quoted(name));
    let found = client.query_one(COLUMNS, &[&table, &outbox.column_occurred_at]).await;
    let found = found.map_err(failed())?;
    let columns: Option<String> = found.get(0);
    let columns = columns.ok_or(ReconcileError::NoOutboxTable { table: table.clone() })?;
    let id = quoted(&outbox.column_id);
    let order = match found.get(1) {
        true => format!("{}, {id}", quoted(&outbox.column_occurred_at)),
        false => id.clone(),
    };
    let sql = format!(
        "WITH lost AS (SELECT * FROM unnest($1::text[], $2::text[]) AS lost (id, xmin)),
              again AS (DELETE FROM {table} AS old USING lost
                        WHERE old.{id}::text = lost.id AND old.xmin::text = lost.xmin
                        RETURNING old.*)
         INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
         SELECT {columns} FROM again ORDER BY {order}"
    );
    let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    let versions: Vec<_> = rows.iter().map(|row| row.xmin.as_str()).collect();
    Ok(client.execute(&sql, &[&ids, &versions]).await.map_err(failed())?)
}
