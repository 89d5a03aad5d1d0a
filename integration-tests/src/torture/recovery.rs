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
    pub(super) count: u64,
    /// The longest time without a new row while there were some to come, in
    /// seconds.
    pub(super) worst_stall_s: f64,
    /// The longest time from the end of a fault until there was a row for
    /// everything that had been committed by then, in seconds.
    pub(super) worst_recovery_s: f64,
}

pub(super) fn recoveries(done: &[Done], samples: &[Sample]) -> BTreeMap<Fault, Recovery> {
    let mut recoveries: BTreeMap<Fault, Recovery> = BTreeMap::new();
    for done in done {
        let recovery = recoveries.entry(done.fault).or_default();
        let recovered = recovered(done.healed, samples);
        recovery.count += 1;
        let took = recovered.saturating_duration_since(done.healed).as_secs_f64();
        recovery.worst_recovery_s = recovery.worst_recovery_s.max(took);
        let stall = stall(done.began, recovered, samples).as_secs_f64();
        recovery.worst_stall_s = recovery.worst_stall_s.max(stall);
    }
    recoveries
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
        let expected = Recovery { count: 1, worst_stall_s: 2.0, worst_recovery_s: 2.0 };
        assert_eq!(found, Some(expected));
    }
}
