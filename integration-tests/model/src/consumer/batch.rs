//! What records become. Offsets are bits of a byte.

use super::{ConsumerModel, Process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Fits the table, whatever its columns.
    Fits,
    /// Fits once the table is altered.
    FitsLater,
    /// Fits until the table is altered.
    FitsNoMore,
    /// Is encoded, and refused by ClickHouse.
    Refused,
    /// The end of a transaction: takes an offset and is no record.
    Marker,
}

pub(super) fn bit(offset: u8) -> u8 {
    1 << offset
}

/// Records from one offset to before another, as they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) rows: u8,
    pub(super) rejected: u8,
    /// Of those, the ones that are not parked yet.
    pub(super) letters: u8,
}

impl Batch {
    /// `settled` is what an open plan has in the dead letters.
    pub(super) fn of(
        model: &ConsumerModel,
        process: &Process,
        range: std::ops::Range<u8>,
        settled: u8,
    ) -> Self {
        let mut batch = Batch { rows: 0, rejected: 0, letters: 0 };
        for offset in range {
            let bit = bit(offset);
            let fits = match model.log[usize::from(offset)] {
                Item::Marker => continue,
                Item::Fits => true,
                Item::FitsLater => process.is_altered,
                Item::FitsNoMore => !process.is_altered,
                Item::Refused => process.refused & bit == 0,
            };
            if settled & bit != 0 {
                batch.rejected |= bit;
            } else if fits {
                batch.rows |= bit;
            } else {
                batch.rejected |= bit;
                batch.letters |= bit;
            }
        }
        batch
    }
}
