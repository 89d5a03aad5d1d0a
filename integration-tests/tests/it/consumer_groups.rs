//! Members that come, go, die and oversleep, under every way in which a group can
//! share its partitions.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    program::{Binary, Program},
    stack::Stack,
};

use crate::consumer::Feed;

const PARTITIONS: i32 = 6;

struct Group<'a> {
    pipeline: &'a Pipeline<'a>,
    is_static: bool,
}

impl Group<'_> {
    /// A member with a name and a log of its own.
    fn member(&self, name: &str) -> Program {
        let log = self.pipeline.file(&format!("{name}.log"));
        let id = [("OUTPOUR_CONSUMER_GROUP_INSTANCE_ID", name)];
        let variables = if self.is_static { id.as_slice() } else { &[] };
        Binary::Consumer.start_with(&self.pipeline.config(), &log, &[], variables).unwrap()
    }
}

/// How often a member has taken up a partition.
fn assigned(member: &Program) -> usize {
    member.log_text().matches("partition assigned").count()
}

async fn takes_more(member: &Program, than: usize) {
    eventually(PATIENCE, async || {
        let found = assigned(member);
        ensure!(found > than, "{found} partitions");
        Ok(())
    })
    .await
    .unwrap();
}

/// Sends events until it is told to stop, and knows how many.
struct Stream<'a> {
    pipeline: &'a Pipeline<'a>,
    feed: Feed,
    sent: AtomicU64,
    is_over: AtomicBool,
}

impl Stream<'_> {
    async fn run(&self) {
        const AT_ONCE: u64 = 5;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !self.is_over.load(Relaxed) {
            ticks.tick().await;
            let from = self.sent.load(Relaxed);
            self.feed.send_all(from..from + AT_ONCE);
            self.sent.store(from + AT_ONCE, Relaxed);
        }
    }

    /// Waits until everything that is sent by now is stored: no partition is
    /// without an owner who works.
    async fn catches_up(&self) {
        let sent = self.sent.load(Relaxed);
        let first_after = uuid::Uuid::from_u128(sent.into());
        let sql = format!(
            "SELECT uniqExact(event_id) FROM event_log WHERE toString(event_id) < '{first_after}'"
        );
        eventually(PATIENCE, async || {
            let stored: u64 = self.pipeline.clickhouse().query(&sql).fetch_one().await?;
            ensure!(stored == sent, "{stored} of {sent} are stored");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// One member, three, and one again; one is killed, another sleeps longer than
/// the group waits. Events come all the time.
async fn every_event_is_stored_once(settings: &str, is_static: bool) {
    let stack = Stack::shared().await.unwrap();
    let pipeline = Pipeline::new(stack, "max_delay = '150ms'\nmax_rows = 300").await.unwrap();
    pipeline.set(settings).unwrap();
    let stream = Stream {
        pipeline: &pipeline,
        feed: Feed::with_partitions(&pipeline, "order", PARTITIONS).await,
        sent: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let group = Group { pipeline: &pipeline, is_static };
    let moves = async {
        let first = group.member("first");
        takes_more(&first, 0).await;
        let second = group.member("second");
        takes_more(&second, 0).await;
        let third = group.member("third");
        takes_more(&third, 0).await;
        stream.catches_up().await;

        let (firsts, seconds) = (assigned(&first), assigned(&second));
        second.kill().await.unwrap();
        let second = if is_static {
            // Back before the group has missed it.
            let second = group.member("second");
            takes_more(&second, seconds).await;
            assert_eq!(assigned(&first), firsts, "nothing is dealt out anew");
            second
        } else {
            stream.catches_up().await;
            let second = group.member("second");
            takes_more(&second, seconds).await;
            second
        };
        stream.catches_up().await;

        let thirds = assigned(&third);
        third.pause().unwrap();
        stream.catches_up().await;
        third.resume().unwrap();
        takes_more(&third, thirds).await;
        stream.catches_up().await;

        second.stop().await.unwrap();
        third.stop().await.unwrap();
        stream.catches_up().await;
        stream.is_over.store(true, Relaxed);
        first
    };
    let ((), first) = tokio::join!(stream.run(), moves);
    let sent = stream.sent.load(Relaxed);
    pipeline.arrived("event_log", sent).await.unwrap();
    first.stop().await.unwrap();
    assert_eq!(pipeline.count("event_log").await.unwrap(), (sent, sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_classic_protocol() {
    every_event_is_stored_once("OUTPOUR_CONSUMER_GROUP_PROTOCOL=classic", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_static_members() {
    every_event_is_stored_once("OUTPOUR_CONSUMER_GROUP_PROTOCOL=classic", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_brokers_assigning() {
    every_event_is_stored_once("OUTPOUR_CONSUMER_GROUP_PROTOCOL=consumer", false).await;
}
