//! Encrypted HTTP, with the authorities that the configuration names.

use std::{path::Path, time::Duration};

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use outpour_schemas::{config::ConfigError, program::tls};
use rustls::ClientConfig;

/// A client that takes servers whose certificates come from `ca_file` instead of
/// the public authorities.
///
/// # Errors
/// When the file cannot be read, or does not hold what it should.
pub(super) fn client(ca_file: &Path) -> Result<Client, ConfigError> {
    /// ClickHouse closes connections that are idle for three seconds by default.
    const IDLE: Duration = Duration::from_secs(2);
    const KEEPALIVE: Duration = Duration::from_secs(60);
    const KEY: &str = "clickhouse.tls_ca_file";
    let roots = tls::roots(KEY, Some(ca_file))?;
    let provider = rustls::crypto::ring::default_provider().into();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::invalid(KEY, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_keepalive(Some(KEEPALIVE));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let client = HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
    Ok(Client::with_http_client(client))
}
