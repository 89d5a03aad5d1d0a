//! I8: a ClickHouse that does not answer fills a share of the configured memory,
//! and no more.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    proxy::Proxy,
    stack::Stack,
};

use crate::{
    consumer::Feed,
    probes::{address, metrics, sample},
};

#[tokio::test(flavor = "multi_thread")]
async fn batches_hold_no_more_than_their_share_while_clickhouse_does_not_answer() {
    const EVENTS: u64 = 20_000;
    const MIB: f64 = 1024.0 * 1024.0;
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '100ms'").await.unwrap();
    let clickhouse = stack.clickhouse.url().strip_prefix("http://").unwrap();
    let proxy = Proxy::to(clickhouse).await.unwrap();
    pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL=http://{}", proxy.address())).unwrap();
    // A quarter of it for batches.
    pipeline.set("OUTPOUR_CONSUMER_MEMORY=16MiB").unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    let at = address(&consumer).await;
    feed.send(0, "{}");
    pipeline.arrived("event_log", 1).await.unwrap();
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
    assert!(held < Some(8.0 * MIB), "{held:?}");
    proxy.release();
    pipeline.arrived("event_log", EVENTS).await.unwrap();
    consumer.stop().await.unwrap();
}
