//! Many rows, and a consumer at work.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use serde_json::{Value, json};

use super::{ranges, reconcile, send_typed};
use crate::{consumer::Feed, consumer_tables::numbers};

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_at_every_moment_while_the_consumer_works() {
    const EVENTS: u64 = 30_000;
    let (pipeline, _) = numbers("").await;
    pipeline.route("number", "numbers", "max_rows = 300\nmax_delay = '20ms'").unwrap();
    let feed = Feed::with_partitions(&pipeline, "number", 3).await;
    for n in 0..EVENTS {
        feed.send(n, &format!("{{\"n\": {}}}", if n % 100 == 7 { 300 } else { n % 200 }));
    }
    let consumer = pipeline.consumer().unwrap();
    let (mut amidst, mut looks) = (0, 0);
    loop {
        let output = pipeline.consumer_output(&["reconcile", "--json"]).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && error.contains("committed nothing") {
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{error}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let totals = &report["totals"];
        let seen = totals["expected"].as_u64().unwrap() + totals["parked"].as_u64().unwrap();
        looks += 1;
        if seen == EVENTS {
            assert_eq!(totals["parked"], EVENTS / 100);
            break;
        }
        amidst += u32::from(seen > 0);
    }
    assert!(amidst > 0, "none of {looks} looks was in the midst of it");
    consumer.stop().await.unwrap();
}

/// More with `OUTPOUR_RECONCILE_ROWS`, which then shows how long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_compared_in_one_pass() {
    let rows =
        std::env::var("OUTPOUR_RECONCILE_ROWS").map_or(200_000, |rows| rows.parse().unwrap());
    large(rows).await.unwrap();
}

async fn large(rows: u64) -> Result<()> {
    let pipeline = Pipeline::new(Stack::shared().await?, "").await?;
    pipeline.route("flight", "flights", "")?;
    pipeline.execute("CREATE TABLE flights (event_id UUID, carrier LowCardinality(String), flight UInt32, delay Int32, \
         _topic LowCardinality(String), _partition UInt32, _offset UInt64, INDEX provenance _offset TYPE minmax) \
         ENGINE = MergeTree ORDER BY (carrier, flight) \
         SETTINGS non_replicated_deduplication_window = 10000").await.unwrap();
    let feed = Feed::with_partitions(&pipeline, "flight", 6).await;
    let event = |n: u64| {
        let payload =
            format!("{{\"carrier\":\"{}\",\"flight\":{},\"delay\":{}}}", n % 17, n % 9999, n % 90);
        (n, "flight_departed", payload)
    };
    tokio::task::block_in_place(|| send_typed(&pipeline, &feed.topic, (0..rows).map(event)));
    let consumer = pipeline.consumer()?;
    let patience = PATIENCE + Duration::from_micros(rows * 20);
    eventually(patience, async || {
        let (committed, lag) = pipeline.committed_and_lag().await?;
        ensure!(committed == rows.cast_signed() && lag == 0, "committed {committed}, lag {lag}");
        Ok(())
    })
    .await?;
    consumer.stop().await?;
    let mut told = Vec::new();
    for (change, code, closely) in [
        (None, 0, 0),
        (
            Some(
                "ALTER TABLE flights DELETE WHERE _partition = 2 AND _offset IN (11, 12, 20000) SETTINGS mutations_sync = 2",
            ),
            3,
            2,
        ),
    ] {
        if let Some(sql) = change {
            pipeline.execute(sql).await.unwrap();
        }
        let began = Instant::now();
        let (found, report) = reconcile(&pipeline, &[]).await;
        told.push(format!("{:.1} s", began.elapsed().as_secs_f64()));
        ensure!(found == Some(code), "{report:#}");
        ensure!(report["looked_at_closely"] == closely, "{}", report["looked_at_closely"]);
        ensure!(report["totals"]["expected"] == rows, "{}", report["totals"]);
        let missing = ranges(&report, "missing");
        ensure!(
            code == 0 || missing == [json!([2, 11, 13, 2]), json!([2, 20000, 20001, 1])],
            "{missing:?}"
        );
    }
    println!("{rows} rows compared in {}, then, three missing, in {}", told[0], told[1]);
    Ok(())
}
