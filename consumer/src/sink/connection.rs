//! Connections to ClickHouse.

use std::{path::Path, time::Duration};

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use outpour_schemas::{config::ConfigError, program::tls};
use rustls::ClientConfig;

/// How long a server may take to accept a connection. An insert may take long, a host
/// that swallows packets is to be known for it sooner.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client whose servers have certificates that come from `ca_file` or, without
/// one, from the public authorities.
///
/// # Errors
/// When the file cannot be read, or does not hold what it should.
pub(super) fn client(
    ca_file: Option<&Path>,
    connect_timeout: Duration,
) -> Result<Client, ConfigError> {
    /// ClickHouse closes connections that are idle for three seconds by default.
    const IDLE: Duration = Duration::from_secs(2);
    const KEEPALIVE: Duration = Duration::from_secs(60);
    const KEY: &str = "clickhouse.tls_ca_file";
    let roots = tls::roots(KEY, ca_file)?;
    let provider = rustls::crypto::ring::default_provider().into();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::invalid(KEY, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_connect_timeout(Some(connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let client = HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
    Ok(Client::with_http_client(client))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::error_line;
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// Long enough to tell it from a time-out of the client's.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_host_that_answers_nothing_is_given_up_by_the_time_for_connecting() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // With nobody to accept, and no room for more that wait.
        let full = socket.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        let client = client(None, Duration::from_millis(100)).unwrap();
        let client = client.with_url(format!("http://{address}"));
        let asked = client.query("SELECT 1").fetch_one::<u8>();
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        let error = error_line(&asked.unwrap().unwrap_err());
        assert!(error.contains("deadline has elapsed"), "{error}");
    }
}
