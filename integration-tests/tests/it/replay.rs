//! A topic read again, into every kind of target, while events go on arriving.

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, succeeded},
    program::Program,
    stack::Stack,
};
use outpour_consumer::replay::{ReplayRange, replay_ranges};
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};
use tokio_util::sync::CancellationToken;

use crate::consumer::Feed;

const PARTITIONS: i32 = 3;

/// One in so many does not fit.
const POISON: u64 = 1000;

/// Events before the replay; `OUTPOUR_REPLAY_EVENTS` for more of them.
fn events() -> u64 {
    let asked = std::env::var("OUTPOUR_REPLAY_EVENTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// A live consumer, and a topic of numbers that grows until it is told to stop.
struct Scene {
    pipeline: Pipeline<'static>,
    feed: Arc<Feed>,
    consumer: Option<Program>,
    sent: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Scene {
    /// With `count` events stored.
    async fn with(count: u64) -> Scene {
        let stack = Stack::shared().await.unwrap();
        let pipeline = Pipeline::new(stack, "").await.unwrap();
        let max_rows = (count / 40).max(100);
        let batch = format!("max_delay = '100ms'\nmax_rows = {max_rows}");
        pipeline.route("number", "numbers", &batch).unwrap();
        let feed = Arc::new(Feed::with_partitions(&pipeline, "number", PARTITIONS).await);
        let scene =
            Scene { pipeline, feed, consumer: None, sent: Arc::default(), is_over: Arc::default() };
        scene
            .sql(
                "CREATE TABLE numbers (event_id UUID, n UInt32, _topic LowCardinality(String),
                   _partition UInt32, _offset UInt64, INDEX provenance _offset TYPE minmax)
                 ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000",
            )
            .await;
        let consumer = scene.pipeline.consumer().unwrap();
        while scene.sent.load(SeqCst) < count {
            let more = (count - scene.sent.load(SeqCst)).min(20_000);
            scene.send(more);
            scene.all_are_in("numbers").await;
        }
        // What is stored is told a moment later, and a replay goes by that.
        scene.pipeline.at_rest(0).await.unwrap();
        Scene { consumer: Some(consumer), ..scene }
    }

    fn send(&self, count: u64) {
        send(&self.feed, &self.sent, count);
    }

    /// Events keep arriving from now on.
    fn goes_on(&self) -> tokio::task::JoinHandle<()> {
        let (feed, sent, is_over) =
            (Arc::clone(&self.feed), Arc::clone(&self.sent), Arc::clone(&self.is_over));
        tokio::spawn(async move {
            let mut often = tokio::time::interval(Duration::from_millis(20));
            while !is_over.load(SeqCst) {
                often.tick().await;
                send(&feed, &sent, 10);
            }
        })
    }

    async fn sql(&self, sql: &str) {
        self.pipeline.execute(sql).await.unwrap();
    }

    async fn number(&self, sql: &str) -> Result<u64> {
        Ok(self.pipeline.clickhouse().query(sql).fetch_one().await?)
    }

    async fn count(&self, table: &str) -> u64 {
        self.number(&format!("SELECT count() FROM {table}")).await.unwrap_or(0)
    }

    /// Waits until `table` has every event that was sent, each once and with its number.
    async fn all_are_in(&self, table: &str) {
        let sent = self.sent.load(SeqCst);
        let good = (0..sent).filter(|n| n % POISON != POISON - 1);
        let expected = good.fold((0, 0_u64), |(count, sum), n| (count + 1, sum + n));
        let expected = (expected.0, expected.0, expected.0, expected.1);
        let sql = format!(
            "SELECT count(), uniqExact(_partition, _offset), uniqExact(event_id), sum(n) FROM {table}"
        );
        eventually(PATIENCE, async || {
            let found: (u64, u64, u64, u64) =
                self.pipeline.clickhouse().query(&sql).fetch_one().await?;
            ensure!(found == expected, "{table}: {found:?}, expected {expected:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    fn letters(&self) -> usize {
        let topic = format!("outpour.dead-letter.{}", self.feed.topic);
        let reader = self.pipeline.reader(&topic).unwrap();
        let expected = usize::try_from(self.sent.load(SeqCst) / POISON).unwrap();
        let letters = reader.take(expected, |_| Some(())).unwrap().len();
        reader.nothing_more().unwrap();
        letters
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["replay", "--topic", &self.feed.topic], more].concat()
    }

    async fn replay(&self, more: &[&str]) -> Output {
        self.pipeline.consumer_output(&self.args(more)).await.unwrap()
    }

    /// To its end; the report.
    async fn replayed(&self, more: &[&str]) -> serde_json::Value {
        let output = self.replay(&[more, &["--yes", "--json"]].concat()).await;
        succeeded(&output).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a replay and kills it once `is_time` says so.
    async fn killed(&self, more: &[&str], is_time: impl AsyncFn() -> Result<bool>) {
        let args = self.args(&[more, &["--yes"]].concat());
        let mut replay = self.pipeline.consumer_command(&args).unwrap();
        // More often than `eventually` would look: it is about a moment in between.
        let watching = async {
            let mut often = tokio::time::interval(Duration::from_millis(2));
            while !is_time().await.unwrap() {
                often.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, watching)
            .await
            .unwrap_or_else(|_| panic!("nothing came of it\n{}", replay.log_text()));
        replay.check().expect("killed too late to prove anything");
        replay.kill().await.unwrap();
    }

    async fn end(self) {
        self.consumer.unwrap().stop().await.unwrap();
    }
}

fn send(feed: &Feed, sent: &AtomicU64, count: u64) {
    let first = sent.fetch_add(count, SeqCst);
    for n in first..first + count {
        let poison = n % POISON == POISON - 1;
        feed.send(n, &format!("{{\"n\": {}}}", if poison { -1 } else { n.cast_signed() }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_table_gets_what_it_lacks_and_nothing_twice() {
    let scene = Scene::with(events()).await;
    let feeding = scene.goes_on();
    scene.sql("ALTER TABLE numbers DELETE WHERE n % 3 = 0 SETTINGS mutations_sync = 1").await;
    const LACKING: &str = "SELECT count() FROM numbers WHERE n % 3 = 0";
    for _ in 0..3 {
        let before = scene.number(LACKING).await.unwrap();
        let more = before + events() / 60;
        scene
            .killed(&["--from", "beginning", "--live"], async || {
                Ok(scene.number(LACKING).await? > more)
            })
            .await;
    }
    let report = scene.replayed(&["--from", "beginning", "--live"]).await;
    assert_eq!(report["state"], "done", "{report}");
    assert!(report["rows_added"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["parked"], 0, "what is parked once stays so: {report}");
    scene.is_over.store(true, SeqCst);
    feeding.await.unwrap();
    scene.all_are_in("numbers").await;
    scene.pipeline.at_rest(0).await.unwrap();
    assert!(scene.letters() > 0);

    // Started again it is known to be done; done again it finds nothing to add.
    let report = scene.replayed(&["--from", "beginning", "--live"]).await;
    assert_eq!(report["state"], "done_before", "{report}");
    let report = scene.replayed(&["--from", "beginning", "--live", "--restart"]).await;
    assert_eq!((&report["state"], &report["rows_added"]), (&"done".into(), &0.into()), "{report}");
    scene.all_are_in("numbers").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_gets_the_topic_as_it_was_at_the_first_start() {
    let scene = Scene::with(events()).await;
    let feeding = scene.goes_on();
    // Inserts take their time, so that they can be met.
    scene.sql("CREATE TABLE copies AS numbers").await;
    let slow = format!(
        "CREATE MATERIALIZED VIEW slow ENGINE = MergeTree ORDER BY tuple() AS
         SELECT n, sleepEachRow({}) AS slept FROM copies",
        6.0 / events() as f64
    );
    scene.sql(&slow).await;
    for _ in 0..3 {
        let before = scene.count("copies").await;
        scene
            .killed(&["--into", "copies"], async || {
                Ok(scene.count("copies").await > before + events() / 20)
            })
            .await;
    }
    // Another replay to the same place cannot come between.
    let other = scene.replay(&["--into", "copies", "--key", "7"]).await;
    refused(&other, "with other options");

    let report = scene.replayed(&["--into", "copies"]).await;
    assert_eq!(report["state"], "done", "{report}");
    scene.is_over.store(true, SeqCst);
    feeding.await.unwrap();
    scene.all_are_in("numbers").await;
    let parts = report["partitions"].as_array().unwrap().iter().map(|part| {
        let number = |name: &str| part[name].as_i64().unwrap();
        format!("(_partition = {} AND _offset < {})", number("partition"), number("until"))
    });
    let within = parts.collect::<Vec<_>>().join(" OR ");
    let of = |table: &str| {
        format!("SELECT groupBitXor(cityHash64(*)) + count() FROM {table} WHERE {within}")
    };
    let (live, copies) =
        (scene.number(&of("numbers")).await.unwrap(), scene.number(&of("copies")).await.unwrap());
    assert_eq!(live, copies, "the same rows");
    let outside = format!("SELECT count() FROM copies WHERE NOT ({within})");
    assert_eq!(scene.number(&outside).await.unwrap(), 0, "nothing past the bounds");
    let twice = "SELECT toUInt64(count() - uniqExact(_partition, _offset)) FROM copies";
    assert_eq!(scene.number(twice).await.unwrap(), 0);

    // The rest of it, as another replay: what is there is not added again.
    scene.pipeline.at_rest(0).await.unwrap();
    let report = scene.replayed(&["--into", "copies", "--restart"]).await;
    assert_eq!(report["state"], "done", "{report}");
    scene.all_are_in("copies").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_built_anew_takes_the_place_of_the_live_one() {
    let scene = Scene::with(events()).await;
    let feeding = scene.goes_on();
    // Wrong values, which only the topic can put right.
    scene
        .sql("ALTER TABLE numbers UPDATE event_id = toUUID('00000000-0000-0000-0000-000000000000') WHERE n % 2 = 0 SETTINGS mutations_sync = 1")
        .await;
    const UUID: &str = "SELECT reinterpretAsUInt64(toString(uuid)) FROM system.tables
        WHERE database = currentDatabase() AND name = 'numbers'";
    let before = scene.number(UUID).await.unwrap();
    for part in [1, 2] {
        scene
            .killed(&["--swap"], async || {
                Ok(scene.count("numbers__replay").await > part * events() / 4)
            })
            .await;
    }
    // The moment the tables are exchanged.
    scene.killed(&["--swap"], async || Ok(scene.number(UUID).await? != before)).await;
    let report = scene.replayed(&["--swap"]).await;
    assert_eq!(report["state"], "done", "{report}");
    let drop_old = report["drop_old"].as_str().unwrap();
    scene.is_over.store(true, SeqCst);
    feeding.await.unwrap();
    scene.all_are_in("numbers").await;

    // What is done is not done again, and the old table is in the way of another.
    assert_eq!(scene.replayed(&["--swap"]).await["state"], "done_before");
    refused(&scene.replay(&["--swap", "--restart", "--yes"]).await, "drop it with DROP TABLE");
    scene.sql(drop_old).await;
    let report = scene.replayed(&["--swap", "--restart", "--drop-old"]).await;
    assert_eq!((&report["state"], &report["drop_old"]), (&"done".into(), &().into()), "{report}");
    assert_eq!(
        scene
            .count("system.tables WHERE name = 'numbers__replay' AND database = currentDatabase()")
            .await,
        0
    );
    scene.all_are_in("numbers").await;
    scene.pipeline.at_rest(0).await.unwrap();
    assert!(scene.letters() > 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_keeps_rows_that_kafka_no_longer_has() {
    let scene = Scene::with(3000).await;
    let mut removed = TopicPartitionList::new();
    removed.add_partition_offset(&scene.feed.topic, 1, Offset::Offset(400)).unwrap();
    scene.feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();
    let dry = scene.replayed(&["--swap", "--dry-run"]).await;
    assert!(dry["steps"][1].as_str().unwrap().contains("rows that Kafka no longer has"), "{dry}");
    let report = scene.replayed(&["--swap"]).await;
    assert_eq!(report["state"], "done", "{report}");
    scene.all_are_in("numbers").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_topic_is_taken_by_time_partition_key_and_type() {
    let scene = Scene::with(2000).await;
    let (key, one) =
        (&["--into", "of_key", "--key", "7"], &["--into", "of_one", "--partition", "1"]);
    scene.replayed(key).await;
    let of_key = "SELECT count() = countIf(n % 100 = 7) AND count() = 20 FROM of_key";
    assert!(scene.pipeline.clickhouse().query(of_key).fetch_one::<bool>().await.unwrap());
    scene.replayed(one).await;
    let of_one = "SELECT count() FROM of_one WHERE _partition != 1";
    assert_eq!(scene.number(of_one).await.unwrap(), 0);
    assert_eq!(scene.count("of_one").await, scene.count("numbers WHERE _partition = 1").await);
    let nothing = scene.replayed(&["--into", "of_none", "--event-type", "never"]).await;
    assert_eq!((&nothing["state"], &nothing["rows"]), (&"done".into(), &0.into()), "{nothing}");
    let report = scene.replayed(&["--into", "young", "--from", "-1h", "--to", "now"]).await;
    assert_eq!(report["rows"], scene.count("numbers").await, "{report}");
    let report = scene.replayed(&["--into", "old", "--to", "-1h"]).await;
    assert_eq!(report["state"], "nothing", "{report}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn given_ranges_are_added_where_they_are_missing() {
    let scene = Scene::with(3000).await;
    let gone =
        "_partition = 0 AND _offset >= 100 AND _offset < 300 OR _partition = 2 AND _offset = 5";
    scene
        .sql(&format!("ALTER TABLE numbers DELETE WHERE {gone} SETTINGS mutations_sync = 1"))
        .await;
    let range = |partition, from, until| ReplayRange {
        topic: scene.feed.topic.clone(),
        partition,
        table: "numbers".to_owned(),
        from,
        until,
    };
    let ranges = [range(0, 90, 200), range(0, 200, 310), range(2, 5, 6)];
    let config = outpour_schemas::config::load(Some(&scene.pipeline.config())).unwrap();
    let stop = CancellationToken::new();
    for _ in 0..2 {
        replay_ranges(&config, &ranges, &stop).await.unwrap();
        scene.all_are_in("numbers").await;
    }
    let beyond = replay_ranges(&config, &[range(0, 90, 1_000_000)], &stop).await.unwrap_err();
    assert!(beyond.to_string().contains("the group has stored"), "{beyond}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_in_one_line_and_changes_nothing() {
    let scene = Scene::with(100).await;
    scene.sql("CREATE VIEW looking AS SELECT * FROM numbers").await;
    scene.sql("CREATE TABLE bare (event_id UUID, n UInt32) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000").await;
    scene.sql("CREATE TABLE forgetful AS numbers ENGINE = MergeTree ORDER BY n").await;
    scene.sql("CREATE TABLE without_id (n UInt32, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000").await;
    for (args, why) in [
        (&["--live"][..], "--yes is needed"),
        (&["--swap"], "--yes is needed"),
        (&["--live", "--from", "2999-01-01T00:00:00Z"], "in the future"),
        (&["--live", "--from", "1000000"], "has offsets 0 to"),
        (&["--live", "--partition", "7"], "partitions 0 to 2"),
        (&["--live", "--from", "soon"], "neither beginning"),
        (&["--into", "numbers"], "use --live"),
        (&["--into", "looking"], "has engine View"),
        (&["--into", "bare"], "lacks one of the columns"),
        (&["--into", "forgetful"], "remembers 0 inserts"),
        (&["--into", "without_id"], "has no column `event_id`"),
        (&["--swap", "--from", "-1h"], "whole topic"),
        (&["--live", "--table", "looking"], "goes to"),
    ] {
        refused(&scene.replay(args).await, why);
    }
    let unknown = ["replay", "--live", "--topic", "outbox.event.none"];
    let unknown = scene.pipeline.consumer_output(&unknown).await.unwrap();
    refused(&unknown, "no route takes topic");
    scene.sql("CREATE MATERIALIZED VIEW counting ENGINE = MergeTree ORDER BY n AS SELECT n FROM numbers").await;
    refused(&scene.replay(&["--swap", "--yes"]).await, "materialised views read from table");
    assert_eq!(scene.count("numbers").await, 100);
    let tables = "system.tables WHERE database = currentDatabase() AND name LIKE '%replay%'";
    assert_eq!(scene.count(tables).await, 0);
    scene.end().await;
}

/// Ended with 2, and said why in one line.
fn refused(output: &Output, why: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{why}: {text}");
    assert!(text.contains(why), "{why}: {text}");
}
