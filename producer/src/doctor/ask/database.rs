//! Questions to PostgreSQL. The session is read-only.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use outpour_schemas::{
    Lsn,
    config::{Config, Mode},
    program::error_line,
};
use serde_json::Value;
use tokio_postgres::{Client, Row, types::ToSql};

use super::{
    super::facts::{Database, Holder, Slot, User},
    outbox,
};
use crate::{
    emit_function,
    postgres::{PostgresError, Target},
    wal::stream::WalStream,
};

/// Settings that are numbers, which not every version has.
const SETTINGS: [&str; 6] = [
    "idle_replication_slot_timeout",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "server_version_num",
    "wal_keep_size",
];

pub(super) struct Asking<'a> {
    pub(super) client: &'a Client,
    target: &'a Target,
}

impl Asking<'_> {
    pub(super) async fn all(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.client.query(sql, parameters).await.map_err(self.target.failed(doing))
    }

    pub(super) async fn one(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, PostgresError> {
        self.client.query_one(sql, parameters).await.map_err(self.target.failed(doing))
    }
}

/// # Errors
/// When there is no connection, or the user may not ask.
pub(in super::super) async fn ask(
    config: &Config,
    target: &Target,
) -> Result<Database, PostgresError> {
    let client = target.connect().await?;
    client
        .batch_execute("SET default_transaction_read_only = on; SET statement_timeout = '10s'")
        .await
        .map_err(target.failed("opening a read-only session"))?;
    let asking = Asking { client: &client, target };
    let (clock_ahead_ms, round_trip_ms) = clock(&asking).await?;
    let settings = settings(&asking).await?;
    let server = asking
        .one(
            "reading the server's state",
            "SELECT current_setting('wal_level') AS wal_level,
                    getdatabaseencoding()::text AS encoding, pg_is_in_recovery() AS is_standby,
                    current_user::text AS user_name, current_database()::text AS database,
                    r.rolsuper, r.rolreplication,
                    current_setting('synchronous_standby_names') AS synchronous_standbys,
                    has_database_privilege(current_database(), 'TEMPORARY') AS makes_temporary,
                    (SELECT c.rolname::text FROM pg_roles c
                     WHERE c.rolname IN ('rds_replication', 'rds_superuser', 'cloudsqlsuperuser')
                       AND pg_has_role(current_user, c.oid, 'MEMBER') LIMIT 1) AS replication_role,
                    (SELECT count(*) FROM pg_replication_slots) AS slots_used,
                    (SELECT count(*) FROM pg_stat_replication) AS senders_used
             FROM pg_roles r WHERE r.rolname = current_user",
            &[],
        )
        .await?;
    let is_standby: bool = server.get("is_standby");
    let (end, timeline) = end_of_log(&asking, is_standby).await?;
    // Not every cloud lets its users ask.
    let system = "SELECT system_identifier::text FROM pg_control_system()";
    let system_identifier = client.query_one(system, &[]).await.ok().map(|row| row.get(0));
    let slot = slot(&asking, &config.relay.slot).await?;
    Ok(Database {
        version: settings.get("server_version_num").map_or(0, |&n| u32::try_from(n).unwrap_or(0)),
        settings,
        wal_level: server.get("wal_level"),
        encoding: server.get("encoding"),
        user: User {
            name: server.get("user_name"),
            database: server.get("database"),
            is_superuser: server.get("rolsuper"),
            replicates: server.get("rolreplication"),
            makes_temporary: server.get("makes_temporary"),
            replication_role: server.get("replication_role"),
        },
        replication: replication(config, target).await,
        synchronous_standbys: server.get("synchronous_standbys"),
        system_identifier,
        is_standby,
        timeline,
        end,
        table: outbox::table(&asking, config).await?,
        has_emit_function: asking
            .one("looking for the function", &emit_function::exists(config), &[])
            .await?
            .get(0),
        publication: outbox::publication(&asking, config).await?,
        slot,
        slots_used: server.get("slots_used"),
        senders_used: server.get("senders_used"),
        clock_ahead_ms,
        round_trip_ms,
    })
}

