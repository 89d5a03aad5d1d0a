//! What a relay says of itself over HTTP: progress, not life.

use std::time::{Duration, Instant};

use anyhow::ensure;
use integration_tests::{
    eventually, http,
    pipeline::{PATIENCE, Pipeline},
    program::Binary,
    stack::Stack,
};
use tokio::net::TcpListener;

use crate::probes::{address, comes_to, metrics, readyz, sample};

/// Waits until so many records are published.
async fn publishes(address: &str, records: f64) {
    eventually(PATIENCE, async || {
        let found = sample(&metrics(address).await, "outpour_relay_records_total");
        ensure!(found >= Some(records), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_published_and_show_no_secret() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    // A password that is nothing else, for a user of this test.
    let client = pipeline.postgres().await.unwrap();
    let (role, secret) = (&pipeline.name, format!("hunter2{}", pipeline.name));
    client
        .batch_execute(&format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{secret}'"))
        .await
        .unwrap();
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    let text = text.replace("outpour:outpour@", &format!("{role}@"));
    std::fs::write(pipeline.config(), text).unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_PASSWORD={secret}")).unwrap();

    let relay = pipeline.relay().unwrap();
    let address = address(&relay).await;
    comes_to(&address, 200, "active").await;
    pipeline.commit_orders(0..25, 5).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             VALUES (gen_random_uuid(), 'order', 'k', 't', to_jsonb(repeat('x', 3000000)))",
        )
        .await
        .unwrap();
    let text = eventually(PATIENCE, async || {
        let text = metrics(&address).await;
        let records = sample(&text, "outpour_relay_records_total");
        ensure!(records == Some(26.0), "{records:?} records\n{text}");
        Ok(text)
    })
    .await
    .unwrap();
    let letters = r#"outpour_relay_dead_letters_total{reason="record_too_large"}"#;
    assert_eq!(sample(&text, letters), Some(1.0), "{text}");
    let value = |series: &str| sample(&text, series).unwrap_or_else(|| panic!("{series}\n{text}"));
    assert_eq!(value(r#"outpour_relay_state{state="active"}"#), 1.0);
    assert_eq!(value(r#"outpour_relay_state{state="standby"}"#), 0.0);
    assert_eq!(value("outpour_relay_ready"), 1.0);
    assert!(value("outpour_relay_sessions_total") >= 1.0);
    // The dead letter alone keeps a megabyte of its value.
    assert!(value("outpour_relay_record_bytes_total") > 1_000_000.0);
    let transactions = value("outpour_relay_kafka_transaction_seconds_count");
    assert!((1.0..=26.0).contains(&transactions), "{transactions}");
    assert!(value("outpour_relay_kafka_transactions_total") >= transactions);
    assert_eq!(value("outpour_relay_publish_delay_seconds_count"), transactions);
    assert!(value("outpour_relay_published_lsn") > 0.0);
    assert!(value("outpour_relay_slot_retained_bytes") >= 0.0);
    assert!(value("process_resident_memory_bytes") > 1_000_000.0);
    let now: i64 =
        client.query_one("SELECT extract(epoch FROM now())::bigint", &[]).await.unwrap().get(0);
    let published_at = value("outpour_relay_last_published_commit_timestamp_seconds");
    assert!((published_at - now as f64).abs() < 60.0, "{published_at} against {now}");
    assert!(text.contains(&format!(r#"slot="{role}""#)), "{text}");

    let (_, readiness) = readyz(&address).await.unwrap();
    for said in [text, readiness.to_string(), relay.log_text()] {
        assert!(!said.contains(&secret), "{said}");
    }
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_stays_ready_whatever_else_the_log_is_written_for() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_STALL_AFTER=5s").unwrap();
    let relay = pipeline.relay().unwrap();
    let address = address(&relay).await;
    comes_to(&address, 200, "active").await;
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("CREATE TABLE noise (x text)").await.unwrap();
    // Some seconds of quiet, then some of log that is not the outbox's.
    let began = Instant::now();
    let mut is_noisy = false;
    while began.elapsed() < Duration::from_secs(16) {
        if !is_noisy && began.elapsed() > Duration::from_secs(8) {
            is_noisy = true;
            client
                .batch_execute(
                    "INSERT INTO noise SELECT repeat(md5(i::text), 30)
                     FROM generate_series(1, 5000) i; SELECT pg_switch_wal()",
                )
                .await
                .unwrap();
        }
        let (status, body) = readyz(&address).await.unwrap();
        assert_eq!(status, 200, "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = metrics(&address).await;
    assert_eq!(sample(&text, "outpour_relay_behind_seconds"), Some(0.0), "{text}");
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_as_such_and_then_takes_over() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let first = pipeline.relay().unwrap();
    // Past its snapshot, after which it lets go of the slot for a moment.
    pipeline.commit_orders(0..1, 1).await.unwrap();
    let first_address = address(&first).await;
    publishes(&first_address, 1.0).await;
    comes_to(&first_address, 200, "active").await;
    let log = pipeline.file("second.log");
    let second = Binary::Relay.start(&pipeline.config(), &log, &[]).unwrap();
    let second_address = address(&second).await;
    comes_to(&second_address, 200, "standby").await;
    let text = metrics(&second_address).await;
    assert_eq!(sample(&text, r#"outpour_relay_state{state="standby"}"#), Some(1.0), "{text}");
    assert_eq!(sample(&text, "outpour_relay_behind_seconds"), Some(0.0), "{text}");
    first.kill().await.unwrap();
    comes_to(&second_address, 200, "active").await;
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_the_relay_at_once_and_an_empty_one_serves_nothing() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    pipeline.set(&format!("OUTPOUR_RELAY_HTTP_LISTEN={address}")).unwrap();
    let output = pipeline.relay_output(&["run"]).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("relay.http_listen") && said.contains(&address), "{said}");

    std::fs::remove_file(pipeline.file(".env")).unwrap();
    pipeline.set("OUTPOUR_RELAY_HTTP_LISTEN=").unwrap();
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    assert!(!relay.log_text().contains("serving"), "{}", relay.log_text());
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stands_still_before_work_is_not_ready_until_it_moves() {
    let stack = Stack::private("health").await.unwrap();
    let pipeline = Pipeline::new(&stack, "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_STALL_AFTER=5s").unwrap();
    pipeline.set("OUTPOUR_POSTGRES_CONNECT_TIMEOUT=3s").unwrap();
    let relay = pipeline.relay().unwrap();
    let address = address(&relay).await;
    comes_to(&address, 200, "active").await;
    pipeline.commit_orders(0..5, 1).await.unwrap();
    publishes(&address, 5.0).await;

    stack.kafka.pause().await.unwrap();
    pipeline.commit_orders(5..10, 1).await.unwrap();
    let since = Instant::now();
    let body = comes_to(&address, 503, "active").await;
    let took = since.elapsed();
    assert!(body["reason"].as_str().unwrap().contains("Kafka"), "{body}");
    assert!(took < Duration::from_secs(15), "{took:?} for a limit of 5 s");
    assert_eq!(http::get(&address, "/healthz").await.unwrap().0, 200, "it is alive");
    let text = metrics(&address).await;
    assert_eq!(sample(&text, "outpour_relay_ready"), Some(0.0), "{text}");
    assert!(sample(&text, "outpour_relay_behind_seconds").unwrap() >= 5.0, "{text}");
    relay.logged("not ready", PATIENCE).await.unwrap();
    stack.kafka.resume().await.unwrap();
    comes_to(&address, 200, "active").await;

    stack.postgres.pause().await.unwrap();
    eventually(PATIENCE, async || {
        let (status, body) = readyz(&address).await?;
        ensure!(status == 503, "{body}");
        Ok(())
    })
    .await
    .unwrap();
    stack.postgres.resume().await.unwrap();
    comes_to(&address, 200, "active").await;

    stack.postgres.stop().await.unwrap();
    let body = comes_to(&address, 503, "retrying").await;
    assert!(body["reason"].as_str().unwrap().contains("in a row failed"), "{body}");
    let text = metrics(&address).await;
    let failures: f64 = text
        .lines()
        .filter(|line| line.starts_with("outpour_relay_session_failures_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(failures >= 1.0, "{text}");
    stack.postgres.start().await.unwrap();
    comes_to(&address, 200, "active").await;
    pipeline.commit_orders(10..15, 1).await.unwrap();
    publishes(&address, 15.0).await;
    relay.stop().await.unwrap();
}
