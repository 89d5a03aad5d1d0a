//! The connections to the database.

use integration_tests::{
    pipeline::{Pipeline, succeeded},
    stack::{
        Stack,
        certificates::ADDRESS,
        secured::{MUTUAL, RELAY},
    },
};

use super::{Scene, identity};
use crate::bad_input::assert_refused;

const CLIENT: [&str; 2] = ["POSTGRES_TLS_CERTIFICATE_FILE", "POSTGRES_TLS_KEY_FILE"];

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_encryption_of_the_database_is_one_clear_line() {
    let stack = Stack::secured("pg-wrong").await.unwrap();
    let scene = Scene::new(&stack).await;
    let certificates = &scene.security.certificates;
    let other_ca = certificates.other_ca().display().to_string();
    let url = |user: &str, host: &str, parameters: &str| {
        ("POSTGRES_URL", scene.postgres_url(user, host, parameters))
    };
    let full = "sslmode=verify-full";

    let changes = [("POSTGRES_TLS_CA_FILE", other_ca.clone())];
    scene.relay_refused("init", &changes, 1, &["not signed by an authority of", &other_ca]).await;
    let changes = [("POSTGRES_TLS_CA_FILE", String::new())];
    scene.relay_refused("init", &changes, 1, &["public authority", "postgres.tls_ca_file"]).await;
    let changes = [url(RELAY, "127.0.0.1", full)];
    scene.relay_refused("init", &changes, 1, &["another host", "localhost", "verify-ca"]).await;
    let changes = [("POSTGRES_PASSWORD", "hunter2".to_owned())];
    scene.relay_refused("init", &changes, 1, &["password authentication failed"]).await;
    let no_ca = ("POSTGRES_TLS_CA_FILE", String::new());
    let changes = [url(RELAY, "localhost", "sslmode=disable"), no_ca.clone()];
    scene.relay_refused("init", &changes, 1, &["pg_hba.conf", "no encryption"]).await;

    // A role that has to show a certificate: none, one that is over, a stranger's.
    let mutual = url(MUTUAL, "localhost", full);
    let changes = [mutual.clone()];
    scene.relay_refused("init", &changes, 1, &["valid client certificate"]).await;
    for wrong in [certificates.expired(), certificates.stranger()] {
        let [certificate, key] = identity(CLIENT, &wrong);
        let changes = [mutual.clone(), certificate, key];
        scene.relay_refused("init", &changes, 1, &["postgres.tls_certificate_file"]).await;
    }

    let changes = [("POSTGRES_TLS_CA_FILE", "/nowhere/ca.pem".to_owned())];
    scene.relay_refused("init", &changes, 2, &["postgres.tls_ca_file", "/nowhere/ca.pem"]).await;
    let key = certificates.client().key.display().to_string();
    let changes = [("POSTGRES_TLS_CA_FILE", key)];
    scene.relay_refused("init", &changes, 2, &["postgres.tls_ca_file", "no certificate"]).await;

    let open = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    open.set("OUTPOUR_POSTGRES_TLS=require").unwrap();
    let output = open.relay_output(&["init"]).await.unwrap();
    assert_refused(&output, 1, &["does not support TLS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_verifying_carries_both_connections() {
    let stack = Stack::secured("pg-modes").await.unwrap();
    let scene = Scene::new(&stack).await;
    scene.init().await;
    let url = |host: &str, parameters: &str| {
        ("POSTGRES_URL", scene.postgres_url(RELAY, host, parameters))
    };
    let no_ca = ("POSTGRES_TLS_CA_FILE", String::new());

    scene.set(&[url("127.0.0.1", "sslmode=prefer"), no_ca.clone()]);
    scene.carries().await;
    scene.set(&[url("127.0.0.1", "sslmode=require"), no_ca]);
    scene.carries().await;
    // Not the name that the certificate is made out to.
    scene.set(&[url("127.0.0.1", "sslmode=verify-ca")]);
    scene.carries().await;
    // An address that it is made out to.
    scene.set(&[url(ADDRESS, "sslmode=verify-full")]);
    scene.carries().await;
    // With an authority, `require` means verify-ca, as libpq has it.
    let other_ca = scene.security.certificates.other_ca().display().to_string();
    let changes = [url("localhost", "sslmode=require"), ("POSTGRES_TLS_CA_FILE", other_ca)];
    scene.relay_refused("run", &changes, 1, &["not signed by an authority of"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_a_client_certificate_replicates() {
    let stack = Stack::secured("pg-mutual").await.unwrap();
    let scene = Scene::new(&stack).await;
    let [certificate, key] = identity(CLIENT, &scene.security.certificates.client());
    for (host, mode) in [("localhost", "verify-full"), ("127.0.0.1", "verify-ca")] {
        let url = scene.postgres_url(MUTUAL, host, &format!("sslmode={mode}"));
        scene.set(&[("POSTGRES_URL", url), certificate.clone(), key.clone()]);
        scene.init().await;
        scene.carries().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_sql_would_take_apart_stay_whole() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let publication = format!("My\"pub, {}", pipeline.name);
    pipeline.set(&format!("OUTPOUR_RELAY_PUBLICATION='{publication}'")).unwrap();
    pipeline.set("OUTPOUR_OUTBOX_TABLE='public.Out \"box'").unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let insert = "INSERT INTO \"Out \"\"box\" (id, aggregatetype, aggregateid, type, payload)
                  VALUES (gen_random_uuid(), 'order', 'k', 't', '{}')";
    client.batch_execute(insert).await.unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    assert_eq!(reader.take(1, |_| Some(())).unwrap().len(), 1);
    relay.stop().await.unwrap();

    let quoted = format!("\"{}\"", publication.replace('"', "\"\""));
    let sql = format!("ALTER PUBLICATION {quoted} DROP TABLE \"Out \"\"box\"");
    client.batch_execute(&sql).await.unwrap();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    // The remedy can be run as it stands.
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, remedy) = text.split_once("run: ").unwrap();
    client.batch_execute(remedy.lines().next().unwrap()).await.unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
}
