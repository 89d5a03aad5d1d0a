//! ClickHouse stops, events go on, and it comes back.

use integration_tests::{pipeline::Pipeline, stack::Stack};

use super::{
    shell::{Shell, says},
    steps,
};
use crate::probes::{address, comes_to, metrics, sample};

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_clickhouse_that_is_down_and_arrive_once_it_is_back() {
    let stack = Stack::private("book").await.unwrap();
    let pipeline = Pipeline::new(&stack, "max_delay = '50ms'").await.unwrap();
    pipeline.set("OUTPOUR_CONSUMER_STALL_AFTER=10s").unwrap();
    let _relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    let at = address(&consumer).await;
    let shell = Shell::of(&pipeline).with("localhost:9465", &at);
    let [probe, status, watch, proof] = steps("ClickHouse is down");
    pipeline.commit_orders(0..100, 10).await.unwrap();
    pipeline.arrived("event_log", 100).await.unwrap();
    let before = pipeline.at_rest(100).await.unwrap();

    stack.clickhouse.stop().await.unwrap();
    pipeline.commit_orders(100..600, 10).await.unwrap();
    says(&consumer, "insert failed; trying again").await;
    comes_to(&at, 503, "active").await;
    let unready = shell.run(&probe).await;
    assert!(unready.starts_with("503 ") && unready.contains(&pipeline.topic("order")), "{unready}");
    let failed = format!(
        "outpour_consumer_failed_inserts_total{{table=\"{}.event_log\",class=\"transient\"}}",
        pipeline.clickhouse_database
    );
    assert!(sample(&metrics(&at).await, &failed) >= Some(1.0));
    let looked = shell.run(&status).await;
    assert!(looked.contains("batch under way") && looked.contains("rows, by"), "{looked}");
    let watching = shell.start(&watch, "watch.log");
    says(&watching, "offsets/s").await;
    watching.kill().await.unwrap();
    let (committed, lag) = pipeline.committed_and_lag().await.unwrap();
    assert!(committed < before + 100 && lag >= 500, "{committed} after {before}, lag {lag}");

    stack.clickhouse.start().await.unwrap();
    pipeline.arrived("event_log", 600).await.unwrap();
    pipeline.commit_orders(600..650, 10).await.unwrap();
    pipeline.arrived("event_log", 650).await.unwrap();
    pipeline.at_rest(650).await.unwrap();
    comes_to(&at, 200, "active").await;
    assert!(!consumer.log_text().contains("partitions given up"), "{}", consumer.log_text());
    let compared = shell.run(&proof).await;
    assert!(compared.contains("once."), "{compared}");
    consumer.stop().await.unwrap();
}
