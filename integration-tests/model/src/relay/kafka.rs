//! Transactions, epochs and what readers of committed records find.

use super::postgres::Lsn;

/// A row's place: the commit of its transaction, and the count within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub commit_lsn: Lsn,
    pub ordinal: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    pub end_lsn: Lsn,
    pub within: Option<Position>,
}

impl Checkpoint {
    /// Whether the row at `position` has been published.
    pub fn covers(&self, position: Position) -> bool {
        position.commit_lsn < self.end_lsn
            || self.within.is_some_and(|within| {
                position.commit_lsn == within.commit_lsn && position.ordinal <= within.ordinal
            })
    }
}

/// A producer that has initialised its transactional id. A later one is of a
/// later epoch.
pub(crate) type Epoch = u8;

/// What a partition's log has. What was aborted is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written<T> {
    pub value: T,
    /// The producer whose transaction it belongs to, while that is open.
    pub open: Option<Epoch>,
}

/// In the topic of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    Checkpoint(Written<Checkpoint>),
    /// Of another slot, its transaction open.
    Stranger,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kafka {
    pub records: Vec<Written<Position>>,
    pub checkpoints: Vec<Entry>,
    pub newest: Epoch,
    /// Producers before this one are refused.
    pub fenced_before: Epoch,
}

impl Kafka {
    /// A new producer. With `fences` it takes over the transactional id: earlier
    /// ones are refused from now on, and what they left open is aborted.
    pub fn init(&mut self, fences: bool) -> Epoch {
        self.newest += 1;
        if fences {
            self.fence(self.newest);
        }
        self.newest
    }

    pub fn fence(&mut self, before: Epoch) {
        self.fenced_before = before;
        let is_kept = |open: Option<Epoch>| open.is_none_or(|epoch| epoch >= before);
        self.records.retain(|record| is_kept(record.open));
        self.checkpoints.retain(|entry| match entry {
            Entry::Checkpoint(checkpoint) => is_kept(checkpoint.open),
            Entry::Stranger => true,
        });
    }

    pub fn takes(&self, epoch: Epoch) -> bool {
        epoch >= self.fenced_before
    }

    /// Adds a record to the producer's transaction.
    pub fn send(&mut self, epoch: Epoch, position: Position) {
        self.records.push(Written { value: position, open: Some(epoch) });
    }

    pub fn send_checkpoint(&mut self, epoch: Epoch, checkpoint: Checkpoint) {
        let written = Written { value: checkpoint, open: Some(epoch) };
        self.checkpoints.push(Entry::Checkpoint(written));
    }

    /// Whether the producer has a transaction open.
    pub fn is_open(&self, epoch: Epoch) -> bool {
        self.records.iter().any(|record| record.open == Some(epoch))
            || self.checkpoints.iter().any(
                |entry| matches!(entry, Entry::Checkpoint(written) if written.open == Some(epoch)),
            )
    }

    /// Makes all that the producer has sent visible.
    pub fn commit(&mut self, epoch: Epoch) {
        for record in self.records.iter_mut().filter(|record| record.open == Some(epoch)) {
            record.open = None;
        }
        for entry in &mut self.checkpoints {
            if let Entry::Checkpoint(checkpoint) = entry
                && checkpoint.open == Some(epoch)
            {
                checkpoint.open = None;
            }
        }
    }

    /// Every committed record. Open transactions hide what is behind them only
    /// for a while, and nothing else than them can come before it.
    pub fn read_committed(&self) -> impl Iterator<Item = Position> {
        self.records.iter().filter(|record| record.open.is_none()).map(|record| record.value)
    }

    pub fn has_stranger(&self) -> bool {
        self.checkpoints.contains(&Entry::Stranger)
    }

    /// What is committed, wherever it stands.
    pub fn newest_checkpoint(&self) -> Option<Checkpoint> {
        newest(self.checkpoints.iter())
    }

    /// What a reader of committed records sees, which is nothing behind the first
    /// transaction that is open.
    pub fn visible_checkpoint(&self) -> Option<Checkpoint> {
        newest(self.checkpoints.iter().take_while(|entry| match entry {
            Entry::Checkpoint(checkpoint) => checkpoint.open.is_none(),
            Entry::Stranger => false,
        }))
    }
}

fn newest<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<Checkpoint> {
    entries
        .filter_map(|entry| match entry {
            Entry::Checkpoint(written) if written.open.is_none() => Some(written.value),
            _ => None,
        })
        .last()
}
