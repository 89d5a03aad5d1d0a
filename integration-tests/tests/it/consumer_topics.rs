//! Which topics a group reads: by name, by expression, and as they come and go.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::Stack,
};
use rdkafka::admin::AdminOptions;
use serde_json::json;

use crate::{
    consumer::Feed,
    probes::{address, comes_to},
};

/// Has the group read these topics instead of all of the pipeline's.
fn read(pipeline: &Pipeline<'_>, topics: &[String]) {
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("topics = ") {
        true => format!("topics = {topics:?}"),
        false => line.to_owned(),
    });
    std::fs::write(pipeline.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
}

async fn told_as_json(pipeline: &Pipeline<'_>, command: &str) -> serde_json::Value {
    let output = pipeline.consumer_output(&[command, "--json"]).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The topics that `status` tells of.
async fn told(pipeline: &Pipeline<'_>) -> Vec<String> {
    let status = told_as_json(pipeline, "status").await;
    let partitions = status["partitions"].as_array().unwrap();
    partitions.iter().map(|found| found["topic"].as_str().unwrap().to_owned()).collect()
}

/// Expressions that Kafka's client and brokers do not know, or read otherwise.
async fn expressions_are_those_of_rust(protocol: &str) -> String {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    pipeline.set(&format!("OUTPOUR_CONSUMER_GROUP_PROTOCOL={protocol}")).unwrap();
    let name = &pipeline.name;
    let digits = format!(r"^outbox\.event\.{name}\.rx\.\d+$");
    let any_case = format!("^(?i)OUTBOX.EVENT.{}.CI$", name.to_uppercase());
    read(&pipeline, &[digits.clone(), any_case.clone()]);
    let consumer = pipeline.consumer().unwrap();
    let at = address(&consumer).await;
    let body = comes_to(&at, 503, "standby").await;
    assert!(body["reason"].as_str().unwrap().contains("consumer.topics"), "{body}");

    let _left = Feed::of(&pipeline, "rx.1x").await;
    // They are kept: a client that is dropped forgets what it has not sent yet.
    let first = Feed::of(&pipeline, "rx.12").await;
    first.send_all(0..3);
    pipeline.arrived("event_log", 3).await.unwrap();
    comes_to(&at, 200, "active").await;
    let second = Feed::of(&pipeline, "ci").await;
    second.send_all(3..6);
    pipeline.arrived("event_log", 6).await.unwrap();

    assert_eq!(told(&pipeline).await, [pipeline.topic("ci"), pipeline.topic("rx.12")]);
    let findings = told_as_json(&pipeline, "doctor").await.to_string();
    for pattern in [digits, any_case] {
        let matching = serde_json::to_string(&format!("1 match `{pattern}`")).unwrap();
        assert!(findings.contains(matching.trim_matches('"')), "{matching}: {findings}");
    }
    pipeline.at_rest(6).await.unwrap();
    succeeded(&pipeline.consumer_output(&["reconcile"]).await.unwrap()).unwrap();
    let log = consumer.log_text();
    consumer.stop().await.unwrap();
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_goes_on_without_a_named_topic_that_is_gone_and_says_so() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let (kept, gone) = (Feed::of(&pipeline, "kept").await, Feed::of(&pipeline, "gone").await);
    read(&pipeline, &[kept.topic.clone(), gone.topic.clone()]);
    let mut consumer = pipeline.consumer().unwrap();
    kept.send_all(0..2);
    gone.send_all(2..4);
    pipeline.arrived("event_log", 4).await.unwrap();
    pipeline.at_rest(4).await.unwrap();
    gone.admin.delete_topics(&[&gone.topic], &AdminOptions::new()).await.unwrap();
    let says = format!("topic `{}` (consumer.topics) does not exist", gone.topic);
    consumer.logged(&says, PATIENCE).await.unwrap();
    assert!(consumer.log_text().lines().any(|line| line.contains("WARN") && line.contains(&says)));
    kept.send_all(4..6);
    pipeline.arrived("event_log", 6).await.unwrap();
    consumer.check().unwrap();

    assert_eq!(told_as_json(&pipeline, "status").await["missing_topics"], json!([gone.topic]));
    for command in ["status", "reconcile"] {
        let output = pipeline.consumer_output(&[command]).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&says), "{command}: {text}");
    }
    consumer.stop().await.unwrap();
}

/// Under the name of a member that was killed, Kafka gives back what that one had, whatever
/// there is to read by then.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_takes_up_a_topic_that_was_made_while_it_was_killed() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let first = Feed::of(&pipeline, "first").await;
    let consumer = pipeline.consumer().unwrap();
    first.send_all(0..3);
    pipeline.arrived("event_log", 3).await.unwrap();
    consumer.kill().await.unwrap();
    let second = Feed::of(&pipeline, "second").await;
    let consumer = pipeline.consumer().unwrap();
    first.send_all(3..6);
    second.send_all(6..9);
    pipeline.arrived("event_log", 9).await.unwrap();
    comes_to(&address(&consumer).await, 200, "active").await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_takes_topics_by_one_language_of_expressions() {
    expressions_are_those_of_rust("classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_takes_topics_by_one_language_of_expressions_where_brokers_assign() {
    let log = expressions_are_those_of_rust("consumer").await;
    assert!(!log.contains("partitions given up"), "a new topic costs no partition: {log}");
}
