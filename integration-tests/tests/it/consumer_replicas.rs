//! Several ClickHouse servers to choose from. Here they are several ways to one.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, header},
    proxy::Proxy,
    stack::Stack,
};

use crate::{consumer::Feed, consumer_doctor::doctor, consumer_tables::numbers};

const MOVED_ON: &str = "going on with another ClickHouse server";

async fn ways<const N: usize>(pipeline: &Pipeline<'_>) -> [Proxy; N] {
    let server = pipeline.stack.clickhouse.url().strip_prefix("http://").unwrap();
    let mut ways = Vec::new();
    for _ in 0..N {
        ways.push(Proxy::to(server).await.unwrap());
    }
    let urls: Vec<_> = ways.iter().map(|way| format!("http://{}", way.address())).collect();
    pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL={}", urls.join(","))).unwrap();
    ways.try_into().ok().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_or_silent_is_left_for_the_next_one() {
    let settings = "max_delay = '50ms'";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    pipeline.set("OUTPOUR_CONSUMER_DELIVERY=at-least-once").unwrap();
    pipeline.set("OUTPOUR_CLICKHOUSE_INSERT_TIMEOUT=2s").unwrap();
    let [gone, silent, last] = ways(&pipeline).await;
    let (first, second, third) = (gone.address(), silent.address(), last.address());
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..5);
    pipeline.arrived("event_log", 5).await.unwrap();
    assert!(!consumer.log_text().contains(MOVED_ON), "{}", consumer.log_text());

    drop(gone);
    feed.send_all(5..10);
    pipeline.arrived("event_log", 10).await.unwrap();
    let log = consumer.log_text();
    let moved = format!("from=\"http://{first}\" to=\"http://{second}\"");
    assert!(log.contains(MOVED_ON) && log.contains(&moved), "{log}");

    silent.hold_back();
    feed.send_all(10..15);
    pipeline.arrived("event_log", 15).await.unwrap();
    let log = consumer.log_text();
    let moved = format!("from=\"http://{second}\" to=\"http://{third}\"");
    assert!(log.contains(&moved) && log.contains("no answer within 2 s"), "{log}");

    // It stays there, though the second is back, and in its next session, too.
    silent.cut();
    let sql = "ALTER TABLE event_log ADD COLUMN note String DEFAULT 'none'";
    pipeline.clickhouse().query(sql).execute().await.unwrap();
    consumer.logged("tables have changed", PATIENCE).await.unwrap();
    feed.send_all(15..20);
    pipeline.arrived("event_log", 20).await.unwrap();
    let log = consumer.log_text();
    assert_eq!(log.matches(MOVED_ON).count(), 2, "{log}");
    consumer.stop().await.unwrap();

    // A start with the first one away.
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(20..25);
    pipeline.arrived("event_log", 25).await.unwrap();
    consumer.stop().await.unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
    let output = pipeline.consumer_output(&["init"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");

    drop((silent, last));
    let output = pipeline.consumer_output(&["run"]).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for address in [first, second, third] {
        assert!(said.contains(&format!("http://{address}")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_asked_what_it_has_by_the_way_that_works() {
    let (pipeline, topic) = numbers(", CONSTRAINT below_100 CHECK n < 100").await;
    pipeline.set("OUTPOUR_CONSUMER_DELIVERY=at-least-once").unwrap();
    let [gone, _last] = ways(&pipeline).await;
    let feed = Feed::of(&pipeline, "number").await;
    for n in [0, 1, 200, 3] {
        feed.send(n, &format!("{{\"n\": {n}}}"));
    }
    drop(gone);
    let consumer = pipeline.consumer().unwrap();
    // What is refused is found by rows that the table lacks.
    pipeline.arrived("numbers", 3).await.unwrap();
    consumer.logged("finding the rows one by one", PATIENCE).await.unwrap();
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    let letters = reader.take(1, |message| header(message, "outpour-source-offset"));
    assert_eq!(letters.unwrap(), ["2"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_over_several_servers_takes_a_table_that_they_share() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let _ways = ways::<2>(&pipeline).await;
    let mut consumer = pipeline.consumer().unwrap();
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(3), "{}", consumer.log_text());
    let table = format!("{}.event_log", pipeline.clickhouse_database);
    let told = format!("table {table} remembers inserts on each server for itself");
    assert!(consumer.log_text().contains(&told), "{}", consumer.log_text());
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    let fix = found.fix("deduplication", "clickhouse.url names several");
    assert!(fix.starts_with("use a ReplicatedMergeTree table"), "{fix}");
}
