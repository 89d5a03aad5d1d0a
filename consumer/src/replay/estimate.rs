//! How much lies between offsets, from a sample of both ends. Blocks.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::{report::Estimate, run};
use crate::{
    error::ConsumerError,
    source::{
        RecordView,
        reader::{Part, TopicReader},
    },
};

/// Offsets that are looked at, at each end of each partition.
const SAMPLE: i64 = 500;

pub(super) fn estimate(
    reader: &TopicReader,
    topic: &str,
    parts: &[Part],
) -> Result<Estimate, ConsumerError> {
    let first =
        parts.iter().map(|part| Part { until: part.until.min(part.from + SAMPLE), ..*part });
    let last = parts.iter().map(|part| Part {
        from: part.from.max(part.until - SAMPLE).max(part.until.min(part.from + SAMPLE)),
        ..*part
    });
    let (mut records, mut bytes, mut times) = (0_u64, 0_u64, Vec::new());
    for ends in [first.collect::<Vec<_>>(), last.collect()] {
        reader.read(topic, &ends, |record| {
            records += 1;
            bytes += size(record);
            times.extend(record.timestamp_ms);
            ControlFlow::Continue(())
        })?;
    }
    let all = run::offsets(parts);
    let mean = bytes as f64 / records.max(1) as f64;
    let text = |ms: Option<&i64>| Some(Timestamp::from_millisecond(*ms?).ok()?.to_string());
    Ok(Estimate {
        records: all,
        bytes: (mean * all as f64) as u64,
        first: text(times.iter().min()),
        last: text(times.iter().max()),
    })
}

/// Bytes of a record's key, value and headers.
fn size(record: &RecordView<'_>) -> u64 {
    let headers = record.headers.iter();
    let headers: usize =
        headers.map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers;
    bytes as u64
}
