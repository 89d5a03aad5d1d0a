//! The time of a record, where Kafka would refuse it, or remove the record for it
//! before anybody had read it.

use integration_tests::{
    pipeline::{Pipeline, header, succeeded},
    stack::Stack,
};
use rdkafka::Message;

use crate::diagnosis::create_topic;

/// Of the outbox table: after the time of now, in hours.
const HOURS: [i64; 4] = [-30 * 24, -24, 0, 48];

/// Appends an event of each of those times, with the time as its payload.
async fn write(pipeline: &Pipeline<'_>, aggregate_type: &str) {
    let sql = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, occurred_at)
               SELECT gen_random_uuid(), $1, 'k', 't', '{}', now() + hours * interval '1 hour'
               FROM unnest($2::bigint[]) hours";
    let client = pipeline.postgres().await.unwrap();
    client.execute(sql, &[&aggregate_type, &HOURS.as_slice()]).await.unwrap();
}

/// After how many hours from now each event has occurred, and its record was made.
fn read(pipeline: &Pipeline<'_>, aggregate_type: &str) -> Vec<(i64, i64)> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    // Each is given half an hour for the test itself.
    let hours = |ms: i64| (ms - now_ms + 1_800_000).div_euclid(3_600_000);
    let reader = pipeline.reader(&pipeline.topic(aggregate_type)).unwrap();
    let found = reader.take(HOURS.len(), |message| {
        let occurred_at: jiff::Timestamp = header(message, "occurredAt")?.parse().ok()?;
        Some((hours(occurred_at.as_millisecond()), hours(message.timestamp().to_millis()?)))
    });
    let mut found = found.unwrap();
    found.sort_unstable();
    found
}

/// A pipeline with topics of several kinds, and the events of each in the table.
async fn pipeline(settings: &[&str]) -> Pipeline<'static> {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::bare(stack, "").await.unwrap();
    for setting in settings {
        pipeline.set(setting).unwrap();
    }
    create_topic(stack, &pipeline.topic("archive"), &[("retention.ms", "-1")]).await;
    let refusing = [("retention.ms", "-1"), ("message.timestamp.before.max.ms", "3600000")];
    create_topic(stack, &pipeline.topic("refusing"), &refusing).await;
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    pipeline
}

/// The events that were written to all topics, once a relay has them.
fn assert_kept(pipeline: &Pipeline<'_>) {
    // Kafka keeps records for a week by default, and takes none of the next day.
    assert_eq!(read(pipeline, "order"), [(-720, 0), (-24, -24), (0, 0), (48, 0)]);
    assert_eq!(read(pipeline, "archive"), [(-720, -720), (-24, -24), (0, 0), (48, 0)]);
    assert_eq!(read(pipeline, "refusing"), [(-720, 0), (-24, 0), (0, 0), (48, 0)]);
}

async fn write_all(pipeline: &Pipeline<'_>) {
    for aggregate_type in ["order", "archive", "refusing"] {
        write(pipeline, aggregate_type).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_s_time_gives_way_where_kafka_would_not_keep_the_record() {
    let pipeline = pipeline(&["OUTPOUR_RELAY_TIMESTAMP_COLUMN=occurred_at"]).await;
    let relay = pipeline.relay().unwrap();
    write_all(&pipeline).await;
    assert_kept(&pipeline);
    let log = relay.log_text();
    assert_eq!(log.matches("time of publication").count(), 3, "once a topic: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_the_time_of_rows_older_than_the_slot() {
    let pipeline = pipeline(&["OUTPOUR_RELAY_SNAPSHOT=initial"]).await;
    write_all(&pipeline).await;
    let client = pipeline.postgres().await.unwrap();
    // What `init` made is newer now than the rows.
    let slot = &pipeline.name;
    client.execute("SELECT pg_drop_replication_slot($1)", &[slot]).await.unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let _relay = pipeline.relay().unwrap();
    assert_kept(&pipeline);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_the_time_of_polled_rows() {
    let pipeline = pipeline(&["OUTPOUR_RELAY_MODE=poll"]).await;
    let _relay = pipeline.relay().unwrap();
    write_all(&pipeline).await;
    assert_kept(&pipeline);
}
