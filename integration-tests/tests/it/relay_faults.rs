//! What may happen to a relay and to what it talks to, at the worst moment.

use std::{process::Command, time::Instant};

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    program::Program,
    proxy::Proxy,
    stack::Stack,
};
use outpour_schemas::Lsn;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::records::{assert_gap_free, assert_once_and_in_order, read};

/// Where the slot stands, and the end of the log.
async fn confirmed_and_current(pipeline: &Pipeline<'_>) -> (Lsn, Lsn) {
    let client = pipeline.postgres().await.unwrap();
    let row = client
        .query_one(
            "SELECT confirmed_flush_lsn::text, pg_current_wal_lsn()::text
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&pipeline.name],
        )
        .await
        .unwrap();
    let lsn = |at| row.get::<_, String>(at).parse().unwrap();
    (lsn(0), lsn(1))
}

/// Up to where everything is published, by the checkpoint in Kafka.
async fn published(pipeline: &Pipeline<'_>) -> anyhow::Result<Lsn> {
    let output = pipeline.relay_output(&["status", "--json"]).await?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(status["published_lsn"].as_str().unwrap_or("0/0").parse()?)
}

/// A proxy before PostgreSQL, and the URL that leads through it.
async fn proxied(pipeline: &Pipeline<'_>) -> (Proxy, String) {
    let address = pipeline.postgres_url.split(['@', '/']).nth(3).unwrap();
    let proxy = Proxy::to(address).await.unwrap();
    let through = pipeline.postgres_url.replace(address, &proxy.address().to_string());
    (proxy, through)
}

/// Waits until PostgreSQL has sent all there is to the session that streams from
/// the slot.
async fn sent_to_its_end(pipeline: &Pipeline<'_>) {
    let client = pipeline.postgres().await.unwrap();
    let all = "SELECT 1 FROM pg_stat_replication r
               JOIN pg_replication_slots s ON s.active_pid = r.pid
               WHERE s.slot_name = $1 AND r.sent_lsn >= $2::text::pg_lsn";
    let (_, end) = confirmed_and_current(pipeline).await;
    eventually(PATIENCE, async || {
        let sent = client.execute(all, &[&pipeline.name, &end.to_string()]).await?;
        ensure!(sent == 1, "not all of it is sent");
        Ok(())
    })
    .await
    .unwrap();
}

/// Ends the session that streams from the slot, as a broken network would.
async fn cut_off(pipeline: &Pipeline<'_>) {
    let client = pipeline.postgres().await.unwrap();
    let cut = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1 AND active";
    client.execute(cut, &[&pipeline.name]).await.unwrap();
    let free = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    eventually(PATIENCE, async || {
        ensure!(client.execute(free, &[&pipeline.name]).await? == 1, "still held");
        Ok(())
    })
    .await
    .unwrap();
}

/// Offsets that a topic's partitions have given out: to records, committed or
/// not, and to the markers of transactions.
fn written(pipeline: &Pipeline<'_>, topic: &str) -> anyhow::Result<i64> {
    offsets(&dirty_reader(pipeline)?, topic)
}

/// Told of what is not committed, too.
fn dirty_reader(pipeline: &Pipeline<'_>) -> anyhow::Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("isolation.level", "read_uncommitted")
        .create()?)
}

