//! What was parked: listed, shown, and sent through again.

use std::{collections::BTreeSet, process::Output};

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, succeeded},
    program::Program,
    stack::Stack,
};
use serde_json::Value;

use crate::{consumer::Feed, diagnosis::setting};

/// Payloads that do not fit, each with the reason and the column.
const POISON: [(&str, &str, &str); 10] = [
    (r#"{"amount":"1.00001"}"#, "too_many_digits", "amount"),
    (r#"{"small":300}"#, "out_of_range", "small"),
    (r#"{"small":null}"#, "null_not_allowed", "small"),
    (r#"{"rate":true}"#, "wrong_type", "rate"),
    (r#"{"city":"\ud800"}"#, "invalid_utf8", "city"),
    (r#"{"day":"2026-02-30"}"#, "invalid_date", "day"),
    (r#"{"state":"lost"}"#, "unknown_enum_value", "state"),
    (r#"{"code":"toolong"}"#, "wrong_length", "code"),
    (r#"{"id":"nope"}"#, "malformed", "id"),
    (r#"{"small":"#, "malformed", ""),
];

struct Scene {
    pipeline: Pipeline<'static>,
    feed: Feed,
    consumer: Program,
}

impl Scene {
    async fn new() -> Scene {
        let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
        pipeline.route("payment", "payments", "max_delay = '50ms'").unwrap();
        let sql = "CREATE TABLE payments (event_id UUID, amount Decimal(18, 4) DEFAULT 0,
                   small UInt8 DEFAULT 0 + 0, rate Float64 DEFAULT 0, city String DEFAULT '',
                   day Date DEFAULT '2026-01-01', state Enum8('new' = 1, 'old' = 2) DEFAULT 'new',
                   code FixedString(3) DEFAULT 'abc', id UUID DEFAULT generateUUIDv4(),
                   _topic LowCardinality(String), _partition UInt32, _offset UInt64)
                 ENGINE = MergeTree ORDER BY event_id
                 SETTINGS non_replicated_deduplication_window = 10000";
        pipeline.execute(sql).await.unwrap();
        let feed = Feed::of(&pipeline, "payment").await;
        let consumer = pipeline.consumer().unwrap();
        Scene { pipeline, feed, consumer }
    }

    async fn sql(&self, sql: &str) {
        self.pipeline.execute(sql).await.unwrap();
    }

    async fn rows(&self) -> u64 {
        self.pipeline.clickhouse().query("SELECT count() FROM payments").fetch_one().await.unwrap()
    }

    /// Waits until `replay` has stored something.
    async fn has_more_than(&self, rows: u64, replay: &Program) {
        eventually(PATIENCE, async || {
            ensure!(self.rows().await > rows, "nothing more yet\n{}", replay.log_text());
            Ok(())
        })
        .await
        .unwrap();
    }

    /// What is out of range for `small` fits from now on, and every insert takes a
    /// moment for each row, in which it can be met.
    async fn fits_slowly(&self, seconds: f64) {
        self.sql("ALTER TABLE payments MODIFY COLUMN small UInt16 DEFAULT 0 + 0").await;
        self.sql(&format!(
            "CREATE MATERIALIZED VIEW slow ENGINE = MergeTree ORDER BY tuple() AS
             SELECT event_id, sleepEachRow({seconds}) AS slept FROM payments"
        ))
        .await;
    }

    async fn dlq(&self, args: &[&str]) -> Output {
        self.pipeline.consumer_output(&[&["dlq"], args].concat()).await.unwrap()
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self.dlq(&[args, &["--json"]].concat()).await;
        succeeded(&output).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Reason, column, open letters and attempts, of this scene's topic.
    async fn open(&self) -> Vec<(String, String, u64, u64)> {
        let groups = self.json(&["list", "--topic", &self.feed.topic]).await;
        let group = |group: &Value| {
            let text = |name: &str| group[name].as_str().unwrap().to_owned();
            let number = |name: &str| group[name].as_u64().unwrap();
            (text("reason"), text("column"), number("open"), number("attempts"))
        };
        groups.as_array().unwrap().iter().map(group).collect()
    }

    async fn letters_are(&self, count: u64) {
        eventually(PATIENCE, async || {
            let output = self.dlq(&["list", "--topic", &self.feed.topic, "--json"]).await;
            succeeded(&output)?;
            let groups: Value = serde_json::from_slice(&output.stdout)?;
            let open: u64 =
                groups.as_array().into_iter().flatten().filter_map(|g| g["open"].as_u64()).sum();
            ensure!(open == count, "{open} letters");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn replay(&self, args: &[&str]) -> Value {
        self.json(&[&["replay", "--topic", &self.feed.topic, "--yes"], args].concat()).await
    }
}

/// A dead letter of a topic that the pipeline's group does not read; that topic.
async fn foreign_letter(pipeline: &Pipeline<'_>) -> String {
    let source = format!("{}.foreign", pipeline.name);
    let mut feed = Feed::to(pipeline, "foreign");
    feed.topic = format!("outpour.dead-letter.{source}");
    feed.create(1).await;
    feed.send_record(
        None,
        Some("{}"),
        &[
            ("outpour-source-topic", &source),
            ("outpour-source-partition", "0"),
            ("outpour-source-offset", "0"),
            ("outpour-reason", "missing"),
        ],
    );
    let reader = pipeline.reader(&feed.topic).unwrap();
    reader.take(1, |_| Some(())).unwrap();
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_parked_alone_and_what_fits_after_an_alter_comes_in() {
    const EVENTS: u64 = 2000;
    let scene = Scene::new().await;
    for n in 0..EVENTS {
        // One in a hundred, of ten kinds.
        let poison = n % 100 == 99;
        let payload = if poison { POISON[usize::try_from(n / 100 % 10).unwrap()].0 } else { "{}" };
        scene.feed.send(n, payload);
    }
    scene.pipeline.arrived("payments", EVENTS - 20).await.unwrap();
    scene.letters_are(20).await;
    let mut expected: Vec<_> = POISON
        .iter()
        .map(|(_, reason, column)| ((*reason).to_owned(), (*column).to_owned(), 2, 1))
        .collect();
    expected.sort();
    let mut open = scene.open().await;
    open.sort();
    assert_eq!(open, expected);
    // Others have letters in the same cluster, which are none of this group's.
    let foreign = foreign_letter(&scene.pipeline).await;
    let topics = |groups: &Value| -> BTreeSet<String> {
        let groups = groups.as_array().unwrap().iter();
        groups.map(|group| group["topic"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(topics(&scene.json(&["list"]).await), [scene.feed.topic.clone()].into());
    assert_eq!(topics(&scene.json(&["list", "--topic", &foreign]).await), [foreign].into());
    let dry = scene.json(&["replay", "--dry-run"]).await;
    assert_eq!((&dry["letters"], &dry["without_route"]), (&20.into(), &0.into()), "{dry}");
    // They wait for a person for as long as it takes.
    let topic = format!("outpour.dead-letter.{}", scene.feed.topic);
    assert_eq!(setting(scene.pipeline.stack, &topic, "retention.ms").await, "-1");

    // One of them in full.
    let of_small = ["list", "--letters", "--topic", &scene.feed.topic, "--reason", "out_of_range"];
    let letters = scene.json(&of_small).await;
    let id = letters[0]["id"].as_str().unwrap();
    assert_eq!(letters.as_array().unwrap().len(), 2, "{letters}");
    assert_eq!(letters[0]["source"], format!("{}/0/199", scene.feed.topic), "{letters}");
    let letter = scene.json(&["show", id]).await;
    assert_eq!(letter["payload"], r#"{"small":300}"#, "{letter}");
    assert_eq!(letter["headers"][1]["value"], "happened", "{letter}");
    let readable = scene.dlq(&["show", id]).await;
    let readable = String::from_utf8_lossy(&readable.stdout).into_owned();
    assert!(readable.contains("\"small\": 300") && readable.contains("UInt8"), "{readable}");

    // Nothing fits yet: all are parked again, none is lost or doubled.
    let dry = scene.replay(&["--dry-run"]).await;
    assert_eq!((&dry["replayed"], &dry["letters"]), (&0.into(), &20.into()), "{dry}");
    assert_eq!(scene.open().await.iter().map(|group| group.3).max(), Some(1));

    // Two of the kinds fit from now on.
    scene.sql("ALTER TABLE payments MODIFY COLUMN small UInt16 DEFAULT 0 + 0").await;
    scene.sql("ALTER TABLE payments MODIFY COLUMN amount Decimal(18, 5) DEFAULT 0").await;
    let dry = scene.replay(&["--dry-run"]).await;
    assert_eq!((&dry["replayed"], &dry["letters"]), (&4.into(), &20.into()), "{dry}");
    let came = scene.replay(&[]).await;
    assert_eq!((&came["replayed"], &came["letters"]), (&4.into(), &20.into()), "{came}");
    scene.pipeline.arrived("payments", EVENTS - 16).await.unwrap();
    let sql = "SELECT countIf(small = 300), countIf(amount = toDecimal64('1.00001', 5)),
               countIf(_topic = '') FROM payments";
    let found: (u64, u64, u64) = scene.pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
    assert_eq!(found, (2, 2, 0));
    expected.retain(|(_, column, ..)| !["amount"].contains(&column.as_str()));
    expected.retain(|(reason, ..)| reason != "out_of_range");
    expected.iter_mut().for_each(|group| group.3 = 2);
    let mut open = scene.open().await;
    open.sort();
    assert_eq!(open, expected, "the others stay, with one more attempt");

    // What went through is not open, and is not sent again.
    let all = scene.json(&["list", "--all", "--topic", &scene.feed.topic]).await;
    let sum = |name: &str| -> u64 {
        all.as_array().unwrap().iter().filter_map(|group| group[name].as_u64()).sum()
    };
    assert_eq!((sum("open"), sum("replayed"), sum("superseded")), (16, 4, 16), "{all}");
    refused(&scene.dlq(&["replay", id, "--yes"]).await, "it was replayed before");
    let came = scene.replay(&["--reason", "out_of_range"]).await;
    assert_eq!(came["state"], "nothing", "{came}");
    let none = format!("{}/0/999999", scene.feed.topic);
    refused(&scene.dlq(&["replay", &none, "--yes"]).await, "there is no such letter");
    refused(&scene.dlq(&["show", &none]).await, "there is no letter");
    refused(&scene.dlq(&["replay", "--topic", &scene.feed.topic]).await, "--yes is needed");
    refused(&scene.dlq(&["list", "--topic", "none"]).await, "nothing of such a topic");

    // Twice in a row adds nothing.
    scene.replay(&[]).await;
    scene.replay(&[]).await;
    scene.pipeline.arrived("payments", EVENTS - 16).await.unwrap();
    let open = scene.open().await;
    assert!(open.len() == 8 && open.iter().all(|group| (group.2, group.3) == (2, 4)), "{open:?}");
    // What is stored by now is no letter any more.
    let output = scene.pipeline.consumer_output(&["reconcile", "--json"]).await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["totals"]["parked"], &report["clean"]), (&16.into(), &true.into()));
    scene.consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_between_every_letter_goes_through_once() {
    const LETTERS: u64 = 4000;
    let scene = Scene::new().await;
    for n in 0..LETTERS {
        // Every tenth stays poison.
        scene.feed.send(n, if n % 10 == 0 { POISON[3].0 } else { POISON[1].0 });
    }
    scene.letters_are(LETTERS).await;
    scene.fits_slowly(0.0005).await;
    let args = ["dlq", "replay", "--topic", &scene.feed.topic, "--yes"];
    for _ in 0..3 {
        let before = scene.rows().await;
        let mut replay = scene.pipeline.consumer_command(&args).unwrap();
        scene.has_more_than(before, &replay).await;
        replay.check().expect("killed too late to prove anything");
        replay.kill().await.unwrap();
    }
    scene.replay(&[]).await;
    scene.pipeline.arrived("payments", LETTERS - LETTERS / 10).await.unwrap();
    let sql = "SELECT uniqExact(_partition, _offset) FROM payments";
    let distinct: u64 = scene.pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
    assert_eq!(distinct, LETTERS - LETTERS / 10);
    let open = scene.open().await;
    let [(reason, column, count, attempts)] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((reason.as_str(), column.as_str(), *count), ("wrong_type", "rate", LETTERS / 10));
    assert!(*attempts >= 2, "{attempts}");
    scene.consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_a_time_the_newer_goes_on() {
    let scene = Scene::new().await;
    for n in 0..6000 {
        scene.feed.send(n, POISON[1].0);
    }
    scene.letters_are(6000).await;
    scene.fits_slowly(0.001).await;
    let args = ["dlq", "replay", "--topic", &scene.feed.topic, "--yes"];
    let mut first = scene.pipeline.consumer_command(&args).unwrap();
    scene.has_more_than(0, &first).await;
    let came = scene.replay(&[]).await;
    assert_eq!(came["state"], "done", "{came}");
    assert_eq!(first.ended(PATIENCE).await.unwrap(), Some(1), "{}", first.log_text());
    assert!(first.log_text().contains("another `dlq replay`"), "{}", first.log_text());
    scene.pipeline.arrived("payments", 6000).await.unwrap();
    assert!(scene.open().await.is_empty());
    scene.consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_clickhouse_refuses_again_is_found_among_those_it_takes() {
    let scene = Scene::new().await;
    scene.sql("ALTER TABLE payments ADD CONSTRAINT low CHECK small < 5").await;
    for n in 0..40 {
        scene.feed.send(n, &format!("{{\"small\": {}}}", n % 10));
    }
    scene.letters_are(20).await;
    scene.sql("ALTER TABLE payments DROP CONSTRAINT low").await;
    scene.sql("ALTER TABLE payments ADD CONSTRAINT low CHECK small < 9").await;
    let came = scene.replay(&[]).await;
    assert_eq!((&came["replayed"], &came["letters"]), (&16.into(), &20.into()), "{came}");
    scene.pipeline.arrived("payments", 36).await.unwrap();
    assert_eq!(scene.open().await, [("refused_by_clickhouse".to_owned(), String::new(), 4, 2)]);
    scene.consumer.stop().await.unwrap();
}

/// Ended with 2, and said why in one line.
fn refused(output: &Output, why: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{why}: {text}");
    assert!(text.contains(why), "{why}: {text}");
}
