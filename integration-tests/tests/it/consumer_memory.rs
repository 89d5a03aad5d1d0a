//! I8: a ClickHouse that does not answer fills a share of the configured memory,
//! and no more.

use std::time::{Duration, Instant};

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    program::Program,
    proxy::Proxy,
    stack::Stack,
};

use crate::{
    consumer::Feed,
    probes::{address, metrics, sample},
};

const MIB: f64 = 1024.0 * 1024.0;

/// A consumer of `memory` that reaches ClickHouse through a proxy and has stored
/// the first event, 0, and where it tells of itself.
async fn behind_a_proxy(
    pipeline: &Pipeline<'_>,
    stack: &Stack,
    memory: &str,
) -> (Proxy, Feed, Program, String) {
    let clickhouse = stack.clickhouse.url().strip_prefix("http://").unwrap();
    let proxy = Proxy::to(clickhouse).await.unwrap();
    pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL=http://{}", proxy.address())).unwrap();
    pipeline.set(&format!("OUTPOUR_CONSUMER_MEMORY={memory}")).unwrap();
    let feed = Feed::of(pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    let at = address(&consumer).await;
    feed.send(0, "{}");
    pipeline.arrived("event_log", 1).await.unwrap();
    (proxy, feed, consumer, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_hold_no_more_than_their_share_while_clickhouse_does_not_answer() {
    const EVENTS: u64 = 20_000;
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '100ms'").await.unwrap();
    // A quarter of it for batches.
    let (proxy, feed, consumer, at) = behind_a_proxy(&pipeline, stack, "16MiB").await;
    proxy.hold_back();
    // Twenty times the share.
    let payload = format!("{{\"text\": \"{}\"}}", "x".repeat(4096));
    for id in 1..EVENTS {
        feed.send(id, &payload);
    }
    let held = async || sample(&metrics(&at).await, "outpour_consumer_batch_bytes");
    eventually(PATIENCE, async || {
        let held = held().await;
        ensure!(held > Some(4.0 * MIB), "{held:?}");
        Ok(())
    })
    .await
    .unwrap();
    consumer.logged("partition paused", PATIENCE).await.unwrap();
    // What came in between two looks comes on top.
    let held = held().await;
    assert!(held < Some(9.0 * MIB), "{held:?}");
    proxy.release();
    pipeline.arrived("event_log", EVENTS).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_clickhouse_costs_neither_memory_nor_the_place_in_the_group() {
    const SESSION: Duration = Duration::from_secs(6);
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '100ms'").await.unwrap();
    pipeline.set("OUTPOUR_CONSUMER_SESSION_TIMEOUT=6s").unwrap();
    pipeline.set("OUTPOUR_CLICKHOUSE_INSERT_TIMEOUT=1s").unwrap();
    let (proxy, feed, consumer, at) = behind_a_proxy(&pipeline, stack, "24MiB").await;
    let assigned = || consumer.log_text().matches("partition assigned").count();
    let resident = async || sample(&metrics(&at).await, "process_resident_memory_bytes").unwrap();
    let partitions = assigned();
    proxy.hold_back();
    // Several times what the consumer may hold, and it goes on coming.
    let payload = format!("{{\"text\": \"{}\"}}", "x".repeat(4096));
    let mut events = 1;
    let mut send = |count: u64| {
        (events..events + count).for_each(|id| feed.send(id, &payload));
        events += count;
        events
    };
    send(10_000);
    consumer.logged("partition paused", PATIENCE).await.unwrap();
    let (full, began) = (resident().await, Instant::now());
    while began.elapsed() < 3 * SESSION {
        send(100);
        let now = resident().await;
        assert!(now < full + 8.0 * MIB, "{now} bytes resident, {full} when it was full");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let text = metrics(&at).await;
    assert_eq!(sample(&text, "outpour_consumer_sessions_total"), Some(1.0), "{text}");
    assert_eq!(assigned(), partitions, "it had to join its group again");
    let failed: f64 = text
        .lines()
        .filter(|line| line.starts_with("outpour_consumer_failed_inserts_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(failed > 3.0, "{failed} failed inserts");
    proxy.release();
    pipeline.arrived("event_log", send(0)).await.unwrap();
    assert_eq!(assigned(), partitions, "it had to join its group again");
    consumer.stop().await.unwrap();
}
