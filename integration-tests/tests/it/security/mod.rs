//! Encryption and authentication against real listeners, and what a mistake in
//! them looks like.

mod clickhouse;
mod kafka;
mod postgres;
mod refusals;
mod rights;
mod secrets;
mod token_endpoint;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::{
        Stack,
        certificates::Identity,
        secured::{KAFKA_PASSWORD, KAFKA_USER, POSTGRES_PASSWORD, RELAY, Secured},
    },
};

use crate::bad_input::assert_refused;

/// Less than the programs wait for one that does not answer: who is refused is
/// to know at once.
const AT_ONCE: Duration = Duration::from_secs(9);

/// A pipeline whose programs come by the secured listeners alone.
struct Scene<'s> {
    pipeline: Pipeline<'s>,
    security: &'s Secured,
    database: String,
}

/// Keys of the configuration as variables, without `OUTPOUR_`.
type Settings<'a> = &'a [(&'a str, String)];

impl<'s> Scene<'s> {
    async fn new(stack: &'s Stack) -> Scene<'s> {
        let pipeline = Pipeline::bare(stack, "max_delay = '50ms'").await.unwrap();
        let (_, database) = pipeline.postgres_url.rsplit_once('/').unwrap();
        let database = database.to_owned();
        // What docs/security.md asks for, and no more.
        let grants = format!(
            "GRANT CREATE ON DATABASE {database} TO {RELAY}, mutual;
             GRANT CREATE, USAGE ON SCHEMA public TO {RELAY}, mutual"
        );
        pipeline.postgres().await.unwrap().batch_execute(&grants).await.unwrap();
        let scene = Scene { security: stack.security().unwrap(), pipeline, database };
        scene.set(&[]);
        scene
    }

    /// The URL of its database, as `user`, through `host`, with `parameters`.
    fn postgres_url(&self, user: &str, host: &str, parameters: &str) -> String {
        let port = self.security.postgres_port;
        format!("postgres://{user}@{host}:{port}/{}?{parameters}", self.database)
    }

    /// Everything verified; then `changes`, of which an empty one unsets.
    fn set(&self, changes: Settings<'_>) {
        let ca = self.security.certificates.ca().display().to_string();
        let mut all = BTreeMap::from([
            ("POSTGRES_URL", self.postgres_url(RELAY, "localhost", "sslmode=verify-full")),
            ("POSTGRES_TLS_CA_FILE", ca.clone()),
            ("POSTGRES_PASSWORD", POSTGRES_PASSWORD.to_owned()),
            ("KAFKA_BROKERS", format!("localhost:{}", self.security.kafka_sasl_port)),
            ("KAFKA_TLS_CA_FILE", ca),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
            ("KAFKA_USERNAME", KAFKA_USER.to_owned()),
            ("KAFKA_PASSWORD", KAFKA_PASSWORD.to_owned()),
        ]);
        for (key, value) in changes {
            all.insert(key, value.clone());
        }
        let mut text = String::new();
        for (key, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(text, "OUTPOUR_{key}='{value}'").unwrap();
        }
        std::fs::write(self.pipeline.file(".env"), text).unwrap();
    }

    async fn init(&self) {
        succeeded(&self.pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
        succeeded(&self.pipeline.consumer_output(&["init"]).await.unwrap()).unwrap();
    }

    /// The command fails at once, with one line that names `parts`.
    async fn relay_refused(&self, command: &str, changes: Settings<'_>, code: i32, parts: &[&str]) {
        self.set(changes);
        let began = Instant::now();
        let output = self.pipeline.relay_output(&[command]).await.unwrap();
        assert_refused(&output, code, parts);
        assert!(began.elapsed() < AT_ONCE, "{parts:?} after {:?}", began.elapsed());
    }

    async fn consumer_refused(
        &self,
        command: &str,
        changes: Settings<'_>,
        code: i32,
        parts: &[&str],
    ) {
        self.set(changes);
        let began = Instant::now();
        let output = self.pipeline.consumer_output(&[command]).await.unwrap();
        assert_refused(&output, code, parts);
        assert!(began.elapsed() < AT_ONCE, "{parts:?} after {:?}", began.elapsed());
    }

    /// Twenty events arrive in ClickHouse by whatever is set.
    async fn carries(&self) {
        let relay = self.pipeline.relay().unwrap();
        let consumer = self.pipeline.consumer().unwrap();
        let before = self.pipeline.count("event_log").await.unwrap().0;
        self.pipeline.commit_orders(before..before + 20, 5).await.unwrap();
        self.pipeline.arrived("event_log", before + 20).await.unwrap();
        relay.stop().await.unwrap();
        consumer.stop().await.unwrap();
    }
}

/// The keys of a client certificate in a section.
fn identity<'a>(keys: [&'a str; 2], identity: &Identity) -> [(&'a str, String); 2] {
    let show = |path: &std::path::Path| path.display().to_string();
    [(keys[0], show(&identity.certificate)), (keys[1], show(&identity.key))]
}

#[tokio::test(flavor = "multi_thread")]
async fn events_travel_encrypted_and_authenticated_all_the_way() {
    let stack = Stack::secured("whole").await.unwrap();
    let scene = Scene::new(&stack).await;
    scene.init().await;
    let pipeline = &scene.pipeline;
    let relay = pipeline.relay().unwrap();
    let _consumer = pipeline.consumer().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..200, 5).await.unwrap();
    pipeline.arrived("event_log", 200).await.unwrap();

    // The server's own word: both of the relay's connections are encrypted.
    let client = pipeline.postgres().await.unwrap();
    let row = client
        .query_one(
            "SELECT count(*) FILTER (WHERE ssl AND backend_type = 'walsender'),
                    count(*) FILTER (WHERE ssl AND backend_type = 'client backend'),
                    count(*) FILTER (WHERE NOT ssl)
             FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = $1",
            &[&RELAY],
        )
        .await
        .unwrap();
    let (replication, ordinary, open): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(replication == 1 && ordinary >= 1 && open == 0, "{replication} {ordinary} {open}");

    // A password that is changed while it runs: it says so, and goes on after.
    let mut relay = relay;
    let change = |password: &str| format!("ALTER ROLE {RELAY} PASSWORD '{password}'");
    client.batch_execute(&change("another")).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    client.execute(cut, &[&RELAY]).await.unwrap();
    relay.logged("password authentication failed", PATIENCE).await.unwrap();
    relay.check().unwrap();
    client.batch_execute(&change(POSTGRES_PASSWORD)).await.unwrap();
    pipeline.commit_orders(200..220, 5).await.unwrap();
    pipeline.arrived("event_log", 220).await.unwrap();
    relay.stop().await.unwrap();

    // ClickHouse's certificate is verified, too; any server with one of ours will do.
    let https = format!("https://localhost:{}", scene.security.kafka_ssl_port);
    scene.consumer_refused("init", &[("CLICKHOUSE_URL", https)], 1, &["UnknownIssuer"]).await;
}
