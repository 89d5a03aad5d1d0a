//! Rows that are older than the slot.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, succeeded},
    stack::Stack,
};
use outpour_schemas::Lsn;
use rdkafka::Message;
use serde_json::Value;

use crate::{
    diagnosis::create_topic,
    partitions::PARTITIONED,
    records::{assert_once_and_in_order, read},
};

/// A pipeline with the outbox table that `init` makes, and nothing else yet.
async fn with_table_only(settings: &[&str]) -> Pipeline<'static> {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    for setting in settings {
        pipeline.set(setting).unwrap();
    }
    let output = pipeline.relay_output(&["init", "--print-sql"]).await.unwrap();
    let sql = String::from_utf8(output.stdout).unwrap();
    let table = sql.split(";\n").next().unwrap();
    pipeline.postgres().await.unwrap().batch_execute(table).await.unwrap();
    pipeline
}

async fn init(pipeline: &Pipeline<'_>) {
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
}

/// What `status --json` says of the snapshot: rows so far, and whether it is done.
async fn progress(pipeline: &Pipeline<'_>) -> (u64, bool) {
    let output = pipeline.relay_output(&["status", "--json"]).await.unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let snapshot = &status["snapshot"];
    (snapshot["rows"].as_u64().unwrap_or(0), snapshot["done"].as_bool().unwrap_or(false))
}

