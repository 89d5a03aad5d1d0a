//! What goes wrong, told before it does: each finding on real services.

use std::collections::BTreeMap;

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header},
    stack::Stack,
};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use serde_json::Value;

use crate::diagnosis::{Diagnosis, admin, create_topic};

async fn doctor(pipeline: &Pipeline<'_>) -> Diagnosis {
    Diagnosis::of(&pipeline.relay_output(&["doctor", "--json"]).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_makes_has_no_problem_before_the_first_run_and_after_it() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let before = doctor(&pipeline).await;
    assert_eq!(before.at("problem"), Vec::<&Value>::new());
    assert_eq!(before.code, Some(0), "{}", before.stderr);
    before.assert("ok", "checkpoint", "nothing is published yet");
    before.assert("ok", "wal_level", "logical");
    before.assert("ok", "slot-holder", "no relay");
    before.assert("ok", "transactions", "");

    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..3, 1).await.unwrap();
    pipeline.reader(&pipeline.topic("order")).unwrap().take(3, |m| header(m, "id")).unwrap();
    let after = doctor(&pipeline).await;
    assert_eq!((after.code, after.at("problem")), (Some(0), Vec::new()), "{}", after.stderr);
    after.assert("ok", "slot-holder", "held by a relay");
    after.assert("ok", "checkpoint", "published up to");
    // There is one broker here, and everybody should know.
    let topic = pipeline.topic("order");
    after.assert("warning", "replicas", &format!("`{topic}`"));
    relay.stop().await.unwrap();

    let text = pipeline.relay_output(&["doctor"]).await.unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("wal_level") && text.contains("warning (replicas)"), "{text}");
    assert!(!text.contains("outpour:outpour"), "{text}");
}

