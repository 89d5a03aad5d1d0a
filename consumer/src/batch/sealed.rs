//! What a batch has come to once it takes no more records.

use std::{ops::Range, sync::Arc, time::Instant};

use bytes::Bytes;
use outpour_schemas::wire::Header;

use super::RowOffsets;
use crate::{
    block,
    decode::{Mapping, Rejection},
    rejected::Rejected,
    source::RecordView,
    trace::TraceContext,
};

/// A record that a table refused, kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    /// Which of the routes rejected it; `None` if none takes it.
    pub route: Option<usize>,
    pub rejection: Rejection,
}

impl Parked {
    pub(super) fn of(record: &RecordView<'_>, route: Option<usize>, rejection: Rejection) -> Self {
        Parked {
            route,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            rejection,
        }
    }

    pub(super) fn byte_size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// One INSERT, encoded; a retry sends the same bytes.
#[derive(Debug, Clone)]
pub struct Insert {
    pub mapping: Arc<Mapping>,
    pub rows: usize,
    /// The block, in pieces.
    pub body: Vec<Bytes>,
    pub(crate) offsets: RowOffsets,
}

impl Insert {
    /// Bytes of the block.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The block of those rows whose offsets are `wanted`, for the same INSERT; nothing
    /// if there are none.
    pub(crate) fn body_of(&self, wanted: impl Fn(i64) -> bool) -> Vec<Bytes> {
        let mut kept: Vec<Range<usize>> = Vec::new();
        let places = self.offsets.iter().enumerate().filter(|(_, offset)| wanted(*offset));
        for (place, _) in places {
            match kept.last_mut() {
                Some(last) if last.end == place => last.end += 1,
                _ => kept.push(place..place + 1),
            }
        }
        match kept.as_slice() {
            [] => Vec::new(),
            [all] if all.len() == self.rows => self.body.clone(),
            _ => block::slice(&self.mapping.columns, &self.body, kept).into_iter().collect(),
        }
    }
}

/// A batch that takes no more records.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// First offset, as committed.
    pub start: i64,
    /// One past the last.
    pub end: i64,
    pub records: usize,
    /// When its first record came.
    pub opened_at: Instant,
    pub inserts: Vec<Insert>,
    /// The letters that are not written yet.
    pub parked: Vec<Parked>,
    /// All that is rejected, also what was parked under an earlier plan.
    pub rejected: Rejected,
    /// Hash of the inserts and of what is rejected.
    pub content: String,
    /// The trace of the first stored record that has one.
    pub trace: Option<TraceContext>,
}

impl Sealed {
    #[must_use]
    pub fn rows(&self) -> usize {
        self.inserts.iter().map(|insert| insert.rows).sum()
    }

    /// Bytes held.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        let bodies: usize = self.inserts.iter().map(Insert::byte_size).sum();
        bodies + self.parked.iter().map(Parked::byte_size).sum::<usize>()
    }
}
