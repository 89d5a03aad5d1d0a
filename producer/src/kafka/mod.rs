//! Kafka, as the relay uses it: one transactional producer, and the compacted
//! topic that remembers how far it has come.

pub(crate) mod checkpoint;
pub(crate) mod publisher;
mod topics;

use outpour_schemas::config::Kafka;
use rdkafka::ClientConfig;

/// Longest wait for an answer that a healthy cluster gives at once.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (key, value) in kafka.client_properties() {
        client.set(key, value);
    }
    client
}
