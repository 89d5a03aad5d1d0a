//! The golden examples, through the real services.

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    stack::Stack,
};
use outpour_schemas::{Record, example};
use rdkafka::{
    Message,
    message::{Headers, OwnedMessage},
};

/// What cannot be known beforehand is taken from the record itself.
fn comparable(message: &OwnedMessage, expected: &Record) -> Record {
    let headers = message.headers().unwrap();
    let header = |name: &str, value: Option<&[u8]>| {
        let fixed = expected.headers.iter().find(|(header, _)| header == name);
        match (name, fixed) {
            ("outpour-lsn", Some((_, fixed))) => fixed.clone(),
            _ => value.map(<[u8]>::to_vec),
        }
    };
    Record {
        topic: expected.topic.clone(),
        partition: expected.partition,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        timestamp_ms: expected.timestamp_ms,
        headers: headers
            .iter()
            .map(|found| (found.key.to_owned(), header(found.key, found.value)))
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_example_is_the_same_in_kafka_and_in_clickhouse() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    // Byte for byte only as `json`: PostgreSQL writes `jsonb` in its own way.
    client.batch_execute("ALTER TABLE outbox ALTER payload TYPE json").await.unwrap();
    let _relay = pipeline.relay().unwrap();
    let _consumer = pipeline.consumer().unwrap();

    for (index, example) in example::all().unwrap().into_iter().enumerate() {
        let column = |name: &str| example.outbox[name].clone();
        let aggregate_type = format!("golden{index}");
        client
            .execute(
                "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, occurred_at,
                                     schema_version, traceparent)
                 VALUES ($1::text::uuid, $2, $3, $4, $5::text::json, $6::text::timestamptz,
                         $7::text::int, $8)",
                &[
                    &column("id"),
                    &aggregate_type,
                    &column("aggregateid"),
                    &column("type"),
                    &column("payload"),
                    &column("occurred_at"),
                    &column("schema_version"),
                    &column("traceparent"),
                ],
            )
            .await
            .unwrap();
        let topic = pipeline.topic(&aggregate_type);
        let reader = pipeline.reader(&topic).unwrap();
        let message = &reader.take(1, |message| Some(message.detach())).unwrap()[0];
        let expected = example.record();
        assert_eq!(comparable(message, &expected), expected, "{}", example.says);

        let sql =
            "SELECT toJSONString(map('event_context', event_context, 'event_type', event_type,
                     'event_date_time', toString(event_date_time), 'environment', environment,
                     'metadata_version', toString(metadata_version), 'aggregate_id', aggregate_id,
                     'topic', _topic)) FROM event_log WHERE event_id = ?";
        let row: String = eventually(PATIENCE, async || {
            let query = pipeline.clickhouse().query(sql).bind(column("id").unwrap());
            Ok(query.fetch_one().await?)
        })
        .await
        .unwrap();
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        let text = |value: &serde_json::Value| {
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        };
        for name in [
            "event_context",
            "event_type",
            "event_date_time",
            "environment",
            "metadata_version",
            "aggregate_id",
        ] {
            let wanted = text(&example.event_log[name]);
            assert_eq!(text(&row[name]), wanted, "{name}: {}", example.says);
        }
        assert_eq!(row["topic"], topic.as_str());
    }
}
