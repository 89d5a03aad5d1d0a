//! Columns whose types are domains.

use integration_tests::{
    pipeline::{Pipeline, header, succeeded},
    stack::Stack,
};
use rdkafka::Message;

const TABLE: &str = "
    CREATE DOMAIN raw AS bytea;
    CREATE DOMAIN flag AS boolean;
    CREATE DOMAIN moment AS timestamptz;
    CREATE DOMAIN later AS moment CHECK (VALUE > '2000-01-01');
    CREATE DOMAIN share AS int;
    CREATE TABLE outbox (
        id uuid PRIMARY KEY, aggregatetype text, aggregateid raw, type text, payload raw,
        occurred_at later, is_gift flag, part share)";

const INSERT: &str = "
    INSERT INTO outbox VALUES (gen_random_uuid(), 'order', '\\x6b', 't', '\\x7b7d',
                               '2026-01-02 05:04:05.6+02', true, 3)";

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_published_as_its_base_type_from_log_snapshot_and_table() {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    for setting in [
        "OUTPOUR_RELAY_ADDITIONAL_FIELDS=is_gift:header,occurred_at:header:at,part:partition",
        "OUTPOUR_RELAY_TIMESTAMP_COLUMN=occurred_at",
    ] {
        pipeline.set(setting).unwrap();
    }
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute(INSERT).await.unwrap();
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    client.batch_execute(INSERT).await.unwrap();
    succeeded(&pipeline.relay_output(&["doctor"]).await.unwrap()).unwrap();

    let relay = pipeline.relay().unwrap();
    let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
    let read = |count| {
        let record = reader.take(count, |message| {
            let header = |name| header(message, name);
            assert_eq!(message.key(), Some(b"k".as_slice()));
            assert_eq!(message.payload(), Some(b"{}".as_slice()));
            assert_eq!(message.partition(), 3);
            Some([header("is_gift")?, header("at")?])
        });
        for found in record.unwrap() {
            assert_eq!(found, ["true", "2026-01-02T03:04:05.600000Z"]);
        }
    };
    read(2);
    relay.stop().await.unwrap();
    pipeline.set("OUTPOUR_RELAY_MODE=poll").unwrap();
    let relay = pipeline.relay().unwrap();
    read(2);
    relay.stop().await.unwrap();
    // What grows old by a domain does so, too.
    pipeline.set("OUTPOUR_RELAY_MODE=wal").unwrap();
    pipeline.set("OUTPOUR_RELAY_RETENTION=1s").unwrap();
    client.batch_execute(INSERT).await.unwrap();
    let relay = pipeline.relay().unwrap();
    read(1);
    integration_tests::eventually(integration_tests::pipeline::PATIENCE, async || {
        let left: i64 = client.query_one("SELECT count(*) FROM outbox", &[]).await?.get(0);
        anyhow::ensure!(left == 0, "{left} rows are left");
        Ok(())
    })
    .await
    .unwrap();
    relay.stop().await.unwrap();
}
