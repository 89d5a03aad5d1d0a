//! Records that only the broker refuses: what they are is known, and nobody waits
//! for them.

use std::collections::BTreeSet;

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header, succeeded},
    stack::Stack,
};
use rdkafka::{
    Message,
    admin::{AdminOptions, AlterConfig, ResourceSpecifier},
    message::BorrowedMessage,
};

use crate::diagnosis::{admin, create_topic, setting};

const COMPACTED: (&str, &str) = ("cleanup.policy", "compact");
const NULL_KEY: &str = "null_key_on_compacted_topic";

/// Writes an event for each of `keys`, in one transaction, with its number as the
/// payload.
async fn write(pipeline: &Pipeline<'_>, aggregate_type: &str, keys: &[Option<&str>]) {
    let sql = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
               SELECT gen_random_uuid(), $1, key, 't', to_jsonb(n)
               FROM unnest($2::text[]) WITH ORDINALITY AS keys (key, n)";
    pipeline.postgres().await.unwrap().execute(sql, &[&aggregate_type, &keys]).await.unwrap();
}

/// Fifty rows, of which these have no key.
fn keys(without: &[usize]) -> Vec<Option<&'static str>> {
    (1..=50).map(|n| (!without.contains(&n)).then_some("k")).collect()
}

const OTHER_KEYS: [Option<&str>; 50] = [Some("other"); 50];

fn payload(message: &BorrowedMessage<'_>) -> Option<usize> {
    String::from_utf8_lossy(message.payload()?).parse().ok()
}

/// The payloads of the next `count` records.
fn read(pipeline: &Pipeline<'_>, aggregate_type: &str, count: usize) -> Vec<usize> {
    let reader = pipeline.reader(&pipeline.topic(aggregate_type)).unwrap();
    let found = reader.take(count, payload).unwrap();
    reader.nothing_more().unwrap();
    found
}

/// Reason and payload of the letters.
fn letters(pipeline: &Pipeline<'_>, count: usize) -> BTreeSet<(String, usize)> {
    let reader = pipeline.reader(&pipeline.dead_letter_topic()).unwrap();
    let letter =
        reader.take(count, |message| Some((header(message, "outpour-reason")?, payload(message)?)));
    reader.nothing_more().unwrap();
    letter.unwrap().into_iter().collect()
}

async fn compact(pipeline: &Pipeline<'_>, topic: &str) {
    let (name, policy) = COMPACTED;
    let alter = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, policy);
    admin(pipeline.stack).alter_configs([&alter], &AdminOptions::new()).await.unwrap();
    eventually(PATIENCE, async || {
        let now = setting(pipeline.stack, topic, name).await;
        anyhow::ensure!(now == policy, "{now}");
        Ok(())
    })
    .await
    .unwrap();
}

/// A pipeline whose rows may lack a key.
async fn pipeline(settings: &[&str]) -> Pipeline<'static> {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    for setting in settings {
        pipeline.set(setting).unwrap();
    }
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let nullable = "ALTER TABLE outbox ALTER aggregateid DROP NOT NULL";
    pipeline.postgres().await.unwrap().batch_execute(nullable).await.unwrap();
    create_topic(pipeline.stack, &pipeline.topic("compacted"), &[COMPACTED]).await;
    create_topic(pipeline.stack, &pipeline.topic("altered"), &[]).await;
    // Letters are taken there, too.
    create_topic(pipeline.stack, &pipeline.dead_letter_topic(), &[COMPACTED]).await;
    pipeline
}

/// Rows without a key among others, for a topic that was compacted before it was
/// written to, and for one that is while it is.
async fn write_all(pipeline: &Pipeline<'_>) {
    write(pipeline, "compacted", &keys(&[2, 3])).await;
    write(pipeline, "altered", &[Some("k"), None]).await;
    assert_eq!(read(pipeline, "altered", 2), [1, 2], "no key is needed yet");
    compact(pipeline, &pipeline.topic("altered")).await;
    write(pipeline, "altered", &keys(&[7, 8, 50])).await;
    write(pipeline, "other", &OTHER_KEYS).await;
}

fn assert_parked(pipeline: &Pipeline<'_>) {
    let parked = [2, 3, 7, 8, 50].map(|n| (NULL_KEY.to_owned(), n));
    assert_eq!(letters(pipeline, 5), parked.into());
}

fn without(numbers: &[usize]) -> Vec<usize> {
    (1..=50).filter(|n| !numbers.contains(n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_parks_a_row_without_a_key_where_the_topic_is_compacted_and_publishes_the_others_once()
 {
    let pipeline = pipeline(&[]).await;
    let relay = pipeline.relay().unwrap();
    write_all(&pipeline).await;
    assert_eq!(read(&pipeline, "compacted", 48), without(&[2, 3]));
    let altered = [vec![1, 2], without(&[7, 8, 50])].concat();
    assert_eq!(read(&pipeline, "altered", 49), altered);
    assert_eq!(read(&pipeline, "other", 50), without(&[]));
    assert_parked(&pipeline);
    let log = relay.log_text();
    let cause = format!("refused a record of topic `{}`", pipeline.topic("altered"));
    assert!(log.contains(&cause) && log.contains("InvalidRecord"), "{log}");
    assert_eq!(log.matches("replication interrupted").count(), 1, "{log}");
    relay.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_without_transactions_publishes_no_good_row_again_and_again_for_one_that_is_refused()
{
    let ways = ["OUTPOUR_RELAY_MODE=poll", "OUTPOUR_RELAY_DELIVERY=at-least-once"];
    for way in ways {
        let pipeline = pipeline(&[way]).await;
        let relay = pipeline.relay().unwrap();
        write_all(&pipeline).await;
        assert_eq!(read(&pipeline, "compacted", 48), without(&[2, 3]), "{way}");
        assert_parked(&pipeline);
        assert_eq!(relay.log_text().matches("replication interrupted").count(), 1, "{way}");
        let reader = pipeline.reader(&pipeline.topic("altered")).unwrap();
        let mut missing: BTreeSet<_> = without(&[7, 8, 50]).into_iter().collect();
        while !missing.is_empty() {
            missing.remove(&reader.take(1, payload).unwrap()[0]);
        }
        // Those of another key are settled though a row failed beside them. Where there is
        // only a position in the log, they may come a second time, and no more.
        let other = pipeline.reader(&pipeline.topic("other")).unwrap();
        other.take(50, payload).unwrap();
        let written = [&reader, &other].map(|reader| reader.written().unwrap());
        let most = if way.contains("poll") { 50 } else { 100 };
        assert!(written[0] <= 2 + 2 * 47 && written[1] <= most, "{way}: {written:?}");
        relay.stop().await.unwrap();
    }
}
