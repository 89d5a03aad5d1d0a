//! `outpour-consumer reconcile`: what differs between Kafka and ClickHouse is found
//! with its exact ranges, and nothing else is.

mod differences;
mod large;
mod outbox;
mod tables;
mod values;

use std::time::Duration;

use integration_tests::pipeline::{PATIENCE, Pipeline};
use rdkafka::{
    ClientConfig,
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
    pipeline.at_rest(100).await.unwrap();
    consumer.stop().await.unwrap();
    (pipeline, feed)
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
