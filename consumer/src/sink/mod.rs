//! ClickHouse, as rows are written to it.

mod clickhouse;
mod connection;
mod error;
mod inquiry;
mod schema;
mod servers;
mod settings;

use jiff::Timestamp;

pub use self::error::{Class, SinkError};
pub(crate) use self::{
    clickhouse::{ClickHouse, Request},
    inquiry::Inquiry,
    schema::TableFinding,
    settings::{INSERT_SETTINGS, NEWER_INSERT_SETTINGS},
};
use crate::{batch::Insert, decode::Mapping, source::TopicPartition, trace::Attempt};

/// Some of the rows of an insert.
#[derive(Debug, Clone)]
pub(crate) struct Part<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) range: std::ops::Range<i64>,
    /// What ClickHouse knows it by if it comes twice.
    pub(crate) token: String,
    /// Whether what the table has of them is left out.
    pub(crate) is_asked: bool,
}

/// A place that takes inserts.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Inserts once: a second time with the same token changes nothing.
    fn insert(
        &self,
        insert: &Insert,
        token: &str,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Inserts the rows of a range, of all that `insert` holds, or those that the
    /// table does not have, told by where in Kafka they came from. For when a token
    /// cannot be trusted, or some of the rows are refused.
    fn insert_part(
        &self,
        insert: &Insert,
        part: Part<'_>,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Inserts no row, as rows would be inserted: whatever is not about rows is refused.
    fn insert_nothing(
        &self,
        mapping: &Mapping,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether the table has other columns than those that `mapping` was made for.
    fn has_changed(
        &self,
        mapping: &Mapping,
    ) -> impl Future<Output = Result<bool, SinkError>> + Send;

    /// Whether the table is sure to know an insert of that time by its token: as many
    /// parts have not come since as it remembers.
    fn remembers(
        &self,
        mapping: &Mapping,
        since: Timestamp,
    ) -> impl Future<Output = Result<bool, SinkError>> + Send;

    /// The highest offset of `partition` that the table of `mapping` has.
    fn last_offset(
        &self,
        mapping: &Mapping,
        partition: &TopicPartition,
    ) -> impl Future<Output = Result<Option<i64>, SinkError>> + Send;
}
