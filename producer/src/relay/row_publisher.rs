//! A row's way to Kafka, whichever way it came out of the database.
//!
//! ```text
//! OutboxRow ──Router──▶ Record, or dead letter ──▶ Publisher
//! ```

use std::collections::HashSet;

use jiff::Timestamp;
use outpour_schemas::{Record, wire::header};

use super::{Checkpoint, Routed, Router, Unroutable};
use crate::{
    error::RelayError,
    kafka::{limits::Limits, publisher::Publisher, refusals::Verdict},
    wal::{
        message::InvalidMessage,
        row::{OutboxRow, Wanted},
    },
};

/// A record that the client was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) bytes: usize,
    /// What [`RowPublisher::undelivered`] calls it.
    pub(crate) number: usize,
}

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

    /// Hands the row's record to the client.
    pub(crate) async fn publish(&mut self, row: &OutboxRow) -> Result<Sent, RelayError> {
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
        if record.key.is_none() && limits.needs_key {
            let (letter, reason) = self.router.park_without_key(record);
            return Ok((letter, Some(reason)));
        }
        if let Some(Verdict::Refused(code)) = self.publisher.verdict(&record) {
            let (letter, reason) = self.router.park_refused(record, &code.to_string());
            return Ok((letter, Some(reason)));
        }
        self.set_time(&mut record, limits);
        Ok((record, None))
    }

    /// The same for a message that is no event, as a dead letter.
    pub(crate) async fn park(&mut self, message: InvalidMessage) -> Result<Sent, RelayError> {
        let position = message.position;
        let (letter, reason) = self.router.park_message(message);
        tracing::warn!(%position, %reason, "message parked in the dead-letter topic");
        self.send_letter(letter).await
    }

    async fn send_letter(&mut self, mut letter: Record) -> Result<Sent, RelayError> {
        let limits = self.publisher.limits(&letter.topic).await?;
        if letter.key.is_none() && limits.needs_key {
            // One that no other letter has, or compaction would remove it.
            letter.key =
                letter.header(header::ID).or(letter.header(header::LSN)).map(<[u8]>::to_vec);
        }
        letter.cut_to(limits.largest);
        self.set_time(&mut letter, limits);
        self.send(letter).await
    }

    /// Sees to it that the topic takes the record and keeps it for its readers,
    /// which Kafka decides by a time that may be the row's own.
    fn set_time(&mut self, record: &mut Record, limits: Limits) {
        let now_ms = Timestamp::now().as_millisecond();
        let is_refused = self.publisher.verdict(record) == Some(Verdict::Untimely);
        if limits.keeps(record.timestamp_ms, now_ms) && !is_refused {
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

    async fn send(&mut self, record: Record) -> Result<Sent, RelayError> {
        let bytes = record.wire_size();
        let number = match self.publisher.verdict(&record) {
            Some(Verdict::Suspect) => self.publisher.send_alone(record).await?,
            _ => self.publisher.send(record).await?,
        };
        Ok(Sent { bytes, number })
    }

    /// The numbers of the records that are not known to be in Kafka, after
    /// something has failed.
    pub(crate) fn undelivered(&self) -> HashSet<usize> {
        self.publisher.undelivered()
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
