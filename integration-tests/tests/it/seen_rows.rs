//! What the user of ClickHouse sees is not always all there is.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::{consumer::Feed, consumer_doctor::doctor_with, consumer_tables::numbers};

/// `limit`, `final` and a forbidden deduplication, in the profile of the user.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_and_reconcile_see_all_whatever_the_users_profile_cuts_off() {
    let (pipeline, _) = numbers(", CONSTRAINT below_100 CHECK n < 100").await;
    pipeline.set("OUTPOUR_CLICKHOUSE_USER=cut").unwrap();
    let feed = Feed::of(&pipeline, "number").await;
    for n in 0..5 {
        feed.send(n, &format!("{{\"n\": {}}}", if n == 3 { 200 } else { n }));
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("numbers", 4).await.unwrap();
    pipeline.at_rest(5).await.unwrap();
    consumer.stop().await.unwrap();
    let sql = "SELECT n, toUInt64(_offset) FROM numbers ORDER BY n";
    let rows: Vec<(u8, u64)> = pipeline.clickhouse().query(sql).fetch_all().await.unwrap();
    assert_eq!(rows, [(0, 0), (1, 1), (2, 2), (4, 4)]);
    let output = pipeline.consumer_output(&["reconcile", "--json"]).await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["totals"]["stored"]), (Some(0), &4.into()));
    // What is sent again is known again, in parts, too.
    let replay = ["replay", "--live", "--yes", "--topic", &feed.topic];
    let output = pipeline.consumer_output(&replay).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pipeline.arrived("numbers", 4).await.unwrap();
    let found = doctor_with(&pipeline, &[]).await;
    assert!(found.at("problem").is_empty(), "{}", found.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_and_replay_refuse_a_table_of_which_a_row_policy_hides_rows() {
    let mut pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    // Policies are of a database and a table, and written down with the users.
    for sql in ["DROP DATABASE IF EXISTS policed SYNC", "CREATE DATABASE policed"] {
        pipeline.execute(sql).await.unwrap();
    }
    pipeline.clickhouse_database = "policed".to_owned();
    pipeline.route("number", "numbers", "max_delay = '50ms'").unwrap();
    let create = "CREATE TABLE numbers (event_id UUID, n UInt8, _topic LowCardinality(String),
                  _partition UInt32, _offset UInt64)
                  ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000";
    pipeline.execute(create).await.unwrap();
    pipeline.set("OUTPOUR_CLICKHOUSE_USER=policed").unwrap();
    let feed = Feed::of(&pipeline, "number").await;
    for (id, n) in (0..).zip([1, 100, 3, 200]) {
        feed.send(id, &format!("{{\"n\": {n}}}"));
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("numbers", 4).await.unwrap();
    pipeline.at_rest(4).await.unwrap();
    consumer.stop().await.unwrap();
    let replay = ["replay", "--live", "--yes", "--topic", &feed.topic];
    for args in [&["reconcile"][..], &["reconcile", "--fix", "--yes"], &replay] {
        let output = pipeline.consumer_output(args).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains("a row policy hides rows of table policed.numbers"), "{text}");
        assert!(text.contains("n < 100"), "{text}");
    }
    pipeline.arrived("numbers", 4).await.unwrap();
    let found = doctor_with(&pipeline, &["--no-probe"]).await;
    found.assert("problem", "privileges", "a row policy hides rows of table policed.numbers");
    // What is read again is not stored on the word of such a table.
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("group.id", &pipeline.name)
        .create()
        .unwrap();
    let mut moved = TopicPartitionList::new();
    moved.add_partition_offset(&feed.topic, 0, Offset::Offset(0)).unwrap();
    client.commit(&moved, CommitMode::Sync).unwrap();
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("a row policy hides rows", PATIENCE).await.unwrap();
    assert_eq!(pipeline.count("numbers").await.unwrap(), (4, 4));
    consumer.stop().await.unwrap();
}
