//! How the replication connection is encrypted.
//!
//! By the same rules as the ordinary one. Its library makes a configuration of its
//! own of the same files, but for one mode: it takes `verify-ca` for `verify-full`,
//! so that there it gets a [`Bridge`](super::Bridge).

use std::net::IpAddr;

use outpour_schemas::config::TlsMode;
use pgwire_replication::{SslMode, TlsConfig};

use super::Target;

/// Who encrypts it.
pub(crate) enum Replication {
    /// The library, told so.
    Library(TlsConfig),
    /// We do, through a [`Bridge`](super::Bridge).
    Bridged,
}

impl Replication {
    pub(crate) fn of(target: &Target) -> Self {
        let (tls, host) = (target.tls.settings(), target.host());
        let mode = match tls.mode {
            _ if host.is_socket() => SslMode::Disable,
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require => SslMode::Require,
            TlsMode::VerifyCa => return Replication::Bridged,
            TlsMode::VerifyFull => SslMode::VerifyFull,
        };
        let (certificate, key) = tls.identity.clone().unzip();
        Replication::Library(TlsConfig {
            mode,
            ca_pem_path: tls.ca_file.clone(),
            // It refuses an address unless it is told that it is meant; a
            // certificate can very well be made out to one.
            sni_hostname: host.name.parse::<IpAddr>().is_ok().then(|| host.name.clone()),
            client_cert_pem_path: certificate,
            client_key_pem_path: key,
        })
    }
}
