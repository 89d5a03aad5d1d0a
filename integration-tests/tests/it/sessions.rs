//! Connections to the database: what they find by the URL, and what they set for
//! themselves, whatever role and database bring along.

use std::fs;

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, succeeded},
    stack::Stack,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::JoinHandle,
};
use tokio_postgres::{Client, NoTls};

use crate::{
    bad_input::assert_refused,
    diagnosis::Diagnosis,
    records::{assert_once_and_in_order, read},
};

/// A role of the pipeline's own, as which the programs connect from now on; and a
/// connection that may do anything.
async fn connect_as_role(pipeline: &Pipeline<'_>, rights: &str) -> Client {
    let client = pipeline.postgres().await.unwrap();
    let role = &pipeline.name;
    let create = format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'p'; {rights}");
    client.batch_execute(&create).await.unwrap();
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    pipeline.set(&format!("OUTPOUR_POSTGRES_URL=postgres://{role}:p@{place}")).unwrap();
    client
}

async fn drop_role(pipeline: &Pipeline<'_>, client: &Client) {
    let role = &pipeline.name;
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

/// Makes what is in the table older than the slot.
async fn renew_slot(pipeline: &Pipeline<'_>, client: &Client) {
    for call in
        ["pg_drop_replication_slot($1)", "pg_create_logical_replication_slot($1, 'pgoutput')"]
    {
        client.execute(&format!("SELECT {call}"), &[&pipeline.name]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_inherit_nothing_that_a_role_sets() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let (role, (_, database)) = (&pipeline.name, pipeline.postgres_url.rsplit_once('/').unwrap());
    let client = connect_as_role(
        &pipeline,
        &format!(
            "GRANT CREATE ON DATABASE {database} TO {role};
             GRANT CREATE, USAGE ON SCHEMA public TO {role};
             CREATE SCHEMA elsewhere;
             CREATE FUNCTION elsewhere.to_regclass(text) RETURNS regclass
                 LANGUAGE sql AS 'SELECT NULL::regclass';
             GRANT USAGE ON SCHEMA elsewhere TO {role}"
        ),
    )
    .await;
    for setting in [
        "search_path = elsewhere, public, pg_catalog",
        "timezone = 'Asia/Tokyo'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -3",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "lock_timeout = '1ms'",
        "row_security = on",
    ] {
        client.batch_execute(&format!("ALTER ROLE {role} SET {setting}")).await.unwrap();
    }
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let events = pipeline.file("events.jsonl");
    fs::write(&events, r#"{"aggregatetype":"order","aggregateid":"emitted","type":"t"}"#).unwrap();
    let emit = ["emit", events.to_str().unwrap()];
    succeeded(&pipeline.relay_output(&emit).await.unwrap()).unwrap();

    // A time without a zone is UTC's. Written there, the fresh event is nine hours
    // old in Tokyo.
    client
        .batch_execute(
            "ALTER TABLE outbox ALTER occurred_at DROP DEFAULT,
                 ALTER occurred_at TYPE timestamp USING occurred_at AT TIME ZONE 'UTC',
                 ADD raw bytea DEFAULT '\\x00ff', ADD ratio float8 DEFAULT 0.1::float8 + 0.2;
             INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, occurred_at)
             SELECT gen_random_uuid(), 'order', key, 't', '{}', now() AT TIME ZONE 'UTC' - ago
             FROM (VALUES ('fresh', interval '1 second'), ('old', interval '2 hours')) row (key, ago)",
        )
        .await
        .unwrap();
    renew_slot(&pipeline, &client).await;
    pipeline.set("OUTPOUR_RELAY_RETENTION=15m").unwrap();
    // Of the same role, or the snapshot does not see that it is idle.
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    let url = format!("postgres://{role}:p@{place}");
    let (mut other, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = other.build_transaction().read_only(false).start().await.unwrap();
    let sql = "SELECT FROM public.outbox WHERE aggregateid = 'old' FOR UPDATE";
    lock.batch_execute(sql).await.unwrap();
    let relay = pipeline.relay().unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 3), 3);
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                                AND query LIKE 'DELETE FROM public.outbox%' AND usename = $1)";
    eventually(PATIENCE, async || {
        let is_waiting = client.query_one(waits, &[role]).await?.get::<_, bool>(0);
        anyhow::ensure!(is_waiting, "{}", relay.log_text());
        Ok(())
    })
    .await
    .unwrap();
    lock.rollback().await.unwrap();
    let keys = "SELECT string_agg(aggregateid, ' ' ORDER BY aggregateid) FROM outbox";
    eventually(PATIENCE, async || {
        let left: Option<String> = client.query_one(keys, &[]).await?.get(0);
        anyhow::ensure!(left.as_deref() == Some("emitted fresh"), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
    let doctor = Diagnosis::of(&pipeline.relay_output(&["doctor", "--json"]).await.unwrap());
    assert_eq!(doctor.code, Some(0), "{:#?}", doctor.at("problem"));
    assert!(!relay.log_text().contains("removes nothing"), "{}", relay.log_text());
    relay.stop().await.unwrap();
    drop_role(&pipeline, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_not_passed_over() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let role = &pipeline.name;
    let client = connect_as_role(
        &pipeline,
        &format!(
            "GRANT SELECT ON outbox TO {role}; ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
             CREATE POLICY half ON outbox USING (aggregateid < '5')"
        ),
    )
    .await;
    pipeline.commit_orders(0..10, 10).await.unwrap();
    renew_slot(&pipeline, &client).await;
    let refused = pipeline.relay_output(&["run"]).await.unwrap();
    assert_refused(&refused, 1, &["hides rows of public.outbox", "BYPASSRLS", "relay.snapshot"]);
    let doctor = Diagnosis::of(&pipeline.relay_output(&["doctor", "--json"]).await.unwrap());
    doctor.assert("warning", "row-security", "hides rows");
    client.batch_execute(&doctor.fix("snapshot", "may not read all of")).await.unwrap();
    let relay = pipeline.relay().unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 10), 10);
    relay.stop().await.unwrap();
    drop_role(&pipeline, &client).await;
}

/// A socket as PostgreSQL's, whose directory is named; whoever connects to it
/// reaches `server`.
fn socket(directory: &std::path::Path, server: String) -> JoinHandle<()> {
    fs::create_dir_all(directory).unwrap();
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_may_name_several_hosts_a_socket_and_a_password_with_an_at_sign() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let role = &pipeline.name;
    let client = connect_as_role(
        &pipeline,
        &format!("GRANT SELECT ON outbox TO {role}; ALTER ROLE {role} PASSWORD 'Sec@ret:1'"),
    )
    .await;
    let (_, place) = pipeline.postgres_url.rsplit_once('@').unwrap();
    let (server, database) = place.split_once('/').unwrap();
    let directory = std::env::temp_dir().join(role);
    let forwarding = socket(&directory, server.to_owned());
    let encoded = directory.to_str().unwrap().replace('/', "%2F");
    // Nobody is at the first one. A line of a file ends as lines do.
    let hosts = format!("127.0.0.1:1,{encoded}");
    let url = |password: &str| {
        let attributes = "target_session_attrs=read-write";
        format!(
            "OUTPOUR_POSTGRES_URL=\"postgres://{role}:{password}@{hosts}/{database}?{attributes}\\n\""
        )
    };
    pipeline.set(&url("Sec@ret:1")).unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..5, 1).await.unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", 5), 5);
    relay.stop().await.unwrap();

    for password in ["Sec/ret:1", "Sec@ret?1", "Sec:re@t?a=1"] {
        pipeline.set(&url(password)).unwrap();
        let output = pipeline.relay_output(&["run"]).await.unwrap();
        assert_refused(&output, 2, &["postgres.url", "percent-encode"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("Sec") && !text.contains("t?a") && !text.contains("ret"), "{text}");
    }
    forwarding.abort();
    fs::remove_dir_all(directory).unwrap();
    drop_role(&pipeline, &client).await;
}
