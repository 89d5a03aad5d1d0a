//! What one relay knows.

use super::{
    RelayModel, Rule,
    kafka::{Checkpoint, Epoch, Position},
    postgres::{self, Lsn},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Relay {
    /// It has the slot. `early` is what it read without having fenced anybody.
    Holding {
        early: Option<Option<Checkpoint>>,
    },
    /// No older producer can write any more.
    Fenced {
        epoch: Epoch,
        early: Option<Option<Checkpoint>>,
    },
    /// It is to write the checkpoint from which it starts.
    Beginning {
        epoch: Epoch,
        checkpoint: Checkpoint,
    },
    Streaming(Streaming),
}

/// The books of a session, as `producer/src/relay/ledger.rs` keeps them, and the
/// place in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Streaming {
    pub epoch: Epoch,
    pub committed: Checkpoint,
    /// The transaction that comes next or is under way, and the row in it.
    pub entry: u8,
    pub ordinal: u8,
    /// Whether the stream is inside a transaction.
    pub is_inside: bool,
    /// How many records wait for their commit.
    pub sent: u8,
    pub complete: Option<Lsn>,
    pub within: Option<Position>,
    /// The checkpoint of the transaction about to be committed, once it is sent.
    pub closing: Option<Checkpoint>,
    /// For the mutant without [`Rule::CheckpointWithRecords`]: a checkpoint whose
    /// records are committed already.
    pub owed: Option<Checkpoint>,
    /// What PostgreSQL is to be told.
    pub to_confirm: Option<Lsn>,
    /// How much of the log came through before the connection was lost.
    pub reads_until: Option<u8>,
}

impl Streaming {
    /// A session from `committed` on. The server begins at the transaction that
    /// commits at or behind the slot's position, whatever was asked for.
    pub fn new(model: &RelayModel, epoch: Epoch, committed: Checkpoint, confirmed: Lsn) -> Self {
        let entry = (0..).find(|entry| postgres::commit_lsn(*entry) >= confirmed).unwrap_or(0);
        let entry = model.next_with_rows(entry);
        Streaming {
            epoch,
            committed,
            entry,
            ordinal: 0,
            is_inside: false,
            sent: 0,
            complete: None,
            within: None,
            closing: None,
            owed: None,
            to_confirm: None,
            reads_until: None,
        }
    }

    /// The next row, if one has come; whether there is anything at all to read.
    pub fn next_row(&self, model: &RelayModel, written: u8) -> Option<Position> {
        let rows = *model.log.get(usize::from(self.entry))?;
        let is_there = self.entry < self.reads_until.unwrap_or(written);
        (is_there && self.ordinal < rows).then_some(Position {
            commit_lsn: postgres::commit_lsn(self.entry),
            ordinal: self.ordinal,
        })
    }

    /// The position that the server may tell between two transactions: what it has
    /// gone through, which ends before the commit that it sends next.
    pub fn keepalive(&self, model: &RelayModel, written: u8) -> Option<Lsn> {
        if self.is_inside || self.reads_until.is_some() {
            return None;
        }
        let next = (self.entry..written).find(|entry| model.log[usize::from(*entry)] > 0);
        Some(next.map_or(written * 10, postgres::commit_lsn))
    }

    pub fn next_checkpoint(&self, model: &RelayModel) -> Checkpoint {
        let end_lsn = self.complete.unwrap_or(self.committed.end_lsn).max(self.committed.end_lsn);
        let before = self.committed.within.filter(|within| within.commit_lsn >= end_lsn);
        let within = self.within.or(if model.keeps(Rule::KeepsTheCount) { before } else { None });
        Checkpoint { end_lsn, within: within.filter(|_| model.keeps(Rule::CountsRows)) }
    }

    /// Kafka has committed `checkpoint`, and everything sent before it.
    pub fn commit(&mut self, checkpoint: Checkpoint) {
        self.committed = checkpoint;
        self.sent = 0;
        self.complete = None;
        self.closing = None;
        self.to_confirm = Some(checkpoint.end_lsn);
    }
}
