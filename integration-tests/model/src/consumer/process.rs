//! What one consumer knows of the partition.

use super::group::Plan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The columns for which it encodes.
    pub is_altered: bool,
    /// Rows that it has found to be refused.
    pub refused: u8,
    /// Whether somebody had moved the offset that it began at.
    pub was_moved: bool,
    /// How far the table had rows then, once that was asked.
    pub there_until: Option<u8>,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The committed offset is to be read.
    Joined,
    /// Nothing is under way. `is_stored` if the group does not know of the last
    /// batch.
    Ready {
        next: u8,
        open: Option<Plan>,
        is_stored: bool,
    },
    /// Letters and offset are in the transaction.
    Parking {
        plan: Plan,
        letters: u8,
    },
    /// Without one transaction: the plan is committed and the letters are not.
    LettersDue {
        plan: Plan,
        letters: u8,
    },
    /// Without one transaction: the letters are committed and the plan is not.
    PlanDue {
        plan: Plan,
    },
    Planned {
        plan: Plan,
        todo: Todo,
    },
    Waiting {
        plan: Plan,
        todo: Todo,
    },
}

/// What is to be inserted of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Todo {
    All,
    /// What is still missing after that, where the table is asked.
    Rest,
    /// One record after the other, to find those that are refused. The plan says from
    /// where on the table need not be asked.
    OneByOne {
        next: u8,
        found: u8,
    },
}

impl Process {
    pub(super) fn new(is_altered: bool) -> Self {
        Process {
            is_altered,
            refused: 0,
            was_moved: false,
            there_until: None,
            phase: Phase::Joined,
        }
    }
}
