//! Records of a topic, as a reader finds them.

use std::collections::HashMap;

use integration_tests::pipeline::{Pipeline, header};
use outpour_schemas::Position;
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
    let ids: std::collections::HashSet<_> = found.iter().map(|record| &record.id).collect();
    assert_eq!((found.len(), ids.len()), (expected, expected), "(records, events)");
    let mut last = HashMap::new();
    for record in found {
        if let Some(before) = last.insert(&record.key, record.position) {
            assert!(before < record.position, "key {} went back", record.key);
        }
    }
}
