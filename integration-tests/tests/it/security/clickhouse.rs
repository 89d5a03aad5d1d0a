//! The connection to ClickHouse, which here gets its encryption from a listener
//! in front of it.

use std::sync::Arc;

use integration_tests::{pipeline::succeeded, stack::Stack, stack::certificates::Identity};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::Scene;

/// Listens with the server's certificate and forwards what it decrypts, until it is
/// dropped.
struct Front {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Front {
    async fn of(upstream: &str, identity: &Identity) -> Front {
        let chain = CertificateDer::pem_file_iter(&identity.certificate).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = upstream.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                connections.spawn(async move {
                    // Who does not like the certificate leaves.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(&upstream).await else { return };
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Front { port, _tasks: tasks }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_with_a_certificate_of_ones_own_authority() {
    let stack = Stack::secured("clickhouse").await.unwrap();
    let scene = Scene::new(&stack).await;
    let certificates = &scene.security.certificates;
    let upstream = stack.clickhouse.url().strip_prefix("http://").unwrap();
    let front = Front::of(upstream, &certificates.server()).await;
    let url = ("CLICKHOUSE_URL", format!("https://localhost:{}", front.port));
    let file = |path: std::path::PathBuf| ("CLICKHOUSE_TLS_CA_FILE", path.display().to_string());

    let public = [url.clone()];
    scene.consumer_refused("init", &public, 1, &["localhost", "UnknownIssuer"]).await;
    let other = [url.clone(), file(certificates.other_ca())];
    scene.consumer_refused("init", &other, 1, &["localhost", "UnknownIssuer"]).await;
    let missing = [url.clone(), file("/nowhere/ca.pem".into())];
    scene.consumer_refused("init", &missing, 2, &["clickhouse.tls_ca_file", "/nowhere"]).await;
    let by_address = ("CLICKHOUSE_URL", format!("https://127.0.0.2:{}", front.port));
    scene.consumer_refused("init", &[by_address, file(certificates.ca())], 1, &["127.0.0.2"]).await;

    for compression in ["lz4", "zstd", "none"] {
        let compression = ("CLICKHOUSE_COMPRESSION", compression.to_owned());
        scene.set(&[url.clone(), file(certificates.ca()), compression]);
        succeeded(&scene.pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
        succeeded(&scene.pipeline.consumer_output(&["init"]).await.unwrap()).unwrap();
        scene.carries().await;
    }
}