/// Whether a replication connection can be opened: an ordinary one says little of it,
/// through a pooler nothing.
pub(in super::super) async fn replication(
    config: &Config,
    target: &Target,
) -> Option<Result<(), String>> {
    /// SQLSTATE `too_many_connections`, by which the server also says that all places
    /// of senders are taken: the relay may have the last.
    const FULL: &str = "53300";
    if config.relay.mode == Mode::Poll {
        return None;
    }
    match WalStream::probe(target, &config.relay.slot).await {
        Ok(()) => Some(Ok(())),
        Err(error) => Some(error_line(&error)).filter(|text| !text.contains(FULL)).map(Err),
    }
}

/// The end of the log, now.
///
/// # Errors
/// When there is no connection.
pub(in super::super) async fn log_end(target: &Target) -> Result<Lsn, PostgresError> {
    let client = target.connect().await?;
    let asking = Asking { client: &client, target };
    let row = asking.one("reading the end of the log", "SELECT pg_is_in_recovery()", &[]).await?;
    Ok(end_of_log(&asking, row.get(0)).await?.0)
}

/// By how much the server's clock is ahead, taken at the middle of the way.
async fn clock(asking: &Asking<'_>) -> Result<(i64, i64), PostgresError> {
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    // The first question also waits for what a session does once.
    asking.one("reading the clock", NOW, &[]).await?;
    let (asked, asked_at) = (SystemTime::now(), Instant::now());
    let there: i64 = asking.one("reading the clock", NOW, &[]).await?.get(0);
    let took = asked_at.elapsed();
    let here = (asked + took / 2).duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    Ok((there - ms(here.as_millis()), ms(took.as_millis())))
}

async fn settings(asking: &Asking<'_>) -> Result<BTreeMap<String, i64>, PostgresError> {
    let names: Vec<_> = SETTINGS.to_vec();
    let rows = asking
        .all(
            "reading the settings",
            "SELECT name, setting::bigint FROM pg_settings WHERE name = ANY($1)",
            &[&names],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Where the log ends, and on which timeline.
async fn end_of_log(asking: &Asking<'_>, is_standby: bool) -> Result<(Lsn, u32), PostgresError> {
    let sql = if is_standby {
        "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint, timeline_id FROM pg_control_checkpoint()"
    } else {
        // The first half of a segment's name is the timeline, in hexadecimal.
        "SELECT (at - '0/0')::bigint, ('x' || left(pg_walfile_name(at), 8))::bit(32)::int
         FROM (SELECT pg_current_wal_lsn() AS at) log"
    };
    let row = asking.one("reading the end of the log", sql, &[]).await?;
    let end = row.get::<_, Option<i64>>(0).and_then(|at| u64::try_from(at).ok());
    Ok((Lsn(end.unwrap_or_default()), u32::try_from(row.get::<_, i32>(1)).unwrap_or_default()))
}

async fn slot(asking: &Asking<'_>, name: &str) -> Result<Option<Slot>, PostgresError> {
    // As JSON, since every version adds a column.
    let rows = asking
        .all(
            "reading the replication slot",
            "SELECT to_jsonb(s), a.pid, a.application_name, a.client_addr::text AS client,
                    to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since,
                    CASE WHEN s.confirmed_flush_lsn IS NULL AND s.slot_type = 'logical'
                        THEN pg_blocking_pids(s.active_pid) END AS waits_for
             FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
             WHERE s.slot_name = $1",
            &[&name],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let slot: Value = row.get(0);
    let text = |field: &str| slot[field].as_str().unwrap_or_default().to_owned();
    let lsn = |field: &str| slot[field].as_str().and_then(|lsn| lsn.parse().ok());
    let seen = |column: &str| row.get::<_, Option<String>>(column).unwrap_or_default();
    let holder = slot["active_pid"].as_i64().map(|pid| Holder {
        pid: i32::try_from(pid).unwrap_or_default(),
        application: seen("application_name"),
        client: seen("client"),
        since: seen("since"),
    });
    Ok(Some(Slot {
        plugin: text("plugin"),
        kind: text("slot_type"),
        database: text("database"),
        is_temporary: slot["temporary"].as_bool().unwrap_or_default(),
        wal_status: text("wal_status"),
        invalidation: slot["invalidation_reason"].as_str().map(str::to_owned),
        confirmed: lsn("confirmed_flush_lsn").unwrap_or_default(),
        waits_for: row.get("waits_for"),
        restart: lsn("restart_lsn"),
        holder,
    }))
}
