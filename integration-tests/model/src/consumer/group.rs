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
    /// The range's first plan, if this is another.
    pub first: Option<First>,
    pub by_provenance: bool,
    pub was_moved: bool,
    /// The row that is tried alone, since some are refused: before it each is stored
    /// or refused.
    pub search: Option<u8>,
    /// When the range was planned first.
    pub planned_at: u8,
}

/// What stands in the token of a range while the table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct First {
    pub content: Content,
    /// Whether it was planned since somebody had moved the offset: no insert before
    /// had that token.
    pub is_moved: bool,
}

impl Plan {
    pub(super) fn first(&self) -> First {
        let own = First { content: self.content, is_moved: self.by_provenance };
        self.first.unwrap_or(own)
    }

    /// The same plan, with the table to be asked.
    pub(super) fn asking(self) -> Self {
        Plan { first: Some(self.first()), by_provenance: true, ..self }
    }
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
