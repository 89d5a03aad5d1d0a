//! Rows that ClickHouse has refused, until they are parked.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{decode::Rejection, source::TopicPartition};

/// Rows that are refused, by the route that made them and their offset.
pub(crate) type Refusals = HashMap<(usize, i64), Rejection>;

/// What has been found, by partition. It outlives a session and not a process:
/// who does not know it finds it anew.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<HashMap<TopicPartition, Refusals>>);

impl Refused {
    fn all(&self) -> MutexGuard<'_, HashMap<TopicPartition, Refusals>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, partition: &TopicPartition) -> Refusals {
        self.all().get(partition).cloned().unwrap_or_default()
    }

    pub(super) fn add(&self, partition: &TopicPartition, found: Refusals) {
        self.all().entry(partition.clone()).or_default().extend(found);
    }

    /// Everything before `end` is stored or parked.
    pub(super) fn forget(&self, partition: &TopicPartition, end: i64) {
        if let Some(found) = self.all().get_mut(partition) {
            found.retain(|(_, offset), _| *offset >= end);
        }
    }
}
