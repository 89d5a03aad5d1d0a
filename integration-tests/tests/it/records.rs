//! Records of a topic, as a reader finds them.

use std::collections::{BTreeMap, HashMap, HashSet};

use integration_tests::pipeline::{Pipeline, header};
use outpour_schemas::{Lsn, Position};
use rdkafka::Message;

/// What a read_committed reader finds in a topic, in the order of reading.
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) position: Position,
}

/// Reads `count` records of an aggregate type, and makes sure that there are no
/// more.
pub(crate) fn read(pipeline: &Pipeline<'_>, aggregate_type: &str, count: usize) -> Vec<Found> {
    let reader = pipeline.reader(&pipeline.topic(aggregate_type)).unwrap();
    let found = reader.take(count, |message| {
        Some(Found {
            key: String::from_utf8(message.key()?.to_vec()).ok()?,
            id: header(message, "id")?,
            position: header(message, "outpour-lsn")?.parse().ok()?,
        })
    });
    reader.nothing_more().unwrap();
    found.unwrap()
}

pub(crate) fn assert_once_and_in_order(found: &[Found], expected: usize) {
    let ids: HashSet<_> = found.iter().map(|record| &record.id).collect();
    assert_eq!((found.len(), ids.len()), (expected, expected), "(records, events)");
    let mut last = HashMap::new();
    for record in found {
        if let Some(before) = last.insert(&record.key, record.position) {
            assert!(before < record.position, "key {} went back", record.key);
        }
    }
}

/// The positions alone prove it: `transactions` database transactions, each
/// with its rows numbered from 0 without a gap, none of them twice.
pub(crate) fn assert_gap_free(found: &[Found], transactions: usize) {
    let mut ordinals: BTreeMap<Lsn, Vec<u32>> = BTreeMap::new();
    for record in found {
        ordinals.entry(record.position.commit_lsn).or_default().push(record.position.ordinal);
    }
    assert_eq!(ordinals.len(), transactions, "transactions");
    for (commit_lsn, mut found) in ordinals {
        found.sort_unstable();
        let whole: Vec<_> = (0..u32::try_from(found.len()).unwrap()).collect();
        assert_eq!(found, whole, "rows of the transaction at {commit_lsn}");
    }
}

/// The number of checkpoints that the relay has written.
pub(crate) async fn checkpoints(pipeline: &Pipeline<'_>) -> u64 {
    let output = pipeline.relay_output(&["status", "--json"]).await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["checkpoints"].as_u64().unwrap_or(0)
}
