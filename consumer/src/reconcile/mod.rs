//! Audits ClickHouse against Kafka, offset by offset.
//!
//! ```text
//! bounds.rs ─▶ audit.rs ──────▶ drill.rs ─▶ Report ─▶ text.rs or JSON
//! how far       sums of both     offsets of
//! the group is  sides: scan.rs,  what differs
//!               stored.rs
//! ```
//!
//! Nothing is written and no group is joined, except by `fix.rs` and `republish.rs`. `sums.rs`, `offsets.rs`, `compare.rs`
//! and `since.rs` are pure. Memory does not grow with the topic: of both sides,
//! ranges of offsets are held as a count and a sum; offsets themselves only of a
//! window that differs, and of dead letters.
//!
//! It holds while the consumer works. The group's committed offsets are taken
//! first: everything before them was stored or parked by then (I6), so that it can
//! be looked at in peace. What lies at them or behind may be under way, whether or
//! not a plan says so, and is not judged. Where Kafka begins is asked again after
//! reading, and where it ends after looking at ClickHouse.

mod audit;
mod bounds;
mod compare;
mod drill;
mod error;
mod fix;
mod letters;
mod offsets;
mod outbox;
mod reader;
mod report;
mod republish;
mod routing;
mod scan;
mod since;
mod stored;
mod sums;
mod text;
mod values;

use std::sync::Arc;

use jiff::Timestamp;
use outpour_schemas::{config::Config, kafka::client_config};

use self::{
    audit::Audit,
    bounds::{Bounds, Topic},
    report::Report,
    routing::Routing,
    since::Since,
};
pub(crate) use self::{error::ReconcileError, fix::fix};
use crate::{
    error::ConsumerError,
    merging::Merging,
    progress::Progress,
    sink::ClickHouse,
    source::{Position, Subscription, Topics},
    table::quoted,
    tables,
};

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this topic; may be given several times. By default all that the group reads
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// From this offset, this time (2026-01-02T03:04:05Z) or so long ago (-6h); by default from
    /// where Kafka begins
    #[arg(long, value_name = "OFFSET|TIME", allow_hyphen_values = true)]
    since: Option<Position>,
    /// Compare the outbox table with Kafka, too: whether every event in it was published
    #[arg(long)]
    outbox: bool,
    /// Compare values, too: each record is encoded again and compared with its row. Makes a
    /// scratch table beside each table, and drops it again
    #[arg(long)]
    values: bool,
    /// Replay what is missing, delete and replay what is there more than once, with --outbox have
    /// events published that never were, and compare again
    #[arg(long)]
    pub(crate) fix: bool,
    /// Do not ask; where there is no terminal, --fix needs it
    #[arg(long, requires = "fix")]
    yes: bool,
    /// One object with every count and every range
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compares, and changes nothing.
///
/// # Errors
/// When there is nothing to compare, or either side cannot be read.
pub(crate) async fn reconcile(config: &Config, args: &Args) -> Result<Report, ConsumerError> {
    let since = args.since.map(|since| Since::of(since, Timestamp::now())).transpose();
    let since = since.map_err(ReconcileError::Since)?.flatten();
    let clickhouse = ClickHouse::new(&config.clickhouse)?;
    // First of all, and before any table is looked at.
    let topics = bounds::ask(config, &args.topics, since).await?;
    let found = tables::find(config, &clickhouse).await?;
    let mappings = tables::mappings_to_read(&found)?;
    let mut report = Report {
        group: config.consumer.group.clone(),
        since: since.map(|since| since.to_string()),
        slot: config.relay.slot.clone(),
        ..Report::default()
    };
    let routings: Vec<_> =
        topics.iter().map(|topic| Arc::new(Routing::of(&topic.name, &mappings))).collect();
    for routing in &routings {
        check_provenance(routing)?;
        check_merging(routing)?;
    }
    if args.topics.is_empty() {
        report.notes.extend(missing_topics(&config.consumer.topics, &topics));
    }
    report.notes.extend(found.iter().filter_map(expires));
    report.keeps_no_order = mappings
        .iter()
        .filter(|mapping| !mapping.takes_again())
        .map(|mapping| (mapping.table.to_string(), mapping.engine().to_owned()))
        .collect();
    let all = topics.iter().flat_map(|topic| topic.partitions.values()).map(offsets).sum();
    let progress = Progress::show("reconcile", all, 0);
    let client = client_config(&config.kafka)?;
    let config = Arc::new(config.clone());
    for (topic, routing) in topics.into_iter().zip(routings) {
        report.notes.extend(notes(&topic));
        let audit = Audit {
            config: Arc::clone(&config),
            client: client.clone(),
            clickhouse: clickhouse.clone(),
            topic: Arc::new(topic),
            routing,
            values: args.values,
            bar: progress.bar(),
        };
        audit.run(&mut report).await?;
    }
    let merged: Vec<_> = found.iter().filter_map(|found| merged(found, &report)).collect();
    report.notes.extend(merged);
    report.notes.sort();
    report.notes.dedup();
    if args.outbox {
        report.outbox = Some(outbox::compare(&config).await?);
    }
    report.finish();
    Ok(report)
}

