//! Events straight into Kafka, as long as nothing fails.

use std::{collections::BTreeMap, time::Duration};

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, header, order},
    stack::Stack,
};
use outpour_producer::{
    Envelope, Event, EventProducer, Outbox,
    event_producer::{Delivery, Kafka, LogEventError, Published, Refusal, Settings},
};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions},
    message::{BorrowedMessage, Headers},
};

/// Into the topics of `pipeline`.
pub(crate) fn settings(pipeline: &Pipeline<'_>) -> Settings {
    Settings {
        kafka: Kafka { brokers: pipeline.stack.kafka.url().to_owned(), ..Kafka::default() },
        topic_prefix: format!("outbox.event.{}.", pipeline.name),
        topic_partitions: Some(6),
        topic_replication_factor: Some(1),
        delivery_timeout: PATIENCE,
        ..Settings::default()
    }
}

/// The same, with a payload of about `size` bytes.
pub(crate) fn event_of(id: u64, size: usize) -> Envelope {
    let payload = format!(r#"{{"n": {id}, "filling": "{}"}}"#, "x".repeat(size));
    Envelope { payload: serde_json::value::RawValue::from_string(payload).ok(), ..order(id) }
}

/// What tests look at: key, number and place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) n: u64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

pub(crate) fn seen(message: &BorrowedMessage<'_>) -> Option<Seen> {
    let payload: serde_json::Value = serde_json::from_slice(message.payload()?).ok()?;
    Some(Seen {
        key: String::from_utf8_lossy(message.key()?).into_owned(),
        n: payload["n"].as_u64()?,
        partition: message.partition(),
        offset: message.offset(),
    })
}

/// The numbers of each key, in the order of the log.
pub(crate) fn by_key(records: &[Seen]) -> BTreeMap<&str, Vec<u64>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        keys.entry(record.key.as_str()).or_default().push(record.n);
    }
    keys
}

/// Everything in the topic, which nobody writes to any more.
pub(crate) fn all<T>(
    pipeline: &Pipeline<'_>,
    wanted: impl FnMut(&BorrowedMessage<'_>) -> Option<T>,
) -> Vec<T> {
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    reader.take(reader.written().unwrap(), wanted).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_the_one_that_the_relay_publishes() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    // PostgreSQL writes `jsonb` in its own way.
    client.batch_execute("ALTER TABLE outbox ALTER payload TYPE json").await.unwrap();
    let insert = "INSERT INTO outbox
                  SELECT id, 'relayed', aggregateid, type, payload, occurred_at, schema_version, traceparent
                  FROM json_populate_record(null::outbox, $1)";
    let _relay = pipeline.relay().unwrap();
    let producer = EventProducer::new(settings(&pipeline)).unwrap();

    let mut event = order(7);
    event.aggregate_id = "Grüße 7".into();
    event.schema_version = 3;
    event.occurred_at = Some("2026-01-02T03:04:05.678901Z".parse().unwrap());
    for (index, traceparent) in
        [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned())]
            .into_iter()
            .enumerate()
    {
        event.id = outpour_schemas::identity::new_event_id();
        event.traceparent = traceparent;
        client.execute(insert, &[&serde_json::to_value(&event).unwrap()]).await.unwrap();
        let published = producer.send(event.clone()).await.unwrap();
        assert_eq!(published.topic, pipeline.topic("order"));
        assert_eq!((published.id, published.offset), (event.id, i64::try_from(index).unwrap()));
    }

    let record = |message: &BorrowedMessage<'_>| {
        let headers = message.headers().unwrap().iter();
        let headers: Vec<_> = headers
            .filter(|header| header.key != "outpour-lsn")
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect();
        let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
        let key = text(message.key());
        Some((message.partition(), key, text(message.payload()), headers))
    };
    let read = |topic: &str| pipeline.reader(topic).unwrap().take(2, record).unwrap();
    let by_relay = read(&pipeline.topic("relayed"));
    let mut by_producer = read(&pipeline.topic("order"));
    // The service writes its own text, which json_populate_record has parsed.
    for (produced, relayed) in by_producer.iter_mut().zip(&by_relay) {
        let json = |text: &Option<String>| {
            serde_json::from_str::<serde_json::Value>(text.as_ref().unwrap()).unwrap()
        };
        assert_eq!(produced.2.as_deref(), event.payload_text(), "to the byte");
        assert_eq!(json(&produced.2), json(&relayed.2));
        produced.2.clone_from(&relayed.2);
    }
    assert_eq!(by_producer, by_relay);
    assert!(by_relay[0].3.iter().any(|(name, value)| name == "traceparent" && value.is_none()));
}

