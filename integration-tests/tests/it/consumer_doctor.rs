//! What goes wrong between Kafka and ClickHouse, told before it does: each
//! finding on real services.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};
use serde_json::Value;

use crate::{
    consumer::Feed,
    diagnosis::{Diagnosis, create_topic},
};

pub(crate) async fn doctor(pipeline: &Pipeline<'_>) -> Diagnosis {
    doctor_with(pipeline, &[]).await
}

pub(crate) async fn doctor_with(pipeline: &Pipeline<'_>, options: &[&str]) -> Diagnosis {
    let args = [&["doctor", "--json"], options].concat();
    Diagnosis::of(&pipeline.consumer_output(&args).await.unwrap())
}

/// The tables and views of a pipeline's database.
pub(crate) async fn tables(pipeline: &Pipeline<'_>) -> Vec<String> {
    let sql = "SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name";
    pipeline.clickhouse().query(sql).fetch_all().await.unwrap()
}

pub(crate) async fn execute(pipeline: &Pipeline<'_>, sql: &str) {
    pipeline.clickhouse().query(sql).execute().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_makes_has_no_problem_before_the_first_record_and_while_records_come() {
    let settings = "max_delay = '50ms'";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let before = doctor(&pipeline).await;
    assert_eq!((before.code, before.at("problem")), (Some(0), Vec::new()), "{}", before.stderr);
    before.assert("ok", "probe", "event_log dropped a repeated insert");
    before.assert("ok", "insert-settings", "");
    before.assert("ok", "group", "no consumer is running");
    before.assert("warning", "topics", "no topic matches");

    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..10);
    pipeline.arrived("event_log", 10).await.unwrap();
    let objects = tables(&pipeline).await;
    // Rows of the table, not of defaults, go into its twin now.
    for n in 1..4 {
        let found = doctor(&pipeline).await;
        assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
        found.assert("ok", "probe", "dropped a repeated insert");
        found.assert("ok", "group", &format!("has `{}/0`", feed.topic));
        found.assert("ok", "routes", "every topic has a route");
        found.assert("ok", "dead-letters", "0 topics there, 1 more created");
        feed.send_all(n * 10..n * 10 + 10);
    }
    pipeline.arrived("event_log", 40).await.unwrap();
    assert_eq!(tables(&pipeline).await, objects);
    let log = consumer.log_text();
    assert_eq!(log.matches("consumer started").count(), 1, "{log}");
    assert!(!log.contains("tables have changed"), "{log}");
    consumer.stop().await.unwrap();

    let text = pipeline.consumer_output(&["doctor", "--no-probe"]).await.unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("deduplication") && !text.contains("probe"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_forgets_inserts_is_found_by_its_setting_and_by_proof() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    execute(
        &pipeline,
        "ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 0",
    )
    .await;
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    assert!(found.stderr.contains("2 problems found"), "{}", found.stderr);
    found.assert("problem", "probe", "event_log stored an insert twice");
    // What is not tried is judged by the setting alone.
    let unprobed = doctor_with(&pipeline, &["--no-probe"]).await;
    assert_eq!((unprobed.code, unprobed.at("problem").len()), (Some(3), 1));
    execute(&pipeline, &found.fix("deduplication", "remembers 0 inserts")).await;
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);

    // At-least-once asks none of it.
    execute(
        &pipeline,
        "ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 0",
    )
    .await;
    pipeline.set("OUTPOUR_CONSUMER_DELIVERY=at-least-once").unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
    found.assert("ok", "deduplication", "not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_routes_that_do_not_fit_are_found_and_their_fixes_work() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let missing = doctor(&pipeline).await;
    assert_eq!(missing.code, Some(3), "{}", missing.stderr);
    assert_eq!(missing.fix("table", "event_log does not exist"), "outpour-consumer init");

    let topic = pipeline.topic("number");
    let route = format!("[[routes]]\ntopic = '{topic}'\ntable = 'numbers'\ncolumns = ");
    pipeline.configure(&format!("{route}{{ event_id = '$id', absent = '$key' }}\n")).unwrap();
    let create = "CREATE TABLE numbers (event_id UUID, n UInt8, note String DEFAULT 'x',
        _offset UInt32) ENGINE = MergeTree ORDER BY n
        SETTINGS non_replicated_deduplication_window = 10000";
    execute(&pipeline, create).await;
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    found.fix("columns", "has no column `absent`");
    execute(&pipeline, &found.fix("provenance", "has no `_topic`, `_partition`")).await;
    execute(&pipeline, &found.fix("provenance", "`_offset` of")).await;
    pipeline.configure(&format!("{route}{{ event_id = '$id' }}\n")).unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
    assert!(!found.findings.iter().any(|finding| finding["check"] == "time-zone"));
    found.assert("ok", "columns", "has nothing for `n`");
    found.assert("ok", "provenance", "ADD INDEX");

    // Two ways into one table, one of them for types that the other has, too.
    let _feed = Feed::of(&pipeline, "number").await;
    let twice = format!(
        "{route}{{}}\n[[routes]]\ntopic = '^.*number'\ntable = 'numbers'\nevent_types = ['happened']\n\
         [[routes]]\ntopic = 'elsewhere'\ntable = 'numbers'\n"
    );
    pipeline.configure(&twice).unwrap();
    let found = doctor(&pipeline).await;
    found.fix("routes", &format!("two routes put records of `{topic}`"));
    found.assert("warning", "routes", "`elsewhere`");
    let other = Feed::of(&pipeline, "other").await;
    let found = doctor(&pipeline).await;
    found.assert("warning", "routes", &format!("no route takes `{}`", other.topic));

    execute(
        &pipeline,
        "CREATE TABLE buffer AS numbers ENGINE = Buffer(currentDatabase(), numbers,
        1, 1, 1, 1, 1, 1, 1)",
    )
    .await;
    pipeline.configure(&format!("[[routes]]\ntopic = '{topic}'\ntable = 'buffer'\n")).unwrap();
    let found = doctor(&pipeline).await;
    found.assert("problem", "deduplication", "engine Buffer, which keeps rows in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_missing_or_lose_records_are_found() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "").await.unwrap();
    let (brief, compacted) = (pipeline.topic("brief"), pipeline.topic("compacted"));
    create_topic(stack, &brief, &[("retention.ms", "3600000"), ("retention.bytes", "1000")]).await;
    let large = [("cleanup.policy", "compact"), ("max.message.bytes", "5000000")];
    create_topic(stack, &compacted, &large).await;
    let letters = format!("outpour.dead-letter.{brief}");
    create_topic(stack, &letters, &[("max.message.bytes", "1000")]).await;
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    found.assert("warning", "retention", &format!("less than 24 h: `{brief}`"));
    found.assert("warning", "retention", &format!("1 GiB a partition: `{brief}`"));
    found.assert("warning", "retention", &format!("compacted: `{compacted}`"));
    // What a record of its source takes, and 64 KiB for a letter's own headers.
    assert!(found.fix("dead-letters", &format!("`{letters}` takes 1000")).contains("1114124"));

    pipeline.set("OUTPOUR_CONSUMER_DEAD_LETTER_REPLICATION_FACTOR=3").unwrap();
    pipeline.set("OUTPOUR_CONSUMER_SESSION_TIMEOUT=45m").unwrap();
    pipeline.set(&format!("OUTPOUR_CONSUMER_TOPICS={}.absent,{letters}", pipeline.name)).unwrap();
    let found = doctor(&pipeline).await;
    found.assert("problem", "topics", &format!("topic `{}.absent`", pipeline.name));
    found.assert("problem", "topics", &format!("hold no events: `{letters}`"));
    found.assert("problem", "dead-letters", "the cluster has 1 brokers");
    found.assert("problem", "session-timeout", "2700000 ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_stands_outside_the_log_is_found() {
    let settings = "max_delay = '50ms'";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..10);
    pipeline.arrived("event_log", 10).await.unwrap();
    consumer.stop().await.unwrap();
    doctor(&pipeline).await.assert("ok", "offsets", "1 partitions, 0 offsets behind");

    feed.send_all(10..30);
    pipeline.reader(&feed.topic).unwrap().take(30, |_| Some(())).unwrap();
    doctor(&pipeline).await.assert("ok", "offsets", "20 offsets behind");
    let mut removed = TopicPartitionList::new();
    removed.add_partition_offset(&feed.topic, 0, Offset::Offset(20)).unwrap();
    feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();
    let gone = doctor(&pipeline).await;
    assert_eq!(gone.code, Some(3), "{}", gone.stderr);
    let fix = gone.fix("offsets", &format!("stands at offset 10 of {}/0", feed.topic));
    assert!(fix.contains("outpour-consumer run --accept-gap"), "{fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_cannot_be_asked_does_not_hide_the_other() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    pipeline.set("OUTPOUR_CLICKHOUSE_URL=http://127.0.0.1:1").unwrap();
    pipeline.set("OUTPOUR_CLICKHOUSE_PASSWORD=hunter2").unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(found.stderr.contains("ClickHouse at http://127.0.0.1:1"), "{}", found.stderr);
    found.assert("problem", "clickhouse", "127.0.0.1:1");
    found.assert("ok", "topics", &feed.topic);
    let said = format!("{}{}", Value::from(found.findings.clone()), found.stderr);
    assert!(!said.contains("hunter2"), "{said}");

    std::fs::remove_file(pipeline.file(".env")).unwrap();
    pipeline.set("OUTPOUR_KAFKA_BROKERS=127.0.0.1:1").unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    found.assert("problem", "kafka", "127.0.0.1:1");
    found.assert("ok", "probe", "dropped a repeated insert");
}
