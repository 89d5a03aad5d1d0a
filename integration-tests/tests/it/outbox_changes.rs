//! An outbox that is changed under a running relay, or while the log is half read.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, succeeded},
    program::Program,
    stack::Stack,
};
use rdkafka::Message;
use tokio_postgres::Client;

use crate::{
    diagnosis::Diagnosis,
    probes::{address, comes_to},
    records::{assert_gap_free, assert_once_and_in_order, read},
};

/// An insert of one event, with these further columns and values.
fn insert(table: &str, columns: &str, values: &str) -> String {
    format!(
        "INSERT INTO {table} (id, aggregatetype, aggregateid, type, {columns})
         VALUES (gen_random_uuid(), 'order', 'k', 't', {values})"
    )
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Waits until the relay, at its address, is unready for a reason with `part`.
async fn unready(address: &str, part: &str) {
    let body = comes_to(address, 503, "active").await;
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.contains(part) && reason.contains("reconcile --outbox --fix"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_is_unready_while_its_table_is_not_published_and_names_the_remedy() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_STALL_AFTER=5s").unwrap();
    let client = pipeline.postgres().await.unwrap();
    let publication = format!("ALTER PUBLICATION {}", pipeline.name);
    let relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    let address = address(&relay).await;
    pipeline.commit_orders(0..1, 1).await.unwrap();
    pipeline.arrived("event_log", 1).await.unwrap();
    comes_to(&address, 200, "active").await;

    // Rows that are written now are not in the log, and nobody would ever say so.
    run(&client, &format!("{publication} DROP TABLE outbox")).await;
    pipeline.commit_orders(1..2, 1).await.unwrap();
    unready(&address, &format!("{publication} ADD TABLE public.outbox")).await;
    run(&client, &format!("{publication} ADD TABLE outbox")).await;
    comes_to(&address, 200, "active").await;
    relay.logged("has been changed or made anew", PATIENCE).await.unwrap();
    pipeline.commit_orders(2..3, 1).await.unwrap();
    pipeline.arrived("event_log", 2).await.unwrap();
    pipeline.at_rest(2).await.unwrap();
    let remedy = ["reconcile", "--outbox", "--fix", "--yes"];
    succeeded(&pipeline.consumer_output(&remedy).await.unwrap()).unwrap();
    pipeline.arrived("event_log", 3).await.unwrap();
    consumer.stop().await.unwrap();

    // Another table under its name. Who writes to the one that it was is heard still.
    run(
        &client,
        "ALTER TABLE outbox RENAME TO outbox_old;
         CREATE TABLE outbox (LIKE outbox_old INCLUDING ALL)",
    )
    .await;
    run(&client, &insert("outbox_old", "payload", "'4'")).await;
    unready(&address, "does not publish inserts of public.outbox").await;
    run(&client, &format!("{publication} ADD TABLE outbox")).await;
    comes_to(&address, 200, "active").await;
    run(&client, &insert("outbox", "payload", "'5'")).await;
    assert_once_and_in_order(&read(&pipeline, "order", 5), 5);
    // A publication of other changes, which has the table.
    run(&client, &format!("{publication} SET (publish = 'update')")).await;
    unready(&address, &format!("{publication} SET (publish = 'insert')")).await;
    run(&client, &format!("{publication} SET (publish = 'insert')")).await;
    comes_to(&address, 200, "active").await;
    // And no table at all.
    run(&client, "DROP TABLE outbox").await;
    unready(&address, "table public.outbox does not exist").await;
    relay.stop().await.unwrap();
}

/// Waits until the relay ends on rows that the configuration does not fit; what it
/// said.
async fn stops(relay: &mut Program) -> String {
    assert_eq!(relay.ended(PATIENCE).await.unwrap(), Some(1));
    relay.log_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_publishes_what_is_before_a_renamed_column_and_another_configuration_goes_on() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let relay = pipeline.relay().unwrap();
    run(&client, &insert("outbox", "payload", "'0'")).await;
    read(&pipeline, "order", 1);
    relay.stop().await.unwrap();

    let old = |n: u32| insert("outbox", "payload", &format!("'{n}'"));
    let new = |n: u32| insert("outbox", "body", &format!("'{n}'"));
    run(&client, &old(1)).await;
    let rename = "ALTER TABLE outbox RENAME payload TO body";
    run(&client, &format!("BEGIN; {}; {rename}; {}; COMMIT", old(2), new(3))).await;
    run(&client, &new(4)).await;
    for _ in 0..2 {
        let told = stops(&mut pipeline.relay().unwrap()).await;
        let missing = "table public.outbox has no column `payload` (outbox.column_payload)";
        assert!(told.contains(missing), "{told}");
        assert!(told.contains("`type`, `body`"), "{told}");
        assert!(told.contains("set outbox.column_payload to fit them"), "{told}");
        assert_once_and_in_order(&read(&pipeline, "order", 3), 3);
    }
    // Rows from before the change are in what the slot sends again.
    pipeline.set("OUTPOUR_OUTBOX_COLUMN_PAYLOAD=body").unwrap();
    let relay = pipeline.relay().unwrap();
    let found = read(&pipeline, "order", 5);
    assert_once_and_in_order(&found, 5);
    assert_gap_free(&found, 4);
    relay.stop().await.unwrap();

    // A column that the configuration asks for before the table has it.
    run(&client, &new(5)).await;
    run(&client, "ALTER TABLE outbox ADD tenant text DEFAULT 'a', ALTER type TYPE int USING 7")
        .await;
    run(&client, &insert("outbox", "body, tenant", "'6', 'b'").replace("'t'", "7")).await;
    pipeline.set("OUTPOUR_RELAY_ADDITIONAL_FIELDS=tenant:header").unwrap();
    let told = stops(&mut pipeline.relay().unwrap()).await;
    assert!(told.contains("relay.additional_field_missing = \"ignore\""), "{told}");
    pipeline.set("OUTPOUR_RELAY_ADDITIONAL_FIELD_MISSING=ignore").unwrap();
    let relay = pipeline.relay().unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let found = reader.take(7, |message| {
        let payload = String::from_utf8(message.payload()?.to_vec()).ok()?;
        Some((payload, header(message, "tenant")))
    });
    let found = found.unwrap();
    assert_eq!(found[5..], [("5".to_owned(), None), ("6".to_owned(), Some("b".to_owned()))]);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_publishes_rows_of_children_and_refuses_a_child_that_the_publication_lacks() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    pipeline.set("OUTPOUR_RELAY_STALL_AFTER=5s").unwrap();
    let client = pipeline.postgres().await.unwrap();
    let name = &pipeline.name;
    // Rows go where their tenant is, and what they are inserted into stays empty.
    run(
        &client,
        "CREATE TABLE outbox_eu (tenant text) INHERITS (outbox);
         CREATE TABLE \"Outbox UK\" () INHERITS (outbox_eu);
         CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO \"Outbox UK\" SELECT NEW.*; RETURN NULL; END $$;
         CREATE TRIGGER route BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION route()",
    )
    .await;
    run(&client, &format!("ALTER PUBLICATION {name} ADD TABLE outbox_eu")).await;
    run(&client, &format!("ALTER PUBLICATION {name} DROP TABLE \"Outbox UK\"")).await;
    let told = stops(&mut pipeline.relay().unwrap()).await;
    let remedy = format!("ALTER PUBLICATION {name} ADD TABLE public.\"Outbox UK\"");
    assert!(told.contains(&remedy), "{told}");
    let doctor = pipeline.relay_output(&["doctor", "--json"]).await.unwrap();
    let doctor = Diagnosis::of(&doctor);
    run(&client, &doctor.fix("publication", "INHERITS")).await;
    let doctor = pipeline.relay_output(&["doctor", "--json"]).await.unwrap();
    assert_eq!(Diagnosis::of(&doctor).at("problem"), Vec::<&serde_json::Value>::new());

    let relay = pipeline.relay().unwrap();
    // The log has the address of the one before it as well.
    relay.logged("relay started", PATIENCE).await.unwrap();
    let address = address(&relay).await;
    run(&client, &insert("outbox", "payload", "'1'")).await;
    let count = "SELECT count(*) FROM ONLY outbox";
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
    read(&pipeline, "order", 1);
    // One that becomes a child while the relay runs, and has rows before that.
    run(&client, "CREATE TABLE outbox_us (LIKE outbox INCLUDING ALL)").await;
    run(&client, &format!("ALTER PUBLICATION {name} ADD TABLE outbox_us")).await;
    run(&client, &insert("outbox_us", "payload", "'0'")).await;
    relay.logged("events of a table are passed over", PATIENCE).await.unwrap();
    run(&client, "ALTER TABLE outbox_us INHERIT outbox").await;
    run(&client, &insert("outbox_us", "payload", "'2'")).await;
    let found = read(&pipeline, "order", 2);
    assert_once_and_in_order(&found, 2);
    // And one that does so without being published.
    run(&client, "CREATE TABLE outbox_asia () INHERITS (outbox)").await;
    run(&client, &insert("outbox_asia", "payload", "'3'")).await;
    unready(&address, &format!("ALTER PUBLICATION {name} ADD TABLE public.outbox_asia")).await;
    run(&client, &format!("ALTER PUBLICATION {name} ADD TABLE outbox_asia")).await;
    comes_to(&address, 200, "active").await;

    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", 2).await.unwrap();
    pipeline.at_rest(2).await.unwrap();
    let repair = ["reconcile", "--outbox", "--fix", "--yes", "--json"];
    eventually(PATIENCE, async || {
        let output = pipeline.consumer_output(&repair).await?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["outbox"]["missing"] == 0, "{report:#}");
        Ok(())
    })
    .await
    .unwrap();
    consumer.stop().await.unwrap();
    relay.stop().await.unwrap();
}
