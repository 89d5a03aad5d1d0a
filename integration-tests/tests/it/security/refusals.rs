//! What Kafka refuses, where nobody may ask it why.

use std::collections::BTreeSet;

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header},
    stack::{Stack, secured::KAFKA_WRITER},
};
use rdkafka::Message;

use super::{
    Scene,
    rights::{Right, allow, code, user},
};
use crate::diagnosis::create_topic;

/// Rows that are written with a key, or without.
async fn write(pipeline: &Pipeline<'_>, aggregate_type: &str, key: Option<&str>, rows: i64) {
    let sql = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, occurred_at)
               SELECT gen_random_uuid(), $1, $2, 't', to_jsonb($1 || n), now() - interval '2 hours'
               FROM generate_series(1, $3::bigint) n";
    let client = pipeline.postgres().await.unwrap();
    client.execute(sql, &[&aggregate_type, &key, &rows]).await.unwrap();
}

/// Whoever may not read a topic's settings does not know what it takes before it says
/// so: keys, times, rows that a small batch alone would hold.
#[tokio::test(flavor = "multi_thread")]
async fn relay_finds_the_rows_that_kafka_refuses_where_it_may_not_read_a_topic_s_settings() {
    use code::{CREATE, DESCRIBE, DESCRIBE_CONFIGS, LITERAL, READ, TRANSACTIONAL_ID, WRITE};
    let stack = Stack::secured("kafka-refusals").await.unwrap();
    let scene = Scene::new(&stack).await;
    let pipeline = &scene.pipeline;
    scene.init().await;
    let nullable = "ALTER TABLE outbox ALTER aggregateid DROP NOT NULL";
    pipeline.postgres().await.unwrap().batch_execute(nullable).await.unwrap();
    let kinds: [(&str, &[(&str, &str)]); 5] = [
        ("keyed", &[("cleanup.policy", "compact")]),
        ("timely", &[("message.timestamp.before.max.ms", "3600000")]),
        ("small", &[("max.message.bytes", "2000")]),
        ("fine", &[]),
        ("denied", &[]),
    ];
    let topics = kinds.map(|(name, _)| pipeline.topic(name));
    for (topic, (_, settings)) in topics.iter().zip(kinds) {
        create_topic(&stack, topic, settings).await;
    }
    let letters = pipeline.dead_letter_topic();
    create_topic(&stack, &letters, &[]).await;
    let id = format!("outpour-relay-{}", pipeline.name);
    let right = |resource, name, operations| Right {
        user: KAFKA_WRITER,
        resource,
        pattern: LITERAL,
        name,
        operations,
    };
    let mut rights = vec![
        right(code::TOPIC, letters.as_str(), &[WRITE, DESCRIBE, DESCRIBE_CONFIGS][..]),
        right(code::TOPIC, "outpour.relay.checkpoints", &[READ, WRITE, DESCRIBE, CREATE]),
        right(TRANSACTIONAL_ID, &id, &[WRITE, DESCRIBE]),
        right(code::GROUP, &id, &[DESCRIBE]),
    ];
    rights
        .extend(topics[..4].iter().map(|topic| right(code::TOPIC, topic, &[WRITE, DESCRIBE][..])));
    rights.push(right(code::TOPIC, &topics[4], &[DESCRIBE]));
    let broker = [code::TOPIC, code::GROUP, TRANSACTIONAL_ID].map(|resource| Right {
        user: "ANONYMOUS",
        resource,
        pattern: LITERAL,
        name: "*",
        operations: &[code::ALL],
    });
    rights.extend(broker);
    let cluster = Right {
        user: "ANONYMOUS",
        resource: code::CLUSTER,
        pattern: LITERAL,
        name: "kafka-cluster",
        operations: &[code::ALL],
    };
    rights.push(cluster);
    allow(stack.kafka.url(), &rights, |_| true);

    let mut settings = user(KAFKA_WRITER);
    settings.push(("RELAY_TIMESTAMP_COLUMN", "occurred_at".to_owned()));
    scene.set(&settings);
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    for (name, key, rows) in
        [("keyed", None, 20), ("keyed", Some("k"), 1), ("timely", Some("k"), 20)]
    {
        write(pipeline, name, key, rows).await;
    }
    // Random digits, or compression would make the batch small enough.
    let small = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                 SELECT gen_random_uuid(), 'small', n::text, 't', to_jsonb((SELECT
                     string_agg(md5(random()::text), '') FROM generate_series(1, length)))
                 FROM (VALUES (1, 20), (2, 20), (3, 2000), (4, 20)) AS rows (n, length)";
    pipeline.postgres().await.unwrap().batch_execute(small).await.unwrap();
    write(pipeline, "fine", Some("k"), 20).await;
    // The client says of each record of a batch what is wrong with its only bad one.
    let one = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
               SELECT gen_random_uuid(), 'keyed', nullif('k', CASE n WHEN 9 THEN 'k' END), 't', '{}'
               FROM generate_series(1, 20) AS n";
    pipeline.postgres().await.unwrap().batch_execute(one).await.unwrap();

    let count = |topic: &str, rows: usize| {
        let reader = pipeline.reader(topic).unwrap();
        reader.take(rows, |message| message.payload().map(drop)).unwrap();
        reader.nothing_more().unwrap();
    };
    for (topic, rows) in topics.iter().zip([20, 20, 3, 20]) {
        count(topic, rows);
    }
    let reader = pipeline.reader(&letters).unwrap();
    let reasons = reader.take(22, |message| header(message, "outpour-reason")).unwrap();
    assert!(reasons.iter().all(|reason| reason == "refused_by_kafka"), "{reasons:?}");
    let log = relay.log_text();
    assert!(!log.contains("Erroneous state"), "{log}");
    relay.stop().await.unwrap();

    // A topic that is for others holds up the rows of its keys, and nobody else's.
    settings.push(("RELAY_MODE", "poll".to_owned()));
    scene.set(&settings);
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("TRUNCATE outbox").await.unwrap();
    let relay = pipeline.relay().unwrap();
    for name in ["denied", "unknown", "fine"] {
        write(pipeline, name, Some(name), 10).await;
    }
    let failures = || {
        let log = relay.log_text();
        let denied = log.matches(&topics[4]).count();
        let unknown = log.matches(&pipeline.topic("unknown")).count();
        (denied + unknown, log)
    };
    eventually(PATIENCE, async || {
        let (failures, log) = failures();
        anyhow::ensure!(failures > 3, "{log}");
        Ok(())
    })
    .await
    .unwrap();
    count(&topics[3], 30);
    let left = "SELECT DISTINCT aggregatetype FROM outbox";
    let left: BTreeSet<String> =
        client.query(left, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["denied", "unknown"].map(str::to_owned).into());
    relay.stop().await.unwrap();
}
