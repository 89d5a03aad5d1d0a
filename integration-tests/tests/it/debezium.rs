//! The options of Debezium's outbox event router, as far as it takes Kafka or
//! PostgreSQL to show them. The rest are tests of the router itself.

use std::time::Duration;

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
};

/// The first `count` committed records of a topic that `wanted` takes.
fn read(
    pipeline: &Pipeline<'_>,
    topic: &str,
    count: usize,
    wanted: impl Fn(&OwnedMessage) -> bool,
) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("group.id", pipeline.stack.unique("reader"))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(std::time::Instant::now() < until, "{} of {count} records", found.len());
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        found.extend(Some(message.detach()).filter(&wanted));
    }
    found
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}

/// Aggregate type, aggregate id and payload of a row; partition and value of its
/// record, as Debezium 3.6.1 writes it with `StringConverter` into six partitions.
type Golden = (&'static str, &'static str, Option<&'static str>, i32, Option<&'static str>);

const GOLDEN: [Golden; 12] = [
    (
        "order",
        "4711",
        Some(r#"{"total": "19.99", "n": 1}"#),
        4,
        Some(r#"{"n": 1, "total": "19.99"}"#),
    ),
    ("order", "4712", None, 1, None),
    ("order", "4713", Some("null"), 1, Some("null")),
    (
        "order",
        "schlüssel-☃",
        Some(r#"{"text": "Zürich \u2603 😀 \u2028 \"q\" \\ \/ \t", "ключ": "é"}"#),
        4,
        Some("{\"text\": \"Zürich ☃ 😀 \u{2028} \\\"q\\\" \\\\ / \\t\", \"ключ\": \"é\"}"),
    ),
    (
        "order",
        "4714",
        Some(
            r#"{"a": 1.10, "b": 12345678901234567890, "c": 0.1, "d": 1e-7, "e": 1.0, "f": -0,
                "g": 1e25, "h": 123456789.123456789123, "i": 9007199254740993}"#,
        ),
        5,
        Some(concat!(
            r#"{"a": 1.10, "b": 12345678901234567890, "c": 0.1, "d": 0.0000001, "e": 1.0, "#,
            r#""f": 0, "g": 10000000000000000000000000, "h": 123456789.123456789123, "#,
            r#""i": 9007199254740993}"#
        )),
    ),
    (
        "order",
        "4715",
        Some(
            r#"{"a":{"b":{"c":[1,2,{"d":null}]}},"e":null,"f":[],"g":[{}],"h":{},"i":[1,"x",null]}"#,
        ),
        3,
        Some(concat!(
            r#"{"a": {"b": {"c": [1, 2, {"d": null}]}}, "e": null, "f": [], "g": [{}], "h": {}, "#,
            r#""i": [1, "x", null]}"#
        )),
    ),
    ("order", "4716", Some("[1,2,3]"), 2, Some("[1, 2, 3]")),
    ("order", "4717", Some(r#""text""#), 4, Some(r#""text""#)),
    ("order", "", Some(r#"{"a": true}"#), 3, Some(r#"{"a": true}"#)),
    ("order", "4718", Some(r#"{"a": false}"#), 2, Some(r#"{"a": false}"#)),
    ("Order.v2", "4719", Some(r#"{"a": 1}"#), 3, Some(r#"{"a": 1}"#)),
    (
        "order",
        "4720",
        Some(r#"{"m": [{"x": 1}, {"x": "1"}], "s": {"x": 1.5}}"#),
        1,
        Some(r#"{"m": [{"x": 1}, {"x": "1"}], "s": {"x": 1.5}}"#),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn records_of_odd_rows_have_the_topic_partition_key_value_and_id_that_debezium_gives_them() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_COMPAT=debezium").unwrap();
    let client = pipeline.postgres().await.unwrap();
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                  VALUES (gen_random_uuid(), $1, $2, 't', $3::text::jsonb) RETURNING id::text";
    let mut expected = Vec::new();
    for (aggregate_type, key, payload, partition, value) in GOLDEN {
        let row = client.query_one(insert, &[&aggregate_type, &key, &payload]).await.unwrap();
        let value = value.map(|value| value.as_bytes().to_vec());
        let topic = pipeline.topic(aggregate_type);
        let id: String = row.get(0);
        expected.push((topic, partition, key.as_bytes().to_vec(), value, id));
    }
    let relay = pipeline.relay().unwrap();
    let mut found = Vec::new();
    for (aggregate_type, count) in [("order", 11), ("Order.v2", 1)] {
        for record in read(&pipeline, &pipeline.topic(aggregate_type), count, |_| true) {
            let names: Vec<_> = record.headers().unwrap().iter().map(|one| one.key).collect();
            assert_eq!(names, ["id"]);
            found.push((
                record.topic().to_owned(),
                record.partition(),
                record.key().unwrap().to_vec(),
                record.payload().map(<[u8]>::to_vec),
                header(&record, "id").unwrap(),
            ));
        }
    }
    relay.stop().await.unwrap();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_become_partition_timestamp_header_and_part_of_the_value() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_COMPAT=debezium").unwrap();
    pipeline.set("OUTPOUR_RELAY_EXPAND_JSON_PAYLOAD=true").unwrap();
    pipeline.set("OUTPOUR_RELAY_TIMESTAMP_COLUMN=occurred_at").unwrap();
    let fields = "type:header:eventType,type:envelope:kind,shard:partition";
    pipeline.set(&format!("OUTPOUR_RELAY_ADDITIONAL_FIELDS={fields}")).unwrap();
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("ALTER TABLE outbox ADD shard integer").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, shard, occurred_at)
                  VALUES (gen_random_uuid(), 'order', 'k', 'placed', '{\"n\": 1.50, \"x\": null}', $1, $2)";
    // Of yesterday, which is within what Kafka keeps.
    let second = jiff::Timestamp::now().as_second() - 24 * 60 * 60;
    let occurred_at = jiff::Timestamp::new(second, 678_901_000).unwrap();
    // The topic has six partitions: the last of these rows is for none of them.
    for shard in [Some(3), Some(4), None, Some(99)] {
        client.execute(insert, &[&shard, &occurred_at]).await.unwrap();
    }

    let topic = pipeline.topic("order");
    let records = read(&pipeline, &topic, 3, |_| true);
    let partitions: Vec<_> = records.iter().map(Message::partition).collect();
    assert!(partitions.contains(&3) && partitions.contains(&4), "{partitions:?}");
    for record in &records {
        assert_eq!(record.timestamp().to_millis(), Some(second * 1000 + 678));
        assert_eq!(record.payload(), Some(br#"{"payload":{"n":1.50},"kind":"placed"}"#.as_slice()));
        let names: Vec<_> =
            record.headers().unwrap().iter().map(|header| header.key.to_owned()).collect();
        assert_eq!(names, ["id", "eventType"]);
    }
    let letter = &read(&pipeline, &pipeline.dead_letter_topic(), 1, |_| true)[0];
    assert_eq!(header(letter, "outpour-reason").as_deref(), Some("invalid_partition"));
    assert_eq!(header(letter, "outpour-source-partition").as_deref(), Some("99"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_outbox_is_passed_over_or_stops_the_relay_as_configured() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let publish = format!(
        "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
        pipeline.name
    );
    client.batch_execute(&publish).await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    client.batch_execute("UPDATE outbox SET type = 'other'").await.unwrap();
    client.batch_execute("DELETE FROM outbox; TRUNCATE outbox").await.unwrap();
    pipeline.commit_orders(1..2, 1).await.unwrap();
    let topic = pipeline.topic("order");
    read(&pipeline, &topic, 2, |_| true);
    relay.logged("update of the outbox passed over", PATIENCE).await.unwrap();
    relay.stop().await.unwrap();

    pipeline.set("OUTPOUR_RELAY_OP_INVALID_BEHAVIOR=fatal").unwrap();
    client.batch_execute("UPDATE outbox SET type = 'other'").await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    assert!(
        relay.log_text().contains("a row of public.outbox was updated"),
        "{}",
        relay.log_text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_the_table_lacks_stops_the_relay_in_one_line() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_ADDITIONAL_FIELDS=tenant:header").unwrap();
    let mut relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let expected = "table public.outbox has no column `tenant` (relay.additional_fields)";
    assert!(relay.log_text().contains(expected), "{}", relay.log_text());
}
