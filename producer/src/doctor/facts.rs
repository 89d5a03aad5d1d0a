//! What the services answered; what to make of it is in `judge/`.

use std::collections::BTreeMap;

use outpour_schemas::{Lsn, kafka::Settings};

use crate::relay::Checkpoint;

/// The side of PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Database {
    /// `server_version_num`: 150018 is 15.18.
    pub(super) version: u32,
    /// As `pg_settings` has them, in its units.
    pub(super) settings: BTreeMap<String, i64>,
    pub(super) wal_level: String,
    /// The encoding of its text, by PostgreSQL's name.
    pub(super) encoding: String,
    pub(super) user: User,
    /// What a replication connection met; absent where none is needed, or there is
    /// no room for one.
    pub(super) replication: Option<Result<(), String>>,
    /// Which standbys commits wait for, by name.
    pub(super) synchronous_standbys: String,
    /// Absent where the user may not ask.
    pub(super) system_identifier: Option<String>,
    pub(super) is_standby: bool,
    pub(super) timeline: u32,
    /// The end of the log.
    pub(super) end: Lsn,
    pub(super) table: Option<Table>,
    /// Whether the function is there that writes events as messages, as `init`
    /// would create it.
    pub(super) has_emit_function: bool,
    pub(super) publication: Option<Publication>,
    pub(super) slot: Option<Slot>,
    pub(super) slots_used: i64,
    pub(super) senders_used: i64,
    /// Milliseconds by which its clock is ahead of the one here.
    pub(super) clock_ahead_ms: i64,
    /// Milliseconds that the question took; the clock is known no better.
    pub(super) round_trip_ms: i64,
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) database: String,
    pub(super) is_superuser: bool,
    /// The attribute REPLICATION.
    pub(super) replicates: bool,
    pub(super) makes_temporary: bool,
    /// A role of a cloud's that stands for it and that the user is a member of.
    pub(super) replication_role: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) is_partitioned: bool,
    /// Whether what is written to it is in the log: that of all its partitions.
    pub(super) is_logged: bool,
    /// Whether the server can tell its rows apart, as publishing updates or deletes
    /// takes.
    pub(super) has_identity: bool,
    /// Whether the user may use the schema that it is in.
    pub(super) can_use_schema: bool,
    pub(super) can_select: bool,
    pub(super) can_insert: bool,
    pub(super) can_update: bool,
    pub(super) can_delete: bool,
    /// Whether row-level security hides rows from the user.
    pub(super) hides_rows: bool,
    /// Whether the user owns it, as a member of its owner at least.
    pub(super) is_owned: bool,
    pub(super) columns: Vec<Column>,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// The type at bottom, where it is a domain.
    pub(super) type_oid: u32,
    pub(super) type_name: String,
    pub(super) generated: Option<Generated>,
}

/// How the server makes a column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generated {
    Stored,
    /// When it is read: it is nowhere in the log.
    Virtual,
}

#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) all_tables: bool,
    pub(super) inserts: bool,
    /// What it publishes besides inserts: update, delete, truncate.
    pub(super) others: Vec<&'static str>,
    pub(super) via_root: bool,
    /// Whether partitions of the outbox are in it under their own names.
    pub(super) has_partitions: bool,
    pub(super) other_tables: Vec<String>,
    /// Children of the outbox by INHERITS that are not in it, as SQL takes them.
    pub(super) children_left_out: Vec<String>,
    /// How the outbox itself is in it.
    pub(super) outbox: Option<Published>,
    /// Whether the log that the slot has to read can be read with it.
    pub(super) covers_slot: Coverage,
}

/// PostgreSQL reads the log with the catalog as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// It is older than all that is left to read, or that was tried.
    Whole,
    /// It may be younger, and it could not be tried.
    Unknown,
    /// Rows wait that were written before there was the publication.
    Lacking,
}

#[derive(Debug, Clone)]
pub(super) struct Published {
    /// Which columns; absent before PostgreSQL 15, where it is all of them.
    pub(super) columns: Option<Vec<String>>,
    pub(super) row_filter: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) plugin: String,
    pub(super) kind: String,
    pub(super) database: String,
    pub(super) is_temporary: bool,
    /// reserved, extended, unreserved or lost.
    pub(super) wal_status: String,
    /// From PostgreSQL 17 on: why the server gave it up.
    pub(super) invalidation: Option<String>,
    pub(super) confirmed: Lsn,
    /// The backends whose transactions its creation waits for, while it does.
    pub(super) waits_for: Option<Vec<i32>>,
    /// The log that it keeps begins here.
    pub(super) restart: Option<Lsn>,
    pub(super) holder: Option<Holder>,
}

/// The session that streams a slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Holder {
    pub(super) pid: i32,
    /// Empty where the user may not see it.
    pub(super) application: String,
    pub(super) client: String,
    pub(super) since: String,
}

/// The side of Kafka.
#[derive(Debug, Clone)]
pub(super) struct Kafka {
    pub(super) brokers: usize,
    /// Settings of a broker, as far as they could be read.
    pub(super) broker: Settings,
    /// Those that the relay writes to, by name.
    pub(super) topics: Vec<Topic>,
    /// Whether topics of events can be told by their names.
    pub(super) knows_event_topics: bool,
    /// What a transactional id beside the relay's own met; none where no
    /// transactions are used.
    pub(super) transactions: Option<Result<(), TransactionsRefused>>,
    pub(super) checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) partitions: usize,
    /// The fewest of any partition.
    pub(super) replicas: usize,
    /// The fewest in sync of any partition.
    pub(super) in_sync: usize,
    /// Its settings, as far as they could be read.
    pub(super) settings: Settings,
}

/// What the relay uses a topic for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Checkpoints,
    DeadLetters,
    Events,
}

#[derive(Debug, Clone)]
pub(super) struct TransactionsRefused {
    pub(super) id: String,
    pub(super) error: String,
    /// Whether it was for want of rights, which may be given to the relay's own
    /// id alone.
    pub(super) is_unauthorized: bool,
}
