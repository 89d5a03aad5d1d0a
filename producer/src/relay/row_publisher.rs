//! A row's way to Kafka, whichever way it came out of the database.
//!
//! ```text
//! OutboxRow ──Router──▶ Record, or dead letter ──▶ Publisher
//! ```

use outpour_schemas::Record;

use super::{Checkpoint, Routed, Router, Unroutable};
use crate::{
    error::RelayError,
    kafka::publisher::Publisher,
    wal::{
        message::InvalidMessage,
        row::{OutboxRow, Wanted},
    },
};

pub(crate) struct RowPublisher {
    router: Router,
    publisher: Publisher,
    /// Whether it was told that a payload could not be expanded: once will do.
    told_unexpanded: bool,
}

impl RowPublisher {
    pub(crate) fn new(router: Router, publisher: Publisher) -> Self {
        RowPublisher { router, publisher, told_unexpanded: false }
    }

    /// The columns that [`Self::publish`] expects of a row, in this order.
    pub(crate) fn wanted(&self) -> &[Wanted] {
        self.router.wanted()
    }

    /// Hands the row's record to the client and returns how many bytes it has.
    pub(crate) async fn publish(&mut self, row: &OutboxRow) -> Result<usize, RelayError> {
        let (record, parked) = match self.router.route(row) {
            Routed::Publish(record) => (record, None),
            Routed::PublishUnexpanded(record, reason) => {
                if !std::mem::replace(&mut self.told_unexpanded, true) {
                    tracing::warn!(
                        position = %row.position, %reason,
                        "payload published as it is (relay.expand_json_payload); \
                         said once, for the first of them"
                    );
                }
                (record, None)
            }
            Routed::Park(record, reason) => (record, Some(reason)),
        };
        let (record, parked) = match parked {
            None => self.checked(record).await?,
            parked => (record, parked),
        };
        if let Some(reason) = parked {
            tracing::warn!(position = %row.position, %reason, "row parked in the dead-letter topic");
            return self.send_letter(record).await;
        }
        self.send(record).await
    }

    /// The record, or the dead letter that it becomes for a reason that only
    /// Kafka knows of.
    async fn checked(
        &mut self,
        record: Record,
    ) -> Result<(Record, Option<Unroutable>), RelayError> {
        if let Some(partition) = record.partition
            && !self.publisher.has_partition(&record.topic, partition).await?
        {
            let (letter, reason) = self.router.park_without_partition(record, partition);
            return Ok((letter, Some(reason)));
        }
        let limit = self.publisher.largest_record(&record.topic).await?;
        if record.wire_size() > limit {
            let (letter, reason) = self.router.park_too_large(record, limit);
            return Ok((letter, Some(reason)));
        }
        Ok((record, None))
    }

    /// The same for a message that is no event, as a dead letter.
    pub(crate) async fn park(&mut self, message: InvalidMessage) -> Result<usize, RelayError> {
        let position = message.position;
        let (letter, reason) = self.router.park_message(message);
        tracing::warn!(%position, %reason, "message parked in the dead-letter topic");
        self.send_letter(letter).await
    }

    async fn send_letter(&mut self, mut letter: Record) -> Result<usize, RelayError> {
        let limit = self.publisher.largest_record(&letter.topic).await?;
        letter.cut_to(limit);
        self.send(letter).await
    }

    async fn send(&mut self, record: Record) -> Result<usize, RelayError> {
        let bytes = record.wire_size();
        self.publisher.send(record).await?;
        Ok(bytes)
    }

    /// Waits until Kafka has acknowledged everything sent, without a transaction.
    pub(crate) async fn flush(&mut self) -> Result<(), RelayError> {
        self.publisher.flush().await
    }

    /// Makes everything sent durable and visible, together with `checkpoint`.
    pub(crate) async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<(), RelayError> {
        self.publisher.commit(checkpoint).await
    }
}
