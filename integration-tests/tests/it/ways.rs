//! The ways in, held to one contract: whichever way an event takes, its record
//! is the same to the byte, but for `outpour-lsn`, which polling cannot know.

use std::{collections::BTreeSet, sync::LazyLock};

use integration_tests::{
    pipeline::{Pipeline, header, succeeded},
    stack::Stack,
};
use jiff::{SignedDuration, Timestamp};
use outpour_schemas::identity::derived_event_id;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde_json::json;
use tokio_postgres::Client;

/// Stands for the pipeline's own.
const LETTERS: &str = "dead letters";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Table,
    Message,
    Poll,
}

const WAYS: [Way; 3] = [Way::Table, Way::Message, Way::Poll];

/// What a service writes; the rest of the columns follow from its place.
#[derive(Clone, Default)]
struct Event {
    aggregate_type: &'static str,
    key: &'static str,
    payload: Option<String>,
    traceparent: Option<&'static str>,
    tenant: Option<&'static str>,
    shard: Option<i32>,
}

/// A record, without what differs from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// `#` and the place of the event.
    id: String,
    /// Without what is this pipeline's own.
    topic: String,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    /// Where the case has a say in it.
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
}

/// Settings, the events, and what becomes of them.
struct Group {
    settings: &'static [&'static str],
    /// Whether the payload is `text`, which may be blank, and not `jsonb`.
    text_payload: bool,
    /// Whether the timestamp is the event's own.
    timestamps: bool,
    cases: Vec<(Event, Found)>,
}

fn event(aggregate_type: &'static str, payload: &str) -> Event {
    let payload = Some(payload.to_owned());
    Event { aggregate_type, key: "k", payload, ..Event::default() }
}

/// Seconds after the first, each event has a time of its own: of yesterday, which
/// is within what Kafka keeps.
fn occurred_at(place: usize) -> Timestamp {
    static FIRST: LazyLock<Timestamp> = LazyLock::new(|| {
        let yesterday = Timestamp::now().as_second() - 24 * 60 * 60;
        Timestamp::new(yesterday, 678_901_000).unwrap()
    });
    *FIRST + SignedDuration::from_secs(place.try_into().unwrap())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The record of an event with the defaults of the configuration.
fn record(place: usize, event: &Event) -> Found {
    let headers = [
        ("id", some(&format!("#{place}"))),
        ("eventType", some("placed")),
        ("schemaVersion", some("2")),
        ("occurredAt", some(&occurred_at(place).to_string())),
        ("traceparent", event.traceparent.map(str::to_owned)),
    ];
    Found {
        id: format!("#{place}"),
        topic: event.aggregate_type.to_owned(),
        key: some(event.key),
        value: event.payload.clone(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        partition: None,
        timestamp_ms: None,
    }
}

/// Turns a record into its dead letter.
fn letter(mut record: Found, reason: &str, more: &[(&str, String)]) -> Found {
    LETTERS.clone_into(&mut record.topic);
    let reason = ("outpour-reason", reason.to_owned());
    for (name, value) in std::iter::once(&reason).chain(more) {
        record.headers.push(((*name).to_owned(), Some(value.clone())));
    }
    record
}

/// A pipeline for one way, with two more columns.
async fn pipeline(way: Way, settings: &[&str]) -> Pipeline<'static> {
    let pipeline = Pipeline::bare(Stack::shared().await.unwrap(), "").await.unwrap();
    if way == Way::Poll {
        pipeline.set("OUTPOUR_RELAY_MODE=poll").unwrap();
    }
    for setting in settings {
        pipeline.set(setting).unwrap();
    }
    succeeded(&pipeline.relay_output(&["init"]).await.unwrap()).unwrap();
    let client = pipeline.postgres().await.unwrap();
    client.batch_execute("ALTER TABLE outbox ADD tenant text, ADD shard integer").await.unwrap();
    pipeline
}

fn id(pipeline: &Pipeline<'_>, place: usize) -> String {
    derived_event_id(&pipeline.name, &place.to_string()).to_string()
}

async fn write(client: &Client, way: Way, id: &str, place: usize, event: &Event, group: &Group) {
    let Event { aggregate_type, key, payload, traceparent, tenant, shard } = event;
    let at = occurred_at(place).to_string();
    let extra = json!({"tenant": tenant, "shard": shard}).to_string();
    let is_written_by_hand = way == Way::Message && group.text_payload;
    let payload_type = if group.text_payload { "text" } else { "jsonb" };
    let sql = match way {
        Way::Table | Way::Poll => format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, id, occurred_at,
                                 schema_version, traceparent, tenant, shard)
             SELECT $1, $2, 'placed', $3::text::{payload_type}, $4::text::uuid,
                    $5::text::timestamptz, 2, $6, $7::text::jsonb ->> 'tenant',
                    ($7::text::jsonb ->> 'shard')::int"
        ),
        // The function takes jsonb, which is never blank.
        Way::Message if is_written_by_hand => {
            "SELECT pg_logical_emit_message(true, 'outpour', json_build_object(
                'aggregatetype', $1::text, 'aggregateid', $2::text, 'type', 'placed',
                'payload', $3::text, 'id', $4::text, 'occurred_at', $5::text,
                'schema_version', 2, 'traceparent', $6::text, 'extra', $7::text::json)::text)"
                .to_owned()
        }
        Way::Message => "SELECT outpour_emit($1, $2, 'placed', $3::text::jsonb, $4::text::uuid,
                                             $5::text::timestamptz, 2, $6, $7::text::jsonb)"
            .to_owned(),
    };
    client
        .execute(&sql, &[aggregate_type, key, payload, &id, &at, traceparent, &extra])
        .await
        .unwrap();
}

