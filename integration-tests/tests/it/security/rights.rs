//! What docs/security.md asks of Kafka's administrator, and no more, is enough.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use integration_tests::{
    pipeline::{PATIENCE, succeeded},
    stack::{
        Stack,
        secured::{KAFKA_READER, KAFKA_WRITER},
    },
};

use super::Scene;
use crate::diagnosis::create_topic;

/// The numbers of Kafka's protocol.
pub(super) mod code {
    pub(in crate::security) const TOPIC: u8 = 2;
    pub(in crate::security) const GROUP: u8 = 3;
    pub(in crate::security) const CLUSTER: u8 = 4;
    pub(in crate::security) const TRANSACTIONAL_ID: u8 = 5;

    pub(in crate::security) const LITERAL: u8 = 3;
    pub(in crate::security) const PREFIXED: u8 = 4;

    pub(in crate::security) const ALL: u8 = 2;
    pub(in crate::security) const READ: u8 = 3;
    pub(in crate::security) const WRITE: u8 = 4;
    pub(in crate::security) const CREATE: u8 = 5;
    pub(in crate::security) const DESCRIBE: u8 = 8;
    pub(in crate::security) const DESCRIBE_CONFIGS: u8 = 10;
}
use code::*;

/// Allows `user` operations on a resource.
pub(super) struct Right<'a> {
    pub(super) user: &'a str,
    pub(super) resource: u8,
    pub(super) pattern: u8,
    pub(super) name: &'a str,
    pub(super) operations: &'a [u8],
}

