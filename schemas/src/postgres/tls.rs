//! What is made sure of the server before anything is told to it.
//!
//! The rules are those of libpq's `sslmode`.
//!
//! Files are read anew for every connection: certificates that are replaced on
//! disk are taken up by the next one.

use std::{error::Error, io, sync::Arc};

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

use crate::{
    config::{ConfigError, PostgresHost, PostgresTls, TlsMode},
    program::tls,
};

/// How connections are encrypted; usable, as its files have been read once.
#[derive(Clone)]
pub struct Tls(PostgresTls);

/// A socket of this machine is not encrypted, and needs not be.
pub(super) fn for_hosts(
    tls: PostgresTls,
    hosts: &[PostgresHost],
) -> Result<PostgresTls, ConfigError> {
    let is_any_socket = hosts.iter().any(PostgresHost::is_socket);
    if is_any_socket && tls.mode > TlsMode::Prefer {
        return Err(ConfigError::invalid(
            "postgres.tls",
            "asks for encryption, but postgres.url names a socket of this machine, which has none",
        ));
    }
    Ok(tls)
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

    /// # Errors
    /// When a file cannot be read, or does not hold what it should.
    pub fn connector(&self) -> Result<MakeRustlsConnect, ConfigError> {
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

    /// The configuration in force.
    #[must_use]
    pub fn settings(&self) -> &PostgresTls {
        &self.0
    }

    /// What a handshake that failed means to whoever set it up; `None` if
    /// something else failed.
    #[must_use]
    pub fn explain(&self, error: &(dyn Error + 'static)) -> Option<String> {
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
