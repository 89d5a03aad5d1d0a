//! A topic read again, into its table and into others.

use integration_tests::{pipeline::Pipeline, stack::Stack};

use super::{commands, shell::Shell};
use crate::consumer::Feed;

struct Scene {
    pipeline: Pipeline<'static>,
    feed: Feed,
}

impl Scene {
    async fn new() -> Scene {
        let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
        route(&pipeline, "orders");
        let sql = "CREATE TABLE orders (event_id UUID, quantity UInt8, total Float64,
                   _topic LowCardinality(String), _partition UInt32, _offset UInt64)
                 ENGINE = MergeTree ORDER BY event_id
                 SETTINGS non_replicated_deduplication_window = 10000";
        pipeline.execute(sql).await.unwrap();
        let feed = Feed::of(&pipeline, "order").await;
        Scene { pipeline, feed }
    }

    /// Numbers from 1; the first order is too large for its column.
    fn order(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let quantity = if n == 1 { 300 } else { n % 200 };
            self.feed.send(
                n,
                &format!("{{\"quantity\": {quantity}, \"total\": {n}000000000.0000000001}}"),
            );
        }
    }

    /// Runs a command, which has to end well.
    async fn run(&self, command: &str) {
        Shell::of(&self.pipeline).run(command).await;
    }

    async fn arrived(&self, table: &str, rows: u64) {
        self.pipeline.arrived(table, rows).await.unwrap();
    }
}

fn route(pipeline: &Pipeline<'_>, table: &str) {
    pipeline.route("order", table, "max_delay = '50ms'").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_to_have_what_the_topic_has() {
    let scene = Scene::new().await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.order(1..501);
    scene.arrived("orders", 499).await;
    scene.pipeline.at_rest(0).await.unwrap();

    scene
        .pipeline
        .execute("ALTER TABLE orders DELETE WHERE _offset < 100 SETTINGS mutations_sync = 1")
        .await
        .unwrap();
    for command in commands("Replay last night") {
        scene.run(&command).await;
    }
    scene.arrived("orders", 499).await;

    for command in commands("Poison") {
        scene.run(&command).await;
    }
    scene.arrived("orders", 500).await;

    let exact = "SELECT countIf(toString(total) = concat(toString(_offset + 1), '000000000.0000000001')) FROM";
    let count = async |table: &str| -> u64 {
        let sql = format!("{exact} {table}");
        scene.pipeline.clickhouse().query(&sql).fetch_one().await.unwrap()
    };
    assert!(count("orders").await < 500);
    for command in commands("A wrong column type was deployed") {
        scene.run(&command).await;
    }
    scene.arrived("orders", 500).await;
    assert_eq!(count("orders").await, 500, "amounts are exact again");

    let moving = commands("Moving to a new table");
    let (last, first) = moving.split_last().unwrap();
    for command in first {
        scene.run(command).await;
    }
    scene.arrived("orders_by_day", 500).await;
    // Stored in the old table while the new one is filled already.
    scene.order(501..601);
    scene.arrived("orders", 600).await;
    consumer.stop().await.unwrap();
    route(&scene.pipeline, "orders_by_day");
    let consumer = scene.pipeline.consumer().unwrap();
    scene.order(601..701);
    scene.arrived("orders_by_day", 600).await;
    scene.pipeline.at_rest(0).await.unwrap();
    scene.run(last).await;
    scene.arrived("orders_by_day", 700).await;
    assert_eq!(count("orders_by_day").await, 700);
    consumer.stop().await.unwrap();
}
