//! Records that are not what the relay writes, and tables that are not all plain columns.

use integration_tests::{
    pipeline::{Pipeline, header, succeeded},
    stack::Stack,
};

use crate::consumer::Feed;

const PROVENANCE: &str = "_topic LowCardinality(String), _partition UInt32, _offset UInt64";

/// A pipeline with a table `orders` of these columns, and a route of these keys into it.
async fn orders(columns: &str, route: &str) -> (Pipeline<'static>, Feed) {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    pipeline
        .execute(&format!(
            "CREATE TABLE orders (event_id UUID, {columns}, {PROVENANCE}) ENGINE = MergeTree \
             ORDER BY event_id SETTINGS non_replicated_deduplication_window = 10000"
        ))
        .await
        .unwrap();
    let topic = pipeline.topic("order");
    let route = format!("[[routes]]\ntopic = '{topic}'\ntable = 'orders'\n{route}\n");
    pipeline.configure(&format!("max_delay = '500ms'\n{route}")).unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    (pipeline, feed)
}

/// What the rows have, in the order in which their events were sent.
async fn rows(pipeline: &Pipeline<'_>, columns: &str) -> Vec<String> {
    let sql = format!("SELECT concat_ws(' | ', {columns}) FROM orders ORDER BY event_id");
    pipeline.clickhouse().query_raw(&sql).fetch_all().await.unwrap()
}

