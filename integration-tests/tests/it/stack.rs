//! The stack itself: does it do what every other test relies on?

use std::{fs, mem, path::Path, time::Duration};

use anyhow::{Result, ensure};
use integration_tests::{
    eventually,
    stack::{Service, Stack, StackOptions},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use tokio_postgres::NoTls;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_keeps_its_data_and_its_address() {
    let stack = Stack::private("kill").await.unwrap();
    let topic = stack.unique("kept");
    write_postgres(&stack).await.unwrap();
    write_kafka(&stack, &topic).await.unwrap();
    write_clickhouse(&stack).await.unwrap();

    let env = stack.env().map(|(name, url)| (name, url.to_owned()));
    for service in stack.services() {
        let before = service.pids();
        service.kill().await.unwrap();
        assert!(before.iter().all(|pid| is_gone(*pid)), "{} left processes", service.kind());
        assert!(!service.is_ready().await);
        service.start().await.unwrap();
    }

    assert_eq!(stack.env().map(|(name, url)| (name, url.to_owned())), env);
    assert_eq!(read_postgres(&stack).await.unwrap(), 7);
    assert_eq!(read_kafka(&stack, &topic).await.unwrap(), b"seven");
    assert_eq!(read_clickhouse(&stack).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_service_is_silent_until_it_is_resumed() {
    let stack = Stack::private("pause").await.unwrap();
    for service in stack.services() {
        let before = service.pids();
        service.pause().await.unwrap();
        assert!(!service.is_ready().await, "{} answered while paused", service.kind());
        service.resume().await.unwrap();
        eventually(SOON, async || answers(service).await).await.unwrap();
        assert_eq!(service.pids()[0], before[0], "{} was started anew", service.kind());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_attaches_to_the_running_stack() {
    let stack = Stack::shared().await.unwrap();
    let roots = || stack.services().map(|service| service.pids().first().copied());
    let before = roots();
    let again = Stack::launch(Stack::shared_options().unwrap()).await.unwrap();
    assert_eq!(roots(), before);
    assert_eq!(again.env(), stack.env());
}

#[tokio::test(flavor = "multi_thread")]
async fn down_leaves_no_process_and_the_next_up_no_test_data() {
    let stack = Stack::private("down").await.unwrap();
    let database = stack.database().await.unwrap();
    let clickhouse_database = stack.clickhouse_database().await.unwrap();
    let topic = stack.unique("topic");
    write_kafka(&stack, &topic).await.unwrap();

    let pids: Vec<i32> = stack.services().into_iter().flat_map(Service::pids).collect();
    assert!(pids.len() > 3, "Postgres alone has several processes: {pids:?}");
    stack.down().await.unwrap();
    assert!(pids.iter().all(|pid| is_gone(*pid)));

    let up = Stack::launch(StackOptions::at(stack.dir())).await.unwrap();
    assert_eq!(up.env(), stack.env());
    assert!(tokio_postgres::connect(&database, NoTls).await.is_err());
    let clickhouse = clickhouse::Client::default().with_url(up.clickhouse.url());
    let databases = clickhouse.query("SHOW DATABASES").fetch_all::<String>().await.unwrap();
    assert!(!databases.contains(&clickhouse_database));
    let kafka: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", up.kafka.url()).create().unwrap();
    let metadata = kafka.fetch_metadata(None, SOON).unwrap();
    assert!(!metadata.topics().iter().any(|known| known.name() == topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_stack_goes_with_its_owner() {
    let dropped = Stack::private("dropped").await.unwrap();
    let dir = dropped.dir().to_path_buf();
    let pids: Vec<i32> = dropped.services().into_iter().flat_map(Service::pids).collect();
    drop(dropped);
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    assert!(!dir.exists());

    let orphan = Stack::private("orphan").await.unwrap();
    let dir = orphan.dir().to_path_buf();
    let pids: Vec<i32> = orphan.services().into_iter().flat_map(Service::pids).collect();
    // As if the process that owns it had died: no destructor ran, and its pid
    // is another's by now.
    fs::write(dir.join("owner"), "1 0\n").unwrap();
    mem::forget(orphan);
    drop(Stack::private("finds-the-orphan").await.unwrap());
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_asks_for_the_password_and_decodes_logically() {
    let stack = Stack::shared().await.unwrap();
    let url = stack.database().await.unwrap();
    let wrong = url.replacen("outpour:outpour", "outpour:wrong", 1);
    let refusal = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
    assert_eq!(refusal.code(), Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD));

    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let slot = stack.unique("slot");
    client
        .execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot])
        .await
        .unwrap();
    client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.unwrap();
}

async fn answers(service: &Service) -> Result<()> {
    ensure!(service.is_ready().await, "{} is silent", service.kind());
    Ok(())
}

/// A zombie has ended; whoever started it has yet to notice.
fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

async fn write_postgres(stack: &Stack) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(stack.postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await?;
    Ok(())
}

async fn read_postgres(stack: &Stack) -> Result<i32> {
    let (client, connection) = tokio_postgres::connect(stack.postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client.query_one("SELECT n FROM kept", &[]).await?.get(0))
}

fn kafka(stack: &Stack) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack.kafka.url());
    config
}

async fn write_kafka(stack: &Stack, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka(stack).create()?;
    let options = AdminOptions::new().operation_timeout(Some(SOON));
    let made = admin
        .create_topics(&[NewTopic::new(topic, 1, TopicReplication::Fixed(1))], &options)
        .await?;
    ensure!(made.iter().all(Result::is_ok), "{made:?}");
    let producer: FutureProducer = kafka(stack).set("acks", "all").create()?;
    let record = FutureRecord::<(), _>::to(topic).payload("seven");
    producer.send(record, SOON).await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn read_kafka(stack: &Stack, topic: &str) -> Result<Vec<u8>> {
    let consumer: BaseConsumer = kafka(stack).set("group.id", stack.unique("reader")).create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    eventually(SOON, async || {
        let record = consumer.poll(Duration::from_millis(100)).transpose()?;
        let payload = record.as_ref().and_then(Message::payload);
        payload.map(<[u8]>::to_vec).ok_or_else(|| anyhow::anyhow!("no record yet"))
    })
    .await
}

async fn write_clickhouse(stack: &Stack) -> Result<()> {
    let client = clickhouse::Client::default().with_url(stack.clickhouse.url());
    client
        .query("CREATE TABLE default.kept (n Int32) ENGINE = MergeTree ORDER BY n")
        .execute()
        .await?;
    client.query("INSERT INTO default.kept VALUES (7)").execute().await?;
    Ok(())
}

async fn read_clickhouse(stack: &Stack) -> Result<i32> {
    let client = clickhouse::Client::default().with_url(stack.clickhouse.url());
    Ok(client.query("SELECT n FROM default.kept").fetch_one().await?)
}
