//! The database, as polling sees it: an ordinary connection, and the lock that
//! lets one relay work.

use std::time::Duration;

use outpour_schemas::config::{Config, PollAfter};
use tokio_postgres::Client;

use super::PollError;
use crate::{
    postgres::{PostgresError, Target},
    wal::{pgoutput::Relation, table},
};

/// One lock for each name of a relay, in its own database.
const LOCK: &str = "hashtextextended('outpour-relay ' || $1::text, 0)";

/// Makes the server let go of what is locked should this process stand still or
/// its host be gone: nothing of ours takes longer than `longest`.
pub(super) async fn prepare(
    client: &Client,
    target: &Target,
    longest: Duration,
) -> Result<(), PostgresError> {
    let longest_ms = longest.as_millis().to_string();
    let own = [
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("idle_in_transaction_session_timeout", longest_ms.as_str()),
        // Servers before 14 do not know it.
        ("idle_session_timeout", longest_ms.as_str()),
    ];
    for (name, value) in own {
        let sql = "SELECT set_config($1, $2, false) WHERE current_setting($1, true) IS NOT NULL";
        client.query(sql, &[&name, &value]).await.map_err(target.failed("preparing to poll"))?;
    }
    Ok(())
}

/// Takes the lock, unless another relay has it. It goes with the connection.
pub(super) async fn lock(client: &Client, target: &Target, slot: &str) -> Result<(), PollError> {
    let row = client
        .query_one(&format!("SELECT pg_try_advisory_lock({LOCK})"), &[&slot])
        .await
        .map_err(target.failed("taking the relay's lock"))?;
    if row.get(0) { Ok(()) } else { Err(PollError::Held { slot: slot.to_owned() }) }
}

/// The process id of the backend that has the lock.
pub(super) async fn holder(
    client: &Client,
    target: &Target,
    slot: &str,
) -> Result<Option<i32>, PostgresError> {
    let sql = format!(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (classid::bigint << 32) | objid::bigint = {LOCK}"
    );
    let row = client.query_opt(&sql, &[&slot]).await;
    let row = row.map_err(target.failed("looking for the relay's lock"))?;
    Ok(row.map(|row| row.get(0)))
}

/// The outbox table's columns that `is_wanted`, with their types.
///
/// # Errors
/// When there is no such table, or it lacks the column for marking rows.
pub(super) async fn columns(
    client: &Client,
    target: &Target,
    config: &Config,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Relation, PollError> {
    let mut relation = table::columns(client, target, &config.outbox, |_| true).await?;
    let name = || config.outbox.table.clone();
    if relation.columns.is_empty() {
        return Err(PollError::NoTable { table: name(), target: target.to_string() });
    }
    let mark = &config.outbox.column_published_at;
    let marks = config.relay.poll_after == PollAfter::Mark;
    if marks && relation.columns.iter().all(|column| column.name != *mark) {
        return Err(PollError::NoMark { table: name(), column: mark.clone() });
    }
    relation.columns.retain(|column| is_wanted(&column.name));
    Ok(relation)
}
