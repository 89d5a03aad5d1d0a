//! Kafka, as the relay uses it: one transactional producer, and the compacted
//! topic that remembers how far it has come.

pub(crate) mod checkpoint;
pub(crate) mod publisher;
mod topics;

use outpour_schemas::config::Relay;

/// Longest wait for an answer that a healthy cluster gives at once.
pub(crate) const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the producer of a slot is called. Whoever takes it fences who had it.
pub(crate) fn transactional_id(relay: &Relay) -> String {
    format!("outpour-relay-{}", relay.slot)
}
