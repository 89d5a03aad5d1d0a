//! Events of the outbox that never came to Kafka, written to the log once more.
//!
//! Each row is deleted and inserted as it was, in one statement: the relay reads
//! the log, and publishes what is inserted. A row is taken only as the comparison
//! saw it, so that whoever else repairs the same has it published once. Nothing is done
//! where a trigger keeps rows from coming back, or a foreign key would take others along.

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
    /// Foreign keys that do something to other rows when one of the table goes.
    const REFERRING: &str = "SELECT string_agg(conrelid::regclass::text, ', ' ORDER BY 1)
        FROM pg_constraint
        WHERE confrelid = to_regclass($1) AND contype = 'f' AND confdeltype IN ('c', 'n', 'd')";
    let target = Target::of(&config.postgres)?;
    let mut client = target.connect().await.map_err(ReconcileError::from)?;
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
    let referring = client.query_one(REFERRING, &[&table]).await.map_err(failed())?;
    if let Some(by) = referring.get(0) {
        return Err(ReconcileError::Referenced { table, by }.into());
    }
    let id = quoted(&outbox.column_id);
    let order = match found.get(1) {
        true => format!("{}, {id}", quoted(&outbox.column_occurred_at)),
        false => id.clone(),
    };
    let sql = format!(
        "WITH lost AS (SELECT * FROM unnest($1::text[], $2::text[]) AS lost (id, xmin)),
              again AS (DELETE FROM {table} AS old USING lost
                        WHERE old.{id}::text = lost.id AND old.xmin::text = lost.xmin
                        RETURNING old.*),
              written AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
                          SELECT {columns} FROM again ORDER BY {order})
         SELECT count(*) FROM again"
    );
    // A trigger may have sent them to another place.
    let present = format!("SELECT count(*) FROM {table} WHERE {id}::text = ANY($1)");
    let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    let versions: Vec<_> = rows.iter().map(|row| row.xmin.as_str()).collect();
    let transaction = client.transaction().await.map_err(failed())?;
    let before: i64 = transaction.query_one(&present, &[&ids]).await.map_err(failed())?.get(0);
    let taken = transaction.query_one(&sql, &[&ids, &versions]).await.map_err(failed())?;
    let after: i64 = transaction.query_one(&present, &[&ids]).await.map_err(failed())?.get(0);
    if after < before {
        return Err(ReconcileError::NotWrittenAnew { table, rows: before - after }.into());
    }
    transaction.commit().await.map_err(failed())?;
    Ok(taken.get::<_, i64>(0).cast_unsigned())
}
