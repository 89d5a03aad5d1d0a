//! How long nothing comes when a program dies, is replaced or meets its like.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline},
    program::{Binary, Program},
    stack::Stack,
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, Producer},
};

use crate::consumer::Feed;

const PARTITIONS: i32 = 6;

/// From a restart, or from another's taking over, to the next row.
const SOON: Duration = Duration::from_secs(5);

/// Rows by partition.
type Rows = BTreeMap<u32, u64>;

/// Events that come all the time, and an eye on the rows that they become.
struct Scene<'a> {
    pipeline: &'a Pipeline<'a>,
    feed: Feed,
    sent: AtomicU64,
    looks: Mutex<Vec<(Instant, Rows)>>,
    is_over: AtomicBool,
}

impl<'a> Scene<'a> {
    async fn new(pipeline: &'a Pipeline<'a>) -> Self {
        Scene {
            pipeline,
            feed: Feed::with_partitions(pipeline, "order", PARTITIONS).await,
            sent: AtomicU64::new(0),
            looks: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// A member of the group with a log of its own.
    fn member(&self, name: &str) -> Program {
        let log = self.pipeline.file(&format!("{name}.log"));
        Binary::Consumer.start(&self.pipeline.config(), &log, &[]).unwrap()
    }

    /// Has `moves` happen while events come; in the end each is in the table once.
    async fn during(&self, moves: impl Future<Output = Vec<Program>>) {
        let moves = async {
            let left = moves.await;
            self.is_over.store(true, Relaxed);
            left
        };
        let ((), (), left) = tokio::join!(self.send(), self.watch(), moves);
        let sent = self.sent.load(Relaxed);
        self.pipeline.arrived("event_log", sent).await.unwrap();
        for member in left {
            member.stop().await.unwrap();
        }
        assert_eq!(self.pipeline.count("event_log").await.unwrap(), (sent, sent));
    }

    async fn send(&self) {
        const AT_ONCE: u64 = 5;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !self.is_over.load(Relaxed) {
            ticks.tick().await;
            let from = self.sent.load(Relaxed);
            self.feed.send_all(from..from + AT_ONCE);
            self.sent.store(from + AT_ONCE, Relaxed);
        }
    }

    async fn watch(&self) {
        const SQL: &str = "SELECT _partition, count() FROM event_log GROUP BY _partition";
        let client = self.pipeline.clickhouse();
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while !self.is_over.load(Relaxed) {
            ticks.tick().await;
            let found: Vec<(u32, u64)> = client.query(SQL).fetch_all().await.unwrap();
            self.looks.lock().unwrap().push((Instant::now(), found.into_iter().collect()));
        }
    }

    /// Waits until every partition has got a row since now.
    async fn flows(&self) {
        let from = Instant::now();
        eventually(PATIENCE, async || {
            let looks = self.looks.lock().unwrap();
            let later: Vec<_> = looks.iter().filter(|(at, _)| *at >= from).collect();
            let (Some((_, first)), Some((_, last))) = (later.first(), later.last()) else {
                anyhow::bail!("not looked yet");
            };
            for partition in 0..PARTITIONS.unsigned_abs() {
                let (then, now) = (first.get(&partition), last.get(&partition));
                ensure!(now > then, "partition {partition} stands still at {now:?}");
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    /// The longest that any partition has got no row since `from`.
    fn longest_stall_since(&self, from: Instant) -> Duration {
        let looks = self.looks.lock().unwrap();
        let before = looks.iter().rev().find(|(at, _)| *at < from);
        let later = looks.iter().filter(|(at, _)| *at >= from);
        let stalls = (0..PARTITIONS.unsigned_abs()).map(|partition| {
            let mut rows = before.and_then(|(_, rows)| rows.get(&partition));
            let (mut since, mut longest) = (from, Duration::ZERO);
            for (at, found) in later.clone() {
                longest = longest.max(*at - since);
                if found.get(&partition) > rows {
                    (rows, since) = (found.get(&partition), *at);
                }
            }
            longest
        });
        stalls.max().unwrap_or_default()
    }
}

/// As long as the group would wait for a member that is silent: what is measured
/// must not be owed to its being short.
const LONG_SESSION: &str = "OUTPOUR_CONSUMER_SESSION_TIMEOUT=40s";

async fn pipeline() -> Pipeline<'static> {
    let stack = Stack::shared().await.unwrap();
    Pipeline::new(stack, "max_delay = '200ms'").await.unwrap()
}

/// Kills the last of `names` again and again, and starts it at once.
async fn killed_and_restarted(names: &[&str]) -> Vec<Duration> {
    const KILLS: usize = 3;
    let pipeline = pipeline().await;
    pipeline.set(LONG_SESSION).unwrap();
    let scene = Scene::new(&pipeline).await;
    let mut stalls = Vec::new();
    scene
        .during(async {
            let mut members = Vec::new();
            for name in names {
                members.push(scene.member(name));
                scene.flows().await;
            }
            for _ in 0..KILLS {
                let from = Instant::now();
                members.pop().unwrap().kill().await.unwrap();
                members.push(scene.member(names.last().unwrap()));
                scene.flows().await;
                stalls.push(scene.longest_stall_since(from));
            }
            members
        })
        .await;
    println!("killed and restarted, of {}: {stalls:?}", names.len());
    stalls
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_killed_and_restarted_goes_on_within_five_seconds() {
    for names in [["only"].as_slice(), &["first", "second"]] {
        let mut stalls = killed_and_restarted(names).await;
        stalls.sort_unstable();
        // One of three may meet a machine that has no time for it.
        assert!(stalls[stalls.len() / 2] < SOON, "{stalls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_that_survives_takes_over_within_five_seconds_of_the_session_timeout() {
    let pipeline = pipeline().await;
    let scene = Scene::new(&pipeline).await;
    scene
        .during(async {
            let first = scene.member("first");
            scene.flows().await;
            let second = scene.member("second");
            second.logged("partition assigned", PATIENCE).await.unwrap();
            scene.flows().await;
            let from = Instant::now();
            second.kill().await.unwrap();
            scene.flows().await;
            let stall = scene.longest_stall_since(from);
            println!("taken over by the survivor: {stall:?}");
            assert!(stall < Duration::from_secs(6) + SOON, "{stall:?}");
            vec![first]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_group_restarted_one_by_one_stands_for_less_than_two_seconds() {
    /// Of most restarts: a busy machine may need a moment more for one of them.
    const MOSTLY: Duration = Duration::from_secs(2);
    let mut stalls = Vec::new();
    let pipeline = pipeline().await;
    pipeline.set(LONG_SESSION).unwrap();
    let scene = Scene::new(&pipeline).await;
    scene
        .during(async {
            let mut members = Vec::new();
            for name in ["first", "second", "third"] {
                members.push((name, scene.member(name)));
                scene.flows().await;
            }
            // The old one first, as most do …
            for _ in 0..members.len() {
                let from = Instant::now();
                let (name, old) = members.remove(0);
                old.stop().await.unwrap();
                members.push((name, scene.member(name)));
                scene.flows().await;
                let stall = scene.longest_stall_since(from);
                println!("old stopped, new started: {stall:?}");
                stalls.push(stall);
            }
            // … and the new one first.
            for name in ["fourth", "fifth", "sixth"] {
                let from = Instant::now();
                members.push((name, scene.member(name)));
                scene.flows().await;
                let (_, old) = members.remove(0);
                old.stop().await.unwrap();
                scene.flows().await;
                let stall = scene.longest_stall_since(from);
                println!("new started, old stopped: {stall:?}");
                stalls.push(stall);
            }
            members.into_iter().map(|(_, member)| member).collect()
        })
        .await;
    stalls.sort_unstable();
    assert!(stalls[stalls.len() - 2] < MOSTLY && stalls[stalls.len() - 1] < SOON, "{stalls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_of_one_name_do_not_take_turns() {
    const TOLD: &str = "another process is in the group under this one's name";
    let pipeline = pipeline().await;
    pipeline.set(LONG_SESSION).unwrap();
    pipeline.set("OUTPOUR_CONSUMER_GROUP_INSTANCE_ID=one").unwrap();
    let scene = Scene::new(&pipeline).await;
    scene
        .during(async {
            let mut first = scene.member("first");
            scene.flows().await;
            let second = scene.member("second");
            first.logged(TOLD, PATIENCE).await.unwrap();
            // It is in the group beside the other, which keeps the name.
            first.logged("partitions given up", PATIENCE).await.unwrap();
            for _ in 0..5 {
                scene.flows().await;
            }
            let told = |member: &Program| member.log_text().matches(TOLD).count();
            assert_eq!((told(&first), told(&second)), (1, 0));
            first.check().unwrap();
            let from = Instant::now();
            second.kill().await.unwrap();
            let second = scene.member("second");
            scene.flows().await;
            let stall = scene.longest_stall_since(from);
            assert!(stall < SOON, "{stall:?}");
            assert_eq!((told(&first), told(&second)), (1, 0));
            vec![first, second]
        })
        .await;
}

/// Offsets in a transaction that is open are not told to anybody.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_ends_the_transaction_that_its_predecessor_left_open() {
    let pipeline = pipeline().await;
    pipeline.set("OUTPOUR_CONSUMER_GROUP_INSTANCE_ID=mine").unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    feed.send_all(0..10);
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", pipeline.stack.kafka.url()).set("group.id", &pipeline.name);
    let reader: BaseConsumer = client.create().unwrap();
    let dead: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", pipeline.stack.kafka.url())
        .set("transactional.id", format!("outpour-consumer-{}-mine", pipeline.name))
        .set("transaction.timeout.ms", "300000")
        .create()
        .unwrap();
    dead.init_transactions(PATIENCE).unwrap();
    dead.begin_transaction().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&feed.topic, 0, Offset::Offset(5)).unwrap();
    let group = reader.group_metadata().unwrap();
    dead.send_offsets_to_transaction(&offsets, &group, PATIENCE).unwrap();

    let from = Instant::now();
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", 10).await.unwrap();
    let took = from.elapsed();
    assert!(took < SOON, "{took:?}");
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_is_followed_soon_after_it_is_killed_and_after_it_stands_still() {
    /// After which PostgreSQL gives up a relay that it hears nothing of.
    const SILENCE: Duration = Duration::from_secs(10);
    let pipeline = pipeline().await;
    // What is measured must not be owed to its being short.
    pipeline.set("OUTPOUR_RELAY_TRANSACTION_TIMEOUT=120s").unwrap();
    let start = |name: &str| {
        let log = pipeline.file(&format!("{name}.log"));
        Binary::Relay.start(&pipeline.config(), &log, &[]).unwrap()
    };
    let waits = async |relay: &Program| relay.logged("to take over", PATIENCE).await.unwrap();
    let mut events = 0;
    // The time until ten more events are in Kafka.
    let mut publishes = async || {
        let from = Instant::now();
        pipeline.commit_orders(events..events + 10, 5).await.unwrap();
        events += 10;
        let reader = pipeline.reader(&pipeline.topic("order")).unwrap();
        reader.take(usize::try_from(events).unwrap(), |_| Some(())).unwrap();
        from.elapsed()
    };
    let first = start("first");
    publishes().await;
    let second = start("second");
    waits(&second).await;
    first.kill().await.unwrap();
    let took = publishes().await;
    assert!(took < SOON, "killed, with another one waiting: {took:?}");

    second.kill().await.unwrap();
    let third = start("third");
    let took = publishes().await;
    assert!(took < SOON, "killed and started again: {took:?}");

    let fourth = start("fourth");
    waits(&fourth).await;
    third.pause().unwrap();
    let took = publishes().await;
    assert!(took < SILENCE + SOON, "stopped, with another one waiting: {took:?}");
    fourth.stop().await.unwrap();
}
