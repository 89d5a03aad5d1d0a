//! The server has removed log that the relay had not read.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};

use super::{
    shell::{Shell, says},
    steps,
};
use crate::records::read;

/// Writes log until the server gives the slot up.
async fn lose_the_slot(pipeline: &Pipeline<'_>) {
    let client = pipeline.postgres().await.unwrap();
    let lost = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost'";
    for sql in ["ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()"] {
        client.execute(sql, &[]).await.unwrap();
    }
    eventually(PATIENCE, async || {
        // A switch without anything written before it would do nothing.
        for sql in ["SELECT pg_logical_emit_message(true, 'x', 'x')", "SELECT pg_switch_wal()"] {
            client.execute(sql, &[]).await?;
        }
        client.execute("CHECKPOINT", &[]).await?;
        ensure!(client.execute(lost, &[&pipeline.name]).await? == 1, "not lost yet");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_slot_had_not_delivered_is_published_once() {
    let stack = Stack::private("book").await.unwrap();
    let pipeline = Pipeline::new(&stack, "max_delay = '50ms'").await.unwrap();
    let shell = Shell::of(&pipeline);
    let [doctor, limit, reload, drop, init, run, look, fix] = steps("The slot is lost");
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..10, 5).await.unwrap();
    pipeline.arrived("event_log", 10).await.unwrap();
    relay.stop().await.unwrap();
    pipeline.commit_orders(10..30, 5).await.unwrap();
    lose_the_slot(&pipeline).await;

    let mut refused = pipeline.relay().unwrap();
    assert_eq!(refused.ended(PATIENCE).await.unwrap(), Some(1), "{}", refused.log_text());
    says(&refused, "is lost: the server removed log").await;
    let found = shell.ends(&doctor).await;
    assert_eq!(found.code, Some(3), "{}", found.text);
    let cause = "removed log that it still needed (max_slot_wal_keep_size)";
    assert!(found.text.contains(cause), "{}", found.text);
    for command in [limit, reload, drop, init] {
        shell.run(&command).await;
    }
    // The slot is there again, and a start says what it would pass over.
    let mut refused = pipeline.relay().unwrap();
    assert_eq!(refused.ended(PATIENCE).await.unwrap(), Some(3), "{}", refused.log_text());
    pipeline.commit_orders(30..40, 5).await.unwrap();
    let relay = shell.start(&run, "accepting.log");
    says(&relay, "gap accepted by --accept-gap").await;
    pipeline.arrived("event_log", 20).await.unwrap();
    relay.stop().await.unwrap();
    let relay = pipeline.relay().unwrap();

    let found = shell.ends(&look).await;
    assert_eq!(found.code, Some(3), "{}", found.text);
    assert!(found.text.contains("20 missing, 0 not published yet"), "{}", found.text);
    // Two who repair the same do not publish it twice.
    let (said, _) = tokio::join!(shell.run(&fix), shell.run(&fix));
    assert!(said.contains("0 missing"), "{said}");
    pipeline.arrived("event_log", 40).await.unwrap();
    assert_eq!(read(&pipeline, "order", 40).len(), 40);
    shell.run(&look).await;
    relay.stop().await.unwrap();
    consumer.stop().await.unwrap();
}
