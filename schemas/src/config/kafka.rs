use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

/// `[kafka]`: the cluster between the two programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// SASL password, if the cluster asks for one.
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// Further settings of the Kafka client under librdkafka's own names, such
    /// as `"socket.keepalive.enable" = "true"`. Those that carry the delivery
    /// guarantee are refused.
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: "127.0.0.1:9092".to_owned(),
            password: Secret::default(),
            password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// Settings on which "once, in order" rests, and which the programs set.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "sasl.password",
    "transactional.id",
];

impl Kafka {
    /// With its secrets read from their files, and checked: for a program that
    /// fills in this section alone.
    ///
    /// # Errors
    /// Names the key whose value makes no sense, or whose file cannot be read.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        self.resolve_secrets()?;
        self.validate()?;
        Ok(self)
    }

    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("kafka.password", self.password_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for broker in self.brokers.split(',') {
            let broker = broker.trim();
            let port = broker.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
                return Err(ConfigError::invalid(
                    "kafka.brokers",
                    format!("`{broker}` is not host:port"),
                ));
            }
        }
        for key in self.properties.keys() {
            if RESERVED.contains(&key.as_str()) {
                return Err(ConfigError::invalid(
                    format!("kafka.properties.{key}"),
                    "is set by Outpour, as its guarantees rest on it; remove it",
                ));
            }
        }
        Ok(())
    }

    /// What every Kafka client of the programs is created with.
    pub fn client_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let password =
            (!self.password.is_empty()).then(|| ("sasl.password", self.password.expose()));
        std::iter::once(("bootstrap.servers", self.brokers.as_str()))
            .chain(self.properties.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            .chain(password)
    }
}