#[derive(serde::Serialize)]
struct PageViewed {
    visitor: u32,
    path: &'static str,
}

impl Event for PageViewed {
    const AGGREGATE_TYPE: &'static str = "visitor";

    fn aggregate_id(&self) -> String {
        self.visitor.to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_events_reach_clickhouse_beside_those_of_the_outbox() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let _consumer = pipeline.consumer().unwrap();
    let producer = EventProducer::new(settings(&pipeline)).unwrap();

    let viewed = PageViewed { visitor: 4711, path: "/" };
    let direct = producer.log_event(&viewed).await.unwrap().id;
    let appended = Outbox::default().log_event(&client, &viewed).await.unwrap();
    pipeline.arrived("event_log", 2).await.unwrap();

    let sql = "SELECT concat(event_type, ' ', aggregate_type, ' ', aggregate_id, ' ',
                             JSONExtractString(event_context, 'path'))
               FROM event_log WHERE event_id = ?";
    for id in [direct, appended] {
        let row = pipeline.clickhouse().query(sql).bind(id.to_string());
        let row: String = row.fetch_one().await.unwrap();
        assert!(row.starts_with("page_viewed ") && row.ends_with("visitor 4711 /"), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_key_keep_the_order_in_which_they_were_taken() {
    const KEYS: u64 = 8;
    const EACH: u64 = 500;
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    // Little room, so that many of them wait for it.
    let queue_bytes = 64 << 10;
    let small = Settings { queue_bytes, max_record_bytes: 4096, ..settings(&pipeline) };
    let producer = EventProducer::new(small).unwrap();

    let mut services = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let producer = producer.clone();
        services.spawn(async move {
            let mut deliveries: Vec<Delivery> = Vec::new();
            for n in 0..EACH {
                // `order` takes the key from the last digit.
                deliveries.push(producer.enqueue(order(n * 10 + key)).await.unwrap());
            }
            let mut published: Vec<Published> = Vec::new();
            for delivery in deliveries {
                published.push(delivery.await.unwrap());
            }
            published
        });
    }
    let mut places: Vec<_> =
        services.join_all().await.concat().iter().map(|p| (p.partition, p.offset)).collect();
    producer.flush(Duration::ZERO).await.unwrap();
    assert_eq!(producer.queued_bytes(), 0);

    let records = all(&pipeline, seen);
    for (key, numbers) in by_key(&records) {
        let key: u64 = key.parse().unwrap();
        assert_eq!(numbers, (0..EACH).map(|n| n * 10 + key).collect::<Vec<_>>());
    }
    let mut found: Vec<_> = records.iter().map(|r| (r.partition, r.offset)).collect();
    places.sort_unstable();
    found.sort_unstable();
    assert_eq!(places, found, "deliveries say where the records are");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_handed_back_with_the_reason() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let producer = EventProducer::new(Settings {
        max_record_bytes: 2000,
        queue_bytes: 5000,
        ..settings(&pipeline)
    })
    .unwrap();
    let named =
        |aggregate_type: &str| Envelope { aggregate_type: aggregate_type.into(), ..order(1) };

    let refused = |event: Envelope| {
        let (id, producer) = (event.id, &producer);
        async move {
            let error = producer.send(event).await.unwrap_err();
            assert_eq!(error.event.id, id, "another event came back");
            assert!(!error.may_have_arrived());
            assert_eq!(error.to_string().lines().count(), 1);
            error.refusal
        }
    };
    let refusal = refused(event_of(1, 2000)).await;
    assert!(matches!(refusal, Refusal::TooLarge { size: 2001.., limit: 2000 }), "{refusal:?}");
    let refusal = refused(named("größe")).await;
    assert!(matches!(refusal, Refusal::Topic(_)), "{refusal:?}");
    let refusal = refused(named("")).await;
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");

    // Without waiting it cannot be known whether the topic is there.
    let error = producer.try_enqueue(order(1)).unwrap_err();
    assert!(matches!(&error.refusal, Refusal::TopicUnknown { .. }), "{error}");
    producer.ensure_topic("order").await.unwrap();
    let delivery = producer.try_enqueue(*error.event).unwrap();
    assert_eq!(delivery.await.unwrap().id, order(1).id);

    producer.shutdown(PATIENCE).await.unwrap();
    let refusal = refused(order(2)).await;
    assert!(matches!(refusal, Refusal::Closed), "{refusal:?}");
    let clone = producer.clone();
    let error = clone.log_event(&PageViewed { visitor: 1, path: "/" }).await.unwrap_err();
    assert!(matches!(error, LogEventError::Send(_)), "{error}");
    assert_eq!(all(&pipeline, seen).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_made_as_was_asked_and_one_that_is_there_is_left_alone() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let with = |topic_partitions| Settings { topic_partitions, ..settings(&pipeline) };
    for topic_partitions in [Some(3), Some(5)] {
        let producer = EventProducer::new(with(topic_partitions)).unwrap();
        producer.send(order(1)).await.unwrap();
        let mut partitions = std::collections::BTreeSet::new();
        for n in 0..40 {
            let event = Envelope { aggregate_id: n.to_string(), ..order(n) };
            partitions.insert(producer.send(event).await.unwrap().partition);
        }
        assert_eq!(partitions.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_removed_is_made_again() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut settings = settings(&pipeline);
    settings.delivery_timeout = Duration::from_secs(3);
    let producer = EventProducer::new(settings).unwrap();
    producer.send(order(1)).await.unwrap();
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", pipeline.stack.kafka.url()).create().unwrap();
    let topic = pipeline.topic("order");
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    // Those that find it gone fail. A new topic counts from 0, with the same key
    // in the same partition.
    integration_tests::eventually(PATIENCE, async || {
        let published = producer.send(order(11)).await?;
        anyhow::ensure!(published.offset == 0, "still the old topic, at {}", published.offset);
        Ok(())
    })
    .await
    .unwrap();
}

/// Cancellation: an event is in Kafka once or not at all, and a call that is
/// dropped leaves nothing behind in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_sends_its_event_once_or_not_at_all() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    let producer = EventProducer::new(settings(&pipeline)).unwrap();
    producer.ensure_topic("order").await.unwrap();

    let mut acknowledged = Vec::new();
    let mut dropped = 0;
    for n in 0..100 {
        let patience = Duration::from_micros(100 * n);
        match tokio::time::timeout(patience, producer.send(order(n))).await {
            Ok(published) => acknowledged.push(published.unwrap().id),
            Err(_) => dropped += 1,
        }
    }
    assert!(dropped > 0, "nothing was ever dropped");
    producer.flush(PATIENCE).await.unwrap();
    assert_eq!((producer.queued_bytes(), producer.pending_events()), (0, 0));
    producer.send(order(1000)).await.unwrap();

    let ids = all(&pipeline, |message| header(message, "id"));
    let times = |id: &str| ids.iter().filter(|found| *found == id).count();
    for id in acknowledged {
        assert_eq!(times(&id.to_string()), 1, "acknowledged");
    }
    for n in 0..100 {
        assert!(times(&order(n).id.to_string()) <= 1, "event {n} is there twice");
    }
}