fn offsets(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<i64> {
    (0..6).map(|partition| Ok(consumer.fetch_watermarks(topic, partition, PATIENCE)?.1)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_kafkas_commit_and_postgres_confirmation_doubles_nothing() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let (proxy, through) = proxied(&pipeline).await;
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL={through}")).unwrap();
    // A snapshot ends with a second session, which might have to begin below.
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=never").unwrap();
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    let (_, before) = confirmed_and_current(&pipeline).await;
    proxy.hold_back();
    pipeline.commit_orders(0..100, 7).await.unwrap();
    // Kafka has committed everything, and PostgreSQL has heard of nothing.
    assert_once_and_in_order(&read(&pipeline, "order", 100), 100);
    relay.kill().await.unwrap();
    drop(proxy);
    let (confirmed, current) = confirmed_and_current(&pipeline).await;
    assert!(confirmed <= before && before < current, "{confirmed} {before} {current}");

    pipeline.set(&format!("OUTPOUR_POSTGRES_URL={}", pipeline.postgres_url)).unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(100..110, 5).await.unwrap();
    let found = read(&pipeline, "order", 110);
    assert_once_and_in_order(&found, 110);
    assert_gap_free(&found, 15 + 2);
    relay.stop().await.unwrap();
}

/// Rows of a transaction that takes seconds to publish.
const ROWS: usize = 200_000;

/// A relay that has written records of a large transaction to Kafka, stands
/// still, and has committed none of them.
async fn stopped_in_mid_transaction(pipeline: &Pipeline<'_>) -> Program {
    pipeline.set("OUTPOUR_RELAY_MAX_TRANSACTION_ROWS=1000000").unwrap();
    pipeline.set("OUTPOUR_RELAY_MAX_TRANSACTION_SIZE=1GiB").unwrap();
    let relay = pipeline.relay().unwrap();
    // The first event makes the topic.
    pipeline.commit_orders(0..1, 1).await.unwrap();
    read(pipeline, "order", 1);
    let topic = pipeline.topic("order");
    let already = written(pipeline, &topic).unwrap();
    let consumer = dirty_reader(pipeline).unwrap();
    insert_orders(pipeline, ROWS).await;
    let until = Instant::now() + PATIENCE;
    while offsets(&consumer, &topic).unwrap() == already {
        assert!(Instant::now() < until, "nothing is written");
    }
    relay.pause().unwrap();
    assert_eq!(read(pipeline, "order", 1).len(), 1, "stopped too late to prove anything");
    relay
}

/// In one transaction, made by the database.
async fn insert_orders(pipeline: &Pipeline<'_>, rows: usize) {
    let insert = format!(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         SELECT gen_random_uuid(), 'order', (k % 100)::text, 'placed', jsonb_build_object('k', k)
         FROM generate_series(1, {rows}) k"
    );
    pipeline.postgres().await.unwrap().batch_execute(&insert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_records_and_checkpoint_leaves_neither_visible() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = stopped_in_mid_transaction(&pipeline).await;
    relay.kill().await.unwrap();
    assert_eq!(read(&pipeline, "order", 1).len(), 1, "none of the others is to be seen");
    let (_, end) = confirmed_and_current(&pipeline).await;
    assert!(published(&pipeline).await.unwrap() < end);

    let relay = pipeline.relay().unwrap();
    let rows = ROWS + 1;
    let found = read(&pipeline, "order", rows);
    assert_once_and_in_order(&found, rows);
    assert_gap_free(&found, 2);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_slept_through_a_take_over_publishes_nothing_and_ends() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    // It must not look as if the transaction had timed out.
    pipeline.set("OUTPOUR_RELAY_TRANSACTION_TIMEOUT=60s").unwrap();
    let (proxy, through) = proxied(&pipeline).await;
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL={through}")).unwrap();
    let sleeper = stopped_in_mid_transaction(&pipeline).await;
    // The rest of the transaction waits for it in the proxy.
    sent_to_its_end(&pipeline).await;
    cut_off(&pipeline).await;
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL={}", pipeline.postgres_url)).unwrap();
    let second = pipeline.relay_with(&[]).unwrap();
    let rows = ROWS + 1;
    assert_once_and_in_order(&read(&pipeline, "order", rows), rows);
    // It wakes with the whole of a transaction in its hands.
    let mut sleeper = sleeper;
    sleeper.resume().unwrap();
    assert_eq!(sleeper.ended(PATIENCE).await.unwrap(), Some(1));
    drop(proxy);
    assert!(sleeper.log_text().contains("has taken over"), "{}", sleeper.log_text());
    pipeline.commit_orders(1..11, 5).await.unwrap();
    let found = read(&pipeline, "order", rows + 10);
    assert_once_and_in_order(&found, rows + 10);
    assert_gap_free(&found, 4);
    second.stop().await.unwrap();
}

/// How many offsets are given out once those under way have arrived.
async fn settled(pipeline: &Pipeline<'_>, topic: &str) -> i64 {
    let mut last = -1;
    eventually(PATIENCE, async || {
        let now = written(pipeline, topic)?;
        let before = std::mem::replace(&mut last, now);
        ensure!(before == now, "from {before} to {now}");
        Ok(now)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_slept_past_the_transaction_timeout_starts_over() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_TRANSACTION_TIMEOUT=6s").unwrap();
    let relay = stopped_in_mid_transaction(&pipeline).await;
    // All that can be written now are the markers with which Kafka aborts it;
    // the coordinator looks every ten seconds.
    let topic = pipeline.topic("order");
    let open = settled(&pipeline, &topic).await;
    eventually(PATIENCE, async || {
        ensure!(written(&pipeline, &topic)? > open, "not aborted yet");
        Ok(())
    })
    .await
    .unwrap();
    relay.resume().unwrap();
    relay.logged("relay.transaction_timeout", PATIENCE).await.unwrap();
    let rows = ROWS + 1;
    let found = read(&pipeline, "order", rows);
    assert_once_and_in_order(&found, rows);
    assert_gap_free(&found, 2);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_named_and_one_that_was_made_anew_is_refused() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 5).await.unwrap();
    read(&pipeline, "order", 10);
    relay.pause().unwrap();
    cut_off(&pipeline).await;
    let client = pipeline.postgres().await.unwrap();
    let drop = "SELECT pg_drop_replication_slot($1::text::name)";
    client.execute(drop, &[&pipeline.name]).await.unwrap();
    relay.resume().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let expected = format!("replication slot `{}` does not exist", pipeline.name);
    assert!(relay.log_text().contains(&expected), "{}", relay.log_text());

    pipeline.commit_orders(10..20, 5).await.unwrap();
    assert!(pipeline.relay_output(&["init"]).await.unwrap().status.success());
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(3));
    assert!(relay.log_text().contains("recreated or advanced"), "{}", relay.log_text());
    assert_eq!(read(&pipeline, "order", 10).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_dropped_is_named_and_so_is_log_from_before_it_came_back() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 5).await.unwrap();
    read(&pipeline, "order", 10);
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute(&format!("DROP PUBLICATION {}", pipeline.name)).await.unwrap();
    pipeline.commit_orders(10..20, 5).await.unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let expected = format!("publication `{}` does not exist", pipeline.name);
    assert!(relay.log_text().contains(&expected), "{}", relay.log_text());

    // PostgreSQL decodes with the catalog of the time: what was written without
    // the publication stays undecodable.
    assert!(pipeline.relay_output(&["init"]).await.unwrap().status.success());
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    assert!(relay.log_text().contains("is younger than"), "{}", relay.log_text());
    assert_eq!(read(&pipeline, "order", 10).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_in_mid_stream_are_followed_until_one_is_missing() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                  VALUES (gen_random_uuid(), 'order', 7, 't', '{\"b\":1,  \"a\": 2}')";
    let insert = insert.replace("7,", "'7',");
    client.batch_execute(&insert).await.unwrap();
    client
        .batch_execute(&format!(
            "BEGIN; {insert}; ALTER TABLE outbox ALTER payload TYPE json USING payload::json;
             {insert}; ALTER TABLE outbox ADD extra text DEFAULT 'x'; {insert}; COMMIT;
             ALTER TABLE outbox ALTER aggregateid TYPE bigint USING aggregateid::bigint;
             {insert}; ALTER TABLE outbox DROP traceparent; {insert}"
        ))
        .await
        .unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let values = reader
        .take(6, |message| {
            use rdkafka::Message as _;
            assert_eq!(message.key(), Some(b"7".as_slice()));
            Some(String::from_utf8_lossy(message.payload()?).into_owned())
        })
        .unwrap();
    // jsonb is PostgreSQL's own writing, json is the service's.
    let (jsonb, json) = (r#"{"a": 2, "b": 1}"#, r#"{"b":1,  "a": 2}"#);
    assert_eq!(values, [jsonb, jsonb, json, json, json, json]);
    relay.check().unwrap();

    client.batch_execute("ALTER TABLE outbox DROP payload; INSERT INTO outbox (id, aggregatetype, aggregateid, type) VALUES (gen_random_uuid(), 'order', 7, 't')").await.unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let expected = "table public.outbox has no column `payload` (outbox.column_payload)";
    assert!(relay.log_text().contains(expected), "{}", relay.log_text());
    reader.nothing_more().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_kafka_may_be_killed_and_postgres_promoted_but_not_put_back() {
    let stack = Stack::private("relay_faults").await.unwrap();
    let pipeline = Pipeline::new(&stack, "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_TRANSACTION_TIMEOUT=5s").unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..100, 10).await.unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();

    stack.postgres.kill().await.unwrap();
    stack.postgres.start().await.unwrap();
    pipeline.commit_orders(100..200, 10).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 200), 200);
    stack.kafka.kill().await.unwrap();
    pipeline.commit_orders(200..250, 10).await.unwrap();
    stack.kafka.start().await.unwrap();
    read(&pipeline, "order", 250);

    // No file of Kafka's may grow any more, as if its disk were full.
    let (_, before) = confirmed_and_current(&pipeline).await;
    for pid in stack.kafka.pids() {
        let args = [format!("--pid={pid}"), "--fsize=1".to_owned()];
        assert!(Command::new("prlimit").args(args).status().unwrap().success());
    }
    let interruptions = relay.log_text().matches("replication interrupted").count();
    pipeline.commit_orders(250..300, 10).await.unwrap();
    eventually(PATIENCE, async || {
        let now = relay.log_text().matches("replication interrupted").count();
        ensure!(now > interruptions, "{}", relay.log_text());
        Ok(())
    })
    .await
    .unwrap();
    let (confirmed, current) = confirmed_and_current(&pipeline).await;
    assert!(confirmed <= before && before < current, "I7: {confirmed} {before} {current}");
    stack.kafka.kill().await.unwrap();
    stack.kafka.start().await.unwrap();
    let found = read(&pipeline, "order", 300);
    assert_once_and_in_order(&found, 300);
    assert_gap_free(&found, 30);
    relay.stop().await.unwrap();

    // A copy as of a disk's snapshot, to be put back later.
    let client = pipeline.postgres().await.unwrap();
    let data: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    stack.postgres.stop().await.unwrap();
    copy(&data, &format!("{data}.copy"));
    stack.postgres.start().await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(300..400, 10).await.unwrap();
    read(&pipeline, "order", 400);
    relay.stop().await.unwrap();

    // A promoted standby that has everything: a new timeline, and no gap.
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute(&format!("COPY (SELECT) TO '{data}/standby.signal'")).await.unwrap();
    stack.postgres.stop().await.unwrap();
    stack.postgres.start().await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(400..500, 10).await.unwrap();
    let found = read(&pipeline, "order", 500);
    assert_once_and_in_order(&found, 500);
    assert_gap_free(&found, 50);
    relay.stop().await.unwrap();

    // The copy lacks what was published since, on the first timeline.
    stack.postgres.stop().await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(format!("{data}.copy"), &data).unwrap();
    stack.postgres.start().await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(3));
    assert!(relay.log_text().contains("no part of the history"), "{}", relay.log_text());
    assert_eq!(read(&pipeline, "order", 500).len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_put_back_to_an_older_copy_is_refused() {
    let stack = Stack::private("older_copy").await.unwrap();
    let pipeline = Pipeline::new(&stack, "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 10).await.unwrap();
    read(&pipeline, "order", 10);
    relay.stop().await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let data: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    stack.postgres.stop().await.unwrap();
    copy(&data, &format!("{data}.copy"));
    stack.postgres.start().await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(10..2010, 100).await.unwrap();
    read(&pipeline, "order", 2010);
    relay.stop().await.unwrap();

    stack.postgres.kill().await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(format!("{data}.copy"), &data).unwrap();
    stack.postgres.start().await.unwrap();
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(3));
    assert!(relay.log_text().contains("older copy"), "{}", relay.log_text());
}

/// Owners and all, since the server insists on its own.
fn copy(from: &str, to: &str) {
    let copied = Command::new("cp").args(["-a", from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_million_rows_takes_no_more_memory_than_a_small_one() {
    const ROWS: usize = 1_000_000;
    const BOUND_MIB: u64 = 64;
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    insert_orders(&pipeline, ROWS).await;
    let (_, end) = confirmed_and_current(&pipeline).await;
    eventually(PATIENCE * 4, async || {
        let published = published(&pipeline).await?;
        ensure!(published >= end, "published up to {published}, the end is {end}");
        Ok(())
    })
    .await
    .unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak / 1024 <= BOUND_MIB, "{} MiB", peak / 1024);
    // Markers of Kafka's transactions take offsets, too.
    let written = written(&pipeline, &pipeline.topic("order")).unwrap();
    assert!(written >= i64::try_from(ROWS).unwrap(), "{written} offsets");
    relay.stop().await.unwrap();
}
