//! From commit to sight, in milliseconds.

use serde::Serialize;

/// Quantiles by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Latency {
    pub(super) events: u64,
    pub(super) p50_ms: i64,
    pub(super) p99_ms: i64,
    pub(super) max_ms: i64,
}

impl Latency {
    /// Of no values there are no quantiles.
    pub(super) fn of(mut values: Vec<i64>) -> Option<Self> {
        values.sort_unstable();
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            values.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            events: values.len() as u64,
            p50_ms: at(50)?,
            p99_ms: at(99)?,
            max_ms: at(100)?,
        })
    }
}

/// The wall clock, which the services on this machine share.
pub(super) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let latency = Latency::of((1..=200).rev().collect());
        let expected = Latency { events: 200, p50_ms: 100, p99_ms: 198, max_ms: 200 };
        assert_eq!(latency, Some(expected));
        assert_eq!(Latency::of(vec![7]).map(|latency| latency.p99_ms), Some(7));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
