//! Reading what a pipeline has published.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};

use super::{PATIENCE, Pipeline};

/// A reader of one topic's committed records, from the beginning.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
}

impl Pipeline<'_> {
    /// # Errors
    /// When the client cannot be made.
    pub fn reader(&self, topic: &str) -> Result<Reader> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.stack.kafka.url())
            .set("group.id", self.stack.unique("reader"))
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .create()?;
        consumer.subscribe(&[topic])?;
        Ok(Reader { consumer, topic: topic.to_owned() })
    }
}

impl Reader {
    /// Reads until there are `count` records that `wanted` makes something of.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn take<T>(
        &self,
        count: usize,
        mut wanted: impl FnMut(&BorrowedMessage<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let until = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            ensure!(Instant::now() < until, "only {} of {count} records", found.len());
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) {
                found.extend(wanted(&message));
            }
        }
        Ok(found)
    }

    /// How many records are in the topic, if it was written without transactions:
    /// their markers count too.
    ///
    /// # Errors
    /// When the broker does not tell.
    pub fn written(&self) -> Result<usize> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), PATIENCE)?;
        let topic = metadata.topics().first().context("no such topic")?;
        let mut records = 0;
        for partition in topic.partitions() {
            let (low, high) =
                self.consumer.fetch_watermarks(&self.topic, partition.id(), PATIENCE)?;
            records += usize::try_from(high - low)?;
        }
        Ok(records)
    }

    /// Makes sure that nothing more comes for a while.
    ///
    /// # Errors
    /// When a record comes.
    pub fn nothing_more(&self) -> Result<()> {
        const A_WHILE: Duration = Duration::from_secs(2);
        let until = Instant::now() + A_WHILE;
        while Instant::now() < until {
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) {
                bail!("one more record, at {}/{}", message.partition(), message.offset());
            }
        }
        Ok(())
    }
}

/// A header's text.
#[must_use]
pub fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}
