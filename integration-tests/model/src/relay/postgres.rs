//! The log and the slot, as the server has them.

/// A position in the log. Each transaction takes ten of them.
pub(crate) type Lsn = u8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Postgres {
    /// How many transactions have committed.
    pub written: u8,
    pub slot: Slot,
}

/// Who streams it is told by [`super::State::active`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub confirmed: Lsn,
    /// Somebody else than a relay did.
    pub was_moved: bool,
}

impl Postgres {
    /// The end of the log.
    pub fn end(&self) -> Lsn {
        self.written * 10
    }
}

/// Where the commit record of a transaction starts.
pub(crate) fn commit_lsn(entry: u8) -> Lsn {
    entry * 10 + 8
}

/// Where it ends.
pub(crate) fn end_lsn(entry: u8) -> Lsn {
    (entry + 1) * 10
}
