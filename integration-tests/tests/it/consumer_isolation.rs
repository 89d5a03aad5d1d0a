//! What is wrong with one table, or with one row: nothing else hears of it.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, succeeded},
    program::Program,
    stack::Stack,
};

use crate::consumer::Feed;

/// A pipeline whose topics go to tables of their names, each with further columns and
/// what else is to be said of it.
async fn pipeline(tables: &[(&str, &str)]) -> (Pipeline<'static>, Vec<Feed>) {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let (mut settings, mut feeds) = ("max_delay = '200ms'\n".to_owned(), Vec::new());
    for (table, columns) in tables {
        let topic = pipeline.topic(table);
        settings += &format!(
            "[[routes]]\ntopic = '{topic}'\ntable = '{table}'\ncolumns = {{ event_id = '$id' }}\n"
        );
        create(&pipeline, table, columns).await;
        feeds.push(Feed::of(&pipeline, table).await);
    }
    pipeline.configure(&settings).unwrap();
    (pipeline, feeds)
}

async fn create(pipeline: &Pipeline<'_>, table: &str, columns: &str) {
    let sql = format!(
        "CREATE TABLE {table} (event_id UUID, n Int32, _topic LowCardinality(String),
           _partition UInt32, _offset UInt64{columns})
         ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000"
    );
    let permitting = pipeline
        .clickhouse()
        .with_setting("allow_suspicious_low_cardinality_types", "1")
        .with_setting("allow_suspicious_fixed_string_types", "1");
    permitting.query(&sql).execute().await.unwrap();
}

/// The offsets of what is parked of a topic.
fn parked(pipeline: &Pipeline<'_>, topic: &str, count: usize) -> Vec<i64> {
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    let letters = reader.take(count, |message| {
        assert_eq!(header(message, "outpour-reason").as_deref(), Some("refused_by_clickhouse"));
        header(message, "outpour-source-offset")?.parse().ok()
    });
    reader.nothing_more().unwrap();
    letters.unwrap()
}

/// Waits until the log has said so about a table.
async fn told(consumer: &Program, what: &str, table: &str) {
    eventually(PATIENCE, async || {
        let log = consumer.log_text();
        let is_it = |line: &&str| line.contains(what) && line.contains(table);
        ensure!(log.lines().any(|line| is_it(&line)), "nothing of {table} says {what}:\n{log}");
        Ok(())
    })
    .await
    .unwrap();
}

