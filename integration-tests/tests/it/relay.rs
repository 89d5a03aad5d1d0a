//! From the log to Kafka.

use std::sync::atomic::{AtomicBool, Ordering};

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, order},
    stack::Stack,
};
use outpour_producer::Outbox;

use crate::{
    diagnosis::setting,
    records::{assert_gap_free, assert_once_and_in_order, checkpoints, read},
};

#[tokio::test(flavor = "multi_thread")]
async fn committed_events_reach_kafka_once_and_a_rolled_back_one_never_appears_anywhere() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let _consumer = pipeline.consumer().unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    let outbox = Outbox::default();
    for id in 0..30 {
        let tx = client.transaction().await.unwrap();
        outbox.append_all(&tx, &[order(id)]).await.unwrap();
        if id % 3 == 0 {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
        }
    }
    let rolled_back: Vec<_> = (0..30).step_by(3).map(|id| order(id).id.to_string()).collect();
    let found = read(&pipeline, "order", 20);
    assert_once_and_in_order(&found, 20);
    assert!(found.iter().all(|record| !rolled_back.contains(&record.id)));
    pipeline.arrived("event_log", 20).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_in_mid_stream_loses_nothing_and_doubles_nothing() {
    const KILLS: usize = 20;
    const EACH: usize = 37;
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let killed = AtomicBool::new(false);
    // Events keep coming for as long as relays are killed.
    let feed = async {
        let mut events = 0;
        while !killed.load(Ordering::Relaxed) {
            pipeline.commit_orders(events..events + 370, EACH).await.unwrap();
            events += 370;
        }
        usize::try_from(events).unwrap()
    };
    let kills = async {
        for _ in 0..KILLS {
            let before = checkpoints(&pipeline).await;
            let relay = pipeline.relay().unwrap();
            eventually(PATIENCE, async || {
                let now = checkpoints(&pipeline).await;
                anyhow::ensure!(now > before + 1, "at {now}, started at {before}");
                Ok(())
            })
            .await
            .unwrap();
            relay.kill().await.unwrap();
        }
        killed.store(true, Ordering::Relaxed);
    };
    let (events, ()) = tokio::join!(feed, kills);
    let _relay = pipeline.relay().unwrap();
    let found = read(&pipeline, "order", events);
    assert_once_and_in_order(&found, events);
    assert_gap_free(&found, events / EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_too_large_for_kafka_is_resumed_by_row_when_the_relay_is_killed_inside_it() {
    const ROWS: u64 = 20_000;
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MAX_TRANSACTION_ROWS=50").unwrap();
    pipeline.commit_orders(0..ROWS, 20_000).await.unwrap();
    for _ in 0..3 {
        let before = checkpoints(&pipeline).await;
        assert!(before < ROWS / 50, "killed too late to prove anything");
        let relay = pipeline.relay().unwrap();
        eventually(PATIENCE, async || {
            let now = checkpoints(&pipeline).await;
            anyhow::ensure!(now > before, "at {now}, started at {before}");
            Ok(())
        })
        .await
        .unwrap();
        relay.kill().await.unwrap();
    }
    let _relay = pipeline.relay().unwrap();
    let rows = usize::try_from(ROWS).unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", rows), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_waits_and_takes_over_when_the_first_dies() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let first = pipeline.relay().unwrap();
    first.logged("relay started", PATIENCE).await.unwrap();
    let second = pipeline.relay().unwrap();
    second.logged("waiting to take over", PATIENCE).await.unwrap();
    pipeline.commit_orders(0..10, 1).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 10), 10);
    first.kill().await.unwrap();
    pipeline.commit_orders(10..20, 1).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 20), 20);
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_behind_our_back_is_refused_and_the_gap_can_be_accepted() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 5).await.unwrap();
    read(&pipeline, "order", 10);
    relay.stop().await.unwrap();

    pipeline.commit_orders(10..20, 5).await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    client
        .execute(
            "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())",
            &[&pipeline.name],
        )
        .await
        .unwrap();
    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(3));
    assert!(relay.log_text().contains("--accept-gap"), "{}", relay.log_text());
    assert!(relay.log_text().contains("bytes past"), "{}", relay.log_text());

    let relay = pipeline.relay_with(&["--accept-gap"]).unwrap();
    relay.logged("gap accepted", PATIENCE).await.unwrap();
    pipeline.commit_orders(20..30, 5).await.unwrap();
    // The ten that the slot was moved past are lost, as was said.
    assert_once_and_in_order(&read(&pipeline, "order", 20), 20);
    relay.stop().await.unwrap();
    // What was accepted once is no gap any more.
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(30..40, 5).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 30), 30);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_slot_follows_the_log_that_others_write() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("CREATE TABLE noise (x text)").await.unwrap();
    let confirmed = async || -> i64 {
        client
            .query_one(
                "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1",
                &[&pipeline.name],
            )
            .await
            .unwrap()
            .get(0)
    };
    let before = confirmed().await;
    // More than a segment of log, none of it for the outbox.
    client
        .batch_execute(
            "INSERT INTO noise SELECT repeat(md5(i::text), 30) FROM generate_series(1, 30000) i",
        )
        .await
        .unwrap();
    eventually(PATIENCE, async || {
        let moved = confirmed().await - before;
        anyhow::ensure!(moved > 16 << 20, "moved by {moved} bytes");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_would_refuse_is_parked_and_nothing_waits_for_it() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                  VALUES (gen_random_uuid(), $1, 'k', 't', to_jsonb(repeat('x', $2)))";
    client.execute(insert, &[&"order", &10_i32]).await.unwrap();
    client.execute(insert, &[&"Grüße", &10_i32]).await.unwrap();
    client.execute(insert, &[&"order", &3_000_000_i32]).await.unwrap();
    // Kafka takes no two topics that differ in this alone.
    for aggregate_type in ["order.line", "order_line", "order_line", "order.line"] {
        client.execute(insert, &[&aggregate_type, &10_i32]).await.unwrap();
    }
    client.execute(insert, &[&"order", &10_i32]).await.unwrap();
    assert_eq!(read(&pipeline, "order", 2).len(), 2);
    assert_eq!(read(&pipeline, "order.line", 2).len(), 2);

    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let mut reasons = reader.take(4, |message| header(message, "outpour-reason")).unwrap();
    reasons.sort();
    let expected = ["invalid_topic", "invalid_topic", "invalid_topic", "record_too_large"];
    assert_eq!(reasons, expected);
    // They wait for a person for as long as it takes.
    let kept = setting(pipeline.stack, &pipeline.dead_letter_topic(), "retention.ms").await;
    assert_eq!(kept, "-1");
}
