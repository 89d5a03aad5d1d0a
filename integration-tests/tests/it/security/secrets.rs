//! Secrets do not come out again.

use integration_tests::{
    pipeline::PATIENCE,
    program::Binary,
    stack::{
        Stack,
        secured::{KAFKA_PASSWORD, POSTGRES_PASSWORD},
    },
};

use super::Scene;

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
        let log = program.log_text();
        // It is the whole log, or this proves nothing.
        assert!(log.contains("\"TRACE\"") && log.contains("SASLMECHS"), "{}", program.last_words());
        for secret in [POSTGRES_PASSWORD, KAFKA_PASSWORD] {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{line:?}");
        }
        program.stop().await.unwrap();
    }
}
