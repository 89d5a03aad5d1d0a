//! Checks everything that can go wrong before it does, and proves that a
//! repeated insert is dropped.
//!
//! ```text
//! ask/ ──▶ facts.rs ──▶ judge/ ──▶ Report ──▶ table or JSON
//! (I/O)                 (pure)
//! probe/ ────▲
//! ```
//!
//! A group that consumes is not disturbed: nobody joins it, and no offset is
//! committed. In ClickHouse nothing is changed, but for the scratch tables of
//! the probe, which are dropped again.

mod ask;
mod facts;
mod judge;
mod probe;

use outpour_schemas::{
    config::{Config, Delivery},
    program::Report,
};
use tokio_util::sync::CancellationToken;

use self::facts::{Outcome, Probed, Server};
use crate::{error::ConsumerError, sink::ClickHouse};

/// Asks both sides, and probes the tables where exactly-once is asked for. A
/// side that does not answer is a finding, too. `stop` ends the probe early.
///
/// # Errors
/// When the configuration names nothing to ask.
pub(crate) async fn doctor(
    config: &Config,
    probes: bool,
    stop: &CancellationToken,
) -> Result<Report, ConsumerError> {
    let mut report = Report::default();
    // The database may be what is missing.
    let mut outside = config.clickhouse.clone();
    "default".clone_into(&mut outside.database);
    let clickhouse = ClickHouse::new(&outside)?;
    let server = unless(stop, ask::clickhouse::ask(config, &clickhouse)).await;
    let server = server.map_err(|error| report.unanswered("clickhouse", &error)).ok();
    let kafka = unless(stop, ask::kafka::ask(config)).await;
    let kafka = kafka.map_err(|error| report.unanswered("kafka", &error)).ok();
    if let Some(server) = &server {
        report.extend(judge::clickhouse(server, config));
        if probes && config.consumer.delivery == Delivery::ExactlyOnce {
            let probed = probe_all(&clickhouse, server, stop).await;
            report.extend(judge::probed(&probed, server));
            if probed.iter().any(|probed| matches!(probed.outcome, Outcome::Interrupted)) {
                report.unanswered("probe", &interrupted());
            }
        }
    }
    if let Some(kafka) = &kafka {
        report.extend(judge::kafka(kafka, config, jiff::Timestamp::now()));
    }
    if let (Some(server), Some(kafka)) = (&server, &kafka) {
        report.extend(judge::both(server, kafka, config));
    }
    Ok(report)
}

async fn unless<T>(
    stop: &CancellationToken,
    asking: impl Future<Output = Result<T, ConsumerError>>,
) -> Result<T, ConsumerError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(interrupted()),
        answer = asking => answer,
    }
}

fn interrupted() -> ConsumerError {
    ConsumerError::Interrupted("the doctor was told to stop".to_owned())
}

/// One after the other, so that little is there at a time.
async fn probe_all(
    clickhouse: &ClickHouse,
    server: &Server,
    stop: &CancellationToken,
) -> Vec<Probed> {
    let mut all = Vec::new();
    for table in &server.tables {
        let Some(shape) = table.shape.as_ref().filter(|_| judge::is_probed(table)) else {
            continue;
        };
        all.push(probe::probe(clickhouse, table, shape, stop).await);
    }
    all
}

#[cfg(test)]
mod tests {
    //! Facts of services with which all is well.

    use std::collections::BTreeMap;

    use outpour_schemas::{config::Route, kafka::Settings, program::Finding};

    use super::{
        facts::{
            DeadLetters, Group, Kafka, Member, Offsets, Rights, Setting, Shape, Table, Topic, View,
        },
        *,
    };
    use crate::{
        deduplication::Memory,
        merging::Merging,
        plan::Plan,
        rejected::Rejected,
        sink::{INSERT_SETTINGS, TableFinding},
        table::{DescribedColumn, TableName},
    };

    /// A route from topics of orders into the table of the facts.
    pub(super) fn config() -> Config {
        let mut config = Config::default();
        config.clickhouse.database = "db".into();
        config.consumer.dead_letter_replication_factor = Some(3);
        config.routes = vec![route()];
        config
    }

    pub(super) fn route() -> Route {
        Route {
            topic: "^outbox\\.event\\.order".into(),
            table: "orders".into(),
            ..Route::default()
        }
    }

    pub(super) fn column(name: &str, type_name: &str) -> DescribedColumn {
        DescribedColumn {
            name: name.into(),
            type_name: type_name.into(),
            default_kind: String::new(),
        }
    }

    pub(super) fn shape(columns: Vec<DescribedColumn>) -> Shape {
        Shape {
            finding: TableFinding {
                columns,
                constants: BTreeMap::new(),
                engine: "MergeTree".into(),
                is_partitioned: false,
                has_dependents: false,
                can_be_asked: true,
                memory: Memory::Local { window: 10_000 },
                is_synced: true,
                expires: false,
                merging: Merging::Never,
            },
            engine_full:
                "MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000".into(),
            sorting_key: "id".into(),
            partition_key: String::new(),
            indices: vec!["_offset".into()],
        }
    }

