//! Tables that refuse rows, and tables that change, while records go on coming.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, header},
    stack::Stack,
};
use rdkafka::Message;

use crate::consumer::Feed;

/// A pipeline whose topic goes to a table of its own, `numbers`.
pub(crate) async fn numbers(constraint: &str) -> (Pipeline<'static>, String) {
    numbers_in_batches(constraint, "max_delay = '300ms'").await
}

async fn numbers_in_batches(constraint: &str, batch: &str) -> (Pipeline<'static>, String) {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let topic = pipeline.topic("number");
    pipeline.route("number", "numbers", batch).unwrap();
    let create = format!(
        "CREATE TABLE numbers (event_id UUID, n UInt8, _topic LowCardinality(String),
           _partition UInt32, _offset UInt64 {constraint})
         ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000"
    );
    pipeline.execute(&create).await.unwrap();
    (pipeline, topic)
}

/// ClickHouse quotes values in what it says.
#[tokio::test(flavor = "multi_thread")]
async fn row_that_holds_the_consumers_own_words_is_parked_alone() {
    let (pipeline, _) = numbers(", note String, CONSTRAINT short CHECK length(note) < 20").await;
    let feed = Feed::of(&pipeline, "number").await;
    for (n, note) in (0..).zip(["a", "outpour: the table has other columns by now", "b"]) {
        feed.send(n, &format!("{{\"n\": {n}, \"note\": \"{note}\"}}"));
    }
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("numbers", 2).await.unwrap();
    consumer.logged("record parked", PATIENCE).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_clickhouse_refuses_are_parked_alone_and_the_others_stored_once() {
    let (pipeline, topic) = numbers(", CONSTRAINT below_100 CHECK n < 100").await;
    let feed = Feed::of(&pipeline, "number").await;
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("partition assigned", PATIENCE).await.unwrap();
    let payload = |n: u64| format!("{{\"n\": {}}}", if n % 10 == 3 { 200 } else { n });
    for n in 0..40 {
        feed.send(n, &payload(n));
    }
    pipeline.arrived("numbers", 36).await.unwrap();
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    let letters = reader.take(4, |message| {
        let value = String::from_utf8_lossy(message.payload()?).into_owned();
        let reason = header(message, "outpour-reason")?;
        Some((header(message, "outpour-source-offset")?, reason, value))
    });
    let expected = ["3", "13", "23", "33"].map(|offset| {
        (offset.to_owned(), "refused_by_clickhouse".to_owned(), "{\"n\": 200}".to_owned())
    });
    assert_eq!(letters.unwrap(), expected);
    reader.nothing_more().unwrap();
    // And on it goes, under tokens again.
    for n in 40..43 {
        feed.send(n, &payload(n));
    }
    pipeline.arrived("numbers", 39).await.unwrap();
    consumer.stop().await.unwrap();
}

/// Of several partitions with more at hand than a batch takes, those that have such
/// rows begin again where their plan says, however far the client has read ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_clickhouse_refuses_starts_its_partition_over_and_not_the_session() {
    const EVENTS: u64 = 6000;
    let constraint = ", CONSTRAINT below_200 CHECK n < 200";
    let (pipeline, topic) = numbers_in_batches(constraint, "max_rows = 150").await;
    let feed = Feed::with_partitions(&pipeline, "number", 3).await;
    let is_refused = |n: u64| n % 500 == 7;
    for n in 0..EVENTS {
        feed.send(n, &format!("{{\"n\": {}}}", if is_refused(n) { 200 } else { n % 100 }));
    }
    let refused = (0..EVENTS).filter(|n| is_refused(*n)).count();
    let consumer = pipeline.consumer().unwrap();
    pipeline.at_rest(0).await.unwrap();
    let stored = EVENTS - refused as u64;
    pipeline.arrived("numbers", stored).await.unwrap();
    let reader = pipeline.reader(&format!("outpour.dead-letter.{topic}")).unwrap();
    reader.take(refused, |message| Some(message.offset())).unwrap();
    reader.nothing_more().unwrap();
    let log = consumer.log_text();
    assert!(log.contains("partition starts over from its plan"), "{log}");
    assert_eq!(log.matches("partition assigned").count(), 3, "nothing is dealt out anew");
    assert!(!log.contains("starting over from the committed plans"), "{log}");
    consumer.stop().await.unwrap();
}

/// A view on `numbers`, of a table `sums`: rows are in the one and not in the other
/// for as long as it throws.
struct View<'a>(&'a Pipeline<'a>);

