//! Databases whose text is not UTF-8.

use integration_tests::{
    pipeline::{Pipeline, header, succeeded},
    stack::Stack,
};
use rdkafka::Message;
use tokio_postgres::Client;

use crate::diagnosis::Diagnosis;

/// A pipeline whose database has this encoding, without any `init`.
async fn encoded(encoding: &str) -> (Pipeline<'static>, Client) {
    let stack = Stack::shared().await.unwrap();
    let mut pipeline = Pipeline::bare(stack, "").await.unwrap();
    let name = stack.unique("db");
    let create =
        format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    pipeline.postgres().await.unwrap().batch_execute(&create).await.unwrap();
    let (server, _) = pipeline.postgres_url.rsplit_once('/').unwrap();
    pipeline.postgres_url = format!("{server}/{name}");
    pipeline.configure("").unwrap();
    let client = pipeline.postgres().await.unwrap();
    (pipeline, client)
}

/// An insert of an event with this key and payload, as constants of SQL.
fn insert(key: &str, payload: &str) -> String {
    format!(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         VALUES (gen_random_uuid(), 'order', {key}, 't', {payload})"
    )
}

/// Key and payload of the topic's records, no more than these, as they are read.
fn read(pipeline: &Pipeline<'_>, count: usize) -> Vec<(String, String)> {
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let found = reader.take(count, |message| Some((text(message.key()), text(message.payload()))));
    reader.nothing_more().unwrap();
    found.unwrap()
}

/// Reason, key and payload of the parked rows.
fn parked(pipeline: &Pipeline<'_>, count: usize) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let found = reader.take(count, |message| {
        let reason = header(message, "outpour-reason")?;
        Some((reason, message.key()?.to_vec(), message.payload()?.to_vec()))
    });
    reader.nothing_more().unwrap();
    let mut found = found.unwrap();
    found.sort();
    found
}

/// `init` and `doctor` say which encoding it is.
async fn named(pipeline: &Pipeline<'_>, encoding: &str) {
    let output = pipeline.relay_output(&["init"]).await.unwrap();
    succeeded(&output).unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("encoding is {encoding}")), "{said}");
    let doctor = Diagnosis::of(&pipeline.relay_output(&["doctor", "--json"]).await.unwrap());
    doctor.assert("warning", "encoding", encoding);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_sql_ascii_database_that_are_no_text_are_parked_and_hold_up_nothing() {
    let (pipeline, client) = encoded("SQL_ASCII").await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    let print = pipeline.relay_output(&["init", "--print-sql"]).await.unwrap();
    let sql = String::from_utf8(print.stdout).unwrap();
    run(sql.split(";\n").next().unwrap()).await;
    // Older than the slot, and younger.
    run(&insert("'old'", r#"'"Grüße"'"#)).await;
    run(&insert("'old bad'", r#"E'"\xff"'"#)).await;
    named(&pipeline, "SQL_ASCII").await;
    run(&insert("'new'", r#"'"Grüße"'"#)).await;
    run(&insert(r"E'new b\xe4d'", "'1'")).await;
    run("SELECT outpour_emit('order', 'emitted', 't', '\"Grüße\"')").await;
    // Whoever writes it hears of it, since nothing would be left to look at.
    let refused = client.batch_execute(r"SELECT outpour_emit('order', E'b\xe4d', 't', '1')").await;
    assert!(refused.is_err());

    let relay = pipeline.relay().unwrap();
    let greeting = |key: &str| (key.to_owned(), "\"Grüße\"".to_owned());
    let mut found = read(&pipeline, 3);
    found.sort();
    assert_eq!(found, [greeting("emitted"), greeting("new"), greeting("old")]);
    let reason = || "invalid_encoding".to_owned();
    let bad = [
        (reason(), b"new b\xe4d".to_vec(), b"1".to_vec()),
        (reason(), b"old bad".to_vec(), b"\"\xff\"".to_vec()),
    ];
    assert_eq!(parked(&pipeline, 2), bad);
    relay.stop().await.unwrap();

    // The table has them still, and polling takes all of them, whatever their ids are.
    run(r"ALTER TABLE outbox ALTER id TYPE text; UPDATE outbox SET id = E'b\xe4d' WHERE aggregateid = 'new'").await;
    pipeline.set("OUTPOUR_RELAY_MODE=poll").unwrap();
    let relay = pipeline.relay().unwrap();
    assert_eq!(read(&pipeline, 4).len(), 4);
    let again = parked(&pipeline, 5);
    assert_eq!(again.iter().filter(|letter| letter.1 == b"new").count(), 1, "by its id");
    let left = "SELECT count(*) FROM outbox";
    integration_tests::eventually(integration_tests::pipeline::PATIENCE, async || {
        let left: i64 = client.query_one(left, &[]).await?.get(0);
        anyhow::ensure!(left == 0, "{left} rows are left");
        Ok(())
    })
    .await
    .unwrap();
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_a_database_of_another_encoding_becomes_utf_8_by_table_and_by_message() {
    for (encoding, greeting, bad) in [
        ("LATIN1", "Grüße", false),
        // It has bytes without a meaning.
        ("WIN1252", "Grüße für 5 €", true),
        ("EUC_JP", "こんにちは", false),
    ] {
        let (pipeline, client) = encoded(encoding).await;
        pipeline.set("OUTPOUR_RELAY_MESSAGE_PREFIX=größe").unwrap();
        if encoding == "EUC_JP" {
            pipeline.set("OUTPOUR_RELAY_MESSAGE_PREFIX=大").unwrap();
        }
        let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
        named(&pipeline, encoding).await;
        let payload = format!("'\"{greeting}\"'");
        if bad {
            run(&insert(r"E'\x81'", "'1'")).await;
        }
        run(&insert("'row'", &payload)).await;
        run(&format!("SELECT outpour_emit('order', 'message', 't', {payload})")).await;
        let relay = pipeline.relay().unwrap();
        let expected = |key: &str| (key.to_owned(), format!("\"{greeting}\""));
        let mut found = read(&pipeline, 2);
        found.sort();
        assert_eq!(found, [expected("message"), expected("row")], "{encoding}");
        if bad {
            let letter = ("invalid_encoding".to_owned(), b"\x81".to_vec(), b"1".to_vec());
            assert_eq!(parked(&pipeline, 1), [letter]);
        }
        relay.stop().await.unwrap();
    }
}
