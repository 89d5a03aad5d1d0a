//! From facts to findings. Pure.

mod dead_letters;
mod durability;
mod group;
mod probe;
mod provenance;
mod routes;
mod server;
mod table;
mod topics;
mod views;
mod zones;

use jiff::Timestamp;
use outpour_schemas::{
    config::{Config, Delivery},
    program::Finding,
};

use super::facts::{Kafka, Probed, Server, Table};

/// What ClickHouse's answers mean.
pub(super) fn clickhouse(facts: &Server, config: &Config) -> Vec<Finding> {
    let once = is_once(config);
    let mut findings = server::judge(facts, once);
    for table in &facts.tables {
        findings.extend(table::judge(facts, table, once, config));
        if let Some(shape) = &table.shape {
            findings.extend(provenance::judge(table, shape, config));
        }
        findings.extend(zones::judge(facts, table, config));
        findings.extend(views::judge(facts, table, once));
    }
    findings.extend(durability::judge(facts, config));
    findings.extend(routes::columns(facts, config));
    findings.extend(server::leftovers(facts));
    findings
}

/// Whether there is something to prove by inserting, and the user may.
pub(super) fn is_probed(table: &Table) -> bool {
    may_be_proved(table) && table.rights.scratch != Some(false)
}

fn may_be_proved(table: &Table) -> bool {
    table.shape.as_ref().is_some_and(|shape| shape.finding.engine.ends_with("MergeTree"))
}

/// What the probes showed.
pub(super) fn probed(all: &[Probed], server: &Server) -> Vec<Finding> {
    let mut findings: Vec<_> = all.iter().flat_map(|one| probe::judge(one, server)).collect();
    findings.extend(server.tables.iter().filter_map(|table| probe::forbidden(table, server)));
    findings
}

/// What Kafka's answers mean.
pub(super) fn kafka(facts: &Kafka, config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = topics::judge(facts, config);
    findings.extend(group::judge(facts, config, now));
    findings.extend(dead_letters::judge(facts, config));
    findings
}

/// What the two together mean.
pub(super) fn both(server: &Server, kafka: &Kafka, config: &Config) -> Vec<Finding> {
    let mut findings = routes::topics(kafka, config);
    if is_once(config) {
        findings.extend(routes::ambiguous(kafka, config));
        findings.extend(table::windows(server, kafka, config));
    }
    findings
}

fn is_once(config: &Config) -> bool {
    config.consumer.delivery == Delivery::ExactlyOnce
}
