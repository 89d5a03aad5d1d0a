//! The replication slot and the publication, as the database has them.

use outpour_schemas::{Lsn, config::Config};
use pgwire_replication::PgWireError;
use tokio_postgres::Client;

use super::{
    publication,
    sqlstate::{self, sqlstate},
    timeline::HistoryError,
};
use crate::{
    postgres::{PostgresError, Target},
    sql::{legible, legible_table},
};

/// Where the slot stands.
#[derive(Debug, Clone)]
pub(crate) struct SlotState {
    /// Everything before it was confirmed, and may be gone from the log.
    pub(crate) confirmed: Lsn,
    /// The end of the log.
    pub(crate) current: Lsn,
    /// Bytes of log that the slot keeps from being removed.
    pub(crate) retained_bytes: u64,
    /// Process id of the backend that streams it.
    pub(crate) held_by: Option<i32>,
}

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("replication slot `{slot}` does not exist on {target}; run `outpour-relay init`")]
    NoSlot { slot: String, target: String },
    #[error(
        "replication slot `{slot}` is {what}; outpour needs a logical slot of pgoutput in database `{database}`"
    )]
    WrongSlot { slot: String, what: String, database: String },
    #[error(
        "replication slot `{slot}` is still being created (backend {pid}), which waits for transactions \
         that were open before it; `outpour-relay doctor` names them"
    )]
    BeingCreated { slot: String, pid: i32 },
    #[error(
        "replication slot `{slot}` is lost: {reason}; events may be missing. \
         Drop the slot and run `outpour-relay init` to go on from now"
    )]
    Lost { slot: String, reason: String },
    #[error("publication `{publication}` does not exist on {target}; run `outpour-relay init`")]
    NoPublication { publication: String, target: String },
    #[error(
        "publication `{publication}` does not publish inserts of {table}; \
         run: ALTER PUBLICATION {} ADD TABLE {}",
        legible(.publication), legible_table(.table)
    )]
    NotPublished { publication: String, table: String },
    #[error(
        "publication `{publication}` does not publish inserts; \
         run: ALTER PUBLICATION {} SET (publish = 'insert')",
        legible(.publication)
    )]
    NoInserts { publication: String },
    #[error(
        "table {table} is partitioned, and publication `{publication}` sends its rows under the \
         partitions' names; run: ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
        legible(.publication)
    )]
    UnderPartitions { publication: String, table: String },
    #[error(
        "table {child} is a child of {table} (INHERITS), and publication `{publication}` does not \
         publish its inserts; run: ALTER PUBLICATION {} ADD TABLE {child}",
        legible(.publication)
    )]
    ChildNotPublished { publication: String, table: String, child: String },
    #[error("table {table} does not exist on {target}; run `outpour-relay init`")]
    NoTable { table: String, target: String },
    /// Another relay is at work, or its session has not been cleared away yet.
    #[error("replication slot `{slot}` is held by another relay")]
    Held { slot: String },
    #[error("cannot start replication on {target}: no answer within {seconds} s")]
    TimedOut { target: String, seconds: u64 },
    #[error(
        "cannot start replication on {target}: what answers is a pooler, such as PgBouncer, that does not \
         let replication through; postgres.url has to name the server itself"
    )]
    Pooler { target: String, source: PgWireError },
    #[error("cannot start replication on {target}")]
    Start { target: String, source: PgWireError },
    #[error(
        "publication `{publication}` is younger than rows that replication slot `{slot}` still has to deliver, \
         and PostgreSQL cannot decode those any more. They are in {table} all the same. Drop the slot, run \
         `outpour-relay init` and `outpour-relay run --accept-gap`, and write the rows that are missing anew"
    )]
    YoungPublication { publication: String, slot: String, table: String },
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("replication stream broke")]
    Stream(#[source] PgWireError),
}

impl SlotError {
    pub(super) fn starting(slot: &str, target: &Target, source: PgWireError) -> Self {
        match sqlstate(&source) {
            Some(sqlstate::IN_USE) => SlotError::Held { slot: slot.to_owned() },
            Some(sqlstate::PROTOCOL) => SlotError::Pooler { target: target.to_string(), source },
            _ => SlotError::Start { target: target.to_string(), source },
        }
    }

