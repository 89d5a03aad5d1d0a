//! Statements that others may hold up: they say by whom, and can be given up.

use std::{collections::HashSet, time::Duration};

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::postgres::{PostgresError, Target};

/// A statement that takes longer than this waits for somebody.
const MOMENT: Duration = Duration::from_secs(1);

/// Runs `sql` and, if it takes longer than a moment, logs whom it waits for. Cancels it on the server once told to stop, where it would go on
/// waiting without a client.
///
/// # Errors
/// When the database refuses it, or it was cancelled.
pub(crate) async fn execute(
    client: &Client,
    target: &Target,
    sql: &str,
    what: &str,
    stop: &CancellationToken,
) -> Result<(), PostgresError> {
    let failed = || target.failed("creating the outbox's objects");
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed())?;
    let pid: i32 = row.get(0);
    let running = client.batch_execute(sql);
    tokio::pin!(running);
    let watching = watch(target, pid, what);
    tokio::pin!(watching);
    let (mut is_watching, mut is_stopped) = (true, false);
    loop {
        tokio::select! {
            done = &mut running => return done.map_err(failed()),
            // Whoever may not ask who it is waits all the same.
            error = &mut watching, if is_watching => {
                tracing::debug!(%error, "cannot ask who holds a statement up");
                is_watching = false;
            }
            () = stop.cancelled(), if !is_stopped => {
                is_stopped = true;
                let connector = target.tls.connector().map_err(PostgresError::Certificates)?;
                client.cancel_token().cancel_query(connector).await.map_err(failed())?;
            }
        }
    }
}

/// Ends only when it cannot ask.
async fn watch(target: &Target, pid: i32, what: &str) -> PostgresError {
    let asked = async {
        tokio::time::sleep(MOMENT).await;
        let client = target.connect().await?;
        let mut told = HashSet::new();
        let mut is_quiet = true;
        loop {
            let holders = holders(&client, target, pid).await?;
            if holders.is_empty() && std::mem::take(&mut is_quiet) {
                tracing::info!("{what} is being created");
            }
            for (holder, text) in holders {
                is_quiet = false;
                if told.insert(holder) {
                    tracing::warn!("{what} waits for {text}");
                }
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    let Err::<std::convert::Infallible, _>(error) = asked.await;
    error
}

/// Who holds up the backend `pid`, by process id, and what would end that.
async fn holders(
    client: &Client,
    target: &Target,
    pid: i32,
) -> Result<Vec<(i32, String)>, PostgresError> {
    // A transaction that is prepared belongs to no backend.
    let sql = "
        SELECT holder.pid, CASE WHEN holder.pid = 0
            THEN 'a prepared transaction (pg_prepared_xacts has it): COMMIT PREPARED or ROLLBACK PREPARED'
            ELSE format('backend %s (%s%s, database %s) to end its transaction, open for %s s; or: SELECT pg_terminate_backend(%s);',
                holder.pid, coalesce('user ' || a.usename, 'of the server'),
                coalesce(', ' || nullif(a.application_name, ''), ''), coalesce(a.datname, '-'),
                coalesce(round(extract(epoch FROM clock_timestamp() - a.xact_start))::text, '?'),
                holder.pid)
            END
        FROM (SELECT DISTINCT unnest(pg_blocking_pids($1))) holder (pid)
        LEFT JOIN pg_stat_activity a USING (pid) ORDER BY holder.pid";
    let rows = client.query(sql, &[&pid]).await;
    let rows = rows.map_err(target.failed("asking who holds it up"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
