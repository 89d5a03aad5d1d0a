//! What a consumer says of itself over HTTP: progress, not life.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    proxy::Proxy,
    stack::Stack,
};

use crate::probes::{address, comes_to, metrics, sample};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_counts_what_it_stores_and_is_not_ready_once_it_stores_nothing() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '50ms'").await.unwrap();
    let clickhouse = stack.clickhouse.url().strip_prefix("http://").unwrap();
    let proxy = Proxy::to(clickhouse).await.unwrap();
    pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL=http://{}", proxy.address())).unwrap();
    pipeline.set("OUTPOUR_CONSUMER_STALL_AFTER=10s").unwrap();
    let _relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    let at = address(&consumer).await;
    pipeline.commit_orders(0..25, 5).await.unwrap();
    pipeline.arrived("event_log", 25).await.unwrap();
    comes_to(&at, 200, "active").await;
    let table = format!("{}.event_log", pipeline.clickhouse_database);
    let topic = pipeline.topic("order");
    // Nothing is left to read once the markers of transactions are passed, too.
    eventually(PATIENCE, async || {
        let text = metrics(&at).await;
        for partition in 0..6 {
            let series = format!(
                "outpour_consumer_lag_records{{topic=\"{topic}\",partition=\"{partition}\"}}"
            );
            let lag = sample(&text, &series);
            ensure!(lag == Some(0.0), "{series} {lag:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
    let text = metrics(&at).await;
    let rows = format!("outpour_consumer_rows_total{{table=\"{table}\"}}");
    let inserts = format!("outpour_consumer_insert_seconds_count{{table=\"{table}\"}}");
    assert_eq!(sample(&text, &rows), Some(25.0), "{text}");
    assert_eq!(sample(&text, "outpour_consumer_records_total"), Some(25.0));
    assert_eq!(sample(&text, "outpour_consumer_partitions"), Some(6.0));
    assert_eq!(sample(&text, "outpour_consumer_ready"), Some(1.0));
    assert_eq!(sample(&text, "outpour_consumer_plan_age_seconds"), Some(0.0));
    assert!(sample(&text, &inserts) >= Some(1.0), "{text}");
    assert!(sample(&text, "outpour_consumer_batch_age_seconds_count") >= Some(1.0), "{text}");

    drop(proxy);
    pipeline.commit_orders(25..30, 1).await.unwrap();
    let body = comes_to(&at, 503, "active").await;
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.contains(&topic) && reason.contains("was stored"), "{reason}");
    let text = metrics(&at).await;
    let failed =
        format!("outpour_consumer_failed_inserts_total{{table=\"{table}\",class=\"transient\"}}");
    assert!(sample(&text, &failed) >= Some(1.0), "{text}");
    assert_eq!(sample(&text, "outpour_consumer_ready"), Some(0.0));
    assert!(sample(&text, "outpour_consumer_plan_age_seconds") > Some(1.0), "{text}");
    assert_eq!(sample(&text, "outpour_consumer_records_total"), Some(25.0));
    consumer.stop().await.unwrap();
}