    pub(super) fn view(name: &str, source: &str, target: &str) -> View {
        let named = |table: &str| TableName { database: "db".into(), table: table.into() };
        View {
            name: named(name),
            source: named(source),
            select: format!("SELECT id FROM db.{source}"),
            target: Some(named(target)),
            shape: Some(shape(vec![column("id", "UInt64")])),
        }
    }

    pub(super) fn server() -> Server {
        let columns = vec![
            column("id", "UInt64"),
            column("_topic", "LowCardinality(String)"),
            column("_partition", "UInt32"),
            column("_offset", "UInt64"),
        ];
        let fine = |value: &str| Setting {
            value: value.to_owned(),
            is_fixed: false,
            min: None,
            max: None,
        };
        let mut settings: BTreeMap<_, _> =
            INSERT_SETTINGS.map(|(name, value)| (name.to_owned(), fine(value))).into();
        for (name, value) in [
            ("insert_deduplication_token", ""),
            ("deduplicate_insert", "enable"),
            ("materialized_views_ignore_errors", "0"),
            ("readonly", "0"),
        ] {
            settings.insert(name.to_owned(), fine(value));
        }
        Server {
            version: "26.9.2.1".into(),
            user: "outpour".into(),
            has_replicas: false,
            settings,
            tables: vec![Table {
                name: TableName { database: "db".into(), table: "orders".into() },
                shape: Some(shape(columns)),
                rights: Rights {
                    insert: Some(true),
                    select: Some(true),
                    sync: None,
                    scratch: Some(true),
                },
                refusal: None,
                hidden: None,
                views: Vec::new(),
            }],
            leftovers: Vec::new(),
            zone: None,
            clock_ahead_ms: 3,
            round_trip_ms: 1,
        }
    }

    pub(super) fn topic(name: &str) -> Topic {
        Topic {
            name: name.into(),
            partitions: 2,
            leaderless: 0,
            replicas: 3,
            settings: settings(&[
                ("cleanup.policy", "delete"),
                ("max.message.bytes", "1048588"),
                ("retention.ms", "604800000"),
                ("retention.bytes", "-1"),
            ]),
        }
    }

    pub(super) fn settings(all: &[(&str, &str)]) -> Settings {
        Some(all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    pub(super) fn kafka() -> Kafka {
        let source = "outbox.event.order";
        let offsets = |number: i32| Offsets {
            partition: format!("{source}/{number}"),
            topic: source.into(),
            number,
            committed: Some(100),
            plan: Ok(None),
            log: Some(0..100),
        };
        let letters = format!("outpour.dead-letter.{source}");
        Kafka {
            cluster: "abc".into(),
            brokers: 3,
            offsets_replicas: Some(3),
            broker: settings(&[
                ("offset.metadata.max.bytes", "4096"),
                ("offsets.retention.minutes", "10080"),
                ("group.min.session.timeout.ms", "6000"),
                ("group.max.session.timeout.ms", "1800000"),
                ("message.max.bytes", "1048588"),
            ]),
            topics: vec![topic(source)],
            dead_letters: vec![DeadLetters {
                name: letters.clone(),
                source: source.into(),
                topic: Some(for_letters(topic(&letters))),
                refusal: None,
            }],
            group: Group {
                state: "Stable".into(),
                protocol_type: "consumer".into(),
                protocol: "range".into(),
                members: vec![Member {
                    client: "outpour-consumer".into(),
                    host: "10.0.0.1".into(),
                    partitions: vec![format!("{source}/0"), format!("{source}/1")],
                }],
            },
            offsets: Ok(vec![offsets(0), offsets(1)]),
        }
    }

    /// With room for headers, and nothing removed.
    fn for_letters(mut topic: Topic) -> Topic {
        let settings = topic.settings.as_mut().unwrap();
        settings.insert("retention.ms".into(), "-1".into());
        settings.insert("max.message.bytes".into(), "1114124".into());
        topic
    }

    pub(super) fn plan(planned_at_ms: i64) -> Plan {
        Plan {
            version: crate::plan::VERSION,
            owner: "outpour-consumer/7".into(),
            start: 100,
            end: 110,
            rows: 10,
            rejected: Rejected::default(),
            content: "0".repeat(32),
            by_provenance: false,
            first: None,
            is_forgotten: false,
            was_moved: false,
            search: None,
            planned_at_ms,
            frame: None,
        }
    }

    /// That there is this one finding, with its reason.
    pub(super) fn assert_one(
        findings: &[Finding],
        level: outpour_schemas::program::Level,
        check: &str,
        what: &str,
    ) {
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!((findings[0].level, findings[0].check), (level, check), "{findings:?}");
        assert!(findings[0].what.contains(what), "{findings:?}");
        assert!(findings[0].why.is_some() && findings[0].fix.is_some(), "{findings:?}");
    }
}
