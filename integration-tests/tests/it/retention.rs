//! Old events leave the outbox, published ones only.

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::Stack,
};
use tokio_postgres::Client;

use crate::{
    partitions::PARTITIONED,
    records::{assert_once_and_in_order, read},
};

/// Short, so that it is looked for often: every hundredth of it.
const RETENTION: &str = "OUTPOUR_RELAY_RETENTION=15m";

/// Appends `count` events that happened so long ago.
async fn append(client: &Client, count: i32, ago: &str) {
    let insert = format!(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, occurred_at)
         SELECT gen_random_uuid(), 'order', i::text, 't', '{{}}', now() - interval '{ago}'
         FROM generate_series(1, $1) i"
    );
    client.execute(&insert, &[&count]).await.unwrap();
}

async fn remaining(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

async fn comes_to(client: &Client, expected: i64) {
    eventually(PATIENCE, async || {
        let rows = remaining(client, "outbox").await;
        anyhow::ensure!(rows == expected, "{rows} rows, expected {expected}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_removed_once_kafka_has_them_and_not_before() {
    let stack = Stack::private("retention").await.unwrap();
    let pipeline = Pipeline::new(&stack, "").await.unwrap();
    pipeline.set(RETENTION).unwrap();
    let client = pipeline.postgres().await.unwrap();
    append(&client, 10, "2 hours").await;
    append(&client, 10, "1 second").await;
    let relay = pipeline.relay().unwrap();
    comes_to(&client, 10).await;
    assert_eq!(read(&pipeline, "order", 20).len(), 20);
    relay.stop().await.unwrap();

    // The next relay has read its checkpoint when Kafka goes away.
    append(&client, 5, "1 second").await;
    let relay = pipeline.relay().unwrap();
    assert_eq!(read(&pipeline, "order", 25).len(), 25);
    stack.kafka.pause().await.unwrap();
    append(&client, 2000, "3 hours").await;
    // It has chosen them, and waits for Kafka behind its mark in the log.
    eventually(PATIENCE, async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND state = 'idle' AND query LIKE '%outpour-mark%' AND application_name = 'outpour'";
        let waiting: i64 = client.query_one(waits, &[]).await?.get(0);
        anyhow::ensure!(waiting > 0, "nothing has been chosen");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(remaining(&client, "outbox").await, 2015);
    stack.kafka.resume().await.unwrap();
    comes_to(&client, 15).await;
    // An application that deletes its events itself still may.
    client
        .batch_execute(
            "BEGIN; INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             VALUES (gen_random_uuid(), 'order', 'gone', 't', '{}');
             DELETE FROM outbox WHERE aggregateid = 'gone'; COMMIT",
        )
        .await
        .unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 2026), 2026);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_partitions_go_as_a_whole_with_a_default_partition_beside_them_or_without() {
    for with_default in [false, true] {
        let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
        pipeline.set(RETENTION).unwrap();
        let client = pipeline.postgres().await.unwrap();
        client.batch_execute(PARTITIONED).await.unwrap();
        if with_default {
            client
                .batch_execute(
                    "ALTER TABLE outbox DETACH PARTITION outbox_new;
                     DROP TABLE outbox_new;
                     CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT",
                )
                .await
                .unwrap();
        }
        // Detached by a relay that was stopped before it could drop it.
        client
            .batch_execute(
                "CREATE TABLE outbox_older (LIKE outbox);
                 COMMENT ON TABLE outbox_older IS
                   'outpour: expired partition of \"public\".\"outbox\"'",
            )
            .await
            .unwrap();
        succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
        append(&client, 10, "10 years").await;
        append(&client, 10, "1 second").await;
        append(&client, 10, "90 minutes").await;
        let relay = pipeline.relay().unwrap();
        let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                      WHERE relkind = 'r' AND relname LIKE 'outbox%'";
        eventually(PATIENCE, async || {
            let left: String = client.query_one(tables, &[]).await?.get(0);
            let expected = if with_default { "outbox_rest" } else { "outbox_new" };
            anyhow::ensure!(left == expected, "left: {left}");
            Ok(())
        })
        .await
        .unwrap();
        // Of a partition that is not old as a whole nothing is removed; a default
        // partition never is, so that its rows are.
        comes_to(&client, if with_default { 10 } else { 20 }).await;
        assert_once_and_in_order(&read(&pipeline, "order", 30), 30);
        relay.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_trigger_keeps_are_told_and_publishing_goes_on() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set(RETENTION).unwrap();
    let client = pipeline.postgres().await.unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER keep BEFORE DELETE ON outbox
             FOR EACH ROW WHEN (OLD.aggregateid < '3') EXECUTE FUNCTION keep()",
        )
        .await
        .unwrap();
    append(&client, 5, "2 hours").await;
    let relay = pipeline.relay().unwrap();
    let told = "2 old events of public.outbox are still there after DELETE: a trigger";
    relay.logged(told, PATIENCE).await.unwrap();
    assert_eq!(remaining(&client, "outbox").await, 2);
    assert_once_and_in_order(&read(&pipeline, "order", 5), 5);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_privilege_it_warns_and_publishing_goes_on() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set(RETENTION).unwrap();
    let user = &pipeline.name;
    let client = pipeline.postgres().await.unwrap();
    client
        .batch_execute(&format!(
            "CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'p'; GRANT SELECT ON outbox TO {user}"
        ))
        .await
        .unwrap();
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{user}:p@{place}")).unwrap();
    append(&client, 5, "2 hours").await;
    let relay = pipeline.relay().unwrap();
    let grant = format!("GRANT SELECT, DELETE ON public.outbox TO {user}");
    relay.logged(&grant, PATIENCE).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 5), 5);
    assert_eq!(remaining(&client, "outbox").await, 5);
    // It is tried again without a restart.
    client.batch_execute(&grant).await.unwrap();
    comes_to(&client, 0).await;
    relay.stop().await.unwrap();
    client.batch_execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await.unwrap();
}
