//! Reading stretches of partitions, outside of any group.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    time::{Duration, Instant},
};

use outpour_schemas::config::Config;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};

use super::error::ReconcileError;
use crate::{
    error::ConsumerError,
    source::{
        kafka::REQUEST_TIMEOUT,
        reader::{EndExpected, Part, read_parts},
    },
};

/// A client of committed records. It joins no group and commits nothing.
pub(super) struct Reader {
    client: BaseConsumer<EndExpected>,
    brokers: String,
}

impl Reader {
    pub(super) fn connect(config: &Config, client: &ClientConfig) -> Result<Self, ConsumerError> {
        Self::with_isolation(config, client, "read_committed")
    }

    fn with_isolation(
        config: &Config,
        client: &ClientConfig,
        isolation: &str,
    ) -> Result<Self, ConsumerError> {
        let mut settings = client.clone();
        settings
            .set("client.id", &config.consumer.client_id)
            // Needed to create a consumer; the group is not joined.
            .set("group.id", &config.consumer.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            // What is removed meanwhile is noticed by where the log begins then.
            .set("auto.offset.reset", "earliest");
        for (key, value) in [
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "50"),
        ] {
            if !config.kafka.properties.contains_key(key) {
                settings.set(key, value);
            }
        }
        let brokers = config.kafka.brokers.clone();
        match settings.create_with_context(EndExpected) {
            Ok(client) => Ok(Reader { client, brokers }),
            Err(source) => Err(ConsumerError::Kafka { doing: "connecting", brokers, source }),
        }
    }

    /// Hands every record of `ranges`, partitions of `topic`, to `each`, in each
    /// partition in order. Blocks.
    ///
    /// # Errors
    /// When Kafka does not send them, or `each` fails.
    pub(super) fn read(
        &self,
        topic: &str,
        ranges: &BTreeMap<i32, Range<i64>>,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), ConsumerError>,
    ) -> Result<(), ConsumerError> {
        let part = |(partition, range): (&i32, &Range<i64>)| Part {
            partition: *partition,
            from: range.start,
            until: range.end,
        };
        let parts: Vec<_> = ranges.iter().map(part).collect();
        let read = read_parts(&self.client, &self.brokers, topic, &parts, |message| {
            each(message).map_or_else(ControlFlow::Break, ControlFlow::Continue)
        });
        match read? {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// Where the log of a partition begins, and where what can be read of it ends.
    pub(super) fn watermarks(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Range<i64>, ConsumerError> {
        let marks = self.client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
        let (low, high) = marks.map_err(|source| self.failed("asking for offsets", source))?;
        Ok(low..high)
    }

    /// The ends of `partitions` as they are written now, once no transaction is
    /// open before them any more.
    pub(super) fn settled(
        &self,
        config: &Config,
        client: &ClientConfig,
        topic: &str,
        partitions: i32,
    ) -> Result<BTreeMap<i32, Range<i64>>, ConsumerError> {
        /// Longer than the transactions of dead letters may last, and than the ten
        /// seconds after which coordinators look for those that timed out.
        const PATIENCE: Duration = Duration::from_secs(90);
        const PAUSE: Duration = Duration::from_millis(50);
        let written = Self::with_isolation(config, client, "read_uncommitted")?;
        let mut all = BTreeMap::new();
        for partition in 0..partitions {
            let end = written.watermarks(topic, partition)?.end;
            let since = Instant::now();
            let low = loop {
                let marks = self.watermarks(topic, partition)?;
                if marks.end >= end {
                    break marks.start;
                }
                if since.elapsed() > PATIENCE {
                    let (topic, seconds) = (topic.to_owned(), PATIENCE.as_secs());
                    return Err(ReconcileError::OpenTransaction { topic, seconds }.into());
                }
                std::thread::sleep(PAUSE);
            };
            all.insert(partition, low..end);
        }
        Ok(all)
    }

    fn failed(&self, doing: &'static str, source: KafkaError) -> ConsumerError {
        ConsumerError::Kafka { doing, brokers: self.brokers.clone(), source }
    }
}
