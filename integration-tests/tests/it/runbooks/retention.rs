//! Kafka has removed records that the group had not read.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};

use super::{
    shell::{Shell, says},
    steps,
};
use crate::{consumer::Feed, records::read};

/// Removes all that the topic has, as retention would.
async fn remove_records(pipeline: &Pipeline<'_>) {
    let feed = Feed::to(pipeline, "order");
    let mut removed = TopicPartitionList::new();
    for partition in 0..6 {
        removed.add_partition_offset(&feed.topic, partition, Offset::End).unwrap();
    }
    feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_behind_what_kafka_removed_and_the_outbox_has_it_still() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.route("order", "orders", "max_delay = '50ms'").unwrap();
    pipeline
        .execute(
            "CREATE TABLE orders (event_id UUID, n UInt64, _topic LowCardinality(String),
               _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY n
             SETTINGS non_replicated_deduplication_window = 10000",
        )
        .await
        .unwrap();
    let shell = Shell::of(&pipeline);
    let [retention, doctor, run, compare, create, copy, publish, forget, proof] =
        steps("Kafka retention overran");
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..20, 5).await.unwrap();
    pipeline.arrived("orders", 20).await.unwrap();
    pipeline.at_rest(20).await.unwrap();
    consumer.stop().await.unwrap();
    // Nobody reads these in time.
    pipeline.commit_orders(20..50, 5).await.unwrap();
    assert_eq!(read(&pipeline, "order", 50).len(), 50);
    let client = pipeline.postgres().await.unwrap();
    let earlier = "UPDATE outbox SET occurred_at = occurred_at - interval '1 hour'";
    client.execute(earlier, &[]).await.unwrap();
    remove_records(&pipeline).await;
    pipeline.commit_orders(50..60, 5).await.unwrap();

    let mut stopped = pipeline.consumer().unwrap();
    assert_eq!(stopped.ended(PATIENCE).await.unwrap(), Some(3), "{}", stopped.log_text());
    says(&stopped, "is no longer in Kafka").await;
    shell.run(&retention).await;
    let found = shell.ends(&doctor).await;
    assert_eq!(found.code, Some(3), "{}", found.text);
    assert!(found.text.contains("run --accept-gap"), "{}", found.text);
    let consumer = shell.start(&run, "accepting.log");
    says(&consumer, "gap accepted by --accept-gap").await;
    pipeline.arrived("orders", 30).await.unwrap();
    consumer.stop().await.unwrap();
    // Once is enough.
    let consumer = pipeline.consumer().unwrap();
    pipeline.at_rest(30).await.unwrap();
    shell.run(&compare).await;

    shell.run(&create).await;
    assert_eq!(shell.run(&copy).await, "30");
    assert_eq!(shell.run(&publish).await, "30", "those that were never read, and no others");
    pipeline.arrived("orders", 60).await.unwrap();
    pipeline.at_rest(60).await.unwrap();
    // All of them are known by now.
    shell.run(&forget).await;
    shell.run(&create).await;
    assert_eq!(shell.run(&copy).await, "60");
    assert_eq!(shell.run(&publish).await, "0");
    let said = shell.run(&proof).await;
    assert!(
        said.contains("60 rows, 40 in Kafka, 0 missing, 0 not published yet, 20 older"),
        "{said}"
    );
    relay.stop().await.unwrap();
    consumer.stop().await.unwrap();
}
