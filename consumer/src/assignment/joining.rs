//! Which partitions' batches are written by one insert.
//!
//! One that is due takes others of the same tables along: what they have gathered so far,
//! though it is not due yet. With many partitions of few records that is an insert for
//! each `max_delay`, and not one for each partition.

use std::{sync::Arc, time::Instant};

use super::{Assignment, Owned, partition::Partition};
use crate::{
    batch::Limits,
    dead_letter::DeadLetters,
    decode::Mapping,
    sink::Sink,
    writer::{Offsets, convene},
};

/// Kafka keeps what is committed at once as one record batch, of 1 MiB at most: room for
/// the plans of so many partitions, of a few hundred bytes each.
const MAX_MEMBERS: usize = 256;

impl<S: Sink, D: DeadLetters, O: Offsets> Assignment<S, D, O> {
    /// Closes batches that are due, where others can be written with them.
    pub(super) fn join_batches(&self, owned: &mut Owned, now: Instant, caught_up_at: Instant) {
        let mut open: Vec<_> = owned
            .each()
            .map(|(_, _, partition)| partition)
            .filter(|partition| partition.can_join(now))
            .collect();
        let is_due = |partition: &Partition| partition.batch().is_due(now, caught_up_at);
        while let Some(first) = open.iter().position(|partition| is_due(partition)) {
            let mappings: Vec<Arc<Mapping>> = open[first].batch().mappings().cloned().collect();
            let (alike, others) =
                open.into_iter().partition(|partition| partition.goes_with(&mappings));
            open = others;
            self.join(self.that_fit(alike, is_due, caught_up_at));
        }
    }

    /// Those that are due, and as many others as may be in one insert with them. Of a
    /// backlog each is to become as large as it may.
    fn that_fit<'a>(
        &self,
        mut alike: Vec<&'a mut Partition>,
        is_due: impl Fn(&Partition) -> bool,
        caught_up_at: Instant,
    ) -> Vec<&'a mut Partition> {
        let Limits { rows, bytes, .. } = self.limits;
        // They are held twice while they are put together, and a third time for a moment.
        let bytes = bytes.min(self.budget.limit / 8);
        alike
            .retain(|partition| is_due(partition) || partition.batch().has_caught_up(caught_up_at));
        alike.sort_by_key(|partition| partition.batch().opened_at());
        let (mut all_rows, mut all_bytes) = (0, 0);
        alike.retain(|partition| {
            let batch = partition.batch();
            let fits = all_rows + batch.records() <= rows && all_bytes + batch.byte_size() <= bytes;
            if fits {
                all_rows += batch.records();
                all_bytes += batch.byte_size();
            }
            fits
        });
        alike.truncate(MAX_MEMBERS);
        alike
    }

    fn join(&self, members: Vec<&mut Partition>) {
        if members.len() < 2 {
            return;
        }
        let bytes = members.iter().map(|partition| partition.batch().byte_size()).sum();
        let held = self.budget.hold(bytes);
        let seats = convene(&self.runtime, &self.edges, members.len(), held);
        members.into_iter().zip(seats).for_each(|(partition, seat)| partition.join(seat));
    }
}
