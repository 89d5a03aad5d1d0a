use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, Secret, Span, redact_url};

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

/// Whether a connection is encrypted, and what is made sure of the server. The
/// names and meanings are those of libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; its certificate is not looked at.
    Prefer,
    /// Encrypted or refused. The certificate is looked at if an authority is
    /// named, and then as with `VerifyCa`.
    Require,
    /// The certificate is signed by a known authority.
    VerifyCa,
    /// It is also made out to the host that was connected to.
    VerifyFull,
}

impl TlsMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => TlsMode::Disable,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return None,
        })
    }
}

/// What encrypts the connections to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTls {
    pub mode: TlsMode,
    /// Unset: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The URL of a database, which shows itself without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for PostgresUrl {
    fn from(url: String) -> Self {
        PostgresUrl(url)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl Serialize for PostgresUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redact_url(&self.0))
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres {
            url: PostgresUrl("postgres://postgres@127.0.0.1:5432/postgres".to_owned()),
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

/// The parameters of a URL that say how the connection is encrypted.
#[derive(Default)]
struct UrlTls {
    mode: Option<TlsMode>,
    ca_file: Option<PathBuf>,
    /// libpq's `sslrootcert=system`: the public authorities, and nothing weaker
    /// than full verification.
    public_ca: bool,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

const URL: &str = "postgres.url";

impl Postgres {
    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("postgres.password", self.password_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let url = url::Url::parse(self.url.expose())
            .map_err(|error| ConfigError::invalid(URL, format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(ConfigError::invalid(
                URL,
                format!("scheme `{}`: expected postgres://user@host:5432/database", url.scheme()),
            ));
        }
        self.connection().map(drop)
    }

    /// The URL without the parameters that say how the connection is encrypted,
    /// and what these and the keys say together.
    ///
    /// # Errors
    /// When they contradict each other, or ask for what cannot be had.
    pub fn connection(&self) -> Result<(String, PostgresTls), ConfigError> {
        let (base, query) = self.url.expose().split_once('?').unwrap_or((self.url.expose(), ""));
        let mut asked = UrlTls::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if !asked.take(pair)? {
                rest.push(pair);
            }
        }
        let mut url = base.to_owned();
        if !rest.is_empty() {
            url.push('?');
            url.push_str(&rest.join("&"));
        }
        Ok((url, self.tls(asked)?))
    }

    fn tls(&self, url: UrlTls) -> Result<PostgresTls, ConfigError> {
        let mode = one("tls", self.tls, "sslmode", url.mode)?;
        let has_ca = self.tls_ca_file.is_some() || url.ca_file.is_some();
        if url.public_ca && has_ca {
            return Err(twice("tls_ca_file", "sslrootcert"));
        }
        let mode =
            mode.unwrap_or(if url.public_ca { TlsMode::VerifyFull } else { TlsMode::Prefer });
        if url.public_ca && mode != TlsMode::VerifyFull {
            return Err(ConfigError::invalid(
                URL,
                "sslrootcert=system needs sslmode=verify-full: anybody can have a certificate \
                 that a public authority has signed",
            ));
        }
        let ca_file = one("tls_ca_file", self.tls_ca_file.clone(), "sslrootcert", url.ca_file)?;
        let certificate = one(
            "tls_certificate_file",
            self.tls_certificate_file.clone(),
            "sslcert",
            url.certificate_file,
        )?;
        let key = one("tls_key_file", self.tls_key_file.clone(), "sslkey", url.key_file)?;
        if ca_file.is_some() && mode < TlsMode::Require {
            return Err(ConfigError::invalid(
                "postgres.tls_ca_file",
                "is set, but nothing is verified with it; set postgres.tls = \"verify-full\"",
            ));
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(alone("tls_certificate_file", "tls_key_file")),
            (None, Some(_)) => return Err(alone("tls_key_file", "tls_certificate_file")),
        };
        if identity.is_some() && mode < TlsMode::Require {
            return Err(ConfigError::invalid(
                "postgres.tls_certificate_file",
                "is set, but the connection may go unencrypted; set postgres.tls = \"verify-full\"",
            ));
        }
        Ok(PostgresTls { mode, ca_file, identity })
    }
}

impl UrlTls {
    /// Whether `pair`, a `name=value` of the URL, was about encryption.
    fn take(&mut self, pair: &str) -> Result<bool, ConfigError> {
        // A plus is a plus in these URLs, not a space.
        let pair = pair.replace('+', "%2B");
        let Some((name, value)) = url::form_urlencoded::parse(pair.as_bytes()).next() else {
            return Ok(false);
        };
        let wrong = |reason: String| Err(ConfigError::invalid(URL, reason));
        match &*name {
            "sslmode" => {
                self.mode = TlsMode::parse(&value);
                if self.mode.is_none() {
                    return wrong(format!(
                        "sslmode `{value}`: expected disable, prefer, require, verify-ca or \
                         verify-full"
                    ));
                }
            }
            "sslrootcert" if value == "system" => self.public_ca = true,
            "sslrootcert" => self.ca_file = Some(value.into_owned().into()),
            "sslcert" => self.certificate_file = Some(value.into_owned().into()),
            "sslkey" => self.key_file = Some(value.into_owned().into()),
            // What libpq would do anyway where GSSAPI is not set up.
            "gssencmode" if matches!(&*value, "disable" | "prefer") => {}
            "channel_binding" if value == "require" => {
                return wrong(
                    "channel_binding=require cannot be had on the replication connection; \
                     remove it, and set sslmode=verify-full against impostors"
                        .to_owned(),
                );
            }
            "sslnegotiation" if value == "direct" => {
                return wrong(
                    "sslnegotiation=direct cannot be had on the replication connection; remove it"
                        .to_owned(),
                );
            }
            "sslpassword" => {
                return wrong(
                    "sslpassword: an encrypted key cannot be read; decrypt it into a file that \
                     only this user can read"
                        .to_owned(),
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The value of a key, or of the URL's parameter of the same meaning.
fn one<T>(
    key: &str,
    of_key: Option<T>,
    parameter: &str,
    of_url: Option<T>,
) -> Result<Option<T>, ConfigError> {
    match (of_key, of_url) {
        (Some(_), Some(_)) => Err(twice(key, parameter)),
        (key, url) => Ok(key.or(url)),
    }
}

fn twice(key: &str, parameter: &str) -> ConfigError {
    ConfigError::invalid(
        format!("postgres.{key}"),
        format!("is set, and so is {parameter} in postgres.url; keep one"),
    )
}

fn alone(key: &str, missing: &str) -> ConfigError {
    ConfigError::invalid(
        format!("postgres.{key}"),
        format!("is set without postgres.{missing}; a client certificate needs both"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Postgres {
        Postgres { url: PostgresUrl(url.to_owned()), ..Postgres::default() }
    }

    #[test]
    fn a_url_from_a_console_says_how_it_is_encrypted_and_keeps_its_other_parameters() {
        let url = "postgres://a:b@db:5432/shop?sslmode=verify-full&options=-c%20x%3D1\
                   &sslrootcert=%2Fetc%2Fca+1.pem&application_name=y";
        let (rest, tls) = of(url).connection().unwrap();
        assert_eq!(rest, "postgres://a:b@db:5432/shop?options=-c%20x%3D1&application_name=y");
        assert_eq!(tls.mode, TlsMode::VerifyFull);
        assert_eq!(tls.ca_file, Some("/etc/ca+1.pem".into()));
        let (rest, tls) = of("postgres://a@db/shop").connection().unwrap();
        assert_eq!((rest.as_str(), tls.mode), ("postgres://a@db/shop", TlsMode::Prefer));
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
