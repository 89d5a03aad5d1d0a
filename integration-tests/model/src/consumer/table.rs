//! The table, and inserts on their way to it.

use super::{
    batch::{Item, bit},
    group::Content,
};

/// How many half hours a token is remembered for.
const REMEMBERED_FOR: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub start: u8,
    pub end: u8,
    pub content: Content,
    pub part: Part,
}

/// Of which rows of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    All,
    /// All, since somebody had moved the offset.
    Moved,
    /// What is still missing after that.
    Rest,
    /// A row that is tried alone.
    Row(u8),
    /// The same, if the table does not have it.
    MissingRow(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// How many rows it has of each offset.
    pub rows: Vec<u8>,
    /// The last inserts, with when they came.
    pub tokens: Vec<(Token, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiter {
    Nobody,
    Owner,
    Former,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Insert {
    pub rows: u8,
    pub token: Option<Token>,
    /// Whether only what the table does not have is inserted.
    pub by_provenance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub waiter: Waiter,
    pub insert: Insert,
    /// What the table did not have when the server looked.
    pub missing: Option<u8>,
}

impl Table {
    pub(super) fn new(offsets: usize) -> Self {
        Table { rows: vec![0; offsets], tokens: Vec::new() }
    }

    /// Which of `rows` it does not have.
    pub(super) fn lacks(&self, rows: u8) -> u8 {
        let has = |offset: &u8| self.rows[usize::from(*offset)] > 0;
        self.offsets().filter(has).fold(rows, |rows, offset| rows & !bit(offset))
    }

    /// One past the last offset that it has.
    pub(super) fn until(&self) -> u8 {
        self.offsets().filter(|at| self.rows[usize::from(*at)] > 0).last().map_or(0, |at| at + 1)
    }

    fn offsets(&self) -> impl Iterator<Item = u8> {
        (0..).take(self.rows.len())
    }

    /// Inserts all of `rows` or, if the token is remembered, nothing.
    /// Of no rows it remembers nothing.
    pub(super) fn insert(&mut self, rows: u8, token: Option<Token>, now: u8, window: usize) {
        if rows == 0 {
            return;
        }
        if let Some(token) = token {
            self.tokens.retain(|(_, at)| now - at < REMEMBERED_FOR);
            if self.tokens.iter().any(|(known, _)| *known == token) {
                return;
            }
            self.tokens.push((token, now));
            let too_many = self.tokens.len().saturating_sub(window);
            self.tokens.drain(..too_many);
        }
        for offset in (0..).take(self.rows.len()).filter(|offset| rows & bit(*offset) != 0) {
            self.rows[usize::from(offset)] += 1;
        }
    }
}

/// Whether ClickHouse refuses a block of these rows.
pub(super) fn is_refused(log: &[Item], rows: u8) -> bool {
    let mut items = (0..).zip(log);
    items.any(|(offset, item)| *item == Item::Refused && rows & bit(offset) != 0)
}
