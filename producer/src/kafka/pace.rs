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

/// Longer than this, waiting for the library is no worse.
const LONGEST: Duration = Duration::from_millis(15);

const STEP: Duration = Duration::from_millis(1);

/// So many transactions in a row that were not refused are worth a try with a
/// shorter pause. A try that fails costs what 20 shorter ones would have saved,
/// and must stay so rare that the slowest percentile does not see it.
const TRY_AFTER: u32 = 1000;

/// How long to leave Kafka alone between two transactions.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pause: Duration,
    committed_at: Option<Instant>,
    /// Whether the transaction that is open began so soon after the last one
    /// that it says something about the pause.
    tells: bool,
    /// Transactions in a row that said so and were not refused.
    smooth: u32,
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
        let soon = |at| now.saturating_duration_since(at) < self.pause + STEP * 2;
        self.tells = self.committed_at.is_some_and(soon);
    }

    /// Its first record took so long to be acknowledged.
    pub(super) fn acknowledged(&mut self, after: Duration) {
        if !std::mem::take(&mut self.tells) {
            return;
        }
        if after >= REFUSED {
            self.pause = (self.pause + STEP).min(LONGEST);
            self.smooth = 0;
            return;
        }
        self.smooth += 1;
        if self.smooth >= TRY_AFTER {
            self.pause = self.pause.saturating_sub(STEP);
            self.smooth = 0;
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
        let slow = pauses(&mut pace, MS(4), 100);
        assert_eq!(slow[..5], [MS(0), MS(1), MS(2), MS(3), MS(4)]);
        assert!(slow[4..].iter().all(|pause| *pause == MS(4)));
        let fast = pauses(&mut pace, MS(1), 5000);
        assert_eq!(*fast.last().unwrap(), MS(1));
        let refused = fast.iter().filter(|pause| **pause < MS(1)).count();
        assert!(refused <= 2, "{refused} of 5000");
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
        assert_eq!(pace.wait(now + MS(100)), Duration::ZERO);
        pace.begun(now + MS(100));
        // A slow broker, not a refusal.
        pace.acknowledged(MS(500));
        assert_eq!(pace.wait(now), MS(4));
    }
}
