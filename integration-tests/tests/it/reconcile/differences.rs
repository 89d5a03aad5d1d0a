//! Rows that are missing, doubled or not expected, and what only looks like it.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::AdminOptions,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::json;

use super::{a_hundred_numbers, ranges, reconcile, refusal};
use crate::consumer::Feed;

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_doubled_and_added_by_hand_are_found_with_their_exact_ranges() {
    let (pipeline, feed) = a_hundred_numbers().await;
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["clean"], true);
    // What is summed up here is what ClickHouse sums up.
    assert_eq!(report["looked_at_closely"], 0, "{report:#}");
    let totals = json!({"expected": 90, "stored": 90, "parked": 10, "missing": 0, "merged": 0, "duplicated": 0, "different": 0,
                        "unexpected": 0, "no_longer_in_kafka": 0});
    assert_eq!(report["totals"], totals);

    let topic = &feed.topic;
    pipeline
        .execute(
            "ALTER TABLE numbers DELETE WHERE _offset BETWEEN 20 AND 24 OR _offset = 57 \
         SETTINGS mutations_sync = 2",
        )
        .await
        .unwrap();
    // Three times what was there, then one of them once more.
    for sql in [
        "INSERT INTO numbers SELECT * FROM numbers WHERE _offset IN (31, 32, 34) SETTINGS insert_deduplicate = 0",
        "INSERT INTO numbers SELECT DISTINCT * FROM numbers WHERE _offset = 34 SETTINGS insert_deduplicate = 0",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    // Parked; behind the end of the log; in a partition that there is not.
    for (partition, offset) in [(0, 3), (0, 1000), (0, 1001), (7, 5)] {
        let sql = format!(
            "INSERT INTO numbers VALUES (generateUUIDv4(), 1, '{topic}', {partition}, {offset})"
        );
        pipeline.execute(&sql).await.unwrap();
    }
    // That of another topic is no business of this one.
    pipeline
        .execute("INSERT INTO numbers VALUES (generateUUIDv4(), 1, 'elsewhere', 0, 1)")
        .await
        .unwrap();

    let (before, lag) = (pipeline.count("numbers").await.unwrap(), pipeline.committed_and_lag());
    let lag = lag.await.unwrap();
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(3), "{report:#}");
    // 23 is in the dead letters and parts what is missing.
    assert_eq!(
        ranges(&report, "missing"),
        [json!([0, 20, 23, 3]), json!([0, 24, 25, 1]), json!([0, 57, 58, 1])]
    );
    assert_eq!(ranges(&report, "duplicated"), [json!([0, 31, 33, 2]), json!([0, 34, 35, 2])]);
    assert_eq!(
        ranges(&report, "unexpected"),
        [
            json!([0, 3, 4, 1, "parked"]),
            json!([7, 5, 6, 1, "not_in_kafka"]),
            json!([0, 1000, 1002, 2, "not_in_kafka"]),
        ]
    );
    let range = &report["missing"][0];
    let table = format!("{}.numbers", pipeline.clickhouse_database);
    assert_eq!((&range["topic"], &range["table"]), (&json!(topic), &json!(table)));
    let totals = json!({"expected": 90, "stored": 93, "parked": 10, "missing": 5, "merged": 0, "duplicated": 4, "different": 0,
                        "unexpected": 4, "no_longer_in_kafka": 0});
    assert_eq!(report["totals"], totals);

    // For people, too; and nothing has changed.
    let output = pipeline.consumer_output(&["reconcile", "--topic", topic]).await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["no longer in Kafka", "to (exclusive)", "parked, and stored too", "replay --topic"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("5 missing, 4 duplicated, 4 unexpected rows"), "{error}");
    assert_eq!(pipeline.count("numbers").await.unwrap(), before);
    assert_eq!(pipeline.committed_and_lag().await.unwrap(), lag);

    // From where all is well again.
    let (code, report) = reconcile(&pipeline, &["--since", "35"]).await;
    assert_eq!(ranges(&report, "missing"), [json!([0, 57, 58, 1])]);
    assert_eq!((code, &report["since"]), (Some(3), &json!("offset 35")));

    // Nobody is there to be asked.
    let (code, error) = refusal(&pipeline, &["--fix"]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--yes is needed"), "{error}");
    assert_eq!(pipeline.count("numbers").await.unwrap(), before);
    // What nobody knows the use of stays.
    let (code, report) = reconcile(&pipeline, &["--fix", "--yes"]).await;
    assert_eq!(code, Some(3), "{report:#}");
    let totals = json!({"expected": 90, "stored": 94, "parked": 10, "missing": 0, "merged": 0, "duplicated": 0, "different": 0,
                        "unexpected": 4, "no_longer_in_kafka": 0});
    assert_eq!(report["totals"], totals);
    assert_eq!(ranges(&report, "unexpected").len(), 3, "{report:#}");
    let sum: u64 = pipeline
        .clickhouse()
        .query("SELECT sum(n) FROM numbers WHERE _topic = ? AND _partition = 0 AND _offset < 100 AND _offset != 3")
        .bind(topic)
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(sum, (0..100).filter(|n| n % 10 != 3).sum::<u64>(), "as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_has_removed_is_counted_apart_and_time_can_be_the_beginning() {
    let (pipeline, feed) = a_hundred_numbers().await;
    let mut removed = TopicPartitionList::new();
    removed.add_partition_offset(&feed.topic, 0, Offset::Offset(30)).unwrap();
    feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let totals = json!({"expected": 63, "stored": 63, "parked": 7, "missing": 0, "merged": 0, "duplicated": 0, "different": 0,
                        "unexpected": 0, "no_longer_in_kafka": 27});
    assert_eq!(report["totals"], totals);
    assert_eq!(report["partitions"][0]["from"], 30);

    // All of it is younger than an hour, and none as young as this moment.
    pipeline
        .execute("ALTER TABLE numbers DELETE WHERE _offset >= 40 SETTINGS mutations_sync = 2")
        .await
        .unwrap();
    let (code, report) = reconcile(&pipeline, &["--since", "-1h"]).await;
    assert_eq!((code, ranges(&report, "missing").len()), (Some(3), 7), "{report:#}");
    let (code, report) = reconcile(&pipeline, &["--since", "-0s"]).await;
    assert_eq!((code, &report["totals"]["expected"]), (Some(0), &json!(0)), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_and_aborted_records_are_no_gaps_but_a_row_in_their_place_is_unexpected() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let feed = Feed::with_partitions(&pipeline, "order", 2).await;
    let aborting: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("transactional.id", pipeline.stack.unique("aborting"))
        .create()
        .unwrap();
    aborting.init_transactions(PATIENCE).unwrap();
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    for n in 0..3 {
        pipeline.commit_orders(100 * n..100 * (n + 1), 7).await.unwrap();
        pipeline.arrived("event_log", 100 * (n + 1)).await.unwrap();
        aborting.begin_transaction().unwrap();
        for partition in [0, 1] {
            let record = BaseRecord::to(&feed.topic).partition(partition).key("k").payload("{}");
            aborting.send(record).map_err(|(error, _)| error).unwrap();
        }
        aborting.flush(PATIENCE).unwrap();
        aborting.abort_transaction(PATIENCE).unwrap();
    }
    // Records, their markers, and what was aborted.
    let committed = pipeline.at_rest(300 + 12).await.unwrap();
    consumer.stop().await.unwrap();
    relay.stop().await.unwrap();
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["looked_at_closely"], 0, "{report:#}");
    assert_eq!(report["totals"]["expected"], 300);
    let compared = report["partitions"].as_array().unwrap();
    assert_eq!(compared.iter().map(|p| p["to"].as_i64().unwrap()).sum::<i64>(), committed);

    let held: Vec<u64> = pipeline
        .clickhouse()
        .query("SELECT _offset FROM event_log WHERE _partition = 0")
        .fetch_all()
        .await
        .unwrap();
    let gap = (0..).find(|offset| !held.contains(offset)).unwrap();
    let copy = format!(
        "INSERT INTO event_log SELECT * REPLACE ({gap} AS _offset) FROM event_log WHERE _partition = 0 LIMIT 1"
    );
    pipeline.execute(&copy).await.unwrap();
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(3));
    assert_eq!(ranges(&report, "unexpected"), [json!([0, gap, gap + 1, 1, "not_in_kafka"])]);
    assert_eq!(report["totals"]["missing"], 0);
}
