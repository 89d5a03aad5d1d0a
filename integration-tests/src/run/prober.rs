//! When each row could first be seen in ClickHouse, by looking all the time.
//!
//! Rows of a partition are stored in the order of their offsets, so the highest
//! offset that is visible tells of all below it.

use std::{collections::BTreeMap, time::Duration};

use clickhouse::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    counters::Counters,
    latency::{Latency, now_ms},
};

/// Between two looks; the look itself comes on top.
const PAUSE: Duration = Duration::from_millis(15);

/// What was seen, and when.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// By partition: the highest offset, and since when it is visible. Both
    /// only go up.
    partitions: BTreeMap<u32, Vec<(u64, i64)>>,
    /// Milliseconds from one look to the next.
    gaps: Vec<i64>,
}

/// How exact a sighting is: a row may have been visible since the look before.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Resolution {
    pub(super) looks: u64,
    pub(super) p50_ms: i64,
    pub(super) p99_ms: i64,
}

impl Sightings {
    fn note(&mut self, partition: u32, highest: u64, seen_ms: i64) {
        let sightings = self.partitions.entry(partition).or_default();
        if sightings.last().is_none_or(|(last, _)| *last < highest) {
            sightings.push((highest, seen_ms));
        }
    }

    /// When the row was seen first.
    pub(super) fn first_seen(&self, partition: u32, offset: u64) -> Option<i64> {
        let sightings = self.partitions.get(&partition)?;
        let at = sightings.partition_point(|(highest, _)| *highest < offset);
        sightings.get(at).map(|(_, seen_ms)| *seen_ms)
    }

    pub(super) fn resolution(&self) -> Option<Resolution> {
        let gaps = Latency::of(self.gaps.clone())?;
        Some(Resolution { looks: gaps.events, p50_ms: gaps.p50_ms, p99_ms: gaps.p99_ms })
    }
}

/// Looks until told to stop.
pub(super) async fn watch(
    client: Client,
    counters: &Counters,
    stop: CancellationToken,
) -> Sightings {
    let mut sightings = Sightings::default();
    let mut last_look: Option<Instant> = None;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let rows = client
            .query("SELECT _partition, max(_offset) FROM flights GROUP BY _partition")
            .fetch_all::<(u32, u64)>()
            .await;
        match rows {
            Ok(rows) => {
                let seen_ms = now_ms();
                for (partition, highest) in rows {
                    sightings.note(partition, highest, seen_ms);
                }
                let gap = last_look.replace(began).map(|last| began - last);
                let gap = gap.map(|gap| i64::try_from(gap.as_millis()).unwrap_or(i64::MAX));
                sightings.gaps.extend(gap);
            }
            Err(error) => counters.note_trouble("looking into ClickHouse", &error),
        }
        sleep(PAUSE).await;
    }
    sightings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_was_seen_when_its_offset_was_first_covered() {
        let mut sightings = Sightings::default();
        for (highest, seen_ms) in [(4, 100), (4, 120), (9, 140)] {
            sightings.note(2, highest, seen_ms);
        }
        let seen = |offset| sightings.first_seen(2, offset);
        assert_eq!(
            (seen(0), seen(4), seen(5), seen(9), seen(10)),
            (Some(100), Some(100), Some(140), Some(140), None)
        );
        assert_eq!(sightings.first_seen(3, 0), None);
    }
}
