//! Secrets do not come out again.

use integration_tests::{
    pipeline::PATIENCE,
    program::{Binary, Program},
    stack::{
        Stack,
        secured::{KAFKA_PASSWORD, POSTGRES_PASSWORD},
    },
};

use super::{
    Scene,
    kafka::oauth,
    token_endpoint::{CLIENT_SECRET, TokenEndpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_a_secret_at_any_level() {
    let stack = Stack::secured("secrets").await.unwrap();
    let scene = Scene::new(&stack).await;
    scene.init().await;
    let pipeline = &scene.pipeline;
    // Everything that can be said, the client library's own debugging included.
    let config = std::fs::read_to_string(pipeline.config()).unwrap();
    let config = format!("{config}\n[kafka.properties]\ndebug = 'all'\n");
    std::fs::write(pipeline.config(), config).unwrap();
    // Secrets by file, by variable and in a URL.
    let file = pipeline.file("kafka-password");
    std::fs::write(&file, format!("{KAFKA_PASSWORD}\n")).unwrap();
    let user = format!("relay:{POSTGRES_PASSWORD}");
    scene.set(&[
        ("KAFKA_PASSWORD", String::new()),
        ("KAFKA_PASSWORD_FILE", file.display().to_string()),
        ("KAFKA_SASL_MECHANISM", "PLAIN".to_owned()),
        ("POSTGRES_PASSWORD", String::new()),
        ("POSTGRES_URL", scene.postgres_url(&user, "localhost", "sslmode=verify-full")),
    ]);
    let everything = [("OUTPOUR_LOG", "trace")];
    let json = ["--log-format", "json"];
    let start = |binary: Binary, name: &str| {
        binary.start_with(&pipeline.config(), &pipeline.file(name), &json, &everything).unwrap()
    };
    let relay = start(Binary::Relay, "relay-trace.log");
    let consumer = start(Binary::Consumer, "consumer-trace.log");
    relay.logged("relay started", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..20, 5).await.unwrap();
    pipeline.arrived("event_log", 20).await.unwrap();
    for program in [relay, consumer] {
        assert_silent(&program, &[POSTGRES_PASSWORD, KAFKA_PASSWORD]);
        program.stop().await.unwrap();
    }

    // A token, which is a secret as well, and what it is bought with; and the
    // password of a ClickHouse that does not take it.
    let endpoint = TokenEndpoint::start().await;
    scene.set(&oauth(&endpoint.url, CLIENT_SECRET));
    let relay = start(Binary::Relay, "relay-token.log");
    relay.logged("relay started", PATIENCE).await.unwrap();
    assert_silent(&relay, &[CLIENT_SECRET, "eyJhbGciOiJub25lI"]);
    relay.stop().await.unwrap();
    scene.set(&[("CLICKHOUSE_PASSWORD", CLICKHOUSE_PASSWORD.to_owned())]);
    let mut consumer = start(Binary::Consumer, "consumer-refused.log");
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(1));
    assert!(!consumer.log_text().contains(CLICKHOUSE_PASSWORD));
}

const CLICKHOUSE_PASSWORD: &str = "ch-Wm4nE6";

fn assert_silent(program: &Program, secrets: &[&str]) {
    let log = program.log_text();
    // It is the whole log, or this proves nothing.
    assert!(log.contains("\"TRACE\"") && log.contains("SASLMECHS"), "{}", program.last_words());
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}