fn nobody_started_over(consumer: &Program, partitions: usize) {
    let log = consumer.log_text();
    assert_eq!(log.matches("partition assigned").count(), partitions, "{log}");
    assert!(!log.contains("starting over from the committed plans"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_keeps_other_partitions_when_one_table_is_refused() {
    let long = ", code String, c FixedString(3) MATERIALIZED toFixedString(code, 3)";
    let tables = [("healthy", ""), ("long", long), ("viewed", ", x Int32"), ("always", "")];
    let (pipeline, feeds) = pipeline(&tables).await;
    for sql in [
        "CREATE TABLE seen (x Int32) ENGINE = MergeTree ORDER BY x
         SETTINGS non_replicated_deduplication_window = 10000",
        "CREATE MATERIALIZED VIEW seeing TO seen AS SELECT x FROM viewed",
        "ALTER TABLE viewed RENAME COLUMN x TO y",
        // Refuses whatever comes.
        "ALTER TABLE always ADD COLUMN part String MATERIALIZED extract('abc', toString(n))",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    let [healthy, long, viewed, always] = feeds.as_slice() else { panic!() };
    let consumer = pipeline.consumer().unwrap();
    healthy.send(0, r#"{"n": 0}"#);
    for (id, code) in ["abc", "abcd", "xyz"].into_iter().enumerate() {
        long.send(id as u64, &format!("{{\"n\": {id}, \"code\": \"{code}\"}}"));
    }
    viewed.send(0, r#"{"n": 0, "y": 7}"#);
    always.send(0, r#"{"n": 0}"#);
    told(&consumer, "somebody has to act", ".viewed").await;
    told(&consumer, "somebody has to act", ".always").await;
    pipeline.arrived("long", 2).await.unwrap();
    assert_eq!(parked(&pipeline, &long.topic, 1), [1]);
    for id in 1..5 {
        healthy.send(id, &format!("{{\"n\": {id}}}"));
        pipeline.arrived("healthy", id + 1).await.unwrap();
    }
    nobody_started_over(&consumer, tables.len());
    // Mended, both go on where they stood.
    for sql in [
        "DROP VIEW seeing",
        "CREATE MATERIALIZED VIEW seeing TO seen AS SELECT y AS x FROM viewed",
        "ALTER TABLE always DROP COLUMN part",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    pipeline.at_rest(0).await.unwrap();
    pipeline.arrived("viewed", 1).await.unwrap();
    pipeline.arrived("always", 1).await.unwrap();
    let seen: Vec<i32> =
        pipeline.clickhouse().query("SELECT x FROM seen").fetch_all().await.unwrap();
    assert_eq!(seen, [7]);
    nobody_started_over(&consumer, tables.len());
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_parks_the_row_that_is_refused_whatever_the_code_and_stores_the_others_once() {
    // Division by zero, a pattern that is none, a cipher's length, a string too long.
    let computed = ", d Int32 DEFAULT 1, q Int32 MATERIALIZED intDiv(n, d), s String DEFAULT '',
         r UInt8 MATERIALIZED match('abc', s), k String DEFAULT '',
         e String MATERIALIZED decrypt('aes-128-ecb', k, '0123456789abcdef'), m Int64 DEFAULT 0,
         l UInt64 MATERIALIZED length(repeat('x', m))";
    let tables = [("computed", computed), ("first", ""), ("later", "")];
    let (pipeline, feeds) = pipeline(&tables).await;
    // The partition of the refused row, and of those below 1, comes after one that is stored:
    // in the whole batch, or in a part of it alone.
    let sorted = [("first", &[1, -1, 0, 1, -1][..]), ("later", &[-1, 1, 1, 0, 1, 1, 1, 1])];
    for ((table, numbers), feed) in sorted.iter().zip(&feeds[1..]) {
        pipeline.execute(&format!("DROP TABLE {table}")).await.unwrap();
        let sql = format!(
            "CREATE TABLE {table} (event_id UUID, z Int32, _topic LowCardinality(String),
               _partition UInt32, _offset UInt64) ENGINE = MergeTree PARTITION BY z < 1
             ORDER BY intDiv(1, z) SETTINGS non_replicated_deduplication_window = 10000"
        );
        pipeline.execute(&sql).await.unwrap();
        for (id, z) in (0..).zip(*numbers) {
            feed.send(id, &format!("{{\"z\": {z}}}"));
        }
    }
    let computed = &feeds[0];
    let refused = [r#""d": 0"#, r#""s": "(""#, r#""k": "x""#, r#""m": 100000000000"#];
    for (id, bad) in refused.iter().enumerate() {
        computed.send(2 * id as u64, &format!("{{\"n\": {id}}}"));
        computed.send(2 * id as u64 + 1, &format!("{{\"n\": {id}, {bad}}}"));
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.at_rest(21).await.unwrap();
    for (table, rows) in [("computed", 4), ("first", 4), ("later", 7)] {
        pipeline.arrived(table, rows).await.unwrap();
    }
    assert_eq!(parked(&pipeline, &computed.topic, 4), [1, 3, 5, 7]);
    assert_eq!(parked(&pipeline, &feeds[1].topic, 1), [2]);
    assert_eq!(parked(&pipeline, &feeds[2].topic, 1), [3]);
    nobody_started_over(&consumer, 3);
    consumer.stop().await.unwrap();
    // Nor does what is sent again wait for ever.
    let again = pipeline.consumer_output(&["dlq", "replay", "--yes", "--json"]).await.unwrap();
    succeeded(&again).unwrap();
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["letters"], &again["replayed"]), (&6.into(), &0.into()), "{again}");
    let into = ["replay", "--topic", &computed.topic, "--into", "other", "--json"];
    let other = pipeline.consumer_output(&into).await.unwrap();
    succeeded(&other).unwrap();
    pipeline.arrived("other", 4).await.unwrap();
    pipeline.arrived("computed", 4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_outlives_the_ddl_of_tables_and_goes_on_when_they_are_mended() {
    let names = ["healthy", "variant", "renamed", "summed", "dropped"];
    let (pipeline, feeds) = pipeline(&names.map(|name| (name, ""))).await;
    let send = |id: u64| feeds.iter().for_each(|feed| feed.send(id, &format!("{{\"n\": {id}}}")));
    let consumer = pipeline.consumer().unwrap();
    send(0);
    for table in names {
        pipeline.arrived(table, 1).await.unwrap();
    }
    for sql in [
        "ALTER TABLE variant ADD COLUMN v Variant(String, UInt64)",
        "ALTER TABLE renamed RENAME COLUMN event_id TO id",
        "ALTER TABLE summed ADD COLUMN s AggregateFunction(sum, UInt64)",
        "RENAME TABLE dropped TO away",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    told(&consumer, "column left out of every row", ".variant").await;
    for held_back in ["renamed", "summed", "dropped"] {
        told(&consumer, "held back; somebody has to act", held_back).await;
    }
    send(1);
    pipeline.arrived("healthy", 2).await.unwrap();
    pipeline.arrived("variant", 2).await.unwrap();
    nobody_started_over(&consumer, names.len());
    consumer.stop().await.unwrap();
    // It also starts.
    let consumer = pipeline.consumer().unwrap();
    send(2);
    pipeline.arrived("healthy", 3).await.unwrap();
    pipeline.arrived("variant", 3).await.unwrap();
    for sql in [
        "ALTER TABLE renamed RENAME COLUMN id TO event_id",
        "ALTER TABLE summed DROP COLUMN s",
        "RENAME TABLE away TO dropped",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    for table in names {
        pipeline.arrived(table, 3).await.unwrap();
    }
    nobody_started_over(&consumer, 2 * names.len());
    consumer.stop().await.unwrap();
}

/// A type that the server wants to be asked for twice is no other once rows are refused.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_stores_in_parts_whatever_a_plain_insert_takes() {
    let columns = ", v LowCardinality(UInt16), f FixedString(300), d UInt8 DEFAULT 7,
         a Array(LowCardinality(Nullable(String))), j JSON, CONSTRAINT below_100 CHECK n < 100";
    let (pipeline, feeds) = pipeline(&[("suspicious", columns)]).await;
    for (id, n) in [1, 100, 3].into_iter().enumerate() {
        let given = if n == 3 { ", \"d\": 8" } else { "" };
        let payload = format!(
            r#"{{"n": {n}, "v": {n}, "f": "f{n}", "a": [null, "a{n}"], "j": {{"n": {n}}}{given}}}"#
        );
        feeds[0].send(id as u64, &payload);
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("suspicious", 2).await.unwrap();
    assert_eq!(parked(&pipeline, &feeds[0].topic, 1), [1]);
    let sql = "SELECT toString((v, toStringCutToZero(f), d, a, j.n)) FROM suspicious ORDER BY n";
    let rows: Vec<String> = pipeline.clickhouse().query(sql).fetch_all().await.unwrap();
    assert_eq!(rows, ["(1,'f1',7,[NULL,'a1'],1)", "(3,'f3',8,[NULL,'a3'],3)"]);
    consumer.stop().await.unwrap();
}
