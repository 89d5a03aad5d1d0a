//! How an event is told from every other, for ever.

use uuid::Uuid;

/// A new event id: UUID version 7, so that ids made later sort later and the
/// outbox's primary key grows at its right edge.
#[must_use]
pub fn new_event_id() -> Uuid {
    Uuid::now_v7()
}

/// The id of an event that has an identity of its own in the source data, so
/// that importing the same data twice gives the same ids.
///
/// ```
/// use outpour_schemas::identity::derived_event_id;
/// assert_eq!(derived_event_id("invoice", "4711"), derived_event_id("invoice", "4711"));
/// assert_ne!(derived_event_id("invoice", "4711"), derived_event_id("refund", "4711"));
/// ```
#[must_use]
pub fn derived_event_id(kind: &str, natural_key: &str) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, kind.as_bytes());
    Uuid::new_v5(&namespace, natural_key.as_bytes())
}