/// Reason and column of each letter.
fn letters(pipeline: &Pipeline<'_>, feed: &Feed, count: usize) -> Vec<String> {
    let reader = pipeline.reader(&format!("outpour.dead-letter.{}", feed.topic)).unwrap();
    let letters = reader.take(count, |letter| {
        let column = header(letter, "outpour-column").unwrap_or_default();
        Some(format!("{} {column}", header(letter, "outpour-reason")?))
    });
    letters.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_gives_absent_composites_their_default_or_nothing_as_the_route_says() {
    let (pipeline, feed) = orders(
        "tags Array(String) DEFAULT ['a', 'b'], rates Array(Float64) DEFAULT [nan, 0.5],
         times Array(DateTime) DEFAULT [toDateTime(1704067200)],
         counts Map(String, UInt64) DEFAULT map('k', 18446744073709551615),
         place Tuple(x Int8, name String) DEFAULT (1, 'here'), doc JSON DEFAULT '{\"a\":{\"b\":1}}',
         codes Array(UInt8), box Tuple(d Date32, e Enum8('z' = 2, 'y' = -1), n Nullable(Int8)),
         raw String EPHEMERAL, weight UInt32 EPHEMERAL 7, n UInt32 DEFAULT length(raw) + weight,
         CONSTRAINT small CHECK n < 100",
        "columns = { event_id = '$id' }\nempty_if_absent = ['codes', 'box']",
    )
    .await;
    let whole = r#"{"tags":[],"rates":[],"times":[],"counts":{},"place":{"x":2,"name":"there"},"doc":{},
        "codes":[1],"box":["2024-02-29","z",1],"raw":"abc","weight":10}"#;
    let payloads = ["{}", whole, r#"{"weight":100}"#, r#"{"tags":null}"#, r#"{"n":5,"raw":"x"}"#];
    for (id, payload) in payloads.into_iter().enumerate() {
        feed.send(id as u64, payload);
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 3).await.unwrap();
    let defaults = "['a','b'] | [nan,0.5] | 1704067200 | {'k':18446744073709551615} | (1,'here') \
                    | {\"a\":{\"b\":1}} | [] | ('1900-01-01','y',NULL)";
    let found = rows(
        &pipeline,
        "toString(tags), toString(rates), arrayStringConcat(arrayMap(t -> toUnixTimestamp(t), times)), \
         toString(counts), toString(place), toString(doc), toString(codes), toString(box), n",
    )
    .await;
    let expected = [
        format!("{defaults} | 7"),
        "[] | [] |  | {} | (2,'there') | {} | [1] | ('2024-02-29','z',1) | 13".to_owned(),
        format!("{defaults} | 5"),
    ];
    assert_eq!(found, expected);
    // The one that is refused had the others stored in parts.
    let mut letters = letters(&pipeline, &feed, 2);
    letters.sort();
    assert_eq!(letters, ["null_not_allowed tags", "refused_by_clickhouse "]);
    pipeline.at_rest(5).await.unwrap();
    let output = pipeline.consumer_output(&["reconcile", "--values"]).await.unwrap();
    succeeded(&output).unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_parks_an_absent_composite_whose_default_is_another_for_each_row() {
    let (pipeline, feed) = orders(
        "name String, words Array(String) DEFAULT splitByChar(' ', name),
         seen Array(DateTime) DEFAULT [now()]",
        "columns = { event_id = '$id' }",
    )
    .await;
    feed.send(0, r#"{"name":"a b","words":[],"seen":[]}"#);
    feed.send(1, r#"{"name":"a b","seen":[]}"#);
    feed.send(2, r#"{"name":"a b","words":[]}"#);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 1).await.unwrap();
    assert_eq!(letters(&pipeline, &feed, 2), ["missing words", "missing seen"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_says_what_a_record_of_somebody_else_lacks() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let feed = Feed::of(&pipeline, "theirs").await;
    let (id, kind, version) = ("00000000-0000-0000-0000-000000000001", "happened", "1");
    let whole = [("id", id), ("eventType", kind), ("schemaVersion", version)];
    feed.send_record(None, Some("{}"), &[]);
    feed.send_record(Some("k"), Some("{}"), &whole[..1]);
    feed.send_record(None, Some("{}"), &whole);
    feed.send_record(Some("k"), Some("{}"), &whole);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", 1).await.unwrap();
    let reader = pipeline.reader(&format!("outpour.dead-letter.{}", feed.topic)).unwrap();
    let errors = reader.take(3, |letter| {
        assert_eq!(header(letter, "outpour-reason").as_deref(), Some("missing"));
        assert_eq!(header(letter, "outpour-route").as_deref(), Some("route 1"));
        header(letter, "outpour-error")
    });
    let lacks = ["the header `id`", "the header `eventType`", "the record's key"];
    for (error, lacks) in errors.unwrap().iter().zip(lacks) {
        assert!(error.contains(lacks) && error.contains("a route of their own"), "{error}");
    }
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_passes_over_tombstones_where_the_route_says_so() {
    let keys = "tombstones = 'skip'\ncolumns = { event_id = '$id', at = '$occurred_at' }";
    let (pipeline, feed) = orders("n UInt8, at DateTime64(9, 'UTC')", keys).await;
    let id = |n: u8| uuid::Uuid::from_u128(n.into()).to_string();
    feed.send_record(Some("k"), None, &[("id", &id(1))]);
    let at = ("occurredAt", "2024-01-01T00:00:00.123456789Z");
    feed.send_record(Some("k"), Some(r#"{"n":1}"#), &[("id", &id(2)), at]);
    // Nothing is no deletion.
    feed.send_record(Some("k"), Some(""), &[("id", &id(3))]);
    feed.send_record(Some("k"), None, &[]);
    feed.send_record(Some("k"), Some(r#"{"n":2}"#), &[("id", &id(4)), at]);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 2).await.unwrap();
    let kept = "2024-01-01 00:00:00.123456789";
    assert_eq!(rows(&pipeline, "n, at").await, [format!("1 | {kept}"), format!("2 | {kept}")]);
    assert_eq!(letters(&pipeline, &feed, 1), ["malformed "]);
    pipeline.at_rest(5).await.unwrap();
    let output = pipeline.consumer_output(&["reconcile", "--json"]).await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["clean"], &report["totals"]["parked"]), (&true.into(), &1.into()));
    consumer.stop().await.unwrap();
}
