//! `[kafka]`: the cluster between the two programs.

mod names;
mod properties;
mod security;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    names::{SaslMechanism, SecurityProtocol},
    security::Security,
};
use super::{ConfigError, Secret};

/// `[kafka]`: the cluster between the two programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// How brokers are spoken to. Unset, it follows from what else is set:
    /// `sasl_mechanism` gives `SASL_SSL`, a TLS file `SSL`.
    pub security_protocol: Option<SecurityProtocol>,
    /// Authorities that may have signed the brokers' certificates, as PEM.
    /// Unset: those of the operating system.
    pub tls_ca_file: Option<PathBuf>,
    /// The client's own certificate and its key, as PEM.
    pub tls_certificate_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// Of the key, if it is encrypted.
    pub tls_key_password: Secret,
    pub tls_key_password_file: Option<PathBuf>,
    /// Whether a broker's certificate must be made out to its host.
    pub tls_verify_hostname: bool,
    pub sasl_mechanism: Option<SaslMechanism>,
    /// For PLAIN and SCRAM.
    pub username: String,
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// For OAUTHBEARER: where client credentials are exchanged for a token.
    pub oauth_token_url: Option<String>,
    pub oauth_client_id: String,
    pub oauth_client_secret: Secret,
    pub oauth_client_secret_file: Option<PathBuf>,
    pub oauth_scope: String,
    /// Authorities for `oauth_token_url`, as PEM; unset: those of the operating
    /// system.
    pub oauth_ca_file: Option<PathBuf>,
    /// Further settings of the Kafka client under librdkafka's own names, such
    /// as `"socket.keepalive.enable" = "true"`. Those that have a key of their
    /// own or carry the delivery guarantee are refused. Some hold secrets, so
    /// none is ever shown.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: "127.0.0.1:9092".to_owned(),
            security_protocol: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_key_password: Secret::default(),
            tls_key_password_file: None,
            tls_verify_hostname: true,
            sasl_mechanism: None,
            username: String::new(),
            password: Secret::default(),
            password_file: None,
            oauth_token_url: None,
            oauth_client_id: String::new(),
            oauth_client_secret: Secret::default(),
            oauth_client_secret_file: None,
            oauth_scope: String::new(),
            oauth_ca_file: None,
            properties: BTreeMap::new(),
        }
    }
}

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
        self.password.resolve("kafka.password", self.password_file.as_ref())?;
        self.tls_key_password
            .resolve("kafka.tls_key_password", self.tls_key_password_file.as_ref())?;
        self.oauth_client_secret
            .resolve("kafka.oauth_client_secret", self.oauth_client_secret_file.as_ref())
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
        properties::refuse(&self.properties)?;
        self.validate_security()
    }

    /// What every Kafka client of the programs is created with. The values
    /// include secrets.
    pub fn client_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::once(("bootstrap.servers", self.brokers.as_str()))
            .chain(self.properties.iter().map(|(key, value)| (key.as_str(), value.expose())))
            .chain(self.security_properties())
    }
}
