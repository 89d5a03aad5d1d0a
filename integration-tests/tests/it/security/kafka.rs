//! The connections to Kafka, of both programs.

use integration_tests::{eventually, pipeline::PATIENCE, pipeline::succeeded, stack::Stack};

use super::{
    Scene, Settings, identity,
    token_endpoint::{CLIENT_ID, CLIENT_SECRET, TokenEndpoint},
};

const CLIENT: [&str; 2] = ["KAFKA_TLS_CERTIFICATE_FILE", "KAFKA_TLS_KEY_FILE"];

/// No user, as on the listener for client certificates.
fn nobody() -> [(&'static str, String); 3] {
    ["KAFKA_SASL_MECHANISM", "KAFKA_USERNAME", "KAFKA_PASSWORD"].map(|key| (key, String::new()))
}

pub(super) fn oauth(url: &str, secret: &str) -> Vec<(&'static str, String)> {
    let mut settings = nobody().to_vec();
    settings.push(("KAFKA_SASL_MECHANISM", "OAUTHBEARER".to_owned()));
    settings.push(("KAFKA_OAUTH_TOKEN_URL", url.to_owned()));
    settings.push(("KAFKA_OAUTH_CLIENT_ID", CLIENT_ID.to_owned()));
    settings.push(("KAFKA_OAUTH_CLIENT_SECRET", secret.to_owned()));
    settings
}

async fn works(scene: &Scene<'_>, settings: Settings<'_>) {
    scene.set(settings);
    succeeded(&scene.pipeline.consumer_output(&["status"]).await.unwrap()).unwrap();
    succeeded(&scene.pipeline.relay_output(&["status"]).await.unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_security_of_kafka_is_one_clear_line() {
    let stack = Stack::secured("kafka-wrong").await.unwrap();
    let scene = Scene::new(&stack).await;
    scene.init().await;
    let security = scene.security;
    let certificates = &security.certificates;
    let other_ca = [("KAFKA_TLS_CA_FILE", certificates.other_ca().display().to_string())];
    let sasl = format!("localhost:{}", security.kafka_sasl_port);
    let set = |key: &'static str, value: &str| (key, value.to_owned());

    // The broker is slow in what it does for the first time.
    works(&scene, &[]).await;
    // Every command of both programs says it the same way, with who and how.
    let who = format!("Kafka at {sasl} (SASL_SSL, SCRAM-SHA-512)");
    let wrong_password = [set("KAFKA_PASSWORD", "hunter2")];
    let parts = [who.as_str(), "invalid credentials"];
    scene.relay_refused("run", &wrong_password, 1, &parts).await;
    scene.relay_refused("status", &wrong_password, 1, &parts).await;
    scene.consumer_refused("run", &wrong_password, 1, &parts).await;
    scene.consumer_refused("status", &wrong_password, 1, &parts).await;
    scene.relay_refused("run", &other_ca, 1, &[&who, "kafka.tls_ca_file"]).await;

    let plain = [set("KAFKA_SASL_MECHANISM", "PLAIN"), set("KAFKA_PASSWORD", "hunter2")];
    scene.consumer_refused("status", &plain, 1, &["(SASL_SSL, PLAIN)", "failed"]).await;
    let by_address = format!("127.0.0.1:{}", security.kafka_sasl_port);
    let address = [set("KAFKA_BROKERS", &by_address)];
    scene.consumer_refused("status", &address, 1, &[&by_address, "certificate"]).await;
    let other = [set("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"), set("KAFKA_USERNAME", "nobody")];
    scene.consumer_refused("status", &other, 1, &["SCRAM-SHA-256", "invalid credentials"]).await;

    // One side encrypts and the other does not.
    let [mechanism, user, password] = nobody();
    let open = [mechanism, user, password, set("KAFKA_TLS_CA_FILE", "")];
    let parts = [sasl.as_str(), "(PLAINTEXT)", "kafka.security_protocol"];
    scene.relay_refused("run", &open, 1, &parts).await;
    scene.consumer_refused("run", &open, 1, &parts).await;
    let open_port = [set("KAFKA_BROKERS", stack.kafka.url())];
    scene.consumer_refused("status", &open_port, 1, &[stack.kafka.url(), "PLAINTEXT"]).await;

    // The listener for client certificates: none, one that is over, a stranger's.
    let ssl = format!("localhost:{}", security.kafka_ssl_port);
    let mut without = nobody().to_vec();
    without.push(set("KAFKA_BROKERS", &ssl));
    scene.consumer_refused("status", &without, 1, &[&ssl, "(SSL)", "certificate"]).await;
    for wrong in [certificates.expired(), certificates.stranger()] {
        let mut settings = without.clone();
        settings.extend(identity(CLIENT, &wrong));
        scene.consumer_refused("status", &settings, 1, &[&ssl, "(SSL)", "certificate"]).await;
    }

    let endpoint = TokenEndpoint::start().await;
    let settings = oauth(&endpoint.url, "hunter2");
    let parts = ["(SASL_SSL, OAUTHBEARER)", "token"];
    scene.relay_refused("run", &settings, 1, &parts).await;
    scene.consumer_refused("run", &settings, 1, &parts).await;

    let typo = [set("KAFKA_TLS_CA_FILE", "/nowhere/ca.pem")];
    scene.consumer_refused("run", &typo, 2, &["kafka.tls_ca_file", "/nowhere/ca.pem"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_authenticating_carries_events() {
    let stack = Stack::secured("kafka-ways").await.unwrap();
    let scene = Scene::new(&stack).await;
    scene.init().await;
    let security = scene.security;
    let set = |key: &'static str, value: &str| (key, value.to_owned());

    works(&scene, &[set("KAFKA_SASL_MECHANISM", "scram-sha-256")]).await;
    works(&scene, &[set("KAFKA_SASL_MECHANISM", "PLAIN")]).await;
    // Without looking at the host's name, any address of it will do.
    let address = format!("127.0.0.1:{}", security.kafka_sasl_port);
    works(&scene, &[set("KAFKA_BROKERS", &address), set("KAFKA_TLS_VERIFY_HOSTNAME", "false")])
        .await;

    let mut certificate = nobody().to_vec();
    certificate.push(set("KAFKA_BROKERS", &format!("localhost:{}", security.kafka_ssl_port)));
    certificate.extend(identity(CLIENT, &security.certificates.client()));
    scene.set(&certificate);
    scene.carries().await;

    let endpoint = TokenEndpoint::start().await;
    scene.set(&oauth(&endpoint.url, CLIENT_SECRET));
    scene.carries().await;

    // A token does not last: new ones are fetched, and the work goes on.
    let relay = scene.pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    let before = endpoint.issued();
    eventually(PATIENCE, async || {
        let issued = endpoint.issued();
        anyhow::ensure!(issued > before, "{issued} tokens issued");
        Ok(())
    })
    .await
    .unwrap();
    relay.stop().await.unwrap();
}
