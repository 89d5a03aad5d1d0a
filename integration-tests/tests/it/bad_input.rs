//! What people get wrong: one line that names it, and the right exit code.

use std::process::Output;

use integration_tests::{
    pipeline::{Pipeline, succeeded},
    stack::Stack,
};

const GOOD: &str = r#"{"aggregatetype":"order","aggregateid":"1","type":"t","payload":{"a":1}}"#;

/// Checks the exit code, that the message is one line without a panic, and
/// that it names `parts`.
pub(crate) fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let error: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(error.len(), 1, "{text}");
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    for part in parts {
        assert!(error[0].contains(part), "`{}` should name `{part}`", error[0]);
    }
}

async fn outbox_rows(pipeline: &Pipeline<'_>) -> i64 {
    let client = pipeline.postgres().await.unwrap();
    client.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_names_the_line_and_leaves_nothing_half_written() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let huge = format!(
        r#"{{"aggregatetype":"o","aggregateid":"1","type":"t","payload":"{}"}}"#,
        "x".repeat(20_000_000)
    );
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("malformed", b"{\"aggregatetype\": ".to_vec(), &["line 251"]),
        ("missing", br#"{"aggregatetype":"o","type":"t"}"#.to_vec(), &["line 251", "aggregateid"]),
        ("unknown", br#"{"aggregatetyp":"o"}"#.to_vec(), &["line 251", "aggregatetyp"]),
        ("huge", huge.into_bytes(), &["line 251", "relay.max_record_size"]),
        ("utf8", b"{\"aggregatetype\":\"\xc3\x28\"}".to_vec(), &["line 251", "UTF-8"]),
        (
            "empty_name",
            br#"{"aggregatetype":"","aggregateid":"1","type":"t"}"#.to_vec(),
            &["line 251"],
        ),
    ];
    for (name, line, parts) in cases {
        let file = pipeline.file(&format!("{name}.jsonl"));
        let mut text = format!("{GOOD}\n").repeat(250).into_bytes();
        text.extend(line);
        std::fs::write(&file, text).unwrap();
        let path = file.to_str().unwrap();
        let output =
            pipeline.relay_output(&["emit", path, "--per-transaction", "100"]).await.unwrap();
        assert_refused(&output, 1, &[&[path], parts].concat());
        assert_eq!(outbox_rows(&pipeline).await, 0, "{name}");
    }
    let empty = pipeline.file("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let output = pipeline.relay_output(&["emit", empty.to_str().unwrap()]).await.unwrap();
    assert_refused(&output, 1, &["empty.jsonl", "is empty"]);
    let output = pipeline.relay_output(&["emit", "/nowhere/x.jsonl"]).await.unwrap();
    assert_refused(&output, 1, &["/nowhere/x.jsonl"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_writes_good_lines_in_the_transactions_asked_for() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let file = pipeline.file("good.jsonl");
    std::fs::write(&file, format!("{GOOD}\n").repeat(250)).unwrap();
    let args = ["emit", file.to_str().unwrap(), "--per-transaction", "100"];
    let output = pipeline.relay_output(&args).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "250 events in 3 transactions\n");
    let client = pipeline.postgres().await.unwrap();
    let row = client
        .query_one("SELECT count(*), count(DISTINCT xmin::text) FROM outbox", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (250, 3));

    // A table of fewer columns, and a file as some editors write it.
    let fewer = "ALTER TABLE outbox DROP schema_version, DROP traceparent, DROP occurred_at,
                 ADD number bigint GENERATED ALWAYS AS IDENTITY";
    client.batch_execute(fewer).await.unwrap();
    std::fs::write(&file, format!("\u{feff}{GOOD}\r\n")).unwrap();
    succeeded(&pipeline.relay_output(&args).await.unwrap()).unwrap();
    assert_eq!(outbox_rows(&pipeline).await, 251);
    let traced = GOOD.replacen(
        '{',
        r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","#,
        1,
    );
    std::fs::write(&file, format!("{GOOD}\n{traced}\n")).unwrap();
    let output = pipeline.relay_output(&args).await.unwrap();
    assert_refused(&output, 1, &["line 2", "no column `traceparent`", "nothing was written"]);
    std::fs::write(&file, format!("[{GOOD}]")).unwrap();
    let output = pipeline.relay_output(&args).await.unwrap();
    assert_refused(&output, 1, &["line 1", "a JSON array", "jq -c"]);
    client.batch_execute("ALTER TABLE outbox DROP payload").await.unwrap();
    std::fs::write(&file, GOOD).unwrap();
    let output = pipeline.relay_output(&args).await.unwrap();
    assert_refused(&output, 1, &["no column `payload`", "outbox.column_payload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_named_and_exits_2() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let cases: [(&str, &[&str]); 4] = [
        ("max_rows = 'many'", &["batch.max_rows", "many"]),
        ("max_rowz = 1", &["max_rowz", "outpour.toml"]),
        ("max_rows = 1\n[sink]\nx = 1", &["sink"]),
        ("max_delay = '5'", &["batch.max_delay", "250ms"]),
    ];
    for (settings, parts) in cases {
        pipeline.configure(settings).unwrap();
        assert_refused(&pipeline.relay_output(&["status"]).await.unwrap(), 2, parts);
        assert_refused(&pipeline.consumer_output(&["run"]).await.unwrap(), 2, parts);
    }
    let output = pipeline.relay_output(&["fly"]).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// The pipeline's configuration with `from` replaced by `to`.
fn change(pipeline: &Pipeline<'_>, from: &str, to: &str) {
    pipeline.configure("").unwrap();
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(pipeline.config(), text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_is_named_with_the_reason() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let [kafka, clickhouse] = [pipeline.stack.kafka.url(), pipeline.stack.clickhouse.url()];

    change(&pipeline, "outpour:outpour@", "outpour:hunter2@");
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &["password authentication failed", "outpour@127.0.0.1"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));

    let address = pipeline.postgres_url.split(['@', '/']).nth(3).unwrap();
    change(&pipeline, address, "127.0.0.1:1");
    for command in ["run", "status", "init"] {
        let output = pipeline.relay_output(&[command]).await.unwrap();
        assert_refused(&output, 1, &["postgres://outpour@127.0.0.1:1/", "refused"]);
    }

    change(&pipeline, kafka, "127.0.0.1:1");
    assert_refused(&pipeline.relay_output(&["run"]).await.unwrap(), 1, &["Kafka at 127.0.0.1:1"]);
    assert_refused(
        &pipeline.consumer_output(&["run"]).await.unwrap(),
        1,
        &["Kafka at 127.0.0.1:1"],
    );

    change(&pipeline, clickhouse, "http://127.0.0.1:1");
    for command in ["run", "init"] {
        let output = pipeline.consumer_output(&[command]).await.unwrap();
        assert_refused(&output, 1, &["ClickHouse at http://127.0.0.1:1"]);
    }
    change(&pipeline, clickhouse, "ftp://example");
    let output = pipeline.consumer_output(&["run"]).await.unwrap();
    assert_refused(&output, 2, &["clickhouse.url", "ftp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_slot_publication_or_topic_is_named_with_the_remedy() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let name = pipeline.name.clone();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &["table public.outbox does not exist", "outpour-relay init"]);
    let output = pipeline.consumer_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &["event_log does not exist", "outpour-consumer init"]);

    assert!(pipeline.relay_output(&["init"]).await.unwrap().status.success());
    assert!(pipeline.relay_output(&["init"]).await.unwrap().status.success(), "init twice");
    let client = pipeline.postgres().await.unwrap();
    client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&name]).await.unwrap();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &[&format!("replication slot `{name}` does not exist"), "init"]);
    client.batch_execute(&format!("DROP PUBLICATION {name}")).await.unwrap();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &[&format!("publication `{name}` does not exist"), "init"]);
    client.batch_execute(&format!("CREATE PUBLICATION {name}")).await.unwrap();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &["ALTER PUBLICATION", "public.outbox"]);

    assert!(pipeline.consumer_output(&["init"]).await.unwrap().status.success());
    change(&pipeline, &format!("'^outbox\\.event\\.{name}\\..*'"), &format!("'{name}'"));
    let output = pipeline.consumer_output(&["run"]).await.unwrap();
    assert_refused(&output, 1, &[&format!("topic `{name}` does not exist")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_could_not_drop_a_repeated_insert_is_refused_with_the_alter() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline
        .clickhouse()
        .query("ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 0")
        .execute()
        .await
        .unwrap();
    let output = pipeline.consumer_output(&["run"]).await.unwrap();
    assert_refused(
        &output,
        3,
        &["event_log", "ALTER TABLE", "non_replicated_deduplication_window"],
    );
}
