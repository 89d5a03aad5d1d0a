//! Asks PostgreSQL, again and again, how far its log is, and whether the outbox is
//! still published: the stream itself never tells that it is not.

use std::{sync::Arc, time::Duration};

use outpour_schemas::{
    Lsn,
    config::{Config, Mode},
    program::{Observed, error_line},
};
use tokio_postgres::Client;

use super::{LogView, Monitor, standing::REMEDY};
use crate::{
    postgres::{PostgresError, Target},
    wal::{
        publication::{self, Published},
        slot::SlotError,
    },
};

/// Often enough for a graph, and for the limit of a stall to mean something.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks until it is dropped, and logs when readiness changes.
pub(super) async fn watch(config: Config, target: Target, monitor: Arc<Monitor>) {
    let interval = INTERVAL.min(monitor.stall_after / 4);
    let mut watched = Watched::default();
    // Before its first start a relay is not ready, and nobody expects it to be.
    let mut was_ready = false;
    loop {
        // Who polls tells by itself whether there is something to do.
        if config.relay.mode == Mode::Wal {
            monitor.looked(watched.ask(&config, &target, &monitor).await);
        }
        let readiness = monitor.readiness();
        match (was_ready, readiness.ready) {
            (true, false) => tracing::warn!(
                state = readiness.state,
                reason = readiness.reason.as_deref().unwrap_or_default(),
                "not ready"
            ),
            (false, true) => tracing::info!(state = readiness.state, "ready"),
            _ => {}
        }
        was_ready = readiness.ready;
        tokio::time::sleep(interval).await;
    }
}

/// What was seen so far.
#[derive(Default)]
struct Watched {
    client: Option<Client>,
    /// How the outbox was published when it last was.
    published: Option<Published>,
}

impl Watched {
    /// How the log is, or why nobody knows, in one line.
    async fn ask(
        &mut self,
        config: &Config,
        target: &Target,
        monitor: &Monitor,
    ) -> Result<LogView, String> {
        let asked = tokio::time::timeout(config.postgres.connect_timeout.0, async {
            let client = match self.client.take() {
                Some(client) => client,
                None => target.connect().await?,
            };
            let view = look(&client, target, &config.relay.slot).await?;
            match publication::check(&client, target, config).await {
                Ok(published) => self.is_published(published, monitor),
                Err(SlotError::Postgres(error)) => return Err(error),
                Err(error) => monitor.unpublished(Some(error_line(&error))),
            }
            // One that failed, or took too long, is not used again.
            self.client = Some(client);
            Ok::<_, PostgresError>(view)
        })
        .await;
        match asked {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(error)) => Err(error_line(&error)),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }

    fn is_published(&mut self, published: Published, monitor: &Monitor) {
        monitor.unpublished(None);
        if self.published.as_ref().is_some_and(|before| *before != published) {
            tracing::warn!(
                "the publication, or the outbox table, has been changed or made anew; events that \
                 were written meanwhile may be missing in the log: {REMEDY}"
            );
        }
        self.published = Some(published);
    }
}

/// Positions are taken as distances, which bigint holds and every client reads.
async fn look(client: &Client, target: &Target, slot: &str) -> Result<LogView, PostgresError> {
    const LOOK: &str = "
        SELECT (log.at - '0/0')::bigint AS log_end,
               (s.confirmed_flush_lsn - '0/0')::bigint AS confirmed,
               (log.at - s.restart_lsn)::bigint AS retained,
               s.safe_wal_size,
               (r.sent_lsn - '0/0')::bigint AS sent
        FROM (SELECT pg_current_wal_flush_lsn() AS at) log
        LEFT JOIN pg_replication_slots s ON s.slot_name = $1
        LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid";
    let failed = target.failed("watching the log");
    let row = client.query_one(LOOK, &[&slot]).await.map_err(failed)?;
    let number = |column: &str| {
        // Less than nothing is nothing: positions are read one after the other.
        row.get::<_, Option<i64>>(column).map(|number| u64::try_from(number).unwrap_or(0))
    };
    Ok(LogView {
        end: Lsn(number("log_end").unwrap_or_default()),
        confirmed: number("confirmed").map(Lsn),
        retained_bytes: number("retained"),
        safe_bytes: number("safe_wal_size"),
        sent: number("sent").map(Lsn),
    })
}
