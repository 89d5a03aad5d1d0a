//! An outbox table that is partitioned.

use std::collections::HashSet;

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::Stack,
};

use crate::records::{assert_once_and_in_order, read};

/// The outbox as `init` makes it, but for its partitions: one for what happened
/// before 2026, and one for the rest.
pub(crate) const PARTITIONED: &str = "
    CREATE TABLE outbox (
        id uuid, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL,
        payload jsonb, occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        schema_version integer NOT NULL DEFAULT 1, traceparent text,
        PRIMARY KEY (id, occurred_at)
    ) PARTITION BY RANGE (occurred_at);
    CREATE TABLE outbox_old PARTITION OF outbox FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_partition_are_published_those_from_before_the_publication_s_repair_too() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    // It would have the rows whatever the log calls them.
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=never").unwrap();
    let client = pipeline.postgres().await.unwrap();
    let name = &pipeline.name;
    client.batch_execute(PARTITIONED).await.unwrap();
    for statement in [
        format!("CREATE PUBLICATION {name} FOR TABLE outbox WITH (publish = 'insert')"),
        format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"),
    ] {
        client.batch_execute(&statement).await.unwrap();
    }
    // These are in the log under the partition's name.
    pipeline.commit_orders(0..10, 2).await.unwrap();

    let mut relay = pipeline.relay().unwrap();
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    let repair = format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true)");
    assert!(relay.log_text().contains(&repair), "{}", relay.log_text());

    client.batch_execute(&repair).await.unwrap();
    let _relay = pipeline.relay().unwrap();
    pipeline.commit_orders(10..20, 2).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 20), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_publishes_a_partitioned_table_under_its_own_name_and_a_row_that_moves_twice() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_SNAPSHOT=never").unwrap();
    pipeline.postgres().await.unwrap().batch_execute(PARTITIONED).await.unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let _relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 2).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 10), 10);
    // To the log it is a row that is written anew, as docs/delivery.md says.
    let client = pipeline.postgres().await.unwrap();
    let moved = "UPDATE outbox SET occurred_at = '2025-06-01' WHERE aggregateid = '3'";
    assert_eq!(client.execute(moved, &[]).await.unwrap(), 1);
    let ids: HashSet<_> = read(&pipeline, "order", 11).into_iter().map(|found| found.id).collect();
    assert_eq!(ids.len(), 10);
}
