//! How long rows stood still because of a fault, and how long it took afterwards
//! until everything was there. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{faults::Done, schedule::Fault, watch::Sample};

/// Of all faults of a kind. Other faults went on meanwhile, so that these are
/// upper bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Recovery {
    pub(super) count: usize,
    /// The longest time without a new row while there were some to come.
    pub(super) stall: Spread,
    /// From the end of a fault until the next new row.
    pub(super) progress: Spread,
    /// From the end of a fault until there was a row for everything that had been
    /// committed by then: no partition stands any more.
    pub(super) recovery: Spread,
}

/// Of several times, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) worst: f64,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The smallest that so many of a hundred do not exceed.
        let of_hundred = |n: usize| {
            let at = (times.len() * n).div_ceil(100).saturating_sub(1);
            times.get(at).map_or(0.0, Duration::as_secs_f64)
        };
        Spread { p50: of_hundred(50), p99: of_hundred(99), worst: of_hundred(100) }
    }
}

pub(super) fn recoveries(done: &[Done], samples: &[Sample]) -> BTreeMap<Fault, Recovery> {
    let mut of_kind: BTreeMap<Fault, Vec<&Done>> = BTreeMap::new();
    for done in done {
        of_kind.entry(done.fault).or_default().push(done);
    }
    let recoveries = of_kind.into_iter().map(|(fault, done)| {
        let spread = |time: fn(&Done, Instant, &[Sample]) -> Duration| {
            let times =
                done.iter().map(|done| time(done, recovered(done.healed, samples), samples));
            Spread::of(times.collect())
        };
        let recovery = Recovery {
            count: done.len(),
            stall: spread(|done, recovered, samples| stall(done.began, recovered, samples)),
            progress: spread(|done, _, samples| progress(done.healed, samples)),
            recovery: spread(|done, recovered, _| recovered.saturating_duration_since(done.healed)),
        };
        (fault, recovery)
    });
    recoveries.collect()
}

/// From `from` until there was a new row, or until none was to come.
fn progress(from: Instant, samples: &[Sample]) -> Duration {
    let before = samples.iter().take_while(|sample| sample.at <= from).last();
    let rows = before.map_or(0, |sample| sample.rows);
    let later = || samples.iter().filter(|sample| sample.at >= from);
    let moved = later().find(|sample| sample.rows > rows || sample.rows >= sample.due);
    let moved = moved.or(later().next_back());
    moved.map_or(Duration::ZERO, |sample| sample.at - from)
}

/// When there were as many rows as had to come of what was committed at `healed`.
fn recovered(healed: Instant, samples: &[Sample]) -> Instant {
    let due = samples.iter().take_while(|sample| sample.at <= healed).last();
    let due = due.map_or(0, |sample| sample.due);
    let later = || samples.iter().filter(|sample| sample.at >= healed);
    let there = later().find(|sample| sample.rows >= due).or(later().next_back());
    there.map_or(healed, |sample| sample.at)
}

/// The longest time without a new row.
fn stall(from: Instant, to: Instant, samples: &[Sample]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut since: Option<Sample> = None;
    for sample in samples.iter().filter(|sample| sample.at >= from && sample.at <= to) {
        let moved = since.is_none_or(|since| sample.rows > since.rows || since.rows >= since.due);
        if moved {
            since = Some(*sample);
        } else if let Some(since) = since {
            longest = longest.max(sample.at - since.at);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_over_when_all_of_its_time_is_there() {
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let sample = |second, rows, due| Sample { at: at(second), rows, due };
        // Nothing moves from 2 to 5; what was committed by 4 is there at 6.
        let samples = [
            sample(0, 0, 0),
            sample(1, 10, 10),
            sample(2, 20, 20),
            sample(3, 20, 30),
            sample(4, 20, 40),
            sample(5, 20, 50),
            sample(6, 45, 60),
            sample(7, 70, 70),
        ];
        let done = Done { fault: Fault::KafkaCut, began: at(2), healed: at(4) };
        let recoveries = recoveries(&[done], &samples);
        let found = recoveries.get(&Fault::KafkaCut).copied();
        let two = Spread { p50: 2.0, p99: 2.0, worst: 2.0 };
        let expected = Recovery { count: 1, stall: two, progress: two, recovery: two };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn of_several_faults_of_a_kind_the_median_the_last_hundredth_and_the_worst_are_told() {
        let spread = |seconds: std::ops::RangeInclusive<u64>| {
            Spread::of(seconds.rev().map(Duration::from_secs).collect())
        };
        assert_eq!(spread(1..=200), Spread { p50: 100.0, p99: 198.0, worst: 200.0 });
        assert_eq!(spread(1..=3), Spread { p50: 2.0, p99: 3.0, worst: 3.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
