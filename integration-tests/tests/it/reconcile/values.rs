//! Rows that are there, and do not hold what their records say.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use serde_json::{Value, json};

use super::reconcile;
use crate::{consumer::Feed, consumer_doctor::tables};

fn different(report: &Value) -> Vec<Value> {
    let different = report["different"].as_array().unwrap().iter();
    different.map(|d| json!([d["from"], d["to"], d["rows"], d["columns"]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_rows_that_do_not_hold_what_their_records_say_and_mends_them() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.route("thing", "things", "max_delay = '50ms'").unwrap();
    let create =
        "CREATE TABLE things (event_id UUID, n UInt32, v UInt32 DEFAULT 7, d Decimal(9, 4),
         at DateTime64(3, 'Asia/Tokyo'), j JSON, m Map(String, Array(Nullable(Float32))),
         s LowCardinality(Nullable(String)), p Tuple(x UInt8, y String),
         _topic LowCardinality(String), _partition UInt32, _offset UInt64)
         ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000";
    pipeline.execute(create).await.unwrap();
    let feed = Feed::of(&pipeline, "thing").await;
    for n in 0..20 {
        let v = match n {
            4 => String::new(),
            5 => "\"v\": 300,".to_owned(),
            6 => "\"v\": -1,".to_owned(),
            n => format!("\"v\": {n},"),
        };
        let s = if n % 3 == 0 { "null".to_owned() } else { format!("\"s{}\"", n % 2) };
        feed.send(
            n,
            &format!(
                "{{\"n\": {n}, {v} \"d\": 1.2399, \"at\": \"2026-01-01 00:00:00.123\", \"s\": {s}, \
                 \"j\": {{\"b\": [1, \"x\"], \"a\": {n}}}, \"m\": {{\"k\": [0.1, null]}}, \"p\": [1, \"y\"]}}"
            ),
        );
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("things", 19).await.unwrap();
    pipeline.at_rest(20).await.unwrap();
    consumer.stop().await.unwrap();
    let (code, report) = reconcile(&pipeline, &["--values"]).await;
    assert_eq!((code, different(&report)), (Some(0), vec![]), "{report:#}");

    // What nobody sees by offsets: the column was narrowed, some rows were changed.
    for sql in [
        "ALTER TABLE things MODIFY COLUMN v UInt8 DEFAULT 7",
        "ALTER TABLE things UPDATE d = 1.23 WHERE n IN (8, 9) SETTINGS mutations_sync = 2",
        "ALTER TABLE things UPDATE s = 'null', p = (1, 'z') WHERE n = 12 SETTINGS mutations_sync = 2",
        "ALTER TABLE things UPDATE v = 8 WHERE n = 4 SETTINGS mutations_sync = 2",
    ] {
        pipeline.execute(sql).await.unwrap();
    }
    let (code, report) = reconcile(&pipeline, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let (code, report) = reconcile(&pipeline, &["--values"]).await;
    assert_eq!((code, &report["totals"]["different"]), (Some(3), &4.into()), "{report:#}");
    let expected =
        [json!([5, 6, 1, ["v"]]), json!([8, 10, 2, ["d"]]), json!([12, 13, 1, ["s", "p"]])];
    assert_eq!(different(&report), expected);

    let (code, report) = reconcile(&pipeline, &["--values", "--fix", "--yes"]).await;
    assert_eq!((code, different(&report)), (Some(0), vec![]), "{report:#}");
    // 300 fits no more, and is among the letters now, with -1.
    assert_eq!(report["totals"]["parked"], 2);
    let sql =
        "SELECT n, toString(d), ifNull(s, 'NULL'), p.y FROM things WHERE n IN (8, 12) ORDER BY n";
    let rows: Vec<(u32, String, String, String)> =
        pipeline.clickhouse().query(sql).fetch_all().await.unwrap();
    let row = |n, s: &str| (n, "1.2399".to_owned(), s.to_owned(), "y".to_owned());
    assert_eq!(rows, [row(8, "s0"), row(12, "NULL")]);
    assert_eq!(tables(&pipeline).await, ["event_log", "things"], "nothing is left behind");
}
