//! From facts to findings. Pure.

mod checkpoint;
mod kafka;
mod outbox;
mod publication;
mod rights;
mod server;
mod slot;
mod snapshot;

use outpour_schemas::{
    Lsn,
    config::{Config, Mode},
    program::Finding,
};

pub(super) use self::server::replication;
use super::facts::{Database, Kafka};
use crate::wal::row::Wanted;

/// What PostgreSQL's answers mean. `wanted` are the columns that records are
/// made of.
pub(super) fn database(facts: &Database, wanted: &[Wanted], config: &Config) -> Vec<Finding> {
    if config.relay.mode == Mode::Poll {
        // The table is all that counts: nothing is replicated.
        let mut findings = vec![server::encoding(&facts.encoding)];
        findings.extend(outbox::polled(facts, wanted, config));
        return findings;
    }
    let mut findings = server::judge(facts);
    findings.extend(outbox::judge(facts, wanted, config));
    findings.extend(slot::judge(facts, config));
    findings
}

/// What Kafka's answers mean.
pub(super) fn kafka(facts: &Kafka, config: &Config) -> Vec<Finding> {
    kafka::judge(facts, config)
}

/// What the two together mean. `log_end` was asked for after Kafka was.
pub(super) fn both(
    database: &Database,
    kafka: &Kafka,
    log_end: Lsn,
    config: &Config,
) -> Vec<Finding> {
    if config.relay.mode == Mode::Poll {
        return Vec::new();
    }
    let found = kafka.checkpoint.as_ref();
    let checkpoint = checkpoint::judge(database, found, log_end);
    checkpoint.into_iter().chain(snapshot::judge(database, found, config)).collect()
}

fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).to_string()
}
