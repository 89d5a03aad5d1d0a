//! What a publisher makes of it when records could not be delivered.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::producer::{Producer, PurgeConfig};

use super::publisher::Publisher;
use crate::error::RelayError;

impl Publisher {
    /// The numbers of the records that are not known to be in Kafka, after
    /// something has failed.
    pub(crate) fn undelivered(&self) -> HashSet<usize> {
        let mut numbers = self.deliveries.failures().numbers.clone();
        if self.client.in_flight_count() > 0 {
            numbers.extend(0..self.deliveries.next_number());
        }
        numbers
    }

    /// Once something has failed: waits until the client has told of what is on its
    /// way, and takes back the rest.
    pub(super) async fn settle(&self) {
        const MOMENT: Duration = Duration::from_secs(1);
        for flags in [PurgeConfig::default().queue(), PurgeConfig::default().queue().inflight()] {
            self.client.purge(flags);
            let until = Instant::now() + MOMENT;
            while self.client.in_flight_count() > 0 && Instant::now() < until {
                self.deliveries.next().await;
            }
        }
    }

    /// An error of the client by what is behind it: the record that Kafka did not
    /// take. Of a transaction the client says no more than that it is to be aborted.
    pub(super) async fn explained(&self, error: RelayError) -> RelayError {
        if !matches!(error, RelayError::Kafka { .. }) {
            return error;
        }
        self.settle().await;
        let brokers = self.kafka.brokers.clone();
        let mut failures = self.deliveries.failures();
        // Taken, or it would be learned twice.
        let mut refused = std::mem::take(&mut failures.refused);
        let named = std::mem::take(&mut failures.named);
        for one in &mut refused {
            one.is_named = named.contains(&(one.topic.clone(), one.partition));
        }
        if let Some(first) = refused.first() {
            let (topic, source) = (first.topic.clone(), first.code);
            self.learned.take(&refused, Timestamp::now().as_millisecond());
            return RelayError::Refused { topic, brokers, source };
        }
        match failures.cause.clone() {
            Some((topic, source)) => RelayError::Undelivered { topic, brokers, source },
            None => error,
        }
    }
}