/// Had it been fenced, the relay would say so and begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_relay_is_not_disturbed_and_nothing_is_changed() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    // Past its first session, which looks for rows older than the slot.
    pipeline.commit_orders(1000..1001, 1).await.unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    reader.take(1, |message| header(message, "id")).unwrap();
    let sessions = || relay.log_text().matches("relay started").count();
    let sessions_before = sessions();
    let client = pipeline.postgres().await.unwrap();
    let objects = async || -> String {
        let sql = "SELECT string_agg(x, ',' ORDER BY x) FROM (
                SELECT relname::text AS x FROM pg_class WHERE relnamespace = 'public'::regnamespace
                UNION ALL SELECT pubname::text FROM pg_publication
                UNION ALL SELECT slot_name::text FROM pg_replication_slots
                          WHERE database = current_database()) all_of_it";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let before = objects().await;
    let feed = async {
        for first in (0..400).step_by(20) {
            pipeline.commit_orders(first..first + 20, 2).await.unwrap();
        }
    };
    let look = async {
        for _ in 0..4 {
            let diagnosis = doctor(&pipeline).await;
            // Nor is a relay at work taken for one that has lost something.
            assert_eq!((diagnosis.code, diagnosis.at("problem")), (Some(0), Vec::new()));
        }
    };
    tokio::join!(feed, look);
    let ids = reader.take(400, |message| header(message, "id")).unwrap();
    reader.nothing_more().unwrap();
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 400);
    assert_eq!(objects().await, before);
    let log = relay.log_text();
    assert_eq!(sessions(), sessions_before, "{log}");
    assert!(!log.contains("interrupted"), "{log}");
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_for_a_publication_to_lose_events_is_found_and_its_fix_works() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let name = &pipeline.name;
    client.batch_execute("CREATE TABLE other (x int PRIMARY KEY)").await.unwrap();
    // How it is broken, and what is found.
    let cases = [
        ("SET TABLE other", "does not have public.outbox"),
        ("SET (publish = 'update')", "does not publish inserts"),
        ("SET TABLE outbox WHERE (type = 'a')", "row filter"),
        ("SET TABLE outbox (id, payload)", "without `aggregatetype`"),
    ];
    for (change, what) in cases {
        client.batch_execute(&format!("ALTER PUBLICATION {name} {change}")).await.unwrap();
        let found = doctor(&pipeline).await;
        assert_eq!(found.code, Some(3), "{}", found.stderr);
        assert!(found.stderr.contains("problem"), "{}", found.stderr);
        client.batch_execute(&found.fix("publication", what)).await.unwrap();
        let problems = doctor(&pipeline).await;
        assert_eq!(problems.at("problem"), Vec::<&Value>::new(), "after the fix for {change}");
    }
    // The first fix added to what was there.
    let alter = format!("ALTER PUBLICATION {name} ADD TABLE other");
    client.batch_execute(&alter).await.unwrap();
    client
        .batch_execute(&format!("ALTER PUBLICATION {name} SET (publish = 'insert, delete')"))
        .await
        .unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(0));
    found.assert("warning", "publication", "public.other");
    found.assert("warning", "publication", "delete besides inserts");

    client.batch_execute(&format!("DROP PUBLICATION {name}")).await.unwrap();
    doctor(&pipeline).await.assert("problem", "publication", "does not exist");
    let all = format!("CREATE PUBLICATION {name} FOR ALL TABLES WITH (publish = 'insert')");
    client.batch_execute(&all).await.unwrap();
    let found = doctor(&pipeline).await;
    found.assert("warning", "publication", "FOR ALL TABLES");
    // It is younger than the slot, and nothing was written before it: no harm is done.
    assert_eq!(found.at("problem"), Vec::<&Value>::new());
    client.batch_execute(&format!("DROP PUBLICATION {name}")).await.unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    let keyless = format!(
        "ALTER TABLE outbox DROP CONSTRAINT outbox_pkey;
         CREATE PUBLICATION {name} FOR TABLE outbox WITH (publish = 'insert, delete')"
    );
    client.batch_execute(&keyless).await.unwrap();
    // PostgreSQL reads that row with a catalog in which the publication is not.
    let found = doctor(&pipeline).await;
    let fix = found.fix("publication", "was created after rows");
    assert!(fix.contains("reconcile --outbox --fix"), "{fix}");
    let fix = found.fix("publication", "no replica identity");
    client.batch_execute("DELETE FROM outbox").await.unwrap_err();
    client.batch_execute(fix.lines().next().unwrap()).await.unwrap();
    client.batch_execute("DELETE FROM outbox").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_suit_the_configuration_is_found_before_the_first_row() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    pipeline.set("OUTPOUR_RELAY_TIMESTAMP_COLUMN=shipped").unwrap();
    pipeline.set("OUTPOUR_RELAY_ADDITIONAL_FIELDS=shout:header").unwrap();
    client
        .batch_execute(
            "ALTER TABLE outbox DROP COLUMN payload, ADD COLUMN shipped boolean,
             ADD COLUMN shout text GENERATED ALWAYS AS (upper(type)) STORED",
        )
        .await
        .unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3));
    let fix = found.fix("columns", "no column `payload`");
    found.assert("problem", "columns", "`shipped` (relay.timestamp_column) is boolean");
    found.assert("problem", "columns", "`shout` (relay.additional_fields) is generated");
    client.batch_execute(fix.split_once(":\n").unwrap().1).await.unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.at("problem").len(), 2, "{:#?}", found.findings);

    client
        .batch_execute(&format!(
            "DROP PUBLICATION {0}; ALTER TABLE outbox SET UNLOGGED",
            pipeline.name
        ))
        .await
        .unwrap();
    let fix = doctor(&pipeline).await.fix("table", "unlogged");
    client.batch_execute(&fix).await.unwrap();
    client.batch_execute("DROP TABLE outbox").await.unwrap();
    doctor(&pipeline).await.assert("problem", "table", "does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_would_come_under_their_own_names_are_found() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let name = &pipeline.name;
    client
        .batch_execute(&format!(
            "DROP TABLE outbox;
             CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text,
                 payload jsonb, occurred_at timestamptz DEFAULT now()) PARTITION BY RANGE (occurred_at);
             CREATE TABLE outbox_all PARTITION OF outbox DEFAULT;
             ALTER PUBLICATION {name} SET TABLE outbox;
             ALTER PUBLICATION {name} SET (publish_via_partition_root = false)"
        ))
        .await
        .unwrap();
    let fix = doctor(&pipeline).await.fix("publication", "partitions");
    client.batch_execute(&fix).await.unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()));
    // Its rows would be in no log.
    client.batch_execute("ALTER TABLE outbox_all SET UNLOGGED").await.unwrap();
    doctor(&pipeline).await.assert("problem", "table", "a partition of it, is unlogged");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_a_user_lacks_are_found() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let role = format!("{}_reader", pipeline.name);
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    std::fs::write(pipeline.config(), text.replace("outpour:outpour@", &format!("{role}:x@")))
        .unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(3));
    let fix = found.fix("privilege", "may not replicate");
    let select = found.fix("snapshot", "may not read");
    found.assert("ok", "emit", "may not write");
    client.batch_execute(fix.lines().next().unwrap()).await.unwrap();
    client.batch_execute(&select).await.unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!((found.code, found.at("problem")), (Some(0), Vec::new()));
    found.assert("ok", "privilege", "may replicate");
    found.assert("ok", "replication", "can be opened");

    // The name of a table in a schema that it may not use is no name to it.
    client.batch_execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC").await.unwrap();
    let usage = doctor(&pipeline).await.fix("snapshot", "may not read");
    assert!(usage.starts_with("GRANT USAGE ON SCHEMA"), "{usage}");
    client.batch_execute(&usage).await.unwrap();
    assert_eq!(doctor(&pipeline).await.at("problem"), Vec::<&Value>::new());
    // Who it is on an ordinary connection says little of who may open one for the log.
    let other = format!(
        "CREATE ROLE {role}_other REPLICATION; GRANT {role}_other TO {role};
         ALTER ROLE {role} NOREPLICATION; ALTER ROLE {role} SET role = {role}_other"
    );
    client.batch_execute(&other).await.unwrap();
    let found = doctor(&pipeline).await;
    found.assert("ok", "privilege", "_other");
    found.assert("problem", "replication", "42501");
    let back = format!(
        "ALTER ROLE {role} RESET role; ALTER ROLE {role} REPLICATION;
                        DROP ROLE {role}_other"
    );
    client.batch_execute(&back).await.unwrap();

    let configure = |line: &str| std::fs::write(pipeline.file(".env"), line).unwrap();
    configure("OUTPOUR_RELAY_RETENTION=7d");
    doctor(&pipeline).await.fix("retention-rights", "lacks DELETE");
    configure("OUTPOUR_RELAY_MODE=poll");
    let grant = doctor(&pipeline).await.fix("polling-rights", "lacks UPDATE, DELETE");
    client.batch_execute(&grant).await.unwrap();
    doctor(&pipeline).await.assert("ok", "polling-rights", &role);
    configure("OUTPOUR_RELAY_RETENTION=7d");
    doctor(&pipeline).await.assert("ok", "retention-rights", &role);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_or_is_missing_or_of_another_plugin_is_found() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let name = &pipeline.name;
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..5, 1).await.unwrap();
    pipeline.reader(&pipeline.topic("order")).unwrap().take(5, |m| header(m, "id")).unwrap();
    relay.stop().await.unwrap();
    pipeline.commit_orders(5..10, 1).await.unwrap();
    client
        .execute(
            "SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())",
            &[name],
        )
        .await
        .unwrap();
    let moved = doctor(&pipeline).await;
    assert_eq!(moved.code, Some(3));
    assert!(moved.fix("checkpoint", "bytes past").contains("--accept-gap"));

    client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[name]).await.unwrap();
    doctor(&pipeline).await.assert("problem", "slot", "does not exist");
    client
        .execute(
            "SELECT pg_create_logical_replication_slot($1::text::name, 'test_decoding')",
            &[name],
        )
        .await
        .unwrap();
    doctor(&pipeline).await.assert("problem", "slot", "test_decoding");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_kafka_would_refuse_or_lose_records_of_are_found() {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "").await.unwrap();
    let (small, compacted) = (pipeline.topic("small"), pipeline.topic("compacted"));
    create_topic(stack, &small, &[("max.message.bytes", "100000")]).await;
    create_topic(stack, &compacted, &[("cleanup.policy", "compact")]).await;
    // Kafka asks for no more replicas than a topic has: this one takes records.
    let strict = pipeline.topic("order");
    create_topic(stack, &strict, &[("min.insync.replicas", "2")]).await;
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..1, 1).await.unwrap();
    pipeline.reader(&strict).unwrap().take(1, |message| header(message, "id")).unwrap();
    relay.stop().await.unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(0));
    found.assert("warning", "record-size", &format!("`{small}`"));
    found.assert("warning", "retention", "compacted: ");
    found.assert("warning", "replicas", "one replica");

    let alter =
        AlterConfig::new(ResourceSpecifier::Topic(&small)).set("max.message.bytes", "2000000");
    admin(stack).alter_configs([&alter], &AdminOptions::new()).await.unwrap();
    eventually(PATIENCE, async || {
        let found = doctor(&pipeline).await;
        let mut warnings = found.at("warning").into_iter();
        let left = warnings.find(|warning| warning["check"] == "record-size");
        ensure!(left.is_none(), "{left:#?}");
        Ok(())
    })
    .await
    .unwrap();
    pipeline.set("OUTPOUR_RELAY_TOPIC_REPLICATION_FACTOR=3").unwrap();
    doctor(&pipeline).await.assert("problem", "new-topics", "1 brokers");
    // More than the broker allows: what a start would meet, without a start.
    pipeline.set("OUTPOUR_RELAY_TRANSACTION_TIMEOUT=48h").unwrap();
    doctor(&pipeline).await.assert("problem", "transactions", "-doctor`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_cannot_be_asked_does_not_hide_the_other() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_KAFKA_BROKERS=127.0.0.1:1").unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(found.stderr.contains("Kafka at 127.0.0.1:1"), "{}", found.stderr);
    found.assert("problem", "kafka", "127.0.0.1:1");
    found.assert("ok", "wal_level", "logical");
    found.assert("ok", "slot", "stands at");

    std::fs::remove_file(pipeline.file(".env")).unwrap();
    pipeline.set("OUTPOUR_POSTGRES_URL=postgres://outpour:hunter2@127.0.0.1:1/x").unwrap();
    let found = doctor(&pipeline).await;
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    found.assert("problem", "postgres", "127.0.0.1:1");
    found.assert("ok", "transactions", "");
    let said = format!("{}{}", Value::from(found.findings.clone()), found.stderr);
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_set_up_wrong_and_a_slot_that_is_lost_are_found() {
    let stack = Stack::private("doctor").await.unwrap();
    let pipeline = Pipeline::new(&stack, "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let set = async |settings: &[(&str, &str)]| {
        for (name, value) in settings {
            client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        }
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let expected: BTreeMap<_, _> = settings.iter().copied().collect();
        // Each session takes the new values by itself, and not at once.
        eventually(PATIENCE, async || {
            let fresh = pipeline.postgres().await?;
            for (name, value) in &expected {
                let now: String = fresh.query_one(&format!("SHOW {name}"), &[]).await?.get(0);
                ensure!(now == *value, "{name} is {now}");
            }
            Ok(())
        })
        .await
        .unwrap();
    };
    set(&[("max_slot_wal_keep_size", "1MB")]).await;
    set(&[("synchronous_standby_names", "*"), ("synchronous_commit", "local")]).await;
    let found = doctor(&pipeline).await;
    found.assert("warning", "synchronous_standby_names", "wait for the relay");
    found.assert("ok", "slot-wal", "are allowed");

    client.batch_execute("CREATE TABLE noise (x text)").await.unwrap();
    for _ in 0..4 {
        client
            .batch_execute(
                "INSERT INTO noise SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i",
            )
            .await
            .unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }
    doctor(&pipeline).await.assert("problem", "slot-wal", "unreserved");
    client.batch_execute("CHECKPOINT").await.unwrap();
    let lost = doctor(&pipeline).await;
    assert_eq!(lost.code, Some(3));
    assert!(lost.fix("slot", "is lost").contains("pg_drop_replication_slot"));
}
