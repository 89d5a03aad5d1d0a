//! The trace of an event goes on in the insert that stores it.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    program::{Binary, Program},
    proxy::Proxy,
    stack::Stack,
};

use crate::consumer::Feed;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// What begins with `begin`, of every place in `text`, up to `end`.
fn all<'a>(text: &'a str, begin: &str, end: &[char]) -> Vec<&'a str> {
    let after = |(at, _): (usize, _)| {
        let rest = &text[at + begin.len()..];
        &rest[..rest.find(end).unwrap_or(rest.len())]
    };
    text.match_indices(begin).map(after).collect()
}

/// Query ids of the inserts that a proxy has passed on.
fn query_ids(proxy: &Proxy) -> Vec<String> {
    all(&proxy.heard(), "query_id=", &['&', ' ']).into_iter().map(str::to_owned).collect()
}

fn traceparents(proxy: &Proxy) -> Vec<String> {
    all(&proxy.heard(), "traceparent: ", &['\r']).into_iter().map(str::to_owned).collect()
}

async fn pipeline() -> (Pipeline<'static>, Proxy, Feed) {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '300ms'").await.unwrap();
    let server = stack.clickhouse.url().strip_prefix("http://").unwrap();
    let proxy = Proxy::recording(server).await.unwrap();
    pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL=http://{}", proxy.address())).unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    (pipeline, proxy, feed)
}

fn consumer(pipeline: &Pipeline<'_>) -> Program {
    let verbose = [("OUTPOUR_LOG", "info,outpour_consumer=debug")];
    let log = pipeline.file("consumer.log");
    Binary::Consumer.start_with(&pipeline.config(), &log, &[], &verbose).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_continues_the_trace_of_its_first_record_that_has_one() {
    let (pipeline, proxy, feed) = pipeline().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let another = format!("00-{}-{SPAN}-01", "c".repeat(32));
    let traces = [None, Some("no trace"), Some(parent.as_str()), Some(another.as_str())];
    for (id, traceparent) in (0..).zip(traces) {
        feed.send_traced(id, "{}", traceparent);
    }
    // All of them are there, and become one batch.
    pipeline.reader(&feed.topic).unwrap().take(4, |_| Some(())).unwrap();
    let consumer = consumer(&pipeline);
    pipeline.arrived("event_log", 4).await.unwrap();
    consumer.logged("batch stored", PATIENCE).await.unwrap();
    let (ids, parents) = (query_ids(&proxy), traceparents(&proxy));
    assert_eq!((ids.len(), parents.len()), (1, 1), "{}", proxy.heard());
    assert!(ids[0].starts_with("outpour-"), "{ids:?}");
    let begin = format!("00-{TRACE}-");
    assert!(parents[0].starts_with(&begin) && parents[0].ends_with("-01"), "{parents:?}");
    assert!(!parents[0].contains(SPAN), "a span of its own: {parents:?}");
    let log = consumer.log_text();
    let stored = log.lines().find(|line| line.contains("batch stored")).unwrap();
    assert!(stored.contains(&ids[0]) && stored.contains(TRACE), "{stored}");

    // A batch without a trace.
    feed.send(4, "{}");
    pipeline.arrived("event_log", 5).await.unwrap();
    assert_eq!((query_ids(&proxy).len(), traceparents(&proxy).len()), (2, 1));
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_name_of_its_own_in_one_trace() {
    let (pipeline, proxy, feed) = pipeline().await;
    let consumer = consumer(&pipeline);
    feed.send(0, "{}");
    pipeline.arrived("event_log", 1).await.unwrap();
    consumer.logged("batch stored", PATIENCE).await.unwrap();
    proxy.hold_answers();
    feed.send_traced(1, "{}", Some(&format!("00-{TRACE}-{SPAN}-00")));
    pipeline.arrived("event_log", 2).await.unwrap();
    proxy.cut();
    consumer.logged("insert succeeded", PATIENCE).await.unwrap();
    pipeline.arrived("event_log", 2).await.unwrap();
    let (ids, parents) = (query_ids(&proxy), traceparents(&proxy));
    assert_eq!((ids.len(), parents.len()), (3, 2), "{}", proxy.heard());
    assert_ne!(ids[1], ids[2]);
    assert_ne!(parents[0], parents[1], "spans of their own");
    let begin = format!("00-{TRACE}-");
    assert!(parents.iter().all(|parent| parent.starts_with(&begin)), "{parents:?}");
    let log = consumer.log_text();
    let failed = log.lines().find(|line| line.contains("insert failed")).unwrap();
    assert!(failed.contains(&ids[1]) && failed.contains(TRACE), "{failed}");
    let heard = proxy.heard();
    let tokens = all(&heard, "insert_deduplication_token=", &['&', ' ']);
    assert_eq!(tokens[1], tokens[2]);
    consumer.stop().await.unwrap();
}
