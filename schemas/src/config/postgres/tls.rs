//! How connections to the database are encrypted: what the keys and the
//! parameters of the URL say together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Postgres, URL};

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

/// The parameters of a URL that say how the connection is encrypted.
#[derive(Default)]
pub(super) struct UrlTls {
    mode: Option<TlsMode>,
    ca_file: Option<PathBuf>,
    /// libpq's `sslrootcert=system`: the public authorities, and nothing weaker
    /// than full verification.
    public_ca: bool,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl Postgres {
    pub(super) fn tls(&self, url: UrlTls) -> Result<PostgresTls, ConfigError> {
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
    /// Whether the parameter was about encryption.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, ConfigError> {
        let wrong = |reason: String| Err(ConfigError::invalid(URL, reason));
        match name {
            "sslmode" => {
                self.mode = TlsMode::parse(value);
                if self.mode.is_none() {
                    return wrong(format!(
                        "sslmode `{value}`: expected disable, prefer, require, verify-ca or \
                         verify-full"
                    ));
                }
            }
            "sslrootcert" if value == "system" => self.public_ca = true,
            "sslrootcert" => self.ca_file = Some(value.into()),
            "sslcert" => self.certificate_file = Some(value.into()),
            "sslkey" => self.key_file = Some(value.into()),
            // What libpq would do anyway where GSSAPI is not set up.
            "gssencmode" if matches!(value, "disable" | "prefer") => {}
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
