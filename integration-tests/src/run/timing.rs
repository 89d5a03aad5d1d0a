//! From what was seen to latencies and throughput.

use super::{
    kafka::Arrival,
    latency::Latency,
    prober::Sightings,
    report::{Latencies, Throughput},
    tables::StoredFlight,
};

/// What was seen, and since when the feed kept a steady pace.
pub(super) struct Timing {
    pub(super) sightings: Sightings,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) paced_from_ms: i64,
}

impl Timing {
    pub(super) fn throughput(&self, rows: &[StoredFlight]) -> Throughput {
        let full_speed = rows.iter().filter(|row| !self.is_paced(row.committed_ms));
        let (mut events, mut first, mut last, mut seen) = (0, i64::MAX, i64::MIN, i64::MIN);
        for row in full_speed {
            events += 1;
            first = first.min(row.committed_ms);
            last = last.max(row.committed_ms);
            let row_seen = self.sightings.first_seen(row.partition, row.offset);
            seen = seen.max(row_seen.unwrap_or(i64::MIN));
        }
        let visible_in_s = seconds(first, seen);
        let events_per_s = if visible_in_s > 0.0 { events as f64 / visible_in_s } else { 0.0 };
        Throughput { events, committed_in_s: seconds(first, last), visible_in_s, events_per_s }
    }

    pub(super) fn latencies(&self, rows: &[StoredFlight]) -> Latencies {
        let to_kafka = |paced| {
            let arrivals = self.arrivals.iter();
            let of_phase = arrivals.filter(|at| self.is_paced(at.committed_ms) == paced);
            Latency::of(of_phase.map(|at| at.seen_ms - at.committed_ms).collect())
        };
        let to_clickhouse = |paced| {
            let of_phase = rows.iter().filter(|row| self.is_paced(row.committed_ms) == paced);
            let seen = of_phase.filter_map(|row| {
                let seen = self.sightings.first_seen(row.partition, row.offset)?;
                Some(seen - row.committed_ms)
            });
            Latency::of(seen.collect())
        };
        Latencies {
            full_speed_to_kafka: to_kafka(false),
            full_speed_to_clickhouse: to_clickhouse(false),
            paced_to_kafka: to_kafka(true),
            paced_to_clickhouse: to_clickhouse(true),
            paced_events_per_s: self.pace(rows),
            resolution: self.sightings.resolution(),
        }
    }

    /// Events a second that the feed really made while it kept its pace.
    fn pace(&self, rows: &[StoredFlight]) -> f64 {
        let commits = rows.iter().map(|row| row.committed_ms).filter(|at| self.is_paced(*at));
        let (events, first, last) = commits
            .fold((0, i64::MAX, i64::MIN), |(n, first, last), at| {
                (n + 1, first.min(at), last.max(at))
            });
        let took = seconds(first, last);
        if took > 0.0 { f64::from(events) / took } else { 0.0 }
    }

    fn is_paced(&self, committed_ms: i64) -> bool {
        committed_ms >= self.paced_from_ms
    }
}

fn seconds(from_ms: i64, to_ms: i64) -> f64 {
    to_ms.saturating_sub(from_ms).max(0) as f64 / 1000.0
}
