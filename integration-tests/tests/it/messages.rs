//! Events without a table: logical messages.

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, succeeded},
    stack::Stack,
};
use rdkafka::Message;
use tokio_postgres::error::SqlState;

const EMIT: &str = "SELECT outpour_emit('order', $1, 'placed', $2::text::jsonb)";

/// Key, value and place of the first `count` records.
fn read(pipeline: &Pipeline<'_>, count: usize) -> Vec<(String, String, String)> {
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let found = reader.take(count, |message| {
        let place = header(message, "outpour-lsn")?;
        Some((text(message.key()), text(message.payload()), place))
    });
    found.unwrap()
}

/// The reason and the value of this pipeline's first dead letter.
fn letter(pipeline: &Pipeline<'_>, wanted: &[u8]) -> (String, Vec<u8>) {
    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let found = reader.take(1, |message| {
        let value = message.payload().filter(|value| *value == wanted)?;
        Some((header(message, "outpour-reason")?, value.to_vec()))
    });
    found.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_any_table_publishes_messages() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline.set("OUTPOUR_OUTBOX_TABLE=").unwrap();
    for _ in 0..2 {
        succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    }
    let client = pipeline.postgres().await.unwrap();
    let tables: i64 = client
        .query_one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(tables, 0);
    let relay = pipeline.relay().unwrap();
    client.execute(EMIT, &[&"k", &r#"{"n": 1}"#]).await.unwrap();
    // One more in a transaction that is rolled back.
    client
        .batch_execute("BEGIN; SELECT outpour_emit('order', 'k', 't', '{}'); ROLLBACK")
        .await
        .unwrap();
    client.execute(EMIT, &[&"k", &r#"{"n": 3}"#]).await.unwrap();
    let found = read(&pipeline, 2);
    let found: Vec<_> =
        found.iter().map(|(key, value, _)| (key.as_str(), value.as_str())).collect();
    assert_eq!(found, [("k", r#"{"n": 1}"#), ("k", r#"{"n": 3}"#)]);
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_rows_of_one_transaction_arrive_in_its_order() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    const INSERT: &str = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                          VALUES (gen_random_uuid(), 'order', $1, 'placed', $2::text::jsonb)";
    for transaction in 0..5 {
        let tx = client.transaction().await.unwrap();
        for n in 0..6 {
            let sql = if (transaction + n) % 2 == 0 { EMIT } else { INSERT };
            tx.execute(sql, &[&"k", &(transaction * 6 + n).to_string()]).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    let found = read(&pipeline, 30);
    let values: Vec<_> = found.iter().map(|(_, value, _)| value.parse::<i32>().unwrap()).collect();
    assert_eq!(values, (0..30).collect::<Vec<i32>>());
    let ordinals: Vec<_> =
        found.iter().map(|(_, _, place)| place.rsplit('/').next().unwrap()).collect();
    assert_eq!(ordinals, ["0", "1", "2", "3", "4", "5"].repeat(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_refuses_what_the_table_would_refuse() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let cases = [
        ("NULL, 'k', 't', '{}'", "23502"),
        ("'o', NULL, 't', '{}'", "23502"),
        ("'o', 'k', NULL, '{}'", "23502"),
        ("'o', 'k', 't', '{}', id => NULL", "23502"),
        ("'o', 'k', 't', '{}', occurred_at => NULL", "23502"),
        ("'o', 'k', 't', '{}', schema_version => NULL", "23502"),
        ("'o', 'k', 't', '{}', extra => '[1]'", "22023"),
    ];
    for (arguments, state) in cases {
        let error = client.batch_execute(&format!("SELECT outpour_emit({arguments})")).await;
        let error = error.expect_err(arguments);
        assert_eq!(error.code().map(SqlState::code), Some(state), "{arguments}: {error}");
    }
    // On any search path, and with a table of the caller's that shadows a name.
    client
        .batch_execute(
            "CREATE SCHEMA own; CREATE FUNCTION own.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS 'SELECT 1/0';
             SET search_path = own, pg_catalog; SET datestyle = 'SQL'; SET timezone = 'Asia/Kathmandu';
             SELECT public.outpour_emit('o', 'k', 't', NULL, extra => '{}')",
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_events_are_parked_or_passed_over_and_nothing_waits_for_them() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let content = format!("not an event of {}", pipeline.name);
    let emit = "SELECT pg_logical_emit_message($1, $2, $3::text)";
    client.execute(EMIT, &[&"1", &"1"]).await.unwrap();
    client.execute(emit, &[&true, &"outpour", &content]).await.unwrap();
    client.execute(emit, &[&true, &"another", &content]).await.unwrap();
    for _ in 0..3 {
        client.execute(emit, &[&false, &"outpour", &content]).await.unwrap();
        client.execute(emit, &[&false, &"another", &content]).await.unwrap();
    }
    client.execute(EMIT, &[&"1", &"2"]).await.unwrap();
    let values: Vec<_> = read(&pipeline, 2).into_iter().map(|(_, value, _)| value).collect();
    assert_eq!(values, ["1", "2"]);
    let (reason, value) = letter(&pipeline, content.as_bytes());
    assert_eq!((reason.as_str(), value.as_slice()), ("invalid_message", content.as_bytes()));
    let told = relay.log_text().matches("not part of a transaction").count();
    assert_eq!(told, 1, "{}", relay.log_text());
    assert_eq!(relay.log_text().matches("message parked").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_follows_a_log_full_of_others_messages() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let confirmed = async || -> i64 {
        let sql = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots
                   WHERE slot_name = $1";
        client.query_one(sql, &[&pipeline.name]).await.unwrap().get(0)
    };
    let before = confirmed().await;
    // Without a pause, in which the server would say by itself how far it is.
    let flooder = pipeline.postgres().await.unwrap();
    let flood = tokio::spawn(async move {
        let sql = "SELECT count(pg_logical_emit_message(true, 'another', repeat('x', 10000)))
                   FROM generate_series(1, 50)";
        loop {
            flooder.execute(sql, &[]).await.unwrap();
        }
    });
    eventually(PATIENCE, async || {
        let moved = confirmed().await - before;
        anyhow::ensure!(moved > 16 << 20, "moved by {moved} bytes");
        Ok(())
    })
    .await
    .unwrap();
    flood.abort();
}