/// Appends an event whose key is its name.
fn insert(name: &str) -> String {
    format!(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         VALUES (gen_random_uuid(), 'order', '{name}', 't', '{{}}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_come_first_and_all_come_once_though_relays_are_killed_and_writers_go_on() {
    const OLD: u64 = 30_000;
    const KILLS: usize = 4;
    let pipeline = with_table_only(&["OUTPOUR_RELAY_MAX_TRANSACTION_ROWS=100"]).await;
    pipeline.commit_orders(0..OLD, 1000).await.unwrap();
    let killed = AtomicBool::new(false);
    // Events keep coming, from before there is a slot until the last kill.
    let feed = async {
        let mut events = OLD;
        while !killed.load(Ordering::Relaxed) {
            pipeline.commit_orders(events..events + 50, 5).await.unwrap();
            events += 50;
        }
        usize::try_from(events).unwrap()
    };
    let kills = async {
        init(&pipeline).await;
        let mut before = 0;
        for _ in 0..KILLS {
            let relay = pipeline.relay().unwrap();
            eventually(PATIENCE, async || {
                let (rows, _) = progress(&pipeline).await;
                anyhow::ensure!(rows > before, "at {rows}, started at {before}");
                Ok(())
            })
            .await
            .unwrap();
            relay.kill().await.unwrap();
            let (rows, done) = progress(&pipeline).await;
            assert!(!done, "killed too late to prove anything");
            before = rows;
        }
        killed.store(true, Ordering::Relaxed);
    };
    let (events, ()) = tokio::join!(feed, kills);
    let relay = pipeline.relay().unwrap();
    relay.logged("snapshot done", PATIENCE).await.unwrap();
    let found = read(&pipeline, "order", events);
    assert_once_and_in_order(&found, events);
    let old = found.iter().filter(|record| record.position.commit_lsn == Lsn::ZERO).count() as u64;
    let (rows, done) = progress(&pipeline).await;
    assert!(done && rows == old && old >= OLD, "{old} of {OLD} records were old, {rows} are said");

    // By key in the order of writing, which is the number in the payload.
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let numbers = reader.take(events, |message| {
        let payload: Value = serde_json::from_slice(message.payload()?).ok()?;
        Some((message.key()?.to_vec(), payload["n"].as_u64()?))
    });
    let mut last = HashMap::new();
    for (key, number) in numbers.unwrap() {
        let before = last.insert(key, number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
    }
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_does_not_depend_on_savepoints_updates_or_deletes() {
    let pipeline = with_table_only(&[]).await;
    let client = pipeline.postgres().await.unwrap();
    let run = async |sql: String| client.batch_execute(&sql).await.unwrap();
    let in_savepoint = |name| format!("BEGIN; SAVEPOINT s; {}; RELEASE s; COMMIT", insert(name));
    let update = |name| format!("UPDATE outbox SET traceparent = 'x' WHERE aggregateid = '{name}'");
    let delete = |name| format!("DELETE FROM outbox WHERE aggregateid = '{name}'");
    for old in ["old", "old updated", "old deleted", "old updated beside an event"] {
        run(insert(old)).await;
    }
    run(in_savepoint("old in a savepoint")).await;
    init(&pipeline).await;
    run(in_savepoint("new in a savepoint")).await;
    run(insert("new updated")).await;
    run(update("new updated")).await;
    run(update("old updated")).await;
    run(format!("BEGIN; {}; {}; COMMIT", update("old updated beside an event"), insert("new")))
        .await;
    run(delete("old deleted")).await;
    run(format!(
        "BEGIN; {}; {}; COMMIT",
        insert("new deleted at once"),
        delete("new deleted at once")
    ))
    .await;
    run(insert("new deleted later")).await;
    run(delete("new deleted later")).await;

    let _relay = pipeline.relay().unwrap();
    let found = read(&pipeline, "order", 9);
    let keys = |is_old: bool| {
        let mut keys: Vec<_> = found
            .iter()
            .filter(|record| (record.position.commit_lsn == Lsn::ZERO) == is_old)
            .map(|record| record.key.as_str())
            .collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(
        keys(true),
        ["old", "old in a savepoint", "old updated", "old updated beside an event"]
    );
    assert_eq!(
        keys(false),
        ["new", "new deleted at once", "new deleted later", "new in a savepoint", "new updated"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_ends_when_old_rows_are_published_and_a_later_run_goes_on_behind_them() {
    let pipeline = with_table_only(&[]).await;
    pipeline.commit_orders(0..100, 10).await.unwrap();
    init(&pipeline).await;
    pipeline.commit_orders(100..150, 10).await.unwrap();
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=only").unwrap();
    for _ in 0..2 {
        let mut relay = pipeline.relay().unwrap();
        assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(0), "{}", relay.log_text());
        assert_once_and_in_order(&read(&pipeline, "order", 100), 100);
    }
    assert_eq!(progress(&pipeline).await, (100, true));
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=initial").unwrap();
    let _relay = pipeline.relay().unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 150), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn never_leaves_old_rows_alone_for_good() {
    let pipeline = with_table_only(&["OUTPOUR_RELAY_SNAPSHOT=never"]).await;
    pipeline.commit_orders(0..50, 10).await.unwrap();
    init(&pipeline).await;
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(50..70, 10).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 20), 20);
    relay.stop().await.unwrap();
    // The slot has moved on: what is old could not be told any more.
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=initial").unwrap();
    let _relay = pipeline.relay().unwrap();
    pipeline.commit_orders(70..80, 10).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 30), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_of_every_partition_come_by_their_time_which_is_their_timestamp() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::bare(stack, "").await.unwrap();
    // Or the oldest would get the time of now.
    create_topic(stack, &pipeline.topic("order"), &[("retention.ms", "-1")]).await;
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute(PARTITIONED).await.unwrap();
    let at = |time: &str| {
        insert("k")
            .replace("payload)", "payload, occurred_at)")
            .replace("'{}')", &format!("'{{}}', '{time}')"))
    };
    for time in ["2026-02-01Z", "2025-12-31Z", "2026-01-01Z", "2024-02-29 12:00:00.123456Z"] {
        client.batch_execute(&at(time)).await.unwrap();
    }
    init(&pipeline).await;
    client.batch_execute(&at("2025-06-01Z")).await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let found = reader
        .take(5, |message| Some((header(message, "occurredAt")?, message.timestamp().to_millis()?)))
        .unwrap();
    let times: Vec<_> = found.iter().map(|(time, _)| &time[..10]).collect();
    assert_eq!(times, ["2024-02-29", "2025-12-31", "2026-01-01", "2026-02-01", "2025-06-01"]);
    assert_eq!(found[0].1, 1_709_208_000_123);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_is_named_with_the_statement_that_grants_it() {
    let pipeline = with_table_only(&[]).await;
    init(&pipeline).await;
    let user = &pipeline.name;
    let client = pipeline.postgres().await.unwrap();
    client
        .batch_execute(&format!("CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'p'"))
        .await
        .unwrap();
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{user}:p@{place}")).unwrap();
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let grant = format!("GRANT SELECT ON public.outbox TO {user}");
    assert!(relay.log_text().contains(&grant), "{}", relay.log_text());
    client.batch_execute(&grant).await.unwrap();
    let relay = pipeline.relay().unwrap();
    relay.logged("relay started", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..5, 5).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 5), 5);
    relay.stop().await.unwrap();
    client.batch_execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_committed_before_the_slot_and_is_not_visible_yet_is_waited_for() {
    let stack = Stack::private("standby").await.unwrap();
    let pipeline = Pipeline::bare(&stack, "").await.unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let client = pipeline.postgres().await.unwrap();
    let slot = pipeline.name.clone();
    client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.unwrap();
    // Commits wait for a standby that there is not.
    let standby = async |names: &str| {
        client
            .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
            .await
            .unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    standby("nobody").await;
    let holds = async |condition: &'static str| {
        eventually(PATIENCE, async || {
            let sql = format!("SELECT EXISTS (SELECT FROM {condition})");
            anyhow::ensure!(client.query_one(&sql, &[]).await?.get::<_, bool>(0), "{condition}");
            Ok(())
        })
        .await
        .unwrap();
    };

    // A slot is made in steps, each of which waits for the transactions that were
    // under way at the one before. One that begins after the first and commits
    // before the last is older than the slot.
    let (first, second) = (pipeline.postgres().await.unwrap(), pipeline.postgres().await.unwrap());
    first.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let creator = pipeline.postgres().await.unwrap();
    let create = tokio::spawn(async move {
        creator.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await
    });
    const CREATOR_WAITS_FOR_SECOND: &str = "pg_locks l JOIN pg_stat_activity a USING (pid)
        JOIN pg_stat_activity holder ON holder.backend_xid = l.transactionid
        WHERE NOT l.granted AND a.query LIKE '%create_logical%' AND holder.query LIKE '%second%'";
    holds("pg_locks WHERE locktype = 'transactionid' AND NOT granted").await;
    second.batch_execute("BEGIN; SELECT pg_current_xact_id(), 'second'").await.unwrap();
    first.batch_execute("ROLLBACK").await.unwrap();
    holds(CREATOR_WAITS_FOR_SECOND).await;
    let writer = pipeline.postgres().await.unwrap();
    let write = tokio::spawn(async move { writer.batch_execute(&insert("hidden")).await });
    holds("pg_stat_activity WHERE wait_event = 'SyncRep'").await;
    second.batch_execute("ROLLBACK").await.unwrap();
    create.await.unwrap().unwrap();

    let relay = pipeline.relay().unwrap();
    relay.logged("snapshot waits for transactions", PATIENCE).await.unwrap();
    standby("").await;
    write.await.unwrap().unwrap();
    relay.logged("snapshot done", PATIENCE).await.unwrap();
    let found = read(&pipeline, "order", 1);
    assert_eq!((found[0].key.as_str(), found[0].position.commit_lsn), ("hidden", Lsn::ZERO));
    relay.stop().await.unwrap();
}
