//! Without logical replication: the table is asked for rows.

use std::{collections::HashMap, process::Output};

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, order, succeeded},
    stack::Stack,
};
use rdkafka::Message;
use serde_json::Value;

/// A pipeline whose relay polls, with `init` done.
async fn polling<'s>(stack: &'s Stack, settings: &[&str]) -> Pipeline<'s> {
    let pipeline = Pipeline::bare(stack, "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MODE=poll").unwrap();
    for setting in settings {
        pipeline.set(setting).unwrap();
    }
    for _ in 0..2 {
        succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    }
    pipeline
}

/// Key and id of the next `count` records of `order`.
fn read(pipeline: &Pipeline<'_>, count: usize) -> Vec<(String, String)> {
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let found = reader.take(count, |message| {
        assert_eq!(header(message, "outpour-lsn"), None);
        Some((String::from_utf8(message.key()?.to_vec()).ok()?, header(message, "id")?))
    });
    reader.nothing_more().unwrap();
    found.unwrap()
}

fn ids(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|id| order(id).id.to_string()).collect()
}

async fn waiting(pipeline: &Pipeline<'_>) -> i64 {
    status(&pipeline.relay_output(&["status", "--json"]).await.unwrap())["waiting_rows"]
        .as_i64()
        .unwrap()
}

