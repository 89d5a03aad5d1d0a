//! One configuration file, `outpour.toml`, for both programs.
//!
//! Every key is also an environment variable, `OUTPOUR_<SECTION>_<KEY>`, which
//! wins over the file; a `.env` beside the file counts as environment that does
//! not win over the real one. Each program reads the whole file, so that a
//! mistyped key is found by whichever starts first.

mod clickhouse;
mod consumer;
#[cfg(feature = "program")]
mod environment;
mod error;
mod kafka;
#[cfg(feature = "program")]
mod load;
mod payload;
mod postgres;
mod record;
mod relay;
mod secret;
mod topics;
mod units;

use serde::{Deserialize, Serialize};

use crate::outbox::OutboxTable;

#[cfg(feature = "program")]
pub use self::load::load;
pub use self::{
    clickhouse::{ClickHouse, Compression},
    consumer::{AUTO, Batch, Consumer, GroupProtocol, Route},
    error::ConfigError,
    kafka::{Kafka, SaslMechanism, Security, SecurityProtocol},
    payload::{PayloadFormat, Tombstones, UnknownFields},
    postgres::{Postgres, PostgresAddress, PostgresHost, PostgresTls, PostgresUrl, TlsMode},
    record::{
        AdditionalField, AdditionalFields, Compat, FieldMissing, JsonEmptyArray, JsonNull,
        OpInvalid, Placement,
    },
    relay::{Delivery, Mode, PollAfter, Relay, SnapshotMode},
    secret::{Secret, redact_url},
    topics::{TopicPattern, TopicPatternError},
    units::Span,
};

/// Everything that can be configured, with its defaults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    pub outbox: OutboxTable,
    pub relay: Relay,
    pub consumer: Consumer,
    pub batch: Batch,
    /// Empty: everything goes to `event_log`.
    pub routes: Vec<Route>,
}

impl Config {
    /// With every secret read from its file, and checked: what `load` returns,
    /// and what a configuration that was made otherwise has to go through.
    ///
    /// # Errors
    /// Names the key whose value makes no sense, or whose file cannot be read.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        self.postgres.resolve_secrets()?;
        self.kafka.resolve_secrets()?;
        self.clickhouse.resolve_secrets()?;
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.postgres.validate()?;
        self.kafka.validate()?;
        self.clickhouse.validate()?;
        self.outbox.validate().map_err(|error| ConfigError::Value(error.to_string()))?;
        self.relay.validate()?;
        if self.relay.mode == Mode::Poll && !self.outbox.has_table() {
            return Err(ConfigError::invalid(
                "outbox.table",
                "is empty, and relay.mode = \"poll\" needs a table to poll",
            ));
        }
        self.consumer.validate()?;
        self.batch.validate()?;
        for (index, route) in self.routes.iter().enumerate() {
            route.validate(index)?;
        }
        Ok(())
    }
}

/// An address to listen on, or nothing.
fn check_listen(key: &str, address: &str) -> Result<(), ConfigError> {
    let port = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    if address.is_empty() || matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
        return Ok(());
    }
    Err(ConfigError::invalid(
        key,
        format!("`{address}` is not host:port, such as 127.0.0.1:9464, or empty for none"),
    ))
}
