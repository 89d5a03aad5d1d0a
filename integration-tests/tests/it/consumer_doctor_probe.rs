//! The proof that what views write to drops a repeated insert, too, and that
//! nothing is left of it.

use std::process::Stdio;

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    program::Binary,
    stack::Stack,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::consumer_doctor::{doctor, execute, tables};

/// A pipeline into the table `numbers`, which has these rows.
async fn numbers(rows: &str) -> Pipeline<'static> {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let topic = pipeline.topic("number");
    pipeline.configure(&format!("[[routes]]\ntopic = '{topic}'\ntable = 'numbers'\n")).unwrap();
    execute(
        &pipeline,
        "CREATE TABLE numbers (n UInt8, at Date, _topic LowCardinality(String), _partition UInt32,
           _offset UInt64) ENGINE = MergeTree PARTITION BY at ORDER BY n
         SETTINGS non_replicated_deduplication_window = 10000",
    )
    .await;
    if !rows.is_empty() {
        execute(&pipeline, &format!("INSERT INTO numbers (n, at) VALUES {rows}")).await;
    }
    pipeline
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_target_forgets_is_found_by_name_wherever_it_hangs() {
    // In two partitions of the table.
    let pipeline = numbers("(1, '2026-01-01'), (2, '2026-01-02')").await;
    for sql in [
        // One that sums up, one of its own on top, and one beyond a table that keeps nothing.
        "CREATE TABLE sums (n UInt8, c UInt64) ENGINE = SummingMergeTree ORDER BY n
         SETTINGS non_replicated_deduplication_window = 10000",
        "CREATE MATERIALIZED VIEW summed TO sums AS
         SELECT numbers.n, count() AS c FROM numbers GROUP BY numbers.n",
        "CREATE MATERIALIZED VIEW own ENGINE = MergeTree ORDER BY n AS SELECT n FROM sums",
        "CREATE TABLE through (n UInt8) ENGINE = Null",
        "CREATE MATERIALIZED VIEW passed TO through AS SELECT n FROM numbers",
        "CREATE TABLE `the end` (n UInt8) ENGINE = ReplacingMergeTree ORDER BY n",
        "CREATE MATERIALIZED VIEW ended TO `the end` AS SELECT n FROM through",
    ] {
        execute(&pipeline, sql).await;
    }
    let before = tables(&pipeline).await;
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    found.assert("ok", "probe", "numbers dropped a repeated insert");
    let proved = found.assert("ok", "probe", "summed writes to, dropped a repeated insert");
    assert!(!proved["what"].as_str().unwrap().contains("in the place of"), "{proved}");
    let database = &pipeline.clickhouse_database;
    for view in ["own", "ended"] {
        let twice = format!("view {database}.{view} writes to, stored an insert twice");
        execute(&pipeline, &found.fix("probe", &twice)).await;
        found.fix("views", &format!("view {database}.{view} on"));
    }
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
    assert_eq!(found.findings.iter().filter(|f| f["check"] == "probe").count(), 4);
    assert_eq!(tables(&pipeline).await, before);
    // Nor has anything come into the tables themselves.
    let rows: u64 =
        pipeline.clickhouse().query("SELECT count() FROM numbers").fetch_one().await.unwrap();
    let ended: u64 =
        pipeline.clickhouse().query("SELECT count() FROM `the end`").fetch_one().await.unwrap();
    assert_eq!((rows, ended), (2, 0));
}

/// What a server takes only if it is asked to, it took when the table was made.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_proves_a_table_of_suspicious_types() {
    let pipeline = numbers("").await;
    let permitting = ["low_cardinality_types", "fixed_string_types", "codecs", "primary_key"];
    let permitting = permitting
        .map(|name| format!("allow_suspicious_{name}"))
        .into_iter()
        .fold(pipeline.clickhouse(), |client, name| client.with_setting(name, "1"));
    execute(&pipeline, "DROP TABLE numbers").await;
    let sql = "CREATE TABLE numbers (n UInt8, v LowCardinality(UInt16), f FixedString(300),
           c UInt64 CODEC(Delta, Delta), _topic LowCardinality(String), _partition UInt32,
           _offset UInt64) ENGINE = MergeTree ORDER BY v
         SETTINGS non_replicated_deduplication_window = 10000";
    permitting.query(sql).execute().await.unwrap();
    let found = doctor(&pipeline).await;
    found.assert("ok", "probe", "numbers dropped a repeated insert");
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()), "{}", found.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_lets_no_row_pass_is_proved_by_a_query_in_its_place() {
    let pipeline = numbers("(1, '2026-01-01')").await;
    for sql in [
        "CREATE TABLE sums (n UInt8, c UInt64) ENGINE = SummingMergeTree ORDER BY n",
        "CREATE MATERIALIZED VIEW rare TO sums AS SELECT n, 1 AS c FROM numbers WHERE n > 100",
    ] {
        execute(&pipeline, sql).await;
    }
    let before = tables(&pipeline).await;
    let found = doctor(&pipeline).await;
    let fix = found.fix("probe", "rare writes to, stored an insert twice");
    execute(&pipeline, &fix).await;
    let found = doctor(&pipeline).await;
    found.assert("ok", "probe", "by a query in the place of the view's own");
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert_eq!(tables(&pipeline).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_half_way_says_so_and_leaves_nothing() {
    let pipeline = numbers("(1, '2026-01-01')").await;
    for sql in [
        "CREATE TABLE sums (n UInt8) ENGINE = MergeTree ORDER BY n
         SETTINGS non_replicated_deduplication_window = 10000",
        "CREATE MATERIALIZED VIEW thrown TO sums AS SELECT n + throwIf(n = 1) AS n FROM numbers",
    ] {
        execute(&pipeline, sql).await;
    }
    let before = tables(&pipeline).await;
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let warning = found.assert("warning", "probe", "inserting into the twin of the table failed");
    let what = warning["what"].as_str().unwrap();
    assert!(what.contains("thrown") && !what.contains("outpour_doctor"), "{what}");
    assert_eq!(tables(&pipeline).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_is_stopped_leaves_nothing() {
    let pipeline = numbers("(1, '2026-01-01')").await;
    for sql in [
        "CREATE TABLE sums (n UInt8) ENGINE = MergeTree ORDER BY n
         SETTINGS non_replicated_deduplication_window = 10000",
        "CREATE MATERIALIZED VIEW slow TO sums AS SELECT n + sleepEachRow(2) AS n FROM numbers",
    ] {
        execute(&pipeline, sql).await;
    }
    let before = tables(&pipeline).await;
    let mut command = Command::new(Binary::Consumer.path().unwrap());
    command.args(["doctor", "--json", "--config"]).arg(pipeline.config());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    eventually(PATIENCE, async || {
        let now = tables(&pipeline).await;
        ensure!(now.len() == before.len() + 3, "{now:?}");
        Ok(())
    })
    .await
    .unwrap();
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("told to stop"), "{stderr}");
    assert_eq!(tables(&pipeline).await, before);
}
