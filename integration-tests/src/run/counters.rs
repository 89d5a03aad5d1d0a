//! How far everything is while it streams: shared by those who count and
//! those who show or wait.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::HumanCount;

/// A number that goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Events that the feed has committed.
    pub(super) committed: Counter,
    /// … and that it has taken back.
    pub(super) rolled_back: Counter,
    /// Records that a read_committed reader has got.
    pub(super) in_kafka: Counter,
    /// Rows of the typed tables together.
    pub(super) in_typed_tables: Counter,
    pub(super) in_event_log: Counter,
    /// The last thing that went wrong while counting. Counting goes on: if it
    /// stays wrong, nothing seems to move, and then it is told.
    trouble: Mutex<Option<String>>,
}

/// All counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    pub(super) in_kafka: u64,
    pub(super) in_typed_tables: u64,
    pub(super) in_event_log: u64,
}

/// Where events are waiting that come no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standstill {
    Feed,
    Relay,
    Consumers,
}

impl Counters {
    pub(super) fn note_trouble(&self, doing: &str, error: &impl std::fmt::Display) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = Some(format!("{doing}: {error}"));
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            committed: self.committed.get(),
            rolled_back: self.rolled_back.get(),
            in_kafka: self.in_kafka.get(),
            in_typed_tables: self.in_typed_tables.get(),
            in_event_log: self.in_event_log.get(),
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "committed {}, in Kafka {}, in typed tables {}, in event_log {}",
            HumanCount(self.committed),
            HumanCount(self.in_kafka),
            HumanCount(self.in_typed_tables),
            HumanCount(self.in_event_log)
        )
    }
}

impl Snapshot {
    /// Whether everything that was committed has come all the way.
    pub(super) fn is_through(&self) -> bool {
        let at_the_end = self.in_typed_tables.min(self.in_event_log);
        self.in_kafka >= self.committed && at_the_end >= self.committed
    }

    /// Events that are in no table yet. The log takes every event, the typed
    /// tables only those that they are for.
    pub(super) fn behind(&self) -> u64 {
        self.committed.saturating_sub(self.in_event_log)
    }

    /// The first station at which something waits, if nothing moves any more.
    pub(super) fn standstill(&self) -> Standstill {
        if self.in_kafka < self.committed {
            Standstill::Relay
        } else if self.is_through() {
            Standstill::Feed
        } else {
            Standstill::Consumers
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_station_with_a_queue_is_the_one_that_stands_still() {
        let at = |committed, in_kafka, rows| Snapshot {
            committed,
            in_kafka,
            in_typed_tables: rows,
            in_event_log: rows,
            ..Snapshot::default()
        };
        assert_eq!(at(10, 10, 10).standstill(), Standstill::Feed);
        assert_eq!(at(10, 9, 5).standstill(), Standstill::Relay);
        assert_eq!(at(10, 10, 9).standstill(), Standstill::Consumers);
        assert_eq!((at(10, 9, 5).behind(), at(10, 10, 10).behind()), (5, 0));
        assert!(at(10, 10, 10).is_through() && !at(10, 10, 9).is_through());
    }
}