fn offsets(bounds: &Bounds) -> u64 {
    let range = bounds.in_kafka();
    (range.end - range.start).max(0).cast_unsigned()
}

/// Without provenance nothing tells which record a row is.
fn check_provenance(routing: &Routing) -> Result<(), ReconcileError> {
    let tables = routing.tables.iter().enumerate();
    let mut written = tables.filter(|(index, _)| routing.writes_to(*index)).map(|(_, table)| table);
    match written.find(|table| !table.has_provenance) {
        None => Ok(()),
        Some(table) => Err(ReconcileError::NoProvenance {
            table: table.name.clone(),
            fix: format!(
                "ALTER TABLE {}.{} ADD COLUMN _topic LowCardinality(String), \
                 ADD COLUMN _partition UInt32, ADD COLUMN _offset UInt64",
                quoted(&table.table.database),
                quoted(&table.table.table)
            ),
        }),
    }
}

/// Topics that are named and gone: what was read of them is compared with nothing.
fn missing_topics(read: &[String], there: &[Topic]) -> Vec<String> {
    let found = Subscription::of(read).among(there.iter().map(|topic| &*topic.name));
    let note =
        |topic: &String| format!("{}: nothing of it is compared", Topics::missing_line(topic));
    found.missing.iter().map(note).collect()
}

/// Nor does anything where rows become others.
fn check_merging(routing: &Routing) -> Result<(), ReconcileError> {
    let mut read = routing.tables.iter().filter(|table| !table.routes.is_empty());
    match read.find(|table| *table.merging() == Merging::Combined) {
        None => Ok(()),
        Some(table) => Err(ReconcileError::Combined {
            table: table.name.clone(),
            engine: table.engine().to_owned(),
            remedy: table.merging().remedy(&table.table),
        }),
    }
}

fn expires(found: &tables::Found) -> Option<String> {
    let name = found.name();
    found
        .table()?
        .expires
        .then(|| format!("table {name} has a TTL: rows that it has removed count as missing"))
}

/// What is said of rows that a table lacks and may have merged away.
fn merged(found: &tables::Found, report: &Report) -> Option<String> {
    let (name, engine) = (found.name().to_string(), &found.table()?.engine);
    let of_it = report.partitions.iter().filter(|compared| compared.table.as_ref() == Some(&name));
    let rows: u64 = of_it.map(|compared| compared.counts.merged).sum();
    (rows > 0).then(|| {
        format!(
            "{rows} rows of table {name} are not there; {engine} merges rows of one sorting key, so \
             that they are no loss as far as anything tells"
        )
    })
}

fn notes(topic: &Topic) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &topic.name;
    if topic.is_compacted {
        notes.push(format!(
            "`{name}` is compacted: rows without a record count as no longer in Kafka"
        ));
    }
    for (partition, bounds) in &topic.partitions {
        let Bounds { from, to, high, is_committed, .. } = *bounds;
        if !is_committed {
            if high > from {
                notes.push(format!(
                    "the group has committed nothing in {name}/{partition} yet: nothing of it is compared"
                ));
            }
        } else if to > high {
            notes.push(format!(
                "the group stands at offset {to} of {name}/{partition}, past its end, {high}: the topic \
                 may have been made anew"
            ));
        } else if from > to {
            notes.push(format!(
                "the group stands at offset {to} of {name}/{partition}; nothing from {from} on has been \
                 committed, and nothing of it is compared"
            ));
        }
    }
    notes
}