impl<'a> View<'a> {
    async fn that_throws(pipeline: &'a Pipeline<'a>) -> Self {
        let sums = "CREATE TABLE sums (n UInt8, x UInt8) ENGINE = MergeTree ORDER BY n
                    SETTINGS non_replicated_deduplication_window = 10000";
        pipeline.execute(sums).await.unwrap();
        let view = View(pipeline);
        view.create("throwIf(n = 2)").await;
        view
    }

    async fn create(&self, x: &str) {
        let sql =
            format!("CREATE MATERIALIZED VIEW seen TO sums AS SELECT n, {x} AS x FROM numbers");
        self.0.execute(&sql).await.unwrap();
    }

    async fn mend(&self) {
        self.0.execute("DROP VIEW seen").await.unwrap();
        self.create("0").await;
    }

    async fn has(&self, numbers: &[u8]) {
        self.0.at_rest(0).await.unwrap();
        self.0.arrived("numbers", numbers.len() as u64).await.unwrap();
        let sql = "SELECT n FROM sums ORDER BY n";
        let sums: Vec<u8> = self.0.clickhouse().query(sql).fetch_all().await.unwrap();
        assert_eq!(sums, numbers);
    }
}

fn send_numbers(feed: &Feed, numbers: &[u8]) {
    (0..).zip(numbers).for_each(|(id, n)| feed.send(id, &format!("{{\"n\": {n}}}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_throws_holds_its_batch_back_and_misses_nothing_once_it_is_mended() {
    let (pipeline, _) = numbers("").await;
    let view = View::that_throws(&pipeline).await;
    send_numbers(&Feed::of(&pipeline, "number").await, &[0, 1, 2, 3]);
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("somebody has to act", PATIENCE).await.unwrap();
    view.mend().await;
    view.has(&[0, 1, 2, 3]).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_gets_what_it_has_missed_though_the_table_was_altered_meanwhile() {
    let (pipeline, _) = numbers("").await;
    let view = View::that_throws(&pipeline).await;
    send_numbers(&Feed::of(&pipeline, "number").await, &[0, 1, 2, 3]);
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("somebody has to act", PATIENCE).await.unwrap();
    consumer.kill().await.unwrap();
    pipeline.arrived("numbers", 4).await.unwrap();
    pipeline.execute("ALTER TABLE numbers ADD COLUMN note String DEFAULT 'none'").await.unwrap();
    view.mend().await;
    let consumer = pipeline.consumer().unwrap();
    view.has(&[0, 1, 2, 3]).await;
    assert!(consumer.log_text().contains("the outcome of a plan is open"));
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_gets_a_part_that_it_has_missed_though_other_rows_are_refused() {
    let (pipeline, _) = numbers(", CONSTRAINT below_100 CHECK n < 100").await;
    let view = View::that_throws(&pipeline).await;
    send_numbers(&Feed::of(&pipeline, "number").await, &[0, 1, 2, 3, 200, 5, 6]);
    let consumer = pipeline.consumer().unwrap();
    consumer.logged("finding the rows one by one", PATIENCE).await.unwrap();
    consumer.logged("somebody has to act", PATIENCE).await.unwrap();
    consumer.kill().await.unwrap();
    view.mend().await;
    let consumer = pipeline.consumer().unwrap();
    view.has(&[0, 1, 2, 3, 5, 6]).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_is_filled_without_a_restart() {
    let (pipeline, _) = numbers("").await;
    let feed = Feed::of(&pipeline, "number").await;
    let consumer = pipeline.consumer().unwrap();
    feed.send(0, r#"{"n": 0, "note": "before"}"#);
    pipeline.arrived("numbers", 1).await.unwrap();
    let client = pipeline.clickhouse();
    client
        .query("ALTER TABLE numbers ADD COLUMN note String DEFAULT 'none'")
        .execute()
        .await
        .unwrap();
    consumer.logged("tables have changed", PATIENCE).await.unwrap();
    feed.send(1, r#"{"n": 1, "note": "after"}"#);
    pipeline.arrived("numbers", 2).await.unwrap();
    let notes: Vec<String> =
        client.query("SELECT note FROM numbers ORDER BY n").fetch_all().await.unwrap();
    assert_eq!(notes, ["none", "after"]);
    client.query("ALTER TABLE numbers DROP COLUMN note").execute().await.unwrap();
    feed.send(2, r#"{"n": 2, "note": "gone"}"#);
    pipeline.arrived("numbers", 3).await.unwrap();
    pipeline.at_rest(0).await.unwrap();
    consumer.stop().await.unwrap();
}
