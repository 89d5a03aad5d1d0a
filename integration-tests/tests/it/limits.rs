//! Topics that take less than the configuration says, or more than brokers do by
//! default.

use integration_tests::{
    pipeline::{Pipeline, header},
    stack::Stack,
};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use sha2::{Digest, Sha256};

const SMALL: &str = "20000";

async fn make(pipeline: &Pipeline<'_>, topic: &str) {
    make_with(pipeline, topic, SMALL).await;
}

async fn make_with(pipeline: &Pipeline<'_>, topic: &str, max_message_bytes: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", pipeline.stack.kafka.url()).create().unwrap();
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let topic = topic.set("max.message.bytes", max_message_bytes);
    for made in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_small_batches_gets_them_and_what_is_too_large_for_it_is_parked() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    make(&pipeline, &pipeline.topic("order")).await;
    make(&pipeline, &pipeline.dead_letter_topic()).await;
    let client = pipeline.postgres().await.unwrap();
    // Of bytes that no compression makes fewer by much: far more than one batch,
    // and in their midst one alone that is too large.
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         SELECT gen_random_uuid(), 'order', k::text, 'placed', to_jsonb((
             SELECT string_agg(md5(random()::text), '')
             FROM generate_series(1, CASE k WHEN 500 THEN 2000 ELSE 10 END)))
         FROM generate_series(1, 1000) k";
    client.batch_execute(insert).await.unwrap();
    let relay = pipeline.relay().unwrap();

    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let key = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let keys = reader.take(999, |message| key(message.key()).parse::<u32>().ok()).unwrap();
    let expected: Vec<_> = (1..=1000).filter(|k| *k != 500).collect();
    assert_eq!(keys, expected);
    reader.nothing_more().unwrap();

    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let letter = reader.take(1, |message| {
        let size = message.payload().unwrap().len();
        Some((key(message.key()), header(message, "outpour-reason"), size))
    });
    let (key, reason, size) = letter.unwrap().remove(0);
    assert_eq!((key.as_str(), reason.as_deref()), ("500", Some("record_too_large")));
    assert!((15_000..20_000).contains(&size), "{size} bytes");
    reader.nothing_more().unwrap();
    relay.stop().await.unwrap();
}

/// Everything about it is too large: neither key nor headers fit anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_and_headers_fit_nowhere_is_parked_in_parts() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    let client = pipeline.postgres().await.unwrap();
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         VALUES (gen_random_uuid(), $1, repeat('k', $2), repeat('t', $2), '{}')";
    for (aggregate, length) in [("order".to_owned(), 3_000_000), ("x".repeat(2_000_000), 1)] {
        client.execute(insert, &[&aggregate, &length]).await.unwrap();
    }
    client.execute(insert, &[&"order", &1_i32]).await.unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    reader.take(1, |message| message.payload().map(drop)).unwrap();
    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let mut reasons = reader.take(2, |message| header(message, "outpour-reason")).unwrap();
    reasons.sort();
    assert_eq!(reasons, ["invalid_topic", "record_too_large"]);
    relay.stop().await.unwrap();
}

/// A letter has more headers than its record, which was as large as its topic takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_that_a_topic_takes_can_be_parked() {
    const LARGE: usize = 3_000_000;
    let settings = "max_delay = '50ms'";
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), settings).await.unwrap();
    let topic = pipeline.topic("order");
    make_with(&pipeline, &topic, &LARGE.to_string()).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("message.max.bytes", "10000000")
        .create()
        .unwrap();
    // Of bytes that no compression makes fewer; without the headers of an event it
    // fits no table. What the batch itself takes is left.
    let blocks = (0..LARGE as u64 / 32).map(|n| Sha256::digest(n.to_le_bytes()));
    let mut largest: Vec<u8> = blocks.flatten().collect();
    largest.truncate(LARGE - 100);
    let record: FutureRecord<'_, str, _> = FutureRecord::to(&topic).payload(&largest);
    producer.send(record, Timeout::Never).await.unwrap();
    let record: FutureRecord<'_, str, _> = FutureRecord::to(&topic).payload("small");
    producer.send(record, Timeout::Never).await.unwrap();

    let consumer = pipeline.consumer().unwrap();
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    let sizes = reader.take(2, |message| message.payload().map(<[u8]>::len)).unwrap();
    assert_eq!(sizes, [largest.len(), "small".len()]);
    consumer.stop().await.unwrap();
}
