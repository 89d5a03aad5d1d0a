//! Connections to the database that holds the outbox.
//!
//! ```text
//! mod.rs  which database, as whom; the ordinary connection
//! tls.rs  what is made sure of the server
//! ```

mod tls;

use std::{fmt, time::Duration};

use tokio_postgres::{Client, config::Host};

pub use self::tls::Tls;
use crate::config::{ConfigError, Postgres};

/// Which database, as whom. Shows itself without the password.
#[derive(Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
    pub connect_timeout: Duration,
    /// How connections are encrypted.
    pub tls: Tls,
    settings: tokio_postgres::Config,
}

/// The database did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cannot connect to {target}")]
    Connect { target: String, source: tokio_postgres::Error },
    #[error("cannot connect to {target}: {reason}")]
    Tls { target: String, reason: String },
    /// They were there at the start, and are read anew for every connection.
    #[error(transparent)]
    Certificates(ConfigError),
    #[error("cannot connect to {target}")]
    Reach { target: String, source: std::io::Error },
    #[error("cannot connect to {target}: no answer within {seconds} s")]
    ConnectTimeout { target: String, seconds: u64 },
    #[error("{doing} on {target} failed")]
    Query { doing: &'static str, target: String, source: tokio_postgres::Error },
}

impl Target {
    /// # Errors
    /// When the URL has parts that make no connection.
    pub fn of(config: &Postgres) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::invalid("postgres.url", reason);
        let (url, tls) = config.connection()?;
        let mut settings: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                wrong(cause.unwrap_or_else(|| error.to_string()))
            })?;
        let (host, is_local) = match settings.get_hosts() {
            [Host::Tcp(host)] => (host.clone(), false),
            [Host::Unix(path)] => (path.display().to_string(), true),
            hosts => return Err(wrong(format!("names {} hosts: expected one", hosts.len()))),
        };
        let tls = if is_local { tls::for_socket(tls)? } else { tls };
        let tls = Tls::of(tls)?;
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
        settings
            .connect_timeout(connect_timeout)
            .application_name("outpour")
            .ssl_mode(tls.negotiation());
        Ok(Target {
            port: settings.get_ports().first().copied().unwrap_or(5432),
            host,
            user,
            password,
            database,
            connect_timeout,
            tls,
            settings,
        })
    }

    /// Opens a connection, driven by a task that ends with it.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn connect(&self) -> Result<Client, PostgresError> {
        let connector = self.tls.connector().map_err(PostgresError::Certificates)?;
        let connecting =
            tokio::time::timeout(self.connect_timeout, self.settings.connect(connector));
        let (client, connection) =
            connecting.await.map_err(|_| self.timed_out())?.map_err(|source| {
                let target = self.to_string();
                match self.tls.explain(&source) {
                    Some(reason) => PostgresError::Tls { target, reason },
                    None => PostgresError::Connect { target, source },
                }
            })?;
        tokio::spawn(async move {
            // The statement that waits for an answer gets the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "database connection ended");
            }
        });
        Ok(client)
    }

    /// No answer within [`Self::connect_timeout`].
    #[must_use]
    pub fn timed_out(&self) -> PostgresError {
        PostgresError::ConnectTimeout {
            target: self.to_string(),
            seconds: self.connect_timeout.as_secs(),
        }
    }

    /// Says what was being done when a statement failed.
    pub fn failed(
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
