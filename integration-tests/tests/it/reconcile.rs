//! `outpour-consumer reconcile`: what differs between Kafka and ClickHouse is found
//! with its exact ranges, and nothing else is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::AdminOptions,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::{Value, json};

use crate::{consumer::Feed, consumer_tables::numbers};

/// Runs the command; its exit code and what it found.
async fn reconcile(pipeline: &Pipeline<'_>, args: &[&str]) -> (Option<i32>, Value) {
    let args = [&["reconcile", "--json"], args].concat();
    let output = pipeline.consumer_output(&args).await.unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// What a command that cannot do its work ends with, and its one line.
async fn refusal(pipeline: &Pipeline<'_>, args: &[&str]) -> (Option<i32>, String) {
    let output = pipeline.consumer_output(&[&["reconcile"], args].concat()).await.unwrap();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until the group has nothing more to do.
async fn idle(pipeline: &Pipeline<'_>, at_least: i64) -> i64 {
    eventually(PATIENCE, async || {
        let (committed, lag) = pipeline.committed_and_lag().await?;
        ensure!(committed >= at_least && lag == 0, "committed {committed}, lag {lag}");
        Ok(committed)
    })
    .await
    .unwrap()
}

async fn execute(pipeline: &Pipeline<'_>, sql: &str) {
    pipeline
        .clickhouse()
        .query(sql)
        .execute()
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Ranges of the report as (partition, from, to, rows), or with their reason.
fn ranges(report: &Value, kind: &str) -> Vec<Value> {
    let range = |range: &Value| {
        let mut short = json!([range["partition"], range["from"], range["to"], range["rows"]]);
        if let (Some(list), reason @ Value::String(_)) = (short.as_array_mut(), &range["reason"]) {
            list.push(reason.clone());
        }
        short
    };
    report[kind].as_array().unwrap().iter().map(range).collect()
}

/// A hundred numbers stored, one of ten of them parked: those that end with 3.
async fn a_hundred_numbers() -> (Pipeline<'static>, Feed) {
    let (pipeline, _) = numbers("").await;
    let feed = Feed::of(&pipeline, "number").await;
    for n in 0..100 {
        feed.send(n, &format!("{{\"n\": {}}}", if n % 10 == 3 { 300 } else { n }));
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("numbers", 90).await.unwrap();
    idle(&pipeline, 100).await;
    consumer.stop().await.unwrap();
    (pipeline, feed)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_doubled_and_added_by_hand_are_found_with_their_exact_ranges() {
    let (pipeline, feed) = a_hundred_numbers().await;
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["clean"], true);
    // What is summed up here is what ClickHouse sums up.
    assert_eq!(report["looked_at_closely"], 0, "{report:#}");
    let totals = json!({"expected": 90, "stored": 90, "parked": 10, "missing": 0, "duplicated": 0,
                        "unexpected": 0, "no_longer_in_kafka": 0});
    assert_eq!(report["totals"], totals);

    let topic = &feed.topic;
    execute(
        &pipeline,
        "ALTER TABLE numbers DELETE WHERE _offset BETWEEN 20 AND 24 OR _offset = 57 \
         SETTINGS mutations_sync = 2",
    )
    .await;
    // Three times what was there, then one of them once more.
    for sql in [
        "INSERT INTO numbers SELECT * FROM numbers WHERE _offset IN (31, 32, 34) SETTINGS insert_deduplicate = 0",
        "INSERT INTO numbers SELECT DISTINCT * FROM numbers WHERE _offset = 34 SETTINGS insert_deduplicate = 0",
    ] {
        execute(&pipeline, sql).await;
    }
    // Parked; behind the end of the log; in a partition that there is not.
    for (partition, offset) in [(0, 3), (0, 1000), (0, 1001), (7, 5)] {
        let sql = format!(
            "INSERT INTO numbers VALUES (generateUUIDv4(), 1, '{topic}', {partition}, {offset})"
        );
        execute(&pipeline, &sql).await;
    }
    // That of another topic is no business of this one.
    execute(&pipeline, "INSERT INTO numbers VALUES (generateUUIDv4(), 1, 'elsewhere', 0, 1)").await;

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
    let totals = json!({"expected": 90, "stored": 93, "parked": 10, "missing": 5, "duplicated": 4,
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
    let totals = json!({"expected": 90, "stored": 94, "parked": 10, "missing": 0, "duplicated": 0,
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
    let totals = json!({"expected": 63, "stored": 63, "parked": 7, "missing": 0, "duplicated": 0,
                        "unexpected": 0, "no_longer_in_kafka": 27});
    assert_eq!(report["totals"], totals);
    assert_eq!(report["partitions"][0]["from"], 30);

    // All of it is younger than an hour, and none as young as this moment.
    execute(
        &pipeline,
        "ALTER TABLE numbers DELETE WHERE _offset >= 40 SETTINGS mutations_sync = 2",
    )
    .await;
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
    let committed = idle(&pipeline, 300 + 12).await;
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
    execute(&pipeline, &copy).await;
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(3));
    assert_eq!(ranges(&report, "unexpected"), [json!([0, gap, gap + 1, 1, "not_in_kafka"])]);
    assert_eq!(report["totals"]["missing"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_at_every_moment_while_the_consumer_works() {
    const EVENTS: u64 = 30_000;
    let (pipeline, topic) = numbers("").await;
    pipeline
        .configure(&format!(
            "max_rows = 300\nmax_delay = '20ms'\n[[routes]]\ntopic = '{topic}'\ntable = 'numbers'\n\
             columns = {{ event_id = '$id' }}\n"
        ))
        .unwrap();
    let feed = Feed::with_partitions(&pipeline, "number", 3).await;
    for n in 0..EVENTS {
        feed.send(n, &format!("{{\"n\": {}}}", if n % 100 == 7 { 300 } else { n % 200 }));
    }
    let consumer = pipeline.consumer().unwrap();
    let (mut amidst, mut looks) = (0, 0);
    loop {
        let output = pipeline.consumer_output(&["reconcile", "--json"]).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && error.contains("committed nothing") {
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{error}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let totals = &report["totals"];
        let seen = totals["expected"].as_u64().unwrap() + totals["parked"].as_u64().unwrap();
        looks += 1;
        if seen == EVENTS {
            assert_eq!(totals["parked"], EVENTS / 100);
            break;
        }
        amidst += u32::from(seen > 0);
    }
    assert!(amidst > 0, "none of {looks} looks was in the midst of it");
    consumer.stop().await.unwrap();
}

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
        execute(&pipeline, &create).await;
    }
    let feed = Feed::of(&pipeline, "thing").await;
    // a, b, c, a, b, c …: of type c nobody takes any.
    let events = (0..30).map(|n| (n, ["a", "b", "c"][n as usize % 3], "{}".to_owned()));
    send_typed(&pipeline, &feed.topic, events);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("both", 20).await.unwrap();
    idle(&pipeline, 30).await;
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
        execute(&pipeline, sql).await;
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
    idle(&pipeline, 1).await;
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

    execute(&pipeline, "ALTER TABLE numbers DROP COLUMN _partition").await;
    let (code, line) = refusal(&pipeline, &[]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("has no columns `_topic`, `_partition` and `_offset`"), "{line}");
    execute(&pipeline, "DROP TABLE numbers").await;
    let (code, line) = refusal(&pipeline, &[]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("does not exist in ClickHouse"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_came_to_kafka_is_told_from_one_that_waits() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..50, 10).await.unwrap();
    pipeline.arrived("event_log", 50).await.unwrap();
    idle(&pipeline, 50).await;
    let (code, report) = reconcile(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let outbox = |report: &Value| {
        let outbox = &report["outbox"];
        ["rows", "in_kafka", "missing", "waiting"].map(|key| outbox[key].as_u64().unwrap())
    };
    assert_eq!(outbox(&report), [50, 50, 0, 0]);

    // Nobody publishes it.
    relay.stop().await.unwrap();
    pipeline.commit_orders(50..51, 1).await.unwrap();
    let output = pipeline.consumer_output(&["reconcile", "--outbox", "--json"]).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("1 of the events in public.outbox did not come to Kafka, and no relay"),
        "{error}"
    );
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outbox(&report), [51, 50, 0, 1]);

    // Somebody moves the slot past it, and accepts the gap.
    let client = pipeline.postgres().await.unwrap();
    let advance = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
    client.execute(advance, &[&pipeline.name]).await.unwrap();
    let relay = pipeline.relay_with(&["--accept-gap"]).unwrap();
    pipeline.commit_orders(51..60, 3).await.unwrap();
    pipeline.arrived("event_log", 59).await.unwrap();
    idle(&pipeline, 59).await;
    let (code, report) = reconcile(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(3), "{report:#}");
    assert_eq!(outbox(&report), [60, 59, 1, 0]);
    let lost = integration_tests::pipeline::order(50).id.to_string();
    assert_eq!(report["outbox"]["missing_ids"], json!([lost]));
    assert_eq!(report["totals"]["missing"], 0, "{report:#}");
    let output = pipeline.consumer_output(&["reconcile", "--outbox"]).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("missing: {lost}")), "{text}");
    // What polls takes another way, and is told so.
    let marked = "ALTER TABLE outbox ADD published_at timestamptz DEFAULT now()";
    client.batch_execute(marked).await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MODE=poll\nOUTPOUR_RELAY_POLL_AFTER=mark").unwrap();
    let (code, line) = refusal(&pipeline, &["--outbox", "--fix", "--yes"]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("set published_at to NULL"), "{line}");
    pipeline.set("OUTPOUR_RELAY_MODE=wal").unwrap();
    // The server computes a column, and takes no value for it.
    let computed = "ALTER TABLE outbox ADD kind text GENERATED ALWAYS AS (upper(type)) STORED";
    client.batch_execute(computed).await.unwrap();
    let (code, report) = reconcile(&pipeline, &["--outbox", "--fix", "--yes"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(outbox(&report), [60, 60, 0, 0]);
    pipeline.arrived("event_log", 60).await.unwrap();
    consumer.stop().await.unwrap();
    relay.stop().await.unwrap();

    client.batch_execute("DROP TABLE outbox CASCADE").await.unwrap();
    let (code, line) = refusal(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("no table public.outbox (outbox.table)"), "{line}");
}

/// Sends events of types and payloads of their own.
fn send_typed(
    pipeline: &Pipeline<'_>,
    topic: &str,
    events: impl Iterator<Item = (u64, &'static str, String)>,
) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .create()
        .unwrap();
    for (n, event_type, payload) in events {
        let (key, id) = (n.to_string(), uuid::Uuid::from_u128(n.into()).to_string());
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header("id", id.as_str()))
            .insert(header("eventType", event_type));
        let mut record = BaseRecord::to(topic).key(&key).payload(&payload).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full);
            record = back;
            producer.poll(Duration::from_millis(5));
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// More with `OUTPOUR_RECONCILE_ROWS`, which then shows how long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_compared_in_one_pass() {
    let rows =
        std::env::var("OUTPOUR_RECONCILE_ROWS").map_or(200_000, |rows| rows.parse().unwrap());
    large(rows).await.unwrap();
}

async fn large(rows: u64) -> Result<()> {
    let pipeline = Pipeline::new(Stack::shared().await?, "").await?;
    let topic = pipeline.topic("flight");
    pipeline.configure(&format!(
        "[[routes]]\ntopic = '{topic}'\ntable = 'flights'\ncolumns = {{ event_id = '$id' }}\n"
    ))?;
    execute(
        &pipeline,
        "CREATE TABLE flights (event_id UUID, carrier LowCardinality(String), flight UInt32, delay Int32, \
         _topic LowCardinality(String), _partition UInt32, _offset UInt64, INDEX provenance _offset TYPE minmax) \
         ENGINE = MergeTree ORDER BY (carrier, flight) \
         SETTINGS non_replicated_deduplication_window = 10000",
    )
    .await;
    let feed = Feed::with_partitions(&pipeline, "flight", 6).await;
    let event = |n: u64| {
        let payload =
            format!("{{\"carrier\":\"{}\",\"flight\":{},\"delay\":{}}}", n % 17, n % 9999, n % 90);
        (n, "flight_departed", payload)
    };
    tokio::task::block_in_place(|| send_typed(&pipeline, &feed.topic, (0..rows).map(event)));
    let consumer = pipeline.consumer()?;
    let patience = PATIENCE + Duration::from_micros(rows * 20);
    eventually(patience, async || {
        let (committed, lag) = pipeline.committed_and_lag().await?;
        ensure!(committed == rows.cast_signed() && lag == 0, "committed {committed}, lag {lag}");
        Ok(())
    })
    .await?;
    consumer.stop().await?;
    let mut told = Vec::new();
    for (change, code, closely) in [
        (None, 0, 0),
        (
            Some(
                "ALTER TABLE flights DELETE WHERE _partition = 2 AND _offset IN (11, 12, 20000) SETTINGS mutations_sync = 2",
            ),
            3,
            2,
        ),
    ] {
        if let Some(sql) = change {
            execute(&pipeline, sql).await;
        }
        let began = Instant::now();
        let (found, report) = reconcile(&pipeline, &[]).await;
        told.push(format!("{:.1} s", began.elapsed().as_secs_f64()));
        ensure!(found == Some(code), "{report:#}");
        ensure!(report["looked_at_closely"] == closely, "{}", report["looked_at_closely"]);
        ensure!(report["totals"]["expected"] == rows, "{}", report["totals"]);
        let missing = ranges(&report, "missing");
        ensure!(
            code == 0 || missing == [json!([2, 11, 13, 2]), json!([2, 20000, 20001, 1])],
            "{missing:?}"
        );
    }
    println!("{rows} rows compared in {}, then, three missing, in {}", told[0], told[1]);
    Ok(())
}
