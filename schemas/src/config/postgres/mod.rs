mod tls;
mod url;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::tls::UrlTls;
pub use self::{
    tls::{PostgresTls, TlsMode},
    url::{PostgresAddress, PostgresHost, PostgresUrl},
};
use super::{ConfigError, Secret, Span};

/// `[postgres]`: the database that holds the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user@host:5432/database`; the user needs REPLICATION.
    pub url: PostgresUrl,
    /// Wins over a password in the URL.
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// How long to wait for a connection.
    pub connect_timeout: Span,
    /// `sslmode` of libpq. Unset: that of the URL, else [`TlsMode::Prefer`].
    pub tls: Option<TlsMode>,
    /// Authorities that may have signed the server's certificate, as PEM.
    /// Unset: the public ones, as Mozilla lists them.
    pub tls_ca_file: Option<PathBuf>,
    /// The client's own certificate and its key, as PEM.
    pub tls_certificate_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres {
            url: "postgres://postgres@127.0.0.1:5432/postgres".to_owned().into(),
            password: Secret::default(),
            password_file: None,
            connect_timeout: Span::secs(10),
            tls: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
        }
    }
}

const URL: &str = "postgres.url";

impl Postgres {
    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("postgres.password", self.password_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.connection().map(drop)
    }

    /// Where to connect to and as whom, and how that is encrypted: what the URL
    /// and the other keys say together.
    ///
    /// # Errors
    /// When they contradict each other, or ask for what cannot be had.
    pub fn connection(&self) -> Result<(PostgresAddress, PostgresTls), ConfigError> {
        let mut address = self.url.address()?;
        let mut asked = UrlTls::default();
        let mut rest = Vec::new();
        for (name, value) in std::mem::take(&mut address.parameters) {
            if !asked.take(&name, &value)? {
                rest.push((name, value));
            }
        }
        address.parameters = rest;
        if !self.password.is_empty() {
            address.password.clone_from(&self.password);
        }
        Ok((address, self.tls(asked)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Postgres {
        Postgres { url: url.to_owned().into(), ..Postgres::default() }
    }

    #[test]
    fn a_url_from_a_console_says_how_it_is_encrypted_and_keeps_its_other_parameters() {
        let url = "postgres://a:b@db:5432/shop?sslmode=verify-full&options=-c%20x%3D1\
                   &sslrootcert=%2Fetc%2Fca+1.pem&application_name=y";
        let (address, tls) = of(url).connection().unwrap();
        assert_eq!(address.options.as_deref(), Some("-c x=1"));
        assert_eq!(address.parameters, [("application_name".to_owned(), "y".to_owned())]);
        assert_eq!(tls.mode, TlsMode::VerifyFull);
        assert_eq!(tls.ca_file, Some("/etc/ca+1.pem".into()));
        let (_, tls) = of("postgres://a@db/shop").connection().unwrap();
        assert_eq!(tls.mode, TlsMode::Prefer);
        let (_, tls) = of("postgres://a@db/shop?sslrootcert=system").connection().unwrap();
        assert_eq!((tls.mode, tls.ca_file), (TlsMode::VerifyFull, None));
    }

    #[test]
    fn what_contradicts_itself_or_cannot_be_had_is_named() {
        let file = || Some(PathBuf::from("x.pem"));
        let cases: [(Postgres, &[&str]); 9] = [
            (of("postgres://a@db/?sslmode=allow"), &["postgres.url", "allow", "verify-ca"]),
            (of("postgres://a@db/?channel_binding=require"), &["channel_binding", "verify-full"]),
            (of("postgres://a@db/?sslnegotiation=direct"), &["sslnegotiation"]),
            (of("postgres://a@db/?sslpassword=hunter2"), &["sslpassword", "decrypt"]),
            (of("postgres://a@db/?sslrootcert=system&sslmode=require"), &["verify-full"]),
            (of("postgres://a@db/?sslrootcert=x"), &["postgres.tls_ca_file", "verify-full"]),
            (
                Postgres { tls: Some(TlsMode::Require), ..of("postgres://a@db/?sslmode=prefer") },
                &["postgres.tls", "sslmode", "keep one"],
            ),
            (
                Postgres {
                    tls: Some(TlsMode::VerifyFull),
                    tls_certificate_file: file(),
                    ..Postgres::default()
                },
                &["postgres.tls_certificate_file", "postgres.tls_key_file"],
            ),
            (
                Postgres {
                    tls_certificate_file: file(),
                    tls_key_file: file(),
                    ..of("postgres://a@db")
                },
                &["postgres.tls_certificate_file", "unencrypted"],
            ),
        ];
        for (postgres, parts) in cases {
            let error = postgres.validate().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            for part in parts {
                assert!(error.contains(part), "`{error}` should name `{part}`");
            }
        }
    }

    #[test]
    fn the_password_of_a_url_is_not_shown() {
        let postgres = of("postgres://a:hunter2@db/?password=hunter3&user=b");
        let shown = format!("{postgres:?}{}", serde_json::to_string(&postgres).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("user=b"), "{shown}");
    }
}
