//! Connections to the database that holds the outbox.
//!
//! ```text
//! mod.rs      which database, as whom; the ordinary connection
//! error.rs    why there is none, or why it refuses
//! session.rs  what every session sets for itself
//! tls.rs      what is made sure of the server
//! ```

mod error;
mod session;
mod tls;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_postgres::{Client, config::SslMode};

pub use self::{error::PostgresError, session::PIN, tls::Tls};
use crate::{
    config::{ConfigError, Postgres, PostgresAddress, PostgresHost},
    program::error_line,
};

/// Which database, as whom. Shows itself without the password.
#[derive(Clone)]
pub struct Target {
    pub user: String,
    pub password: String,
    pub database: String,
    /// Settings of the session that the URL asks for.
    pub options: Option<String>,
    pub connect_timeout: Duration,
    /// How connections are encrypted.
    pub tls: Tls,
    hosts: Vec<PostgresHost>,
    /// Which of them took the last connection.
    current: Arc<AtomicUsize>,
    needs_primary: bool,
    settings: tokio_postgres::Config,
}

impl Target {
    /// # Errors
    /// When the configuration says what makes no connection.
    pub fn of(config: &Postgres) -> Result<Self, ConfigError> {
        let (address, tls) = config.connection()?;
        let tls = tls::for_hosts(tls, &address.hosts)?;
        let tls = Tls::of(tls)?;
        let connect_timeout = config.connect_timeout.0;
        let mut settings = client_settings(&address)?;
        settings
            .user(&address.user)
            .dbname(&address.database)
            .connect_timeout(connect_timeout)
            .application_name("outpour");
        if !address.password.is_empty() {
            settings.password(address.password.expose());
        }
        if let Some(options) = &address.options {
            settings.options(options);
        }
        Ok(Target {
            user: address.user,
            password: address.password.expose().to_owned(),
            database: address.database,
            options: address.options,
            connect_timeout,
            tls,
            hosts: address.hosts,
            current: Arc::default(),
            needs_primary: address.needs_primary,
            settings,
        })
    }

    /// The host of the last connection; before there was one, the first.
    #[must_use]
    pub fn host(&self) -> &PostgresHost {
        &self.hosts[self.current.load(Ordering::Relaxed)]
    }

    /// Opens a connection, driven by a task that ends with it. Of several hosts
    /// the one that took the last connection is tried first.
    ///
    /// # Errors
    /// When no host takes it.
    pub async fn connect(&self) -> Result<Client, PostgresError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut refusals = Vec::new();
        for at in (first..self.hosts.len()).chain(0..first) {
            match self.connect_to(&self.hosts[at]).await {
                Ok(client) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(error) if self.hosts.len() == 1 => return Err(error),
                Err(error) => refusals.push(error_line(&error)),
            }
        }
        Err(PostgresError::NoHost { refusals: refusals.join("; ") })
    }

    async fn connect_to(&self, host: &PostgresHost) -> Result<Client, PostgresError> {
        let opening = tokio::time::timeout(self.connect_timeout, self.open(host));
        opening.await.map_err(|_| self.timed_out(host))?
    }

    async fn open(&self, host: &PostgresHost) -> Result<Client, PostgresError> {
        let target = || self.at(host);
        let connector = self.tls.connector().map_err(PostgresError::Certificates)?;
        let mut settings = self.settings.clone();
        settings.host(&host.name).port(host.port).ssl_mode(match host.is_socket() {
            true => SslMode::Disable,
            false => self.tls.negotiation(),
        });
        let (client, connection) =
            settings.connect(connector).await.map_err(|source| {
                match self.tls.explain(&source) {
                    Some(reason) => PostgresError::Tls { target: target(), reason },
                    None => PostgresError::Connect { target: target(), source },
                }
            })?;
        tokio::spawn(async move {
            // The statement that waits for an answer gets the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "database connection ended");
            }
        });
        let failed = |source| PostgresError::Connect { target: target(), source };
        client.batch_execute(PIN).await.map_err(failed)?;
        if self.needs_primary {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(failed)?;
            if row.get(0) {
                return Err(PostgresError::Standby { target: target() });
            }
        }
        Ok(client)
    }

    /// No answer within [`Self::connect_timeout`].
    #[must_use]
    pub fn timed_out(&self, host: &PostgresHost) -> PostgresError {
        PostgresError::ConnectTimeout {
            target: self.at(host),
            seconds: self.connect_timeout.as_secs(),
        }
    }

    /// Says what was being done when a statement failed.
    pub fn failed(
        &self,
        doing: &'static str,
    ) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        let (target, user) = (self.to_string(), self.user.clone());
        move |source| PostgresError::of_statement(doing, target, user, source)
    }

    fn at(&self, host: &PostgresHost) -> String {
        format!("postgres://{}@{host}/{}", self.user, self.database)
    }
}

/// What the URL says besides that is the client library's: it reads it as it
/// would read a connection string.
fn client_settings(address: &PostgresAddress) -> Result<tokio_postgres::Config, ConfigError> {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let pair = |(name, value): &(String, String)| format!("{name}='{}'", quoted(value));
    let text = address.parameters.iter().map(pair).collect::<Vec<_>>().join(" ");
    text.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        ConfigError::invalid("postgres.url", cause.unwrap_or_else(|| error.to_string()))
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(self.host()))
    }
}
