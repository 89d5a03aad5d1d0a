//! Connections to the database that holds the outbox.

use std::{fmt, time::Duration};

use outpour_schemas::config::{ConfigError, Postgres};
use tokio_postgres::{Client, NoTls, config::Host};

/// Which database, as whom. Shows itself without the password.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) connect_timeout: Duration,
    settings: tokio_postgres::Config,
}

/// The database did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot connect to {target}")]
    Connect { target: String, source: tokio_postgres::Error },
    #[error("cannot connect to {target}: no answer within {seconds} s")]
    ConnectTimeout { target: String, seconds: u64 },
    #[error("{doing} on {target} failed")]
    Query { doing: &'static str, target: String, source: tokio_postgres::Error },
}

impl Target {
    /// # Errors
    /// When the URL has parts that make no connection.
    pub(crate) fn of(config: &Postgres) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::invalid("postgres.url", reason);
        let mut settings: tokio_postgres::Config =
            config.url.parse().map_err(|error: tokio_postgres::Error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                wrong(cause.unwrap_or_else(|| error.to_string()))
            })?;
        let host = match settings.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            [Host::Unix(path)] => path.display().to_string(),
            hosts => return Err(wrong(format!("names {} hosts: expected one", hosts.len()))),
        };
        let user = settings
            .get_user()
            .ok_or_else(|| wrong("names no user: postgres://user@host/database".to_owned()))?
            .to_owned();
        if !config.password.is_empty() {
            settings.password(config.password.expose());
        }
        let password = settings
            .get_password()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default();
        let database = settings.get_dbname().unwrap_or(&user).to_owned();
        let connect_timeout = config.connect_timeout.0;
        settings.connect_timeout(connect_timeout).application_name("outpour");
        Ok(Target {
            port: settings.get_ports().first().copied().unwrap_or(5432),
            host,
            user,
            password,
            database,
            connect_timeout,
            settings,
        })
    }

    /// Opens a connection, driven by a task that ends with it.
    pub(crate) async fn connect(&self) -> Result<Client, PostgresError> {
        let connecting = tokio::time::timeout(self.connect_timeout, self.settings.connect(NoTls));
        let (client, connection) = connecting
            .await
            .map_err(|_| PostgresError::ConnectTimeout {
                target: self.to_string(),
                seconds: self.connect_timeout.as_secs(),
            })?
            .map_err(|source| PostgresError::Connect { target: self.to_string(), source })?;
        tokio::spawn(async move {
            // The statement that waits for an answer gets the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "database connection ended");
            }
        });
        Ok(client)
    }

    /// Says what was being done when a statement failed.
    pub(crate) fn failed(
        &self,
        doing: &'static str,
    ) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        let target = self.to_string();
        move |source| PostgresError::Query { doing, target, source }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}