    /// Whether the server found no publication where the log stands: decoding
    /// takes the catalog as it was when a row was written.
    pub(crate) fn lacks_publication(&self) -> bool {
        matches!(self, SlotError::Stream(error) if sqlstate(error) == Some(sqlstate::UNDEFINED))
    }

    /// Whether the same attempt may work later without anybody's doing.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            SlotError::Postgres(_)
            | SlotError::BeingCreated { .. }
            | SlotError::Held { .. }
            | SlotError::TimedOut { .. }
            | SlotError::Start { .. }
            | SlotError::Pooler { .. }
            | SlotError::Stream(_) => true,
            SlotError::NoSlot { .. }
            | SlotError::YoungPublication { .. }
            | SlotError::History(_)
            | SlotError::WrongSlot { .. }
            | SlotError::Lost { .. }
            | SlotError::NoPublication { .. }
            | SlotError::NotPublished { .. }
            | SlotError::NoInserts { .. }
            | SlotError::UnderPartitions { .. }
            | SlotError::ChildNotPublished { .. }
            | SlotError::NoTable { .. } => false,
        }
    }
}

/// Checks everything that replication needs, since the server itself would
/// complain late (a missing publication) or never (an empty one).
pub(crate) async fn inspect(
    client: &Client,
    target: &Target,
    config: &Config,
) -> Result<SlotState, SlotError> {
    publication::check(client, target, config).await?;
    let slot = &config.relay.slot;
    let row = client
        .query_opt(
            "SELECT plugin, slot_type, database, wal_status, active_pid,
                    to_jsonb(s) ->> 'invalidation_reason' AS invalidation,
                    (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed,
                    (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint AS current,
                    (pg_current_wal_lsn() - restart_lsn)::bigint AS retained
             FROM pg_replication_slots s WHERE slot_name = $1",
            &[slot],
        )
        .await
        .map_err(target.failed("reading the replication slot"))?
        .ok_or_else(|| SlotError::NoSlot { slot: slot.clone(), target: target.to_string() })?;
    let text = |column: &str| row.get::<_, Option<String>>(column).unwrap_or_default();
    let (plugin, kind, database) = (text("plugin"), text("slot_type"), text("database"));
    if plugin != "pgoutput" || kind != "logical" || database != target.database {
        return Err(SlotError::WrongSlot {
            slot: slot.clone(),
            what: format!("a {kind} slot of `{plugin}` in database `{database}`"),
            database: target.database.clone(),
        });
    }
    if text("wal_status") == "lost" {
        let reason = lost_by(row.get("invalidation"));
        return Err(SlotError::Lost { slot: slot.clone(), reason });
    }
    if let (None, Some(pid)) = (row.get::<_, Option<i64>>("confirmed"), row.get("active_pid")) {
        return Err(SlotError::BeingCreated { slot: slot.clone(), pid });
    }
    let bytes = |column: &str| {
        row.get::<_, Option<i64>>(column).and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
    };
    Ok(SlotState {
        confirmed: Lsn(bytes("confirmed")),
        current: Lsn(bytes("current")),
        retained_bytes: bytes("retained"),
        held_by: row.get("active_pid"),
    })
}

/// Why the server gave a slot up, by what it says of that from PostgreSQL 17 on.
pub(crate) fn lost_by(invalidation: Option<&str>) -> String {
    match invalidation {
        None | Some("wal_removed") => {
            "the server removed log that it still needed (max_slot_wal_keep_size)".to_owned()
        }
        Some("idle_timeout") => {
            "nobody read it for longer than idle_replication_slot_timeout".to_owned()
        }
        Some("wal_level_insufficient") => "wal_level was no longer `logical`".to_owned(),
        Some(other) => format!("the server gave it up ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_error_names_a_pooler_that_does_not_let_replication_through() {
        let target = Target::of(&outpour_schemas::config::Postgres::default()).unwrap();
        let starting = |text: &str| {
            let error = PgWireError::Server(text.to_owned());
            SlotError::starting("outpour", &target, error).to_string()
        };
        let refused = "unsupported startup parameter: replication (SQLSTATE 08P01)";
        assert!(starting(refused).contains("a pooler"), "{}", starting(refused));
        assert!(!starting("too many connections (SQLSTATE 53300)").contains("a pooler"));
    }
}
