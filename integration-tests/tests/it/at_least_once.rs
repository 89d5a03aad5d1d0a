//! Without Kafka's transactions.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, header, order},
    stack::Stack,
};
use outpour_producer::Outbox;
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_refuses_is_parked_and_not_taken_for_published() {
    // Too large for the topic, though not for the relay: the brokers say so
    // only when they have it.
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_DELIVERY=at-least-once").unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    read(&pipeline, 1);
    let topic = pipeline.topic("order");
    limit_messages(&pipeline, &topic, "1000").await;
    let mut client = pipeline.postgres().await.unwrap();
    let tx = client.transaction().await.unwrap();
    let mut large = order(1);
    // Of what does not compress to a size that fits.
    let unlike: Vec<_> = (0..200).map(|id| order(id).id.to_string()).collect();
    let payload = serde_json::to_string(&unlike.concat()).unwrap();
    large.payload = serde_json::value::RawValue::from_string(payload).ok();
    Outbox::default().append_all(&tx, &[large]).await.unwrap();
    tx.commit().await.unwrap();
    relay.logged("replication interrupted", PATIENCE).await.unwrap();
    let letters = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let id = letters.take(1, |message| header(message, "id")).unwrap().remove(0);
    assert_eq!(id, order(1).id.to_string());
    pipeline.commit_orders(2..3, 1).await.unwrap();
    read(&pipeline, 2);
    relay.stop().await.unwrap();
}

fn read(pipeline: &Pipeline<'_>, count: usize) {
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    assert_eq!(reader.take(count, |message| header(message, "id")).unwrap().len(), count);
}

async fn limit_messages(pipeline: &Pipeline<'_>, topic: &str, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .create()
        .unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", bytes);
    for outcome in admin.alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        outcome.unwrap();
    }
}
