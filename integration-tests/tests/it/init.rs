//! `outpour-relay init` while others have transactions open.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, succeeded},
    program::{Binary, Program},
    stack::Stack,
};
use tokio_postgres::Client;

use crate::diagnosis::Diagnosis;

fn init(pipeline: &Pipeline<'_>, log: &str) -> Program {
    Binary::Relay.spawn(&pipeline.config(), &pipeline.file(log), &["init"], &[]).unwrap()
}

/// Asks it to end, as Ctrl-C does; what it has said.
async fn interrupt(mut init: Program) -> String {
    init.terminate().unwrap();
    assert_eq!(init.ended(PATIENCE).await.unwrap(), Some(1), "{}", init.log_text());
    init.log_text()
}

/// A session with a transaction open that has done `sql`, and its backend.
async fn holder(pipeline: &Pipeline<'_>, sql: &str) -> (Client, i32) {
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    (client, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn init_names_whom_it_waits_for_and_what_it_had_made_when_it_is_given_up() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let name = &pipeline.name;
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("CREATE TABLE outbox (id uuid)").await.unwrap();

    // A lock on the table keeps it from being published.
    let (locker, pid) = holder(&pipeline, "LOCK TABLE outbox IN SHARE MODE").await;
    let first = init(&pipeline, "locked.log");
    let waits = format!("publication {name} waits for backend {pid}");
    first.logged(&waits, PATIENCE).await.unwrap();
    let said = interrupt(first).await;
    let cannot = format!("cannot create publication {name} (nothing was created before it)");
    assert!(said.contains("table public.outbox is there\n") && said.contains(&cannot), "{said}");
    locker.batch_execute("ROLLBACK").await.unwrap();

    // Whatever a transaction has written keeps the slot from beginning.
    let (writer, pid) = holder(&pipeline, "CREATE TABLE other (x int)").await;
    let second = init(&pipeline, "written.log");
    let waits = format!("replication slot {name} waits for backend {pid}");
    second.logged(&waits, PATIENCE).await.unwrap();
    let output = pipeline.relay_output(&["doctor", "--json"]).await.unwrap();
    let finding = Diagnosis::of(&output);
    let finding = finding.assert("warning", "slot", &format!("backend {pid}"));
    let end = format!("SELECT pg_terminate_backend({pid});");
    let fix = finding["fix"].as_str().unwrap();
    assert!(fix.contains(&end) && fix.matches("terminate").count() == 1, "{finding:#}");
    let again = pipeline.relay_output(&["init"]).await.unwrap();
    let again = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.contains("is still being created"), "{again}");
    let said = interrupt(second).await;
    let cannot = format!("cannot create replication slot {name}");
    let staying = format!("created before it, and staying: publication {name}");
    assert!(said.contains(&cannot) && said.contains(&staying), "{said}");
    let slots = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{name}'");
    eventually(PATIENCE, async || {
        let left = client.query(&slots, &[]).await?.len();
        ensure!(left == 0, "{left} slots");
        Ok(())
    })
    .await
    .unwrap();

    let mut third = init(&pipeline, "ended.log");
    third.logged(&waits, PATIENCE).await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(third.ended(PATIENCE).await.unwrap(), Some(0), "{}", third.log_text());
    let last = pipeline.relay_output(&["init"]).await.unwrap();
    succeeded(&last).unwrap();
    let there = String::from_utf8_lossy(&last.stdout).into_owned();
    assert_eq!(there.matches(" is there\n").count(), 4, "{there}");
}
