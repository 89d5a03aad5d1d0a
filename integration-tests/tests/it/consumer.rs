//! From Kafka to ClickHouse.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    producer::{FutureProducer, FutureRecord},
};

/// Parts that inserts have made: one insert into one partition makes one.
async fn inserts(pipeline: &Pipeline<'_>) -> u64 {
    let sql = "SELECT count() FROM system.parts WHERE database = currentDatabase()
               AND table = 'event_log' AND level = 0";
    pipeline.clickhouse().query(sql).fetch_one().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_flushed_by_size() {
    // Nothing but size can close a batch here, and all keys are in one partition.
    let settings = "max_delay = '1h'\nmax_rows = 10";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let topic = pipeline.topic("order");
    let producer = producer(&pipeline);
    let consumer = pipeline.consumer().unwrap();
    produce(&producer, &topic, 0..25).await;
    // Two batches of ten; the five that remain wait for the sixth of an hour.
    pipeline.arrived("event_log", 20).await.unwrap();
    assert_eq!(inserts(&pipeline).await, 2);
    produce(&producer, &topic, 25..30).await;
    pipeline.arrived("event_log", 30).await.unwrap();
    assert_eq!(inserts(&pipeline).await, 3);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_group_is_seen_at_the_end_although_markers_follow_its_last_record() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    for last in [100, 150] {
        pipeline.commit_orders(last - 50..last, 10).await.unwrap();
        eventually(PATIENCE, async || {
            let (committed, lag) = pipeline.committed_and_lag().await?;
            // Each record takes an offset, each transaction of the relay another.
            ensure!(
                lag == 0 && committed > last.cast_signed() - 50,
                "committed {committed}, lag {lag}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }
    pipeline.arrived("event_log", 100).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_flushed_by_time() {
    let settings = "max_delay = '300ms'\nmax_rows = 1000000";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let topic = pipeline.topic("order");
    let producer = producer(&pipeline);
    let consumer = pipeline.consumer().unwrap();
    produce(&producer, &topic, 0..7).await;
    pipeline.arrived("event_log", 7).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offset_is_not_committed_while_clickhouse_is_down_and_everything_arrives_once_it_is_back()
 {
    let stack = Stack::private("outage").await.unwrap();
    let pipeline = Pipeline::new(&stack, "max_delay = '100ms'").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let consumer = pipeline.consumer().unwrap();
    pipeline.commit_orders(0..100, 10).await.unwrap();
    pipeline.arrived("event_log", 100).await.unwrap();
    let before = eventually(PATIENCE, async || {
        let (committed, _) = pipeline.committed_and_lag().await?;
        ensure!(committed >= 100, "committed {committed}");
        Ok(committed)
    })
    .await
    .unwrap();

    stack.clickhouse.kill().await.unwrap();
    pipeline.commit_orders(100..1100, 10).await.unwrap();
    consumer.logged("insert failed; trying again", PATIENCE).await.unwrap();
    eventually(PATIENCE, async || {
        let (_, lag) = pipeline.committed_and_lag().await?;
        ensure!(lag >= 1000, "lag {lag}");
        Ok(())
    })
    .await
    .unwrap();
    // The offsets stand where the last stored row left them.
    let (committed, _) = pipeline.committed_and_lag().await.unwrap();
    assert!(committed - before < 100, "{committed} after {before}: only markers may be between");

    stack.clickhouse.start().await.unwrap();
    pipeline.arrived("event_log", 1100).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_paused_for_want_of_room_goes_on_after_a_rebalance() {
    let stack = Stack::private("rebalance").await.unwrap();
    let pipeline = Pipeline::new(&stack, "max_rows = 50\nmax_delay = '100ms'").await.unwrap();
    pipeline.set("OUTPOUR_CLICKHOUSE_INSERT_TIMEOUT=2s").unwrap();
    let producer = producer(&pipeline);
    let consumer = pipeline.consumer().unwrap();
    produce(&producer, &pipeline.topic("first"), 0..10).await;
    pipeline.arrived("event_log", 10).await.unwrap();

    // More than three batches, none of which can be stored: the rest has to wait.
    stack.clickhouse.pause().await.unwrap();
    produce(&producer, &pipeline.topic("first"), 10..1000).await;
    consumer.logged("partition paused", PATIENCE).await.unwrap();
    // A new topic makes the group share out its partitions anew.
    produce(&producer, &pipeline.topic("second"), 1000..1010).await;
    consumer.logged("partitions given up", PATIENCE).await.unwrap();
    stack.clickhouse.resume().await.unwrap();
    pipeline.arrived("event_log", 1010).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_in_mid_stream_loses_nothing_and_doubles_nothing() {
    const EVENTS: u64 = 30_000;
    let settings = "max_delay = '20ms'\nmax_rows = 200";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let topic = pipeline.topic("order");
    let producer = producer(&pipeline);
    let feed = produce(&producer, &topic, 0..EVENTS);
    let kills = async {
        for _ in 0..4 {
            let (before, _) = pipeline.count("event_log").await.unwrap();
            let consumer = pipeline.consumer().unwrap();
            // In mid-stream: some more has arrived, and it is not all.
            eventually(PATIENCE, async || {
                let (rows, _) = pipeline.count("event_log").await?;
                ensure!(rows > before, "{rows} rows");
                Ok(())
            })
            .await
            .unwrap();
            consumer.kill().await.unwrap();
        }
    };
    tokio::join!(feed, kills);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", EVENTS).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_columns_are_exact_and_what_does_not_fit_is_parked_alone() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let topic = pipeline.topic("payment");
    pipeline
        .configure(&format!(
            "max_delay = '50ms'\n\
             [[routes]]\ntopic = '{topic}'\ntable = 'payments'\n\
             columns = {{ event_id = '$id', city = 'address.city', at = '$timestamp' }}\n"
        ))
        .unwrap();
    pipeline
        .clickhouse()
        .query(
            "CREATE TABLE payments (event_id UUID, amount Decimal(18, 4), small UInt8, rate Float64,
               city LowCardinality(String), note Nullable(String), at DateTime64(3, 'UTC'),
               state LowCardinality(String) DEFAULT concat('new', '!'),
               _topic LowCardinality(String), _partition UInt32, _offset UInt64)
             ENGINE = MergeTree ORDER BY event_id
             SETTINGS non_replicated_deduplication_window = 10000",
        )
        .execute()
        .await
        .unwrap();
    let producer = producer(&pipeline);
    let consumer = pipeline.consumer().unwrap();
    let good = [
        r#"{"amount":"123456789012.3456","small":255,"rate":1e3,"address":{"city":"Bonn"},"note":null}"#,
        r#"{"amount":0.1,"small":0,"rate":-0.5,"address":{"city":"Ö"},"note":"n","state":"old","more":1}"#,
    ];
    let bad = [
        (
            r#"{"amount":"1.00001","small":1,"rate":1,"address":{"city":""}}"#,
            "too_many_digits amount",
        ),
        (r#"{"amount":"1","small":300,"rate":1,"address":{"city":""}}"#, "out_of_range small"),
        (r#"{"amount":"1","small":null,"rate":1,"address":{"city":""}}"#, "null_not_allowed small"),
        (r#"{"amount":"1","small":1,"rate":"x","address":{"city":""}}"#, "wrong_type rate"),
        (r#"{"amount":"1","small":1,"rate":1,"address":{}}"#, "missing city"),
        (r#"{"amount":"1","small":1,"#, "malformed "),
    ];
    for (index, payload) in bad.iter().map(|(payload, _)| *payload).chain(good).enumerate() {
        send(&producer, &topic, index as u64, payload).await;
    }
    pipeline.arrived("payments", 2).await.unwrap();
    let rows: Vec<String> = pipeline
        .clickhouse()
        .query(
            "SELECT concat_ws('|', toString(amount), toString(small), toString(rate), city,
               ifNull(note, 'NULL'), state, toString(_partition), toString(_offset)) FROM payments ORDER BY amount",
        )
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(rows, ["0.1|0|-0.5|Ö|n|old|0|7", "123456789012.3456|255|1000|Bonn|NULL|new!|0|6"]);

    let letters = letters(&pipeline, &topic, bad.len());
    let expected: Vec<_> = bad.iter().map(|(_, reason)| (*reason).to_owned()).collect();
    assert_eq!(letters.iter().map(|(reason, _)| reason.clone()).collect::<Vec<_>>(), expected);
    assert!(letters.iter().zip(&bad).all(|((_, value), (payload, _))| value == payload));
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_later_is_taken_up() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("consumer started", PATIENCE).await.unwrap();
    let producer = producer(&pipeline);
    produce(&producer, &pipeline.topic("first"), 0..3).await;
    pipeline.arrived("event_log", 3).await.unwrap();
    produce(&producer, &pipeline.topic("second"), 3..6).await;
    pipeline.arrived("event_log", 6).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_two_consumers_and_every_event_stays_single() {
    const EVENTS: u64 = 12_000;
    let settings = "max_delay = '20ms'\nmax_rows = 200";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let feed = pipeline.commit_orders(0..EVENTS, 20);
    let moves = async {
        let first = pipeline.consumer().unwrap();
        first.logged("partition assigned", PATIENCE).await.unwrap();
        let second = pipeline.consumer().unwrap();
        first.logged("partitions given up", PATIENCE).await.unwrap();
        second.stop().await.unwrap();
        first
    };
    let (fed, first) = tokio::join!(feed, moves);
    fed.unwrap();
    pipeline.arrived("event_log", EVENTS).await.unwrap();
    first.stop().await.unwrap();
}

fn producer(pipeline: &Pipeline<'_>) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("linger.ms", "1")
        .create()
        .unwrap()
}

/// Sends events with the ids of `range` to a topic of one partition.
async fn produce(producer: &FutureProducer, topic: &str, range: std::ops::Range<u64>) {
    for id in range {
        send(producer, topic, id, "{}").await;
    }
}

async fn send(producer: &FutureProducer, topic: &str, id: u64, payload: &str) {
    ensure_topic(producer, topic).await;
    let id = uuid::Uuid::from_u128(u128::from(id)).to_string();
    let header = |key, value| rdkafka::message::Header { key, value: Some(value) };
    let headers = rdkafka::message::OwnedHeaders::new()
        .insert(header("id", id.as_str()))
        .insert(header("eventType", "happened"))
        .insert(header("schemaVersion", "1"));
    let record = FutureRecord::to(topic).key("k").payload(payload).headers(headers);
    // Queued in order; the last acknowledgement is awaited by whoever reads.
    let queued = producer.send_result(record);
    if queued.is_err() {
        panic!("the producer's queue is full");
    }
}

async fn ensure_topic(producer: &FutureProducer, topic: &str) {
    use std::sync::Mutex;
    static KNOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    if KNOWN.lock().unwrap().iter().any(|known| known == topic) {
        return;
    }
    let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> = {
        use rdkafka::producer::Producer;
        let brokers = producer.client().fetch_metadata(None, PATIENCE).unwrap();
        let broker = &brokers.brokers()[0];
        let address = format!("{}:{}", broker.host(), broker.port());
        ClientConfig::new().set("bootstrap.servers", address).create().unwrap()
    };
    let new = rdkafka::admin::NewTopic::new(topic, 1, rdkafka::admin::TopicReplication::Fixed(1));
    let options = rdkafka::admin::AdminOptions::new();
    admin.create_topics([&new], &options).await.unwrap()[0].as_ref().unwrap();
    KNOWN.lock().unwrap().push(topic.to_owned());
}

/// Reason and column, and the value, of the letters of a topic.
fn letters(pipeline: &Pipeline<'_>, source: &str, count: usize) -> Vec<(String, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("group.id", pipeline.stack.unique("reader"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&format!("outpour.dead-letter.{source}")]).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(std::time::Instant::now() < until, "{found:?}");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let header = |name: &str| {
            let headers = message.headers().unwrap();
            let header = headers.iter().find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(header.value?).into_owned())
        };
        assert_eq!(header("outpour-source-topic").as_deref(), Some(source));
        assert_eq!(header("outpour-source-offset"), Some(found.len().to_string()));
        let reason = header("outpour-reason").unwrap();
        let column = header("outpour-column").unwrap_or_default();
        let value = String::from_utf8_lossy(message.payload().unwrap()).into_owned();
        found.push((format!("{reason} {column}"), value));
    }
    found
}
