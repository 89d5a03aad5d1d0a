//! What services are shown: the examples of the library, and docs/services.md.

use std::{
    path::Path,
    process::{Command as Blocking, Stdio},
};

use integration_tests::{
    http,
    pipeline::{PATIENCE, Pipeline, header},
    program::example,
    stack::Stack,
};
use rdkafka::Message;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::repository::read;

/// The code blocks of one language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = read(document);
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```") == Some(language) {
            let block: Vec<_> =
                lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push(block.join("\n") + "\n");
        }
    }
    assert!(!blocks.is_empty(), "{document} has no {language}");
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sql_statement_of_the_document_publishes_its_event() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, total numeric)").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let mut types = Vec::new();
    for block in blocks("docs/services.md", "sql") {
        client.batch_execute(&block).await.unwrap_or_else(|error| panic!("{block}: {error:?}"));
        let event = reader.take(1, |message| {
            assert_eq!(message.key(), Some(b"4711".as_slice()));
            header(message, "eventType")
        });
        types.extend(event.unwrap());
    }
    assert_eq!(types, ["order_placed", "order_paid", "order_shipped"]);
}

#[test]
fn the_python_of_the_document_compiles() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (index, block) in blocks("docs/services.md", "python").into_iter().enumerate() {
        let file = dir.join(format!("services-{index}.py"));
        std::fs::write(&file, block).unwrap();
        let output = Blocking::new("python3").args(["-m", "py_compile"]).arg(&file).output();
        let output = output.expect("python3 is needed, as it is for the native services");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_service_commits_an_order_and_its_event_together() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let mut service = Command::new(example("axum_service").await.unwrap())
        .env("DATABASE_URL", &pipeline.postgres_url)
        .env("LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(service.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, said.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").unwrap().to_owned();
    let trace = format!("traceparent: {TRACE}");
    let order = async |body: &str| http::post(&address, "/orders", &trace, body).await.unwrap();

    let (status, id) = order(r#"{"customer": "ada", "total": "19.99"}"#).await;
    assert_eq!(status, 201, "{id}");
    // What the service refuses and what the database refuses leave nothing.
    assert_eq!(order(r#"{"customer": "ada"}"#).await.0, 400);
    assert_eq!(order(r#"{"customer": "ada", "total": "-1"}"#).await.0, 503);
    let (status, last) = order(r#"{"customer": "bob", "total": "0.01"}"#).await;
    assert_eq!(status, 201, "{last}");

    for table in ["orders", "outbox"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(rows, 2, "{table}");
    }
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let mut events = reader
        .take(2, |message| {
            assert_eq!(header(message, "traceparent").as_deref(), Some(TRACE));
            assert_eq!(header(message, "eventType").as_deref(), Some("order_placed"));
            let payload = serde_json::from_slice::<serde_json::Value>(message.payload()?).unwrap();
            let key = String::from_utf8_lossy(message.key()?).into_owned();
            Some((key, payload["customer"].to_string(), payload["total"].to_string()))
        })
        .unwrap();
    events.sort_by_key(|(key, ..)| key.parse::<i64>().unwrap());
    let event = |id: &str, customer: &str, total: &str| {
        (id.trim().to_owned(), format!("\"{customer}\""), format!("\"{total}\""))
    };
    assert_eq!(events, [event(&id, "ada", "19.99"), event(&last, "bob", "0.01")]);

    let pid = Pid::from_raw(service.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = timeout(PATIENCE, service.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_producer_sends_what_it_reads_and_ends_with_all_of_it_acknowledged() {
    const READINGS: usize = 2000;
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut service = Command::new(example("event_producer").await.unwrap())
        .env("KAFKA", pipeline.stack.kafka.url())
        .env("TOPIC_PREFIX", pipeline.topic(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = service.stdin.take().unwrap();
    let readings: String = (0..READINGS).map(|n| format!("{n}\n")).collect();
    input.write_all(readings.as_bytes()).await.unwrap();
    drop(input);
    let output = timeout(PATIENCE, service.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("everything is acknowledged\n"), "{said}");

    let reader = pipeline.reader(&pipeline.topic("sensor")).unwrap();
    assert_eq!(reader.written().unwrap(), READINGS + 1);
    let values = reader
        .take(READINGS + 1, |message| {
            let payload = serde_json::from_slice::<serde_json::Value>(message.payload()?).ok()?;
            Some(payload["value"].as_str()?.to_owned())
        })
        .unwrap();
    let expected =
        std::iter::once("started".to_owned()).chain((0..READINGS).map(|n| n.to_string()));
    assert_eq!(values, expected.collect::<Vec<_>>());
}
