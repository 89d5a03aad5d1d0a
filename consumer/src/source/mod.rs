//! Records as they come out of Kafka.

mod coverage;
pub(crate) mod group;
pub(crate) mod kafka;
pub(crate) mod member;
mod position;
pub(crate) mod reader;
mod settings;
mod subscription;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod verdict;

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

pub(crate) use self::{
    coverage::assigned,
    position::Position,
    subscription::{Subscription, Topics},
};

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record, borrowed from the client's buffer.
#[derive(Debug, Clone)]
pub struct RecordView<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch; `None` if the record has none.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// Names and values, without a trip to the allocator for what a relay writes.
pub type Headers<'a> = SmallVec<[(&'a str, Option<&'a [u8]>); 8]>;

impl<'a> RecordView<'a> {
    /// The first header of this name; `None` also for one without a value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|(header, _)| *header == name).and_then(|(_, value)| *value)
    }
}
