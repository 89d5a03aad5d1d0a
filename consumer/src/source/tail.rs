//! Where a partition ends when nothing more comes.
//!
//! The relay's transactions leave a marker behind every commit, which takes an
//! offset and is never delivered. A group that commits one past its last record
//! would therefore never be seen at the end. A second client, of no group, looks
//! whether anything but markers lies there: it reads from the same offset on,
//! and is told the end before any record.

use std::time::{Duration, Instant};

use outpour_schemas::config::Consumer as ConsumerConfig;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{TopicPartition, kafka::REQUEST_TIMEOUT, reader::EndExpected};

pub(crate) struct Tail {
    client: BaseConsumer<EndExpected>,
}

impl Tail {
    pub(crate) fn connect(
        config: &ConsumerConfig,
        client: &ClientConfig,
    ) -> Result<Self, KafkaError> {
        let client = client
            .clone()
            .set("client.id", &config.client_id)
            // Needed to create a consumer; the group is not joined.
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // An offset that the log no longer has is not the end.
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "10")
            .create_with_context(EndExpected)?;
        Ok(Tail { client })
    }

    /// The end of `partition`, if no record is between `from` and there.
    pub(crate) fn empty_until(
        &self,
        partition: &TopicPartition,
        from: i64,
    ) -> Result<Option<i64>, KafkaError> {
        // Asked before reading: what is written later lies behind it.
        let (_, end) =
            self.client.fetch_watermarks(&partition.topic, partition.partition, REQUEST_TIMEOUT)?;
        if end <= from {
            return Ok(None);
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(from))?;
        self.client.assign(&list)?;
        let outcome = self.first_of(partition);
        self.client.unassign()?;
        Ok(outcome?.then_some(end))
    }

    /// Whether the end comes first.
    fn first_of(&self, partition: &TopicPartition) -> Result<bool, KafkaError> {
        let until = Instant::now() + REQUEST_TIMEOUT;
        while Instant::now() < until {
            match self.client.poll(Duration::from_millis(100)) {
                Some(Err(KafkaError::PartitionEOF(number))) if number == partition.partition => {
                    return Ok(true);
                }
                Some(Ok(_)) => return Ok(false),
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }
}
