//! Records that are not what the relay writes, and tables that are not all plain columns.

use integration_tests::{
    pipeline::{Pipeline, header},
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
