//! What a session learns of Kafka, for the sessions after it.

use std::sync::atomic::{AtomicUsize, Ordering};

use outpour_schemas::config::{Delivery, Kafka, Mode, Relay};

use super::{
    batch_size,
    refusals::{Refusals, Refused},
};

#[derive(Debug)]
pub(crate) struct Learned {
    pub(super) batch_size: BatchSize,
    pub(super) refusals: Refusals,
}

impl Learned {
    pub(crate) fn new(kafka: &Kafka, relay: &Relay) -> Self {
        let is_transactional = relay.delivery == Delivery::ExactlyOnce && relay.mode == Mode::Wal;
        let refusals = Refusals::new(is_transactional);
        Learned { batch_size: BatchSize::new(kafka, relay), refusals }
    }

    /// Takes in what a session was refused, at this time in milliseconds since the
    /// Unix epoch.
    pub(super) fn take(&self, refused: &[Refused], now_ms: i64) {
        let (large, others): (Vec<_>, Vec<_>) =
            refused.iter().cloned().partition(Refused::is_too_large);
        self.refusals.learn(&others, now_ms);
        // Of several in a batch none need be too large but the batch itself.
        let largest = large.iter().map(|one| one.size).max().unwrap_or_default();
        if large.len() < 2 || !self.batch_size.halve(largest) {
            self.refusals.learn(&large, now_ms);
        }
    }
}

/// How large batches may be that the relay writes.
///
/// A broker compares a topic's `max.message.bytes` with whole batches, and the
/// client splits none that is refused. Its limit is one for all topics and for as
/// long as it lives, so that a topic that takes less calls for another client.
#[derive(Debug)]
pub(super) struct BatchSize(AtomicUsize);

impl BatchSize {
    fn new(kafka: &Kafka, relay: &Relay) -> Self {
        let size = batch_size(kafka, relay.max_record_size.as_u64());
        Self(AtomicUsize::new(usize::try_from(size).unwrap_or(usize::MAX)))
    }

    /// In bytes.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether batches of this size suit a topic that takes no larger ones than
    /// `largest`. If not, the next client's will.
    pub(super) fn suits(&self, largest: usize) -> bool {
        self.0.fetch_min(largest, Ordering::Relaxed) <= largest
    }

    /// Whether the next client's batches are half as large. That ends where one of
    /// these would be a single record of `largest` bytes.
    fn halve(&self, largest: usize) -> bool {
        let half = |size: usize| (size > largest).then_some(size / 2);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use outpour_schemas::config::Config;

    use super::*;

    #[test]
    fn batches_get_smaller_before_a_record_in_one_is_suspected() {
        let config = Config::default();
        let learned = Learned::new(&config.kafka, &config.relay);
        let before = learned.batch_size.get();
        let two = [Refused::too_large(1, before - 1), Refused::too_large(2, 10)];
        learned.take(&two, 0);
        assert_eq!(learned.batch_size.get(), before / 2);
        assert!(learned.refusals.is_empty());
        // Neither shared its batch with another any more.
        learned.take(&two, 0);
        assert_eq!(learned.batch_size.get(), before / 2);
        assert!(!learned.refusals.is_empty());
    }
}
