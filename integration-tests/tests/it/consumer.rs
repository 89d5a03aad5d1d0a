//! From Kafka to ClickHouse.

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
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
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..25);
    // Two batches of ten; the five that remain wait for the sixth of an hour.
    pipeline.arrived("event_log", 20).await.unwrap();
    assert_eq!(inserts(&pipeline).await, 2);
    feed.send_all(25..30);
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
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..7);
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
    let feed = Feed::of(&pipeline, "first").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..10);
    pipeline.arrived("event_log", 10).await.unwrap();

    // More batches than may wait, and none of them can be stored.
    stack.clickhouse.kill().await.unwrap();
    feed.send_all(10..5000);
    consumer.logged("partition paused", PATIENCE).await.unwrap();
    // A new topic makes the group share out its partitions anew.
    // It is kept: a client that is dropped forgets what it has not sent yet.
    let second = Feed::of(&pipeline, "second").await;
    second.send_all(5000..5010);
    consumer.logged("partitions given up", PATIENCE).await.unwrap();
    stack.clickhouse.start().await.unwrap();
    pipeline.arrived("event_log", 5010).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_in_mid_stream_loses_nothing_and_doubles_nothing() {
    const EVENTS: u64 = 40_000;
    let settings = "max_delay = '20ms'\nmax_rows = 200";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    feed.send_all(0..EVENTS);
    for _ in 0..4 {
        let (before, _) = pipeline.count("event_log").await.unwrap();
        assert!(before < EVENTS, "killed too late to prove anything");
        let consumer = pipeline.consumer().unwrap();
        // In mid-stream: some more has arrived.
        eventually(PATIENCE, async || {
            let (rows, _) = pipeline.count("event_log").await?;
            ensure!(rows > before, "{rows} rows");
            Ok(())
        })
        .await
        .unwrap();
        consumer.kill().await.unwrap();
    }
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
    let feed = Feed::of(&pipeline, "payment").await;
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
        (r#"{"amount":"1","small":1,"rate":"x","address":{"city":""}}"#, "malformed rate"),
        (r#"{"amount":"1","small":1,"rate":1,"address":{}}"#, "missing city"),
        (r#"{"amount":"1","small":1,"#, "malformed "),
    ];
    for (index, payload) in bad.iter().map(|(payload, _)| *payload).chain(good).enumerate() {
        feed.send(index as u64, payload);
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
async fn records_that_kafka_removed_unread_stop_the_consumer_and_are_named() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send_all(0..10);
    pipeline.arrived("event_log", 10).await.unwrap();
    consumer.stop().await.unwrap();

    feed.send_all(10..30);
    pipeline.reader(&feed.topic).unwrap().take(30, |_| Some(())).unwrap();
    let mut removed = TopicPartitionList::new();
    removed.add_partition_offset(&feed.topic, 0, Offset::Offset(20)).unwrap();
    feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();

    let mut consumer = pipeline.consumer().unwrap();
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(3));
    let told = format!("offset 10 of {}/0 is no longer in Kafka", feed.topic);
    assert!(consumer.log_text().contains(&told), "{}", consumer.log_text());
    assert_eq!(pipeline.count("event_log").await.unwrap(), (10, 10), "it must not jump");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_later_is_taken_up() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("consumer started", PATIENCE).await.unwrap();
    // A client that is dropped forgets what it has not sent yet.
    let first = Feed::of(&pipeline, "first").await;
    first.send_all(0..3);
    pipeline.arrived("event_log", 3).await.unwrap();
    let second = Feed::of(&pipeline, "second").await;
    second.send_all(3..6);
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

/// Sends events to a topic.
pub(crate) struct Feed {
    pub(crate) admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
    pub(crate) topic: String,
}

impl Feed {
    /// The topic of an aggregate type, made now, of one partition.
    pub(crate) async fn of(pipeline: &Pipeline<'_>, aggregate_type: &str) -> Feed {
        Feed::with_partitions(pipeline, aggregate_type, 1).await
    }

    pub(crate) async fn with_partitions(
        pipeline: &Pipeline<'_>,
        aggregate_type: &str,
        partitions: i32,
    ) -> Feed {
        let feed = Feed::to(pipeline, aggregate_type);
        feed.create(partitions).await;
        feed
    }

    pub(crate) async fn create(&self, partitions: i32) {
        let new = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        self.admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// A topic that is there.
    pub(crate) fn to(pipeline: &Pipeline<'_>, aggregate_type: &str) -> Feed {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", pipeline.stack.kafka.url())
            .set("linger.ms", "1")
            // A broker that is slow to answer would have records written twice; and one that
            // does not know a new topic yet, with several requests in flight, would lose some.
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", "1");
        Feed {
            admin: client.create().unwrap(),
            producer: client.create().unwrap(),
            topic: pipeline.topic(aggregate_type),
        }
    }

    /// An event for each id.
    pub(crate) fn send_all(&self, ids: std::ops::Range<u64>) {
        ids.for_each(|id| self.send(id, "{}"));
    }

    /// Queued in order; that it arrived is awaited where it should arrive.
    pub(crate) fn send(&self, id: u64, payload: &str) {
        self.send_traced(id, payload, None);
    }

    /// The same with a `traceparent`.
    pub(crate) fn send_traced(&self, id: u64, payload: &str, traceparent: Option<&str>) {
        self.send_event(id, "happened", payload, traceparent);
    }

    /// The same as an event of a type.
    pub(crate) fn send_event(
        &self,
        id: u64,
        event_type: &str,
        payload: &str,
        traceparent: Option<&str>,
    ) {
        let key = (id % 100).to_string();
        let id = uuid::Uuid::from_u128(id.into()).to_string();
        let mut headers =
            vec![("id", id.as_str()), ("eventType", event_type), ("schemaVersion", "1")];
        headers.extend(traceparent.map(|traceparent| ("traceparent", traceparent)));
        self.send_record(Some(&key), Some(payload), &headers);
    }

    /// A record as somebody else may write it.
    pub(crate) fn send_record(
        &self,
        key: Option<&str>,
        payload: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let with = |all: OwnedHeaders, &(key, value): &(&str, &str)| {
            all.insert(Header { key, value: Some(value) })
        };
        let headers = headers.iter().fold(OwnedHeaders::new(), with);
        let record = FutureRecord { key, payload, ..FutureRecord::to(&self.topic) };
        let queued = self.producer.send_result(record.headers(headers));
        assert!(queued.is_ok(), "the producer's queue is full");
    }
}

/// Reason and column, and the value, of the letters of a topic.
fn letters(pipeline: &Pipeline<'_>, source: &str, count: usize) -> Vec<(String, String)> {
    let reader = pipeline.reader(&format!("outpour.dead-letter.{source}")).unwrap();
    let mut offset = 0..;
    let letters = reader.take(count, |message| {
        assert_eq!(header(message, "outpour-source-topic").as_deref(), Some(source));
        let expected = offset.next().map(|offset: usize| offset.to_string());
        assert_eq!(header(message, "outpour-source-offset"), expected);
        assert_eq!(header(message, "outpour-route").as_deref(), Some("route 1"));
        assert_eq!(header(message, "outpour-attempts").as_deref(), Some("1"));
        let reason = header(message, "outpour-reason")?;
        let column = header(message, "outpour-column").unwrap_or_default();
        let value = String::from_utf8_lossy(message.payload()?).into_owned();
        Some((format!("{reason} {column}"), value))
    });
    reader.nothing_more().unwrap();
    letters.unwrap()
}
