//! Tables of engines that merge rows: what was merged away is not missing, and nothing
//! brings an older row back.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use serde_json::Value;

use crate::{consumer::Feed, consumer_doctor::doctor_with};

const COLUMNS: &str = "event_id UUID, k UInt8, v UInt32, _topic LowCardinality(String), \
                       _partition UInt32, _offset UInt64";

fn routes(pipeline: &Pipeline<'_>, tables: &[&str]) {
    let topic = pipeline.topic("value");
    let route = |table: &&str| {
        format!(
            "[[routes]]\ntopic = '{topic}'\ntable = '{table}'\ncolumns = {{ event_id = '$id' }}\n"
        )
    };
    let routes: String = tables.iter().map(route).collect();
    pipeline.configure(&format!("max_delay = '50ms'\n{routes}")).unwrap();
}

async fn values(pipeline: &Pipeline<'_>, table: &str) -> Vec<(u8, u32)> {
    let sql = format!("SELECT k, v FROM {table} FINAL ORDER BY k");
    pipeline.clickhouse().query(&sql).fetch_all().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_and_replay_leave_rows_that_were_merged_away() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let settings = "SETTINGS non_replicated_deduplication_window = 10000";
    for (table, engine, key) in [
        ("latest", "ReplacingMergeTree", "k"),
        ("versioned", "ReplacingMergeTree(_offset)", "k"),
        ("sums", "SummingMergeTree", "k"),
        ("apart", "SummingMergeTree", "(k, _topic, _partition, _offset)"),
    ] {
        let sql =
            format!("CREATE TABLE {table} ({COLUMNS}) ENGINE = {engine} ORDER BY {key} {settings}");
        pipeline.execute(&sql).await.unwrap();
    }
    let all = ["latest", "versioned", "sums", "apart"];
    routes(&pipeline, &all);
    let feed = Feed::of(&pipeline, "value").await;
    let consumer = pipeline.consumer().unwrap();
    for (n, v) in (0..).zip([1, 2]) {
        feed.send(n, &format!("{{\"k\": 1, \"v\": {v}}}"));
        pipeline.arrived("apart", n + 1).await.unwrap();
    }
    feed.send(2, "{\"k\": 2, \"v\": 7}");
    pipeline.arrived("apart", 3).await.unwrap();
    pipeline.at_rest(3).await.unwrap();
    consumer.stop().await.unwrap();
    for table in all {
        pipeline.execute(&format!("OPTIMIZE TABLE {table} FINAL")).await.unwrap();
    }

    let reconcile = async |args: &[&str]| {
        let args = [&["reconcile"], args].concat();
        let output = pipeline.consumer_output(&args).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let replay = async |table: &str| {
        let args = ["replay", "--live", "--yes", "--topic", &feed.topic, "--table", table];
        let output = pipeline.consumer_output(&args).await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Sums have no offsets of their own any more.
    let (code, text) = reconcile(&[]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(".sums has engine SummingMergeTree"), "{text}");
    assert!(text.contains("materialised view"), "{text}");
    for (table, engine) in [("sums", "SummingMergeTree"), ("latest", "ReplacingMergeTree")] {
        let (code, text) = replay(table).await;
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(&format!(".{table} has engine {engine}, which")), "{text}");
    }
    let found = doctor_with(&pipeline, &["--no-probe"]).await;
    found.assert("problem", "engine", ".sums has engine SummingMergeTree");
    found.assert("warning", "engine", ".latest has engine ReplacingMergeTree");
    found.assert("ok", "engine", ".versioned: of rows of one sorting key");

    routes(&pipeline, &["latest", "versioned", "apart"]);
    for args in [&["--json"][..], &["--json", "--fix", "--yes"]] {
        let (code, text) = reconcile(args).await;
        assert_eq!(code, Some(0), "{text}");
        let report: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let of = |table: &str| {
            let compared = report["partitions"].as_array().unwrap().iter().find(|compared| {
                compared["table"].as_str().unwrap_or("").ends_with(&format!(".{table}"))
            });
            let compared = compared.unwrap();
            ["expected", "stored", "missing", "merged"]
                .map(|count| compared[count].as_u64().unwrap())
        };
        assert_eq!(of("latest"), [3, 2, 0, 1]);
        assert_eq!(of("versioned"), [3, 2, 0, 1]);
        assert_eq!(of("apart"), [3, 3, 0, 0]);
    }
    assert_eq!(values(&pipeline, "latest").await, [(1, 2), (2, 7)]);
    let (_, text) = reconcile(&[]).await;
    assert!(text.contains("as far as it keeps rows apart"), "{text}");

    // Where the offset decides, an older row may come again.
    let (code, text) = replay("versioned").await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(values(&pipeline, "versioned").await, [(1, 2), (2, 7)]);

    // What is there twice is not read again behind what is newer.
    pipeline.execute("SYSTEM STOP MERGES latest").await.unwrap();
    pipeline.execute("INSERT INTO latest SELECT * FROM latest WHERE k = 2").await.unwrap();
    let (code, text) = reconcile(&["--fix", "--yes"]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("OPTIMIZE TABLE") && text.contains("ReplacingMergeTree"), "{text}");
    assert_eq!(values(&pipeline, "latest").await, [(1, 2), (2, 7)]);
}
