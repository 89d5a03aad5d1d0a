use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, Span};

/// `[clickhouse]`: where the rows go, over HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouse {
    pub url: String,
    pub database: String,
    pub user: String,
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// The life of one insert, sending included.
    pub insert_timeout: Span,
    /// Compress what is sent (LZ4). Worth it unless ClickHouse is on this host.
    pub compression: bool,
}

impl Default for ClickHouse {
    fn default() -> Self {
        ClickHouse {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "default".to_owned(),
            user: "default".to_owned(),
            password: Secret::default(),
            password_file: None,
            insert_timeout: Span::secs(60),
            compression: true,
        }
    }
}

impl ClickHouse {
    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("clickhouse.password", self.password_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let key = "clickhouse.url";
        let url = url::Url::parse(&self.url)
            .map_err(|error| ConfigError::invalid(key, format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ConfigError::invalid(
                key,
                format!(
                    "scheme `{}`: expected http://host:8123 or https://host:8443",
                    url.scheme()
                ),
            ));
        }
        if url.password().is_some() {
            return Err(ConfigError::invalid(
                key,
                "holds a password; use clickhouse.user and clickhouse.password",
            ));
        }
        Ok(())
    }
}
