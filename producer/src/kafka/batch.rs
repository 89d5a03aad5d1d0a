//! How large batches may be that the relay writes.
//!
//! A broker compares a topic's `max.message.bytes` with whole batches, and the
//! client splits none that is refused. Its limit is one for all topics and for as
//! long as it lives, so that a topic that takes less calls for another client:
//! what is learned here outlives a session.

use std::sync::atomic::{AtomicUsize, Ordering};

use outpour_schemas::config::{Kafka, Relay};

use super::batch_size;

#[derive(Debug)]
pub(crate) struct BatchSize(AtomicUsize);

impl BatchSize {
    pub(crate) fn new(kafka: &Kafka, relay: &Relay) -> Self {
        let size = batch_size(kafka, relay.max_record_size.as_u64());
        Self(AtomicUsize::new(usize::try_from(size).unwrap_or(usize::MAX)))
    }

    /// In bytes.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether batches of this size suit a topic that takes no larger ones than
    /// `largest`. If not, the next client's will.
    pub(crate) fn suits(&self, largest: usize) -> bool {
        self.0.fetch_min(largest, Ordering::Relaxed) <= largest
    }
}