/// A record of this pipeline's, made comparable.
fn found(pipeline: &Pipeline<'_>, group: &Group, message: &BorrowedMessage<'_>) -> Option<Found> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let id = header(message, "id")?;
    let place = (0..group.cases.len()).find(|place| self::id(pipeline, *place) == id)?;
    let prefix = format!("outbox.event.{}.", pipeline.name);
    let mut value = text(message.payload());
    let mut headers = Vec::new();
    for header in message.headers()?.iter() {
        let value = text(header.value).map(|value| match header.key {
            "id" => format!("#{place}"),
            _ => value.replace(&prefix, ""),
        });
        // A sentence for people, with sizes that the other header is part of.
        if !matches!(header.key, "outpour-lsn" | "outpour-error") {
            headers.push((header.key.to_owned(), value));
        }
    }
    if header(message, "outpour-reason").as_deref() == Some("record_too_large") {
        // As much as fits beside the headers, of which there is one more or less.
        let whole = group.cases[place].0.payload.clone().unwrap();
        let cut = value.unwrap();
        assert!(whole.starts_with(&cut) && cut.len() > 1_000_000, "{} bytes", cut.len());
        value = some("cut");
    }
    let expects = &group.cases[place].1;
    Some(Found {
        id: format!("#{place}"),
        topic: match message.topic() {
            topic if topic == pipeline.dead_letter_topic() => LETTERS.to_owned(),
            topic => topic.replace(&prefix, ""),
        },
        key: text(message.key()),
        value,
        headers,
        partition: expects.partition.map(|_| message.partition()),
        timestamp_ms: group.timestamps.then(|| message.timestamp().to_millis()).flatten(),
    })
}

