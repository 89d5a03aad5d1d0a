//! The golden examples: one event at each of its stations.
//!
//! Both programs are tested against the same files, so that neither can change
//! the contract alone. They also show a reader what the data looks like.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Lsn, Record};

/// One file of `schemas/examples/`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it is an example of.
    pub says: String,
    /// The outbox row, each column in PostgreSQL's text form.
    pub outbox: BTreeMap<String, Option<String>>,
    pub commit_lsn: Lsn,
    pub ordinal: u32,
    /// Microseconds since the Unix epoch.
    pub committed_at_us: i64,
    record: TextRecord,
    /// The row of `event_log`, but for where in Kafka it came from.
    pub event_log: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRecord {
    topic: String,
    key: Option<String>,
    value: Option<String>,
    timestamp_ms: i64,
    headers: Vec<(String, Option<String>)>,
}

impl Example {
    /// The Kafka record.
    #[must_use]
    pub fn record(&self) -> Record {
        let record = self.record.clone();
        Record {
            topic: record.topic,
            partition: None,
            key: record.key.map(String::into_bytes),
            value: record.value.map(String::into_bytes),
            timestamp_ms: record.timestamp_ms,
            headers: record
                .headers
                .into_iter()
                .map(|(name, value)| (name, value.map(String::into_bytes)))
                .collect(),
        }
    }
}

/// All of them.
///
/// # Errors
/// When a file does not have the documented shape.
pub fn all() -> Result<Vec<Example>, serde_json::Error> {
    [
        include_str!("../examples/order_placed.json"),
        include_str!("../examples/unicode_key.json"),
        include_str!("../examples/null_payload.json"),
    ]
    .into_iter()
    .map(serde_json::from_str)
    .collect()
}
