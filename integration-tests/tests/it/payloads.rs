//! Payloads in the forms that serializers give them, and what becomes of fields
//! that no column takes.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, header},
    stack::Stack,
};
use rdkafka::Message;

use crate::consumer::Feed;

const PROVENANCE: &str = "_topic LowCardinality(String), _partition UInt32, _offset UInt64";

/// A pipeline with a table `orders` of these columns.
async fn orders(columns: &str) -> Pipeline<'static> {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let create = format!(
        "CREATE TABLE orders (event_id UUID, {columns}, {PROVENANCE}) ENGINE = MergeTree \
         ORDER BY event_id SETTINGS non_replicated_deduplication_window = 10000"
    );
    pipeline.clickhouse().query_raw(&create).execute().await.unwrap();
    pipeline
}

/// The rows, in the order in which their events were sent.
async fn rows(pipeline: &Pipeline<'_>, columns: &str) -> Vec<String> {
    let sql = format!("SELECT {columns} FROM orders ORDER BY event_id");
    let mut found = pipeline.clickhouse().query_raw(&sql).fetch_bytes("TSVRaw").unwrap();
    let text = String::from_utf8(found.collect().await.unwrap().to_vec()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Reason and value of the letters of a topic.
fn letters(pipeline: &Pipeline<'_>, topic: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    let letters = reader.take(count, |message| {
        Some((header(message, "outpour-reason")?, message.payload()?.to_vec()))
    });
    reader.nothing_more().unwrap();
    letters.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_every_form_become_the_same_rows_and_others_are_parked_as_they_came() {
    let pipeline = orders("n UInt8, city Nullable(String), doc String, rest String").await;
    let route = |aggregate_type: &str, format: &str| {
        format!(
            "[[routes]]\ntopic = '{}'\ntable = 'orders'\n{format}\n\
             unknown_fields = {{ collect = 'rest' }}\n\
             columns = {{ event_id = '$id', doc = '$payload', city = 'customer.city' }}\n",
            pipeline.topic(aggregate_type)
        )
    };
    let settings = format!(
        "max_delay = '50ms'\n{}{}",
        route("any", ""),
        route("connect", "payload_format = 'connect'")
    );
    pipeline.configure(&settings).unwrap();

    const ORDER: &str = r#"{"n": 7, "customer":{"city":"Ulm", "zip":"é\n"}, "total":1.50}"#;
    let escaped = serde_json::to_string(ORDER).unwrap();
    let any = Feed::of(&pipeline, "any").await;
    let framed = [format!("\0\0\0\0\u{1}{ORDER}"), format!("\0\0\0\0\u{1}{escaped}")];
    for (id, payload) in [ORDER, &escaped, &framed[0], &framed[1]].into_iter().enumerate() {
        any.send(id as u64, payload);
    }
    let avro = "\0\0\0\0\u{1}\u{2}\u{8}";
    any.send(100, avro);
    let connect = Feed::of(&pipeline, "connect").await;
    let envelope = |payload: &str| {
        format!(r#"{{"schema":{{"type":"string","optional":true}},"payload":{payload}}}"#)
    };
    connect.send(4, &envelope(&escaped));
    connect.send(5, &envelope(ORDER));
    connect.send(101, ORDER);

    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 6).await.unwrap();
    let expected = ["7\tUlm", r#"{"customer":{"zip":"é\n"},"total":1.50}"#, ORDER].join("\t");
    assert_eq!(rows(&pipeline, "n, city, rest, doc").await, [expected.as_str(); 6]);
    assert_eq!(
        letters(&pipeline, &pipeline.topic("any"), 1),
        [("malformed".to_owned(), avro.as_bytes().to_vec())]
    );
    assert_eq!(
        letters(&pipeline, &pipeline.topic("connect"), 1),
        [("wrong_payload_format".to_owned(), ORDER.as_bytes().to_vec())]
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_routes_the_format_of_the_consumer_holds() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    pipeline.set("OUTPOUR_CONSUMER_PAYLOAD_FORMAT=connect").unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    feed.send(0, r#"{"schema":{"type":"string"},"payload":"{\"a\": 1}"}"#);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", 1).await.unwrap();
    let sql = "SELECT event_context FROM event_log";
    let found: String = pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
    assert_eq!(found, r#"{"a": 1}"#);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_collected_as_text_as_json_and_as_a_map() {
    for (kind, expected) in [
        ("String", r#"{"s":"x","n":1.50,"s":null}"#),
        ("JSON", r#"{"n":1.5,"t":"y"}"#),
        ("Map(String, String)", r#"{'s':'"x"','n':'1.50','s':'null'}"#),
    ] {
        let pipeline = orders(&format!("a UInt8, rest {kind}")).await;
        let settings = format!(
            "max_delay = '50ms'\n[[routes]]\ntopic = '{}'\ntable = 'orders'\n\
             unknown_fields = {{ collect = 'rest' }}\ncolumns = {{ event_id = '$id' }}\n",
            pipeline.topic("order")
        );
        pipeline.configure(&settings).unwrap();
        let feed = Feed::of(&pipeline, "order").await;
        // ClickHouse refuses a name that comes twice in its JSON.
        let first = match kind {
            "JSON" => r#"{"n":1.50,"a":1,"t":"y"}"#,
            _ => r#"{"s":"x","a":1,"n":1.50,"s":null}"#,
        };
        feed.send(0, first);
        feed.send(1, r#"{"a":2}"#);
        let consumer = pipeline.consumer().unwrap();
        pipeline.arrived("orders", 2).await.unwrap();
        assert_eq!(rows(&pipeline, "rest").await, [expected, "{}"], "{kind}");
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collecting_column_that_cannot_hold_an_object_is_named_at_start() {
    let pipeline = orders("rest UInt8").await;
    let configure = |column: &str| {
        let topic = pipeline.topic("order");
        let route = format!(
            "[[routes]]\ntopic = '{topic}'\ntable = 'orders'\n\
             unknown_fields = {{ collect = '{column}' }}\n"
        );
        pipeline.configure(&route).unwrap();
    };
    for (column, told) in [
        ("rest", "column `rest` of table"),
        ("rest", "is UInt8; unknown_fields collects into String, JSON or Map(String, String)"),
        ("more", "has no column `more`"),
    ] {
        configure(column);
        let mut consumer = pipeline.consumer().unwrap();
        assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(2));
        assert!(consumer.log_text().contains(told), "{}", consumer.log_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_table_is_filled_from_objects_and_a_row_of_unequal_columns_is_parked() {
    let pipeline = orders("items Nested(sku String, count Nullable(UInt8))").await;
    pipeline.route("order", "orders", "max_delay = '50ms'").unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    let unequal = r#"{"items":{"sku":["a"],"count":[]}}"#;
    for (id, payload) in [
        r#"{"items":[{"sku":"a","count":1},{"sku":"b"}]}"#,
        r#"{"items":{"sku":["a","b"],"count":[1,null]}}"#,
        r#"{"items.sku":["a","b"],"items.count":[1,null]}"#,
        unequal,
        r#"{"items":[]}"#,
    ]
    .into_iter()
    .enumerate()
    {
        feed.send(id as u64, payload);
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("orders", 4).await.unwrap();
    let both = "['a','b']\t[1,NULL]";
    assert_eq!(rows(&pipeline, "items.sku, items.count").await, [both, both, both, "[]\t[]"]);
    assert_eq!(
        letters(&pipeline, &pipeline.topic("order"), 1),
        [("refused_by_clickhouse".to_owned(), unequal.as_bytes().to_vec())]
    );
    consumer.stop().await.unwrap();
}
