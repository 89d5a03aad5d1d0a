//! Checks everything that can go wrong before it does.
//!
//! ```text
//! ask/ ──▶ facts.rs ──▶ judge/ ──▶ Report ──▶ table or JSON
//! (I/O)                 (pure)
//! ```
//!
//! Nothing is changed, and a relay that runs is not disturbed: the session with
//! PostgreSQL is read-only, and Kafka is asked under a transactional id that is
//! not the relay's.

mod ask;
mod facts;
mod judge;

use outpour_schemas::{config::Config, program::Report};

use crate::{error::RelayError, postgres::Target, relay::Router};

/// Asks both sides. One that does not answer is a finding, too.
///
/// # Errors
/// When the configuration names nothing to ask.
pub(crate) async fn doctor(config: &Config) -> Result<Report, RelayError> {
    let target = Target::of(&config.postgres)?;
    let router = Router::new(&config.outbox, &config.relay)?;
    let mut report = Report::default();
    // One after the other: a relay that runs writes the checkpoint first and
    // confirms it to the slot second, so that this order shows no gap where
    // there is none. The end of the log is asked for again for the same reason.
    let database = ask::database::ask(config, &target).await;
    if let Err(error) = &database {
        report.unanswered("postgres", error);
        // A pooler may let neither through.
        let replication = ask::database::replication(config, &target).await;
        report.extend(judge::replication(replication.as_ref()));
    }
    let database = database.ok();
    let kafka = ask::kafka::ask(config).await;
    let kafka = kafka.map_err(|error| report.unanswered("kafka", &error)).ok();
    if let Some(database) = &database {
        report.extend(judge::database(database, router.wanted(), config));
    }
    if let Some(kafka) = &kafka {
        report.extend(judge::kafka(kafka, config));
    }
    if let (Some(database), Some(kafka)) = (&database, &kafka) {
        match ask::database::log_end(&target).await {
            Ok(log_end) => report.extend(judge::both(database, kafka, log_end, config)),
            Err(error) => report.unanswered("postgres", &error),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    //! Facts of services with which all is well.

    use std::collections::BTreeMap;

    use outpour_schemas::Lsn;

    use super::{
        facts::{
            Column, Coverage, Database, Kafka, Publication, Published, Role, Slot, Table, Topic,
            User,
        },
        *,
    };
    use crate::{relay::Checkpoint, wal::row::Wanted};

    pub(super) fn wanted(config: &Config) -> Vec<Wanted> {
        Router::new(&config.outbox, &config.relay).unwrap().wanted().to_vec()
    }

    pub(super) fn database() -> Database {
        let names = [
            ("id", 2950, "uuid"),
            ("aggregatetype", 25, "text"),
            ("aggregateid", 25, "text"),
            ("type", 25, "text"),
            ("payload", 3802, "jsonb"),
            ("occurred_at", 1184, "timestamp with time zone"),
            ("schema_version", 23, "integer"),
            ("traceparent", 25, "text"),
        ];
        let columns = names.map(|(name, type_oid, type_name)| Column {
            name: name.into(),
            type_oid,
            type_name: type_name.into(),
            generated: None,
        });
        let settings = [
            ("max_replication_slots", 10),
            ("max_wal_senders", 10),
            ("max_slot_wal_keep_size", -1),
        ];
        Database {
            version: 150_018,
            settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
            wal_level: "logical".into(),
            encoding: "UTF8".into(),
            user: User {
                name: "outpour".into(),
                database: "shop".into(),
                is_superuser: false,
                replicates: true,
                makes_temporary: true,
                replication_role: None,
            },
            replication: Some(Ok(())),
            synchronous_standbys: String::new(),
            system_identifier: Some("1".into()),
            is_standby: false,
            timeline: 1,
            end: Lsn(5_000),
            table: Some(Table {
                is_partitioned: false,
                is_logged: true,
                has_identity: true,
                can_use_schema: true,
                can_select: true,
                can_insert: true,
                can_update: true,
                can_delete: true,
                hides_rows: false,
                is_owned: false,
                columns: columns.to_vec(),
            }),
            has_emit_function: true,
            publication: Some(Publication {
                all_tables: false,
                inserts: true,
                others: Vec::new(),
                via_root: false,
                has_partitions: false,
                other_tables: Vec::new(),
                children_left_out: Vec::new(),
                outbox: Some(Published {
                    columns: Some(names.map(|(name, ..)| name.to_owned()).to_vec()),
                    row_filter: None,
                }),
                covers_slot: Coverage::Whole,
            }),
            slot: Some(Slot {
                plugin: "pgoutput".into(),
                kind: "logical".into(),
                database: "shop".into(),
                wal_status: "reserved".into(),
                confirmed: Lsn(4_000),
                restart: Some(Lsn(3_000)),
                ..Slot::default()
            }),
            slots_used: 1,
            senders_used: 0,
            clock_ahead_ms: 3,
            round_trip_ms: 1,
        }
    }

    pub(super) fn kafka() -> Kafka {
        let topic = |name: &str, role, partitions, policy: &str| Topic {
            name: name.into(),
            role,
            partitions,
            replicas: 3,
            in_sync: 3,
            settings: Some(BTreeMap::from(
                [
                    ("cleanup.policy", policy),
                    ("max.message.bytes", "1048588"),
                    ("min.insync.replicas", "2"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            )),
        };
        Kafka {
            brokers: 3,
            broker: Some([("message.max.bytes".to_owned(), "1048588".to_owned())].into()),
            topics: vec![
                topic("outpour.relay.checkpoints", Role::Checkpoints, 1, "compact"),
                topic("outbox.event.order", Role::Events, 6, "delete"),
            ],
            knows_event_topics: true,
            transactions: Some(Ok(())),
            checkpoint: Some(Checkpoint {
                system_identifier: "1".into(),
                timeline: 1,
                end_lsn: Lsn(4_500),
                within: None,
                snapshot: None,
                sequence: 9,
            }),
        }
    }
}
