use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, Span};

/// `[postgres]`: the database that holds the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user@host:5432/database`; the user needs REPLICATION.
    pub url: String,
    /// Wins over a password in the URL.
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// How long to wait for a connection.
    pub connect_timeout: Span,
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres {
            url: "postgres://postgres@127.0.0.1:5432/postgres".to_owned(),
            password: Secret::default(),
            password_file: None,
            connect_timeout: Span::secs(10),
        }
    }
}

impl Postgres {
    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("postgres.password", self.password_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let key = "postgres.url";
        let url = url::Url::parse(&self.url)
            .map_err(|error| ConfigError::invalid(key, format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(ConfigError::invalid(
                key,
                format!("scheme `{}`: expected postgres://user@host:5432/database", url.scheme()),
            ));
        }
        Ok(())
    }
}
