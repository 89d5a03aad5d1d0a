//! Topics that are made here.

use rdkafka::admin::{NewTopic, TopicReplication};

/// A topic with so many partitions, and so many replicas of each; as the brokers make
/// them by default where that is `None`.
#[must_use]
pub fn new_topic(name: &str, partitions: Option<u32>, replicas: Option<u16>) -> NewTopic<'_> {
    /// What brokers put their own in the place of.
    const DEFAULT: i32 = -1;
    let partitions = partitions.map_or(DEFAULT, |count| i32::try_from(count).unwrap_or(i32::MAX));
    NewTopic::new(name, partitions, TopicReplication::Fixed(replicas.map_or(DEFAULT, i32::from)))
}