fn status(output: &Output) -> Value {
    succeeded(output).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn nothing_waits(pipeline: &Pipeline<'_>) {
    eventually(PATIENCE, async || {
        let waiting = waiting(pipeline).await;
        anyhow::ensure!(waiting == 0, "{waiting} rows wait");
        Ok(())
    })
    .await
    .unwrap();
}

async fn count(pipeline: &Pipeline<'_>, sql: &str) -> i64 {
    pipeline.postgres().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

/// Whether each event came, and whether those of a key came in order, the first
/// time that they came.
fn assert_complete_and_in_order(found: &[(String, String)], events: u64) {
    let place: HashMap<_, _> = ids(0..events).into_iter().zip(0..).collect();
    let mut newest: HashMap<&str, u64> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for (key, id) in found {
        if !seen.insert(id) {
            continue;
        }
        let now = place[id];
        if let Some(before) = newest.insert(key, now) {
            assert!(before < now, "key {key}: {now} after {before}");
        }
    }
    assert_eq!(seen.len(), place.len(), "events");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_no_replication_and_removes_what_is_published() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = polling(stack, &["OUTPOUR_RELAY_POLL_BATCH_ROWS=7"]).await;
    let name = &pipeline.name;
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}'");
    assert_eq!(count(&pipeline, &slots).await, 0);
    assert_eq!(count(&pipeline, "SELECT count(*) FROM pg_publication").await, 0);
    // A user who may do nothing else.
    let client = pipeline.postgres().await.unwrap();
    client
        .batch_execute(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'secret';
             GRANT SELECT, UPDATE, DELETE ON outbox TO {name};
             ALTER ROLE {name} SET default_transaction_read_only = on;
             ALTER ROLE {name} SET default_transaction_isolation = 'serializable'"
        ))
        .await
        .unwrap();
    let (_, place) = pipeline.postgres_url.split_once('@').unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{name}:secret@{place}")).unwrap();
    succeeded(&pipeline.relay_output(&["doctor"]).await.unwrap()).unwrap();
    pipeline.commit_orders(0..50, 10).await.unwrap();
    let before = status(&pipeline.relay_output(&["status", "--json"]).await.unwrap());
    assert_eq!(before["waiting_rows"], 50);
    assert!(before["oldest_seconds"].as_f64().unwrap() > 0.0, "{before}");
    assert_eq!(before["held_by_pid"], Value::Null);

    let relay = pipeline.relay().unwrap();
    relay.logged("at-least-once", PATIENCE).await.unwrap();
    pipeline.commit_orders(50..100, 1).await.unwrap();
    nothing_waits(&pipeline).await;
    let found = read(&pipeline, 100);
    assert_complete_and_in_order(&found, 100);
    assert_eq!(count(&pipeline, "SELECT count(*) FROM outbox").await, 0);
    let after = status(&pipeline.relay_output(&["status", "--json"]).await.unwrap());
    assert!(after["held_by_pid"].as_i64().is_some(), "{after}");
    assert_eq!(after["oldest_seconds"], Value::Null);
    relay.stop().await.unwrap();
    client.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_rows_stay_and_are_not_published_again() {
    let settings = ["OUTPOUR_RELAY_POLL_AFTER=mark", "OUTPOUR_RELAY_POLL_BATCH_ROWS=10"];
    let pipeline = polling(Stack::shared().await.unwrap(), &settings).await;
    for range in [0..25, 25..40] {
        let relay = pipeline.relay().unwrap();
        pipeline.commit_orders(range, 5).await.unwrap();
        nothing_waits(&pipeline).await;
        relay.stop().await.unwrap();
    }
    let found = read(&pipeline, 40);
    assert_complete_and_in_order(&found, 40);
    let marked = "SELECT count(*) FROM outbox WHERE published_at BETWEEN occurred_at AND now()";
    assert_eq!(count(&pipeline, marked).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_between_kafka_and_the_database_publishes_again_and_loses_nothing() {
    let pipeline = polling(Stack::shared().await.unwrap(), &[]).await;
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    // Rows can be claimed, but not be deleted as long as this lock is held.
    let blocker = pipeline.postgres().await.unwrap();
    blocker
        .batch_execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN OLD; END';
             CREATE TRIGGER wait BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION wait();
             SELECT pg_advisory_lock(1)",
        )
        .await
        .unwrap();
    pipeline.commit_orders(0..30, 30).await.unwrap();
    let first = read(&pipeline, 30);
    assert_complete_and_in_order(&first, 30);
    assert_eq!(waiting(&pipeline).await, 30, "gone before they were deleted");
    relay.kill().await.unwrap();
    blocker.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();

    let _relay = pipeline.relay().unwrap();
    nothing_waits(&pipeline).await;
    let both = read(&pipeline, 60);
    assert_complete_and_in_order(&both, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_killed_again_and_again_lose_nothing_and_keep_each_key_in_order() {
    const EVENTS: u64 = 3000;
    let settings = ["OUTPOUR_RELAY_POLL_BATCH_ROWS=50", "OUTPOUR_RELAY_POLL_INTERVAL=1ms"];
    let pipeline = polling(Stack::shared().await.unwrap(), &settings).await;
    pipeline.commit_orders(0..EVENTS, 20).await.unwrap();
    for _ in 0..4 {
        let before = waiting(&pipeline).await;
        assert!(before > 0, "killed too late to prove anything");
        let relay = pipeline.relay().unwrap();
        eventually(PATIENCE, async || {
            let now = waiting(&pipeline).await;
            anyhow::ensure!(now < before, "{now} rows wait");
            Ok(())
        })
        .await
        .unwrap();
        relay.kill().await.unwrap();
    }
    let _relay = pipeline.relay().unwrap();
    nothing_waits(&pipeline).await;
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let mut distinct = std::collections::HashSet::new();
    let mut found = Vec::new();
    while distinct.len() < usize::try_from(EVENTS).unwrap() {
        let next = reader.take(1, |message| {
            Some((String::from_utf8(message.key()?.to_vec()).ok()?, header(message, "id")?))
        });
        let next = next.unwrap().remove(0);
        distinct.insert(next.1.clone());
        found.push(next);
    }
    assert_complete_and_in_order(&found, EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_stands_by_and_takes_over_from_one_that_died_or_stands_still() {
    let settings = ["OUTPOUR_RELAY_TRANSACTION_TIMEOUT=1s"];
    let pipeline = polling(Stack::shared().await.unwrap(), &settings).await;
    let first = pipeline.relay().unwrap();
    first.logged("relay started", PATIENCE).await.unwrap();
    let second = pipeline.relay().unwrap();
    second.logged("waiting to take over", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..10, 1).await.unwrap();
    assert_complete_and_in_order(&read(&pipeline, 10), 10);
    first.kill().await.unwrap();
    pipeline.commit_orders(10..20, 1).await.unwrap();
    assert_complete_and_in_order(&read(&pipeline, 20), 20);

    // It holds the lock still, until the server loses patience.
    second.pause().unwrap();
    let third = pipeline.relay().unwrap();
    pipeline.commit_orders(20..30, 1).await.unwrap();
    assert_complete_and_in_order(&read(&pipeline, 30), 30);
    second.resume().unwrap();
    second.stop().await.unwrap();
    third.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_row_that_somebody_has_locked_its_key_waits_and_the_others_go_on() {
    let pipeline = polling(Stack::shared().await.unwrap(), &[]).await;
    pipeline.commit_orders(0..30, 30).await.unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    let lock = client.transaction().await.unwrap();
    // The second of the key 3, which is 3, 13 and 23.
    let sql = "SELECT FROM outbox WHERE id = $1 FOR UPDATE";
    assert_eq!(lock.query(sql, &[&order(13).id]).await.unwrap().len(), 1);
    let relay = pipeline.relay().unwrap();
    relay.logged("rows are locked", PATIENCE).await.unwrap();
    let found = read(&pipeline, 28);
    let of_key: Vec<_> = found.iter().filter(|(key, _)| key == "3").collect();
    assert_eq!(of_key.len(), 1, "{of_key:?}");
    assert_eq!(waiting(&pipeline).await, 2);
    lock.rollback().await.unwrap();
    nothing_waits(&pipeline).await;
    assert_complete_and_in_order(&read(&pipeline, 30), 30);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_the_table_before_kafka_has_acknowledged_it() {
    let stack = Stack::private("poll").await.unwrap();
    let pipeline = polling(&stack, &["OUTPOUR_RELAY_TRANSACTION_TIMEOUT=2s"]).await;
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..5, 1).await.unwrap();
    nothing_waits(&pipeline).await;
    stack.kafka.pause().await.unwrap();
    pipeline.commit_orders(5..15, 1).await.unwrap();
    relay.logged("replication interrupted", PATIENCE).await.unwrap();
    assert_eq!(waiting(&pipeline).await, 10);
    stack.kafka.resume().await.unwrap();
    nothing_waits(&pipeline).await;
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let mut missing: std::collections::HashSet<_> = ids(0..15).into_iter().collect();
    while !missing.is_empty() {
        let id = reader.take(1, |message| header(message, "id")).unwrap().remove(0);
        missing.remove(&id);
    }
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_polled_is_named_with_the_remedy() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::bare(stack, "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MODE=poll").unwrap();
    let refused = async |code: i32, parts: &[&str]| {
        let output = pipeline.relay_output(&["run"]).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    refused(1, &["table public.outbox does not exist", "outpour-relay init"]).await;
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    pipeline.set("OUTPOUR_RELAY_POLL_AFTER=mark").unwrap();
    let doctor = pipeline.relay_output(&["doctor", "--json"]).await.unwrap();
    let findings = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(3), "{findings}");
    assert!(findings.contains("outbox.column_published_at"), "{findings}");
    refused(1, &["outbox.column_published_at", "outpour-relay init"]).await;
    pipeline.set("OUTPOUR_OUTBOX_TABLE=").unwrap();
    refused(2, &["outbox.table", "relay.mode"]).await;
}

/// A relay that ends by itself, and what it said.
async fn ends(pipeline: &Pipeline<'_>, parts: &[&str]) {
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1), "{}", relay.log_text());
    let log = relay.log_text();
    assert!(parts.iter().all(|part| log.contains(part)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_trigger_keeps_are_not_published_again_and_again() {
    const SOFT_DELETE: &str = "CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION keep()";
    // At the end of the transaction, long after the statement that marked the row.
    const UNMARK: &str = "CREATE FUNCTION unmark() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN UPDATE outbox SET published_at = NULL WHERE id = NEW.id; RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER unmark AFTER UPDATE ON outbox DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.published_at IS NOT NULL) EXECUTE FUNCTION unmark()";
    let pipeline = polling(Stack::shared().await.unwrap(), &[]).await;
    let client = pipeline.postgres().await.unwrap();
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    // What is there before the start is not published at all.
    run(SOFT_DELETE).await;
    pipeline.commit_orders(0..5, 5).await.unwrap();
    ends(&pipeline, &["rows of public.outbox wait as before after DELETE (5,", "a trigger"]).await;
    // Of what comes later the first round is, once.
    run("DROP TRIGGER keep ON outbox").await;
    let mut relay = pipeline.relay().unwrap();
    nothing_waits(&pipeline).await;
    run(SOFT_DELETE).await;
    pipeline.commit_orders(5..6, 1).await.unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1), "{}", relay.log_text());
    ends(&pipeline, &["rows of public.outbox wait as before after DELETE (1,"]).await;
    assert_eq!(waiting(&pipeline).await, 1);
    assert_complete_and_in_order(&read(&pipeline, 6), 6);

    // A trigger that has put the row elsewhere itself is fine.
    run("CREATE TABLE archive (LIKE outbox);
         CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN INSERT INTO archive SELECT OLD.*; RETURN OLD; END'")
    .await;
    let relay = pipeline.relay().unwrap();
    nothing_waits(&pipeline).await;
    relay.stop().await.unwrap();
    assert_eq!(count(&pipeline, "SELECT count(*) FROM archive").await, 1);

    pipeline.set("OUTPOUR_RELAY_POLL_AFTER=mark").unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    run(UNMARK).await;
    pipeline.commit_orders(6..8, 2).await.unwrap();
    ends(&pipeline, &["rows of public.outbox wait as before after UPDATE (2,"]).await;
    // The last that was kept was published once more when it could go.
    assert_eq!(read(&pipeline, 7).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_keeps_rows_from_being_removed_is_named_before_anything_is_published() {
    let pipeline = polling(Stack::shared().await.unwrap(), &[]).await;
    let (client, name) = (pipeline.postgres().await.unwrap(), &pipeline.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'secret';
             GRANT SELECT, UPDATE, DELETE ON outbox TO {name};
             ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
             CREATE POLICY reading ON outbox FOR SELECT USING (true);
             CREATE POLICY locking ON outbox FOR UPDATE USING (true)"
        ))
        .await
        .unwrap();
    let (_, place) = pipeline.postgres_url.split_once('@').unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{name}:secret@{place}")).unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    ends(&pipeline, &["row-level security", "BYPASSRLS", "outbox"]).await;
    let doctor = pipeline.relay_output(&["doctor", "--json"]).await.unwrap();
    let findings = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(3), "{findings}");
    assert!(findings.contains("row-security"), "{findings}");
    client.batch_execute(&format!("ALTER ROLE {name} BYPASSRLS")).await.unwrap();
    let relay = pipeline.relay().unwrap();
    assert_complete_and_in_order(&read(&pipeline, 1), 1);
    relay.stop().await.unwrap();
    client.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_the_age_of_what_waits_whatever_type_its_time_has() {
    let pipeline = polling(Stack::shared().await.unwrap(), &[]).await;
    let client = pipeline.postgres().await.unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    let mut rows = 1_i64;
    for change in [
        "ALTER TABLE outbox ALTER occurred_at DROP DEFAULT,
         ALTER occurred_at TYPE bigint USING (extract(epoch FROM occurred_at) * 1000)::bigint",
        "ALTER TABLE outbox ALTER occurred_at TYPE timestamptz
             USING to_timestamp(occurred_at / 1000.0);
         INSERT INTO outbox (id, aggregatetype, aggregateid, type, occurred_at)
         SELECT gen_random_uuid(), 'order', 'k', 't', time::timestamptz
         FROM unnest(ARRAY['infinity', '-infinity']) time",
        "CREATE DOMAIN moment AS timestamptz; ALTER TABLE outbox ALTER occurred_at TYPE moment",
        "ALTER TABLE outbox ALTER occurred_at TYPE text",
    ] {
        client.batch_execute(change).await.unwrap();
        rows = client.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get(0);
        let found = status(&pipeline.relay_output(&["status", "--json"]).await.unwrap());
        assert_eq!(found["waiting_rows"], rows, "{change}: {found}");
        let age = found["oldest_seconds"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&age), "{change}: {found}");
    }
    assert_eq!(rows, 3);
}
