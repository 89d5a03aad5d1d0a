//! Marks in the log, for whoever wants to know that the stream has come so far.

use outpour_schemas::Lsn;
use tokio_postgres::Client;

use crate::postgres::{PostgresError, Target};

/// Writes a mark and returns where: behind the commit of everything that anybody
/// has seen committed. The stream gets there even if nobody else writes, since
/// the mark is a transaction of its own, which is flushed and is part of it.
pub(crate) async fn write(client: &Client, target: &Target) -> Result<Lsn, PostgresError> {
    // A mark says nothing that a standby would have to have.
    const MARK: &str = "SELECT set_config('synchronous_commit', 'local', true),
                               (pg_logical_emit_message(true, 'outpour-mark', '') - '0/0')::bigint";
    let row = client.query_one(MARK, &[]).await.map_err(target.failed("marking the log"))?;
    Ok(Lsn(u64::try_from(row.get::<_, i64>(1)).unwrap_or_default()))
}