/// Takes a group through every way.
async fn hold_to(group: &Group) {
    for way in WAYS {
        let pipeline = pipeline(way, group.settings).await;
        let client = pipeline.postgres().await.unwrap();
        if group.text_payload {
            client.batch_execute("ALTER TABLE outbox ALTER payload TYPE text").await.unwrap();
        }
        let relay = pipeline.relay().unwrap();
        for (place, (event, _)) in group.cases.iter().enumerate() {
            // The same before, in a transaction that is rolled back.
            client.batch_execute("BEGIN").await.unwrap();
            write(&client, way, &id(&pipeline, place), place, event, group).await;
            client.batch_execute("ROLLBACK").await.unwrap();
            write(&client, way, &id(&pipeline, place), place, event, group).await;
        }
        let mut expected: Vec<_> = group.cases.iter().map(|(_, found)| found.clone()).collect();
        let topics: BTreeSet<_> = expected.iter().map(|found| found.topic.clone()).collect();
        let mut all = Vec::new();
        for topic in topics {
            let count = expected.iter().filter(|found| found.topic == topic).count();
            let topic = match topic.as_str() {
                LETTERS => pipeline.dead_letter_topic(),
                topic => pipeline.topic(topic),
            };
            let reader = pipeline.reader(&topic).unwrap();
            all.extend(reader.take(count, |message| found(&pipeline, group, message)).unwrap());
            reader.nothing_more().unwrap();
        }
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "{way:?}");
        relay.stop().await.unwrap();
    }
}

/// What is different about the record of an event.
type Change = fn(Found) -> Found;

fn cases(of: Vec<(Event, Change)>) -> Vec<(Event, Found)> {
    let mut cases = Vec::new();
    for (place, (event, change)) in of.into_iter().enumerate() {
        let record = change(record(place, &event));
        cases.push((event, record));
    }
    cases
}

fn with_value(mut record: Found, value: &str) -> Found {
    record.value = some(value);
    record
}