/// Asks for CreateAcls, version 1, which no client library at hand can ask for:
/// <https://kafka.apache.org/protocol#The_Messages_CreateAcls>.
pub(super) fn allow(broker: &str, rights: &[Right<'_>], is_allowed: impl Fn(u8) -> bool) {
    fn string(text: &str, into: &mut Vec<u8>) {
        into.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
        into.extend(text.as_bytes());
    }
    const CREATE_ACLS: i16 = 30;
    const ALLOW: u8 = 3;
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(1_i16.to_be_bytes());
    request.extend(0_i32.to_be_bytes());
    string("test", &mut request);
    let each = rights.iter().flat_map(|right| right.operations.iter().map(move |&op| (right, op)));
    let each: Vec<_> = each.filter(|(_, operation)| is_allowed(*operation)).collect();
    request.extend(i32::try_from(each.len()).unwrap().to_be_bytes());
    for (Right { user, resource, pattern, name, .. }, operation) in &each {
        request.push(*resource);
        string(name, &mut request);
        request.push(*pattern);
        string(&format!("User:{user}"), &mut request);
        string("*", &mut request);
        request.extend([*operation, ALLOW]);
    }
    let mut broker = TcpStream::connect(broker).unwrap();
    broker.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut length = [0; 4];
    broker.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
    broker.read_exact(&mut answer).unwrap();
    // The number of the request, the throttle, and how many results there are; of
    // each no error, and an empty message.
    let results = &answer[12..];
    assert_eq!(results, vec![0; 4 * each.len()], "{}", String::from_utf8_lossy(results));
}

pub(super) fn user(name: &str) -> Vec<(&'static str, String)> {
    vec![("KAFKA_SASL_MECHANISM", "PLAIN".to_owned()), ("KAFKA_USERNAME", name.to_owned())]
}

const TABLE: &str = "CREATE TABLE orders (event_id UUID, _topic LowCardinality(String),
     _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY event_id SETTINGS non_replicated_deduplication_window = 10000";

/// The rights in docs/security.md, in its order; Create only if it is said.
fn as_documented(scene: &Scene<'_>, may_create: bool) {
    let pipeline = &scene.pipeline;
    let slot = &pipeline.name;
    let letters = pipeline.dead_letter_topic();
    let relay_id = format!("outpour-relay-{slot}");
    let consumer_id = format!("outpour-consumer-{slot}-");
    let replays = format!("{slot}.replay.");
    let right = |user, resource, pattern, name, operations| Right {
        user,
        resource,
        pattern,
        name,
        operations,
    };
    let writer = |resource, pattern, name, operations| {
        right(KAFKA_WRITER, resource, pattern, name, operations)
    };
    let reader = |resource, pattern, name, operations| {
        right(KAFKA_READER, resource, pattern, name, operations)
    };
    let (events, all) = ("outbox.event.", "*");
    let rights = [
        writer(TOPIC, PREFIXED, events, &[WRITE, DESCRIBE, CREATE, DESCRIBE_CONFIGS]),
        writer(TOPIC, LITERAL, &letters, &[WRITE, DESCRIBE, CREATE, DESCRIBE_CONFIGS]),
        reader(TOPIC, PREFIXED, events, &[READ, DESCRIBE, DESCRIBE_CONFIGS]),
        writer(TOPIC, LITERAL, "outpour.relay.checkpoints", &[READ, WRITE, DESCRIBE, CREATE]),
        reader(TOPIC, PREFIXED, "outpour.dead-letter.", &[WRITE, DESCRIBE, CREATE, READ]),
        reader(TRANSACTIONAL_ID, PREFIXED, &consumer_id, &[WRITE, DESCRIBE]),
        writer(TRANSACTIONAL_ID, LITERAL, &relay_id, &[WRITE, DESCRIBE]),
        writer(GROUP, LITERAL, &relay_id, &[DESCRIBE]),
        reader(GROUP, LITERAL, slot, &[READ]),
        reader(GROUP, PREFIXED, &replays, &[READ]),
        // Who is nobody is the broker itself, and this test. By these, too, what nobody
        // is allowed is forbidden.
        right("ANONYMOUS", TOPIC, LITERAL, all, &[ALL]),
        right("ANONYMOUS", GROUP, LITERAL, all, &[ALL]),
        right("ANONYMOUS", TRANSACTIONAL_ID, LITERAL, all, &[ALL]),
        right("ANONYMOUS", CLUSTER, LITERAL, "kafka-cluster", &[ALL]),
    ];
    allow(pipeline.stack.kafka.url(), &rights, |operation| may_create || operation != CREATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_are_documented_are_enough_for_everything() {
    let stack = Stack::secured("kafka-rights").await.unwrap();
    everything_works(&Scene::new(&stack).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_create_topics_uses_those_that_are_there() {
    let stack = Stack::secured("kafka-no-create").await.unwrap();
    let scene = Scene::new(&stack).await;
    let events = ["order", "unrouted"].map(|name| scene.pipeline.topic(name));
    let letters = events.each_ref().map(|topic| format!("outpour.dead-letter.{topic}"));
    for topic in events.iter().chain(&letters).chain([&scene.pipeline.dead_letter_topic()]) {
        create_topic(&stack, topic, &[]).await;
    }
    let compacted = [("cleanup.policy", "compact")];
    create_topic(&stack, "outpour.relay.checkpoints", &compacted).await;
    everything_works(&scene, false).await;
}

/// From the outbox to ClickHouse and the dead letters, and every command that asks
/// Kafka.
async fn everything_works(scene: &Scene<'_>, may_create: bool) {
    let pipeline = &scene.pipeline;
    scene.init().await;
    pipeline.execute(TABLE).await.unwrap();
    pipeline.route("order", "orders", "max_delay = '50ms'").unwrap();
    as_documented(scene, may_create);

    scene.set(&user(KAFKA_WRITER));
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..20, 5).await.unwrap();
    // For a letter of the relay, and one of the consumer.
    let client = pipeline.postgres().await.unwrap();
    for aggregate_type in ["Grüße", "unrouted"] {
        let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                      VALUES (gen_random_uuid(), $1, 'k', 't', '{}')";
        client.execute(insert, &[&aggregate_type]).await.unwrap();
    }
    relay.logged("row parked", PATIENCE).await.unwrap();
    for command in ["status", "doctor"] {
        succeeded(&pipeline.relay_output(&[command]).await.unwrap()).unwrap();
    }

    scene.set(&user(KAFKA_READER));
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 20).await.unwrap();
    consumer.logged("no_route", PATIENCE).await.unwrap();
    pipeline.at_rest(21).await.unwrap();
    let topic = pipeline.topic("order");
    let commands: [&[&str]; 5] = [
        &["status"],
        &["doctor"],
        &["dlq", "list"],
        &["reconcile"],
        &["replay", "--topic", &topic, "--live", "--yes"],
    ];
    for command in commands {
        let output = pipeline.consumer_output(command).await.unwrap();
        succeeded(&output).unwrap_or_else(|error| panic!("{command:?}: {error:#}"));
    }
    relay.stop().await.unwrap();
    consumer.stop().await.unwrap();
}
