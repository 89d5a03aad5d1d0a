//! A row's way to Kafka, whichever way it came out of the database.
//!
//! ```text
//! OutboxRow ──Router──▶ Record, or dead letter ──▶ Publisher
//! ```

use std::collections::HashSet;

use jiff::Timestamp;
use outpour_schemas::Record;

use super::{Checkpoint, Routed, Router, Unroutable};
use crate::{
    error::RelayError,
    kafka::{limits::Limits, publisher::Publisher},
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
    /// The topics of which it was told that records get another time.
    told_times: HashSet<String>,
}

impl RowPublisher {
    pub(crate) fn new(router: Router, publisher: Publisher) -> Self {
        RowPublisher { router, publisher, told_unexpanded: false, told_times: HashSet::new() }
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
        mut record: Record,
    ) -> Result<(Record, Option<Unroutable>), RelayError> {
        let limits = match self.publisher.limits(&record.topic).await {
            Err(error) if error.is_topic_refused() => {
                let (letter, reason) = self.router.park_without_topic(record);
                return Ok((letter, Some(reason)));
            }
            limits => limits?,
        };
        if let Some(partition) = record.partition
            && !self.publisher.has_partition(&record.topic, partition).await?
        {
            let (letter, reason) = self.router.park_without_partition(record, partition);
            return Ok((letter, Some(reason)));
        }
        if record.wire_size() > limits.largest {
            let (letter, reason) = self.router.park_too_large(record, limits.largest);
            return Ok((letter, Some(reason)));
        }
        self.set_time(&mut record, limits);
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
        let limits = self.publisher.limits(&letter.topic).await?;
        letter.cut_to(limits.largest);
        self.set_time(&mut letter, limits);
        self.send(letter).await
    }

    /// Sees to it that the topic takes the record and keeps it for its readers,
    /// which Kafka decides by a time that may be the row's own.
    fn set_time(&mut self, record: &mut Record, limits: Limits) {
        let now_ms = Timestamp::now().as_millisecond();
        if limits.keeps(record.timestamp_ms, now_ms) {
            return;
        }
        if !self.told_times.contains(&record.topic) {
            tracing::warn!(
                topic = record.topic,
                "records get the time of publication: by their own, Kafka would refuse them, or \
                 remove them before they are read; said once, for the first of them"
            );
            self.told_times.insert(record.topic.clone());
        }
        record.timestamp_ms = now_ms;
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
