//! What is left when a disk is lost, or the power.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::Stack,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{consumer::Feed, consumer_doctor::doctor};

/// Partitions, and replicas of the first.
fn shape(pipeline: &Pipeline<'_>, topic: &str) -> (usize, usize) {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", pipeline.stack.kafka.url()).create().unwrap();
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions();
    (partitions.len(), partitions[0].replicas().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_the_brokers_make_them_where_nothing_else_is_said() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await;
    let pipeline = pipeline.unwrap();
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    let is_said = |line: &&str| line.contains("_partitions") || line.contains("replication_factor");
    let unsaid: Vec<_> = text.lines().filter(|line| !is_said(line)).collect();
    assert_eq!(text.lines().count() - unsaid.len(), 4);
    std::fs::write(pipeline.config(), unsaid.join("\n")).unwrap();
    // Not what the programs once chose themselves.
    const BROKERS_OWN: (usize, usize) = (1, 1);
    let _relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..10, 5).await.unwrap();
    pipeline.arrived("event_log", 10).await.unwrap();
    assert_eq!(shape(&pipeline, &pipeline.topic("order")), BROKERS_OWN);
    let refuse = "ALTER TABLE event_log ADD CONSTRAINT known CHECK event_type != 'unknown'";
    pipeline.execute(refuse).await.unwrap();
    let feed = Feed::to(&pipeline, "order");
    feed.send_event(11, "unknown", "{}", None);
    consumer.logged("record parked", PATIENCE).await.unwrap();
    let letters = format!("outpour.dead-letter.{}", pipeline.topic("order"));
    pipeline.reader(&letters).unwrap().take(1, |_| Some(())).unwrap();
    assert_eq!(shape(&pipeline, &letters), BROKERS_OWN);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_does_not_write_inserts_through_is_warned_of_and_refused_if_that_is_asked_for() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await;
    let pipeline = pipeline.unwrap();
    doctor(&pipeline).await.assert("warning", "fsync", "event_log");

    pipeline.set("OUTPOUR_CLICKHOUSE_FSYNC=true").unwrap();
    let fix = doctor(&pipeline).await.fix("fsync", "event_log");
    let mut consumer = pipeline.consumer().unwrap();
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(3), "{}", consumer.log_text());
    assert!(consumer.log_text().contains(fix.trim_end_matches(';')), "{}", consumer.log_text());

    pipeline.execute(fix.trim_end_matches(';')).await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    for already in [0, 10] {
        doctor(&pipeline).await.assert("ok", "fsync", "on the disk");
        let consumer = pipeline.consumer().unwrap();
        feed.send_all(already..already + 10);
        pipeline.arrived("event_log", already + 10).await.unwrap();
        consumer.stop().await.unwrap();
        // And so does one that is made now.
        pipeline.execute("RENAME TABLE event_log TO before").await.unwrap();
        succeeded(&pipeline.consumer_output(&["init"]).await.unwrap()).unwrap();
        pipeline.execute("INSERT INTO event_log SELECT * FROM before").await.unwrap();
        pipeline.execute("DROP TABLE before").await.unwrap();
    }
}