fn without_value(mut record: Found) -> Found {
    record.value = None;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_the_same_whichever_way_an_event_takes() {
    const NUMBERS: &str =
        r#"{"n":123456789012345678901234567890.1234500,"list":[1,{"deep":null}],"z":"","e":1e3}"#;
    // As PostgreSQL writes jsonb.
    const WRITTEN: &str = r#"{"e": 1000, "n": 123456789012345678901234567890.1234500, "z": "", "list": [1, {"deep": null}]}"#;
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let null = Event { payload: None, ..event("order", "") };
    let traced = Event { traceparent: Some(TRACE), ..event("order", "1") };
    let unicode = Event {
        key: "Grüße \"😀\" \\",
        ..event("order", r#"{"ä": "漢字 \"q\" \\ \n 😀"}"#)
    };
    let large = event("order", &serde_json::to_string(&"x".repeat(1_200_000)).unwrap());
    let same = |record| record;
    let cases = cases(vec![
        (event("order", r#"{"a": 1, "b": "x"}"#), same),
        (unicode, same),
        (null, without_value),
        (event("order", "null"), same),
        (event("invoice-2", NUMBERS), |record| with_value(record, WRITTEN)),
        (traced, same),
        (event("Grüße", "{}"), |record| {
            letter(record, "invalid_topic", &[("outpour-original-size", "2".to_owned())])
        }),
        (large, |record| {
            let size = ("outpour-original-size", "1200002".to_owned());
            let topic = ("outpour-source-topic", "order".to_owned());
            with_value(letter(record, "record_too_large", &[topic, size]), "cut")
        }),
        // None of the letters holds up what follows.
        (event("order", "2"), same),
    ]);
    hold_to(&Group { settings: &[], text_payload: false, timestamps: false, cases }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn null_and_blank_payloads_are_tombstones_whichever_way_they_take() {
    let null = Event { payload: None, ..event("order", "") };
    let cases = cases(vec![
        (null, without_value),
        (event("order", ""), without_value),
        (event("order", " \n\t"), without_value),
        (event("order", "not JSON at all"), |record| record),
        (event("order", "{}"), |record| record),
    ]);
    let settings = &["OUTPOUR_RELAY_TOMBSTONE_ON_EMPTY_PAYLOAD=true"];
    hold_to(&Group { settings, text_payload: true, timestamps: false, cases }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_columns_take_their_places_whichever_way_they_came() {
    fn placed(mut record: Found, tenant: Option<&str>, shard: Option<i32>, value: &str) -> Found {
        let place = record.id[1..].parse().unwrap();
        record.headers.truncate(1);
        record.headers.push(("tenant".to_owned(), tenant.map(str::to_owned)));
        record.partition = shard;
        record.timestamp_ms = Some(occurred_at(place).as_microsecond() / 1000);
        with_value(record, value)
    }
    let with = |tenant, shard| Event { tenant, shard, ..event("order", r#"{"a": 1.50}"#) };
    const PLAIN: &str = r#"{"payload":"{\"a\": 1.50}","who":"ac\"me"}"#;
    const NULL: &str = r#"{"payload":"{\"a\": 1.50}","who":null}"#;
    let cases = cases(vec![
        (with(Some("ac\"me"), Some(3)), |record| placed(record, Some("ac\"me"), Some(3), PLAIN)),
        (with(Some("ac\"me"), Some(5)), |record| placed(record, Some("ac\"me"), Some(5), PLAIN)),
        (with(None, None), |record| placed(record, None, None, NULL)),
        // The topic has six partitions.
        (with(None, Some(99)), |record| {
            let record = placed(record, None, None, NULL);
            let size = ("outpour-original-size", NULL.len().to_string());
            let topic = ("outpour-source-topic", "order".to_owned());
            let partition = ("outpour-source-partition", "99".to_owned());
            letter(record, "invalid_partition", &[topic, partition, size])
        }),
    ]);
    let settings = &[
        "OUTPOUR_RELAY_ADDITIONAL_FIELDS=tenant:header,tenant:envelope:who,shard:partition",
        "OUTPOUR_RELAY_TIMESTAMP_COLUMN=occurred_at",
    ];
    hold_to(&Group { settings, text_payload: false, timestamps: true, cases }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn debeziums_records_are_the_same_whichever_way_an_event_takes() {
    fn bare(mut record: Found, value: Option<&str>) -> Found {
        record.headers.truncate(2);
        record.value = value.map(str::to_owned);
        record
    }
    let null = Event { payload: None, ..event("order", "") };
    let tenant = Event { tenant: Some("acme"), ..event("order", r#"{"a": [1, 2.50], "x": null}"#) };
    let cases = cases(vec![
        (tenant, |record| bare(record, Some(r#"{"payload":{"a":[1,2.50]},"tenant":"acme"}"#))),
        (null, |record| bare(record, Some(r#"{"payload":null,"tenant":null}"#))),
    ]);
    let settings = &[
        "OUTPOUR_RELAY_COMPAT=debezium",
        "OUTPOUR_RELAY_EXPAND_JSON_PAYLOAD=true",
        "OUTPOUR_RELAY_ADDITIONAL_FIELDS=type:header:eventType,tenant:envelope",
    ];
    hold_to(&Group { settings, text_payload: false, timestamps: false, cases }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_keeps_its_order_over_transactions_whichever_way_its_events_take() {
    const TRANSACTIONS: i32 = 20;
    const EACH: i32 = 5;
    for way in WAYS {
        // Less than a transaction at once, so that batches end within one.
        let pipeline = pipeline(way, &["OUTPOUR_RELAY_POLL_BATCH_ROWS=3"]).await;
        let relay = pipeline.relay().unwrap();
        let mut client = pipeline.postgres().await.unwrap();
        let sql = match way {
            Way::Message => "SELECT outpour_emit('order', 'k', 'placed', to_jsonb($1::int))",
            Way::Table | Way::Poll => {
                "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                 VALUES (gen_random_uuid(), 'order', 'k', 'placed', to_jsonb($1::int))"
            }
        };
        for transaction in 0..TRANSACTIONS {
            let tx = client.transaction().await.unwrap();
            for n in 0..EACH {
                tx.execute(sql, &[&(transaction * EACH + n)]).await.unwrap();
            }
            tx.commit().await.unwrap();
        }
        let count = usize::try_from(TRANSACTIONS * EACH).unwrap();
        let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
        let number = |message: &BorrowedMessage<'_>| {
            Some(std::str::from_utf8(message.payload()?).ok()?.parse::<i32>().unwrap())
        };
        let found = reader.take(count, number).unwrap();
        assert_eq!(found, (0..TRANSACTIONS * EACH).collect::<Vec<_>>(), "{way:?}");
        relay.stop().await.unwrap();
    }
}
