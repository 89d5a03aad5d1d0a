//! What is made sure of the server before anything is told to it.
//!
//! Both connections go by the same rules, those of libpq's `sslmode`. The
//! ordinary one is encrypted by the configuration made here. The replication
//! connection's library makes its own of the same files, but for one mode: it
//! takes `verify-ca` for `verify-full`, so that there it gets a [`Bridge`].
//!
//! Files are read anew for every connection: certificates that are replaced on
//! disk are taken up by the next one.
//!
//! [`Bridge`]: super::Bridge

use std::{error::Error, io, net::IpAddr, sync::Arc};

use outpour_schemas::{
    config::{ConfigError, PostgresTls, TlsMode},
    program::tls,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How connections are encrypted; usable, as its files have been read once.
#[derive(Clone)]
pub(super) struct Tls(PostgresTls);

/// Who encrypts the replication connection.
pub(crate) enum Replication {
    /// The library, told so.
    Library(pgwire_replication::TlsConfig),
    /// We do, through a [`Bridge`](super::Bridge).
    Bridged,
}

/// A socket of this machine is not encrypted, and needs not be.
pub(super) fn for_socket(tls: PostgresTls) -> Result<PostgresTls, ConfigError> {
    if tls.mode > TlsMode::Prefer {
        return Err(ConfigError::invalid(
            "postgres.tls",
            "asks for encryption, but postgres.url names a socket of this machine, which has none",
        ));
    }
    Ok(PostgresTls { mode: TlsMode::Disable, ..tls })
}

impl Tls {
    /// # Errors
    /// When a file cannot be read, or does not hold what it should.
    pub(super) fn of(mut config: PostgresTls) -> Result<Self, ConfigError> {
        if config.mode == TlsMode::Require && config.ca_file.is_some() {
            config.mode = TlsMode::VerifyCa;
        }
        let tls = Tls(config);
        tls.connector()?;
        Ok(tls)
    }

    /// What is asked of the server before the handshake.
    pub(super) fn negotiation(&self) -> SslMode {
        match self.0.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        }
    }

    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, ConfigError> {
        let failed = |error: rustls::Error| ConfigError::invalid("postgres.tls", error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.0.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = tls::certificates("postgres.tls_certificate_file", certificate)?;
                let key = tls::private_key("postgres.tls_key_file", key)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    ConfigError::invalid(
                        "postgres.tls_certificate_file",
                        format!("does not go with postgres.tls_key_file: {error}"),
                    )
                })?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
        if self.0.mode < TlsMode::VerifyCa {
            return Ok(Arc::new(Unverified(Arc::clone(provider))));
        }
        let roots = tls::roots("postgres.tls_ca_file", self.0.ca_file.as_deref())?;
        let roots = Arc::new(roots);
        let full = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| ConfigError::invalid("postgres.tls_ca_file", error.to_string()))?;
        Ok(match self.0.mode {
            TlsMode::VerifyCa => Arc::new(AnyName(full)),
            _ => full,
        })
    }

    pub(super) fn replication(&self, host: &str) -> Replication {
        use pgwire_replication::{SslMode, TlsConfig};
        let mode = match self.0.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require => SslMode::Require,
            TlsMode::VerifyCa => return Replication::Bridged,
            TlsMode::VerifyFull => SslMode::VerifyFull,
        };
        let (certificate, key) = self.0.identity.clone().unzip();
        Replication::Library(TlsConfig {
            mode,
            ca_pem_path: self.0.ca_file.clone(),
            // It refuses an address unless it is told that it is meant; a
            // certificate can very well be made out to one.
            sni_hostname: host.parse::<IpAddr>().is_ok().then(|| host.to_owned()),
            client_cert_pem_path: certificate,
            client_key_pem_path: key,
        })
    }

    /// What a handshake that failed means to whoever set it up; `None` if
    /// something else failed.
    pub(super) fn explain(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = handshake_error(error) {
                return Some(self.describe(error));
            }
            cause = error.source();
        }
        None
    }

    fn describe(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                match &self.0.ca_file {
                    Some(file) => format!(
                        "the server's certificate is not signed by an authority of {} \
                         (postgres.tls_ca_file)",
                        file.display()
                    ),
                    None => "the server's certificate is not signed by a public authority; name \
                             yours in postgres.tls_ca_file"
                        .to_owned(),
                }
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the server's certificate is made out to another host ({error}); connect by its \
                 name, or set postgres.tls = \"verify-ca\""
            ),
            rustls::Error::InvalidCertificate(reason) => {
                format!("the server's certificate is not valid: {reason}")
            }
            rustls::Error::AlertReceived(alert) => format!(
                "the server ended the TLS handshake ({alert:?}); it may not accept the client \
                 certificate (postgres.tls_certificate_file)"
            ),
            other => format!("TLS failed: {other}"),
        }
    }
}

/// An error of I/O hides the error that it was made of from its sources.
fn handshake_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match inside {
        Some(inside) => inside.downcast_ref(),
        None => error.downcast_ref(),
    }
}

/// Takes any certificate. Against those who only listen.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A signature by whatever key the certificate names proves nothing either.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies everything but that the certificate is made out to the host.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, chain, name, ocsp, now) {
            // The name is looked at last: the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
