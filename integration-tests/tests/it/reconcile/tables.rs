//! Several tables, and what cannot be compared.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use serde_json::{Value, json};

use super::{ranges, reconcile, refusal, send_typed};
use crate::{consumer::Feed, consumer_tables::numbers};

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_tables_is_to_have_what_its_routes_take() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let topic = pipeline.topic("thing");
    let route = |table: &str, types: &str| {
        format!(
            "[[routes]]\ntopic = '{topic}'\ntable = '{table}'\nevent_types = [{types}]\n\
             columns = {{ event_id = '$id' }}\n"
        )
    };
    let routes =
        [route("both", "'a', 'b'"), route("only_a", "'a'"), route("never", "'z'")].concat();
    pipeline.configure(&format!("max_delay = '50ms'\n{routes}")).unwrap();
    for table in ["both", "only_a", "never"] {
        let create = format!(
            "CREATE TABLE {table} (event_id UUID, _topic LowCardinality(String), \
             _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY _offset \
             SETTINGS non_replicated_deduplication_window = 10000"
        );
        pipeline.execute(&create).await.unwrap();
    }
    let feed = Feed::of(&pipeline, "thing").await;
    // a, b, c, a, b, c …: of type c nobody takes any.
    let events = (0..30).map(|n| (n, ["a", "b", "c"][n as usize % 3], "{}".to_owned()));
    send_typed(&pipeline, &feed.topic, events);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("both", 20).await.unwrap();
    pipeline.at_rest(30).await.unwrap();
    consumer.stop().await.unwrap();
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["looked_at_closely"], 0);
    let by_table = |report: &Value| {
        let database = format!("{}.", pipeline.clickhouse_database);
        let compared = report["partitions"].as_array().unwrap().iter().map(|compared| {
            let table = compared["table"].as_str().map(|name| name.replace(&database, ""));
            json!([table, compared["expected"], compared["stored"], compared["parked"]])
        });
        compared.collect::<Vec<_>>()
    };
    let expected = [
        json!(["both", 20, 20, 0]),
        json!(["never", 0, 0, 0]),
        json!(["only_a", 10, 10, 0]),
        json!([null, 0, 0, 10]),
    ];
    assert_eq!(by_table(&report), expected);

    // A b among what takes only a, and an a less.
    for sql in [
        "INSERT INTO only_a SELECT * FROM both WHERE _offset = 4",
        "ALTER TABLE only_a DELETE WHERE _offset = 6 SETTINGS mutations_sync = 2",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(3));
    assert_eq!(ranges(&report, "unexpected"), [json!([0, 4, 5, 1, "routed_elsewhere"])]);
    assert_eq!(ranges(&report, "missing"), [json!([0, 6, 7, 1])]);
    assert!(report["missing"][0]["table"].as_str().unwrap().ends_with(".only_a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_what_cannot_be_compared_gets_one_line_that_says_why() {
    let (pipeline, topic) = numbers("").await;
    let feed = Feed::of(&pipeline, "number").await;
    feed.send(0, "{\"n\": 0}");
    let (code, line) = refusal(&pipeline, &[]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("has committed nothing") && line.contains(&topic), "{line}");

    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("numbers", 1).await.unwrap();
    pipeline.at_rest(1).await.unwrap();
    consumer.stop().await.unwrap();
    let missing = pipeline.topic("missing");
    for (args, code, part) in [
        (["--topic", &missing], 1, "does not exist"),
        (["--topic", "elsewhere"], 2, "the consumer does not read it"),
        (["--since", "tomorrow"], 2, "neither beginning, now, an offset, a time"),
        (["--since", "2999-01-01T00:00:00Z"], 2, "is in the future"),
        (["--since", "77"], 2, "stands at offset 1 at most"),
    ] {
        let (found, line) = refusal(&pipeline, &args).await;
        assert_eq!(found, Some(code), "{args:?}: {line}");
        assert!(line.contains(part), "{args:?}: {line}");
    }

    pipeline.execute("ALTER TABLE numbers DROP COLUMN _partition").await.unwrap();
    let (code, line) = refusal(&pipeline, &[]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("has no columns `_topic`, `_partition` and `_offset`"), "{line}");
    pipeline.execute("DROP TABLE numbers").await.unwrap();
    let (code, line) = refusal(&pipeline, &[]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("does not exist in ClickHouse"), "{line}");
}
