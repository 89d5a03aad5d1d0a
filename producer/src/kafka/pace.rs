//! When to begin the next transaction. Pure; time is passed in.
//!
//! A commit is answered before Kafka is done with it: the coordinator still has
//! the partitions marked, and refuses whatever comes meanwhile with
//! CONCURRENT_TRANSACTIONS. The client library asks again only after 20 ms,
//! whatever it is told, and says nothing about it. Waiting for the few
//! milliseconds that the markers take is much shorter, and rows gather
//! meanwhile. How long it takes is the cluster's affair: it is learned from how
//! long the first record of a transaction is on its way.

use std::time::{Duration, Instant};

/// The library's own wait, less what a clock may be off.
const REFUSED: Duration = Duration::from_millis(19);

/// Whoever was refused hears soon after that wait. A record that took longer met
/// something else.
const REFUSED_AT_MOST: Duration = Duration::from_millis(40);

/// Longer than this, waiting for the library is no worse.
const LONGEST: Duration = Duration::from_millis(15);

/// What one refusal adds to the pause.
const UP: Duration = Duration::from_millis(1);

/// What each transaction that was not refused takes off it: where neither gains,
/// one in 300 is refused, or was taken for it because the machine was busy. That
/// is so rare that the slowest percentile does not see it.
const DOWN: Duration = Duration::from_nanos(1_000_000 / 300);

/// How long to leave Kafka alone between two transactions.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pause: Duration,
    committed_at: Option<Instant>,
    /// Whether the transaction that is open began so soon after the last one
    /// that it says something about the pause.
    tells: bool,
}

impl Pace {
    /// Kafka answered the commit of a transaction.
    pub(super) fn committed(&mut self, now: Instant) {
        self.committed_at = Some(now);
    }

    /// How long to wait before another one is begun.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let since = self.committed_at.map_or(LONGEST, |at| now.saturating_duration_since(at));
        self.pause.saturating_sub(since)
    }

    /// One is begun.
    pub(super) fn begun(&mut self, now: Instant) {
        let soon = |at| now.saturating_duration_since(at) < self.pause + UP * 2;
        self.tells = self.committed_at.is_some_and(soon);
    }

    /// Its first record took so long to be acknowledged.
    pub(super) fn acknowledged(&mut self, after: Duration) {
        if !std::mem::take(&mut self.tells) {
            return;
        }
        if after < REFUSED {
            self.pause = self.pause.saturating_sub(DOWN);
        } else if after < REFUSED_AT_MOST {
            self.pause = (self.pause + UP).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A cluster that is busy for `busy` after each commit, and a relay that
    /// always has more; the pauses of `count` transactions.
    fn pauses(pace: &mut Pace, busy: Duration, count: usize) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..count {
            pace.committed(now);
            let wait = pace.wait(now);
            pauses.push(wait);
            now += wait;
            pace.begun(now);
            let ack = if wait < busy { MS(22) } else { MS(2) };
            pace.acknowledged(ack);
            now += ack + MS(5);
        }
        pauses
    }

    #[test]
    fn it_learns_how_long_a_cluster_takes_and_when_that_has_changed() {
        let mut pace = Pace::default();
        let slow = pauses(&mut pace, MS(4), 1000);
        assert_eq!(slow[..5], [MS(0), MS(1), MS(2), MS(3), MS(4)]);
        let refused = |pauses: &[Duration], busy| pauses.iter().filter(|p| **p < busy).count();
        assert!((4..=8).contains(&refused(&slow, MS(4))));
        let fast = pauses(&mut pace, MS(1), 5000);
        let learned = fast.iter().position(|pause| *pause < MS(1)).unwrap();
        assert!(learned < 1500, "{learned}");
        assert!(refused(&fast, MS(1)) < 5000 / 250, "as rarely as it can be afforded");
        assert!(fast[learned..].iter().all(|pause| *pause < MS(2)));
    }

    #[test]
    fn a_machine_that_stalls_now_and_then_is_not_taken_for_a_slow_cluster() {
        let mut pace = Pace::default();
        pauses(&mut pace, MS(4), 1000);
        for stalled in [MS(25), MS(80), MS(200)].into_iter().cycle().take(30) {
            pauses(&mut pace, MS(4), 1000);
            let now = Instant::now();
            pace.committed(now);
            pace.begun(now + pace.wait(now));
            pace.acknowledged(stalled);
        }
        let now = Instant::now();
        pace.committed(now);
        assert!(pace.wait(now) < MS(6), "{:?}", pace.wait(now));
    }

    #[test]
    fn it_never_waits_longer_than_the_library_would() {
        let mut pace = Pace::default();
        pauses(&mut pace, MS(1000), 100);
        assert_eq!(pace.wait(Instant::now() - MS(100)), LONGEST);
    }

    #[test]
    fn a_transaction_after_a_rest_waits_for_nothing_and_teaches_nothing() {
        let mut pace = Pace::default();
        pauses(&mut pace, MS(4), 10);
        let now = Instant::now();
        pace.committed(now);
        let learned = pace.wait(now);
        assert_eq!(pace.wait(now + MS(100)), Duration::ZERO);
        pace.begun(now + MS(100));
        // A slow broker, not a refusal.
        pace.acknowledged(MS(25));
        assert_eq!(pace.wait(now), learned);
    }
}
