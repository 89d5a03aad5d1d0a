//! The outbox table against Kafka.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use serde_json::{Value, json};

use super::{reconcile, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_came_to_kafka_is_told_from_one_that_waits() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..50, 10).await.unwrap();
    pipeline.arrived("event_log", 50).await.unwrap();
    pipeline.at_rest(50).await.unwrap();
    let (code, report) = reconcile(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    let outbox = |report: &Value| {
        let outbox = &report["outbox"];
        ["rows", "in_kafka", "missing", "waiting"].map(|key| outbox[key].as_u64().unwrap())
    };
    assert_eq!(outbox(&report), [50, 50, 0, 0]);

    // Who does not see all rows does not say that all are there.
    let (client, name) = (pipeline.postgres().await.unwrap(), &pipeline.name);
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    client
        .batch_execute(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'p'; GRANT SELECT ON outbox TO {name};
             ALTER TABLE outbox ENABLE ROW LEVEL SECURITY"
        ))
        .await
        .unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{name}:p@{place}")).unwrap();
    let (code, line) = refusal(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("row-level security") && line.contains("BYPASSRLS"), "{line}");
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL={}", pipeline.postgres_url)).unwrap();
    client
        .batch_execute(&format!(
            "ALTER TABLE outbox DISABLE ROW LEVEL SECURITY;
             DROP OWNED BY {name}; DROP ROLE {name}"
        ))
        .await
        .unwrap();

    // Nobody publishes it.
    relay.stop().await.unwrap();
    pipeline.commit_orders(50..51, 1).await.unwrap();
    let output = pipeline.consumer_output(&["reconcile", "--outbox", "--json"]).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("1 of the events in public.outbox did not come to Kafka, and no relay"),
        "{error}"
    );
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outbox(&report), [51, 50, 0, 1]);

    // Somebody moves the slot past it, and accepts the gap. A time may be without end.
    let lost = integration_tests::pipeline::order(50).id;
    let endless = "UPDATE outbox SET occurred_at = 'infinity' WHERE id <> $1";
    client.execute(endless, &[&lost]).await.unwrap();
    let advance = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
    client.execute(advance, &[&pipeline.name]).await.unwrap();
    let relay = pipeline.relay_with(&["--accept-gap"]).unwrap();
    pipeline.commit_orders(51..60, 3).await.unwrap();
    pipeline.arrived("event_log", 59).await.unwrap();
    pipeline.at_rest(59).await.unwrap();
    let (code, report) = reconcile(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(3), "{report:#}");
    assert_eq!(outbox(&report), [60, 59, 1, 0]);
    assert_eq!(report["outbox"]["missing_ids"], json!([lost.to_string()]));
    assert_eq!(report["totals"]["missing"], 0, "{report:#}");
    let output = pipeline.consumer_output(&["reconcile", "--outbox"]).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("missing: {lost}")), "{text}");
    // What polls takes another way, and is told so.
    let marked = "ALTER TABLE outbox ADD published_at timestamptz DEFAULT now()";
    client.batch_execute(marked).await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MODE=poll\nOUTPOUR_RELAY_POLL_AFTER=mark").unwrap();
    let (code, line) = refusal(&pipeline, &["--outbox", "--fix", "--yes"]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("set published_at to NULL"), "{line}");
    pipeline.set("OUTPOUR_RELAY_MODE=wal").unwrap();
    // The server computes a column, and takes no value for it.
    let computed = "ALTER TABLE outbox ADD kind text GENERATED ALWAYS AS (upper(type)) STORED";
    client.batch_execute(computed).await.unwrap();
    let (code, report) = reconcile(&pipeline, &["--outbox", "--fix", "--yes"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(outbox(&report), [60, 60, 0, 0]);
    pipeline.arrived("event_log", 60).await.unwrap();
    consumer.stop().await.unwrap();
    relay.stop().await.unwrap();

    client.batch_execute("DROP TABLE outbox CASCADE").await.unwrap();
    let (code, line) = refusal(&pipeline, &["--outbox"]).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("no table public.outbox (outbox.table)"), "{line}");
}
