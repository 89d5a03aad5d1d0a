//! What the group's coordinator keeps for the partition.

/// Stands for the hash of a batch's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// Whether it was encoded for the altered table.
    pub is_altered: bool,
    pub rejected: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plan {
    pub start: u8,
    pub end: u8,
    pub content: Content,
    /// That of the range's first plan.
    pub first_content: Content,
    pub by_provenance: bool,
    pub was_moved: bool,
    pub planned_at: u8,
}

/// The metadata of the committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Note {
    /// Nothing was ever committed, or somebody else did it.
    #[default]
    None,
    Stored,
    Plan(Plan),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Group {
    pub offset: u8,
    pub note: Note,
    /// In an open transaction, with letters.
    pub pending: Option<Pending>,
    /// A commit that nobody waited for. The client stamps it with the generation
    /// in which it is sent, so that none is too late.
    pub stray: Option<(u8, Note)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    pub plan: Plan,
    pub letters: u8,
}

impl Group {
    pub(super) fn commit(&mut self, offset: u8, note: Note) {
        self.offset = offset;
        self.note = note;
    }
}
