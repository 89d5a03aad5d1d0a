//! Certificates and keys in PEM, as the configuration names them.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
};

use crate::config::ConfigError;

/// The authorities in `ca_file`, the setting `key`; without one the public ones, as
/// Mozilla lists them.
///
/// # Errors
/// When the file cannot be read, or does not hold what it should.
pub fn roots(key: &str, ca_file: Option<&Path>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|error| {
            ConfigError::invalid(key, format!("{} cannot be used: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

/// The certificates in `path`, the setting `key`: one at least.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| unreadable(key, path, &error))?;
    if found.is_empty() {
        return Err(ConfigError::invalid(
            key,
            format!("{} holds no certificate in PEM", path.display()),
        ));
    }
    Ok(found)
}

/// The key in `path`, the setting `key`.
///
/// # Errors
/// When the file cannot be read, or holds none that is not encrypted.
pub fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        Error::NoItemsFound => {
            ConfigError::invalid(key, format!("{} holds no unencrypted key in PEM", path.display()))
        }
        error => unreadable(key, path, &error),
    })
}

fn unreadable(key: &str, path: &Path, error: &Error) -> ConfigError {
    ConfigError::invalid(key, format!("cannot read {}: {error}", path.display()))
}
