//! The memory brake (I8): what is closed early, who is paused, and when they go on.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use outpour_schemas::{config::Route, program::error_line};
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};
use tokio::sync::Semaphore;

use super::*;
use crate::{
    batch::{Insert, Parked},
    dead_letter::ParkError,
    decode::Mapping,
    health::Monitor,
    plan::{Plan, VERSION},
    rejected::Rejected,
    sink::{Part, SinkError},
    source::{Headers, kafka::Start},
    table::{DescribedColumn, TableName, TableSchema},
    trace::Attempt,
    writer::{ASKING, Commit},
};

/// Services of which all but ClickHouse do everything at once. An insert takes as
/// long as there are no permits.
#[derive(Clone)]
struct Slow(Arc<Semaphore>);

impl Sink for Slow {
    async fn insert(&self, _: &Insert, _: &str, _: &Attempt) -> Result<(), SinkError> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn insert_nothing(&self, _: &Mapping, _: &Attempt) -> Result<(), SinkError> {
        Ok(())
    }

    async fn has_changed(&self, _: &Mapping) -> Result<bool, SinkError> {
        Ok(false)
    }

    async fn insert_part(&self, _: &Insert, _: Part<'_>, _: &Attempt) -> Result<(), SinkError> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn remembers(&self, _: &Mapping, _: Timestamp) -> Result<bool, SinkError> {
        Ok(true)
    }

    async fn last_offset(&self, _: &Mapping, _: &TopicPartition) -> Result<Option<i64>, SinkError> {
        Ok(None)
    }
}

impl DeadLetters for Slow {
    async fn park(
        &self,
        _: &TopicPartition,
        _: &[Parked],
        _: i64,
        _: &str,
    ) -> Result<(), ParkError> {
        Ok(())
    }
}

impl Offsets for Slow {
    /// Not once the semaphore is closed.
    async fn commit(&self, _: Vec<Commit>) -> Result<(), KafkaError> {
        match self.0.is_closed() {
            true => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::IllegalGeneration)),
            false => Ok(()),
        }
    }
}

const TOPIC: &str = "topic";
const KIB: usize = 1024;

fn mapping() -> Arc<Mapping> {
    let column = |name: &str, type_name: &str| DescribedColumn {
        name: name.into(),
        type_name: type_name.into(),
        default_kind: String::new(),
    };
    let described = [column("text", "String"), column("_offset", "UInt64")];
    let schema = TableSchema::of(TableName::parse("t", "db"), &described).unwrap();
    let route = Route { topic: TOPIC.into(), table: "t".into(), ..Route::default() };
    Arc::new(Mapping::new(0, &route, &schema).unwrap())
}

/// Partitions 0 to 2, of which batches may hold 10 KiB, and a batch `bytes`.
struct Scene {
    work: Assignment<Slow, Slow, Slow>,
    clickhouse: Arc<Semaphore>,
    offsets: [i64; 3],
    now: Instant,
}

impl Scene {
    fn new(bytes: usize) -> Self {
        let clickhouse = Arc::new(Semaphore::new(0));
        let slow = Slow(Arc::clone(&clickhouse));
        let edges = Edges {
            sink: slow.clone(),
            dead_letters: slow.clone(),
            offsets: slow,
            monitor: Arc::new(Monitor::new(Duration::from_secs(60))),
            refused: Arc::default(),
            asking: Semaphore::new(ASKING),
            cluster: "cluster".into(),
            owner: "me".into(),
        };
        // A record is in one of them for an hour unless somebody closes it.
        let limits = Limits { rows: 1_000_000, bytes, delay: Duration::from_secs(3600) };
        let budget = Budget::of(ByteSize::kib(40));
        assert_eq!(budget.limit, 10 * KIB);
        let routes = Routes { mappings: vec![mapping()], held_back: Vec::new() };
        let work = Assignment::new(Handle::current(), edges, routes, "test", limits, budget);
        Scene { work, clickhouse, offsets: [0; 3], now: Instant::now() }
    }

    fn assign(&self, partition: i32, plan: Option<Plan>) {
        self.work.assigned(vec![Start {
            partition: name(partition),
            offset: 0,
            plan,
            was_moved: false,
            frame: None,
        }]);
    }

    /// A record that takes a little more than 1 KiB in a batch.
    fn record(&mut self, partition: usize) -> Option<Flow> {
        let offset = &mut self.offsets[partition];
        let value = format!(r#"{{"text":"{}"}}"#, "x".repeat(KIB));
        let record = RecordView {
            topic: TOPIC,
            partition: i32::try_from(partition).unwrap(),
            offset: *offset,
            timestamp_ms: None,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::new(),
        };
        *offset += 1;
        self.work.record(&record, self.now).map(|(_, flow)| flow)
    }

    fn tick(&self) -> Tick {
        self.work.tick(self.now, self.now)
    }

    /// ClickHouse takes so many inserts, and batches hold `bytes` at most then.
    async fn takes(&self, inserts: usize, bytes: usize) {
        self.clickhouse.add_permits(inserts);
        let waiting = async {
            while self.work.budget.sealed() > bytes {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    }
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC.into(), partition }
}

fn told(mut flows: Vec<(TopicPartition, Flow)>) -> Vec<(i32, Flow)> {
    flows.sort_by_key(|(name, _)| name.partition);
    flows.into_iter().map(|(name, flow)| (name.partition, flow)).collect()
}

#[tokio::test]
async fn batches_that_hold_more_than_they_may_are_closed_before_their_time() {
    let mut scene = Scene::new(KIB * KIB);
    scene.assign(0, None);
    scene.assign(1, None);
    (0..8).for_each(|_| assert_eq!(scene.record(0), None));
    assert!(!scene.tick().is_over);
    assert_eq!(scene.work.budget.sealed(), 0, "nothing is closed while there is room");
    (0..3).for_each(|_| assert_eq!(scene.record(1), None));
    assert!(scene.tick().is_over);
    assert!((8 * KIB..9 * KIB).contains(&scene.work.budget.sealed()), "the larger one is closed");
    assert!(scene.tick().is_over, "until it is stored");
    assert!(scene.work.budget.sealed() < 9 * KIB, "the other one goes on gathering");
    scene.takes(1, 0).await;
    assert!(!scene.tick().is_over);
    (0..8).for_each(|_| assert_eq!(scene.record(1), None));
    assert!(scene.tick().is_over);
    assert!(scene.work.budget.sealed() > 11 * KIB, "and is the larger one in its turn");
}

#[tokio::test]
async fn as_many_are_closed_early_as_hold_half_of_what_batches_may() {
    let mut scene = Scene::new(KIB * KIB);
    for partition in 0..3 {
        scene.assign(partition, None);
        (0..4).for_each(|_| assert_eq!(scene.record(partition as usize), None));
    }
    assert!(scene.tick().is_over);
    let sealed = scene.work.budget.sealed();
    assert!((8 * KIB..9 * KIB).contains(&sealed), "two, as one is less than half: {sealed}");
}

#[tokio::test]
async fn the_brake_pauses_everything_until_half_of_what_batches_may_hold_is_free() {
    let mut scene = Scene::new(KIB * KIB);
    scene.assign(0, None);
    scene.assign(1, None);
    (0..6).for_each(|_| assert_eq!(scene.record(0), None));
    (0..6).for_each(|_| assert_eq!(scene.record(1), None));
    assert!(scene.tick().is_over);
    assert_eq!(told(scene.work.brake()), [(0, Flow::Pause), (1, Flow::Pause)]);
    assert_eq!(told(scene.work.brake()), [], "each is paused once");
    assert_eq!(told(scene.tick().flows), []);

    scene.takes(1, 7 * KIB).await;
    assert!(scene.work.budget.sealed() > 5 * KIB);
    assert_eq!(told(scene.tick().flows), [], "less than half is free");
    scene.takes(1, 0).await;
    assert_eq!(told(scene.tick().flows), [(0, Flow::Resume), (1, Flow::Resume)]);
    assert!(!scene.tick().is_over);
    assert_eq!(told(scene.tick().flows), [], "each goes on once");
}

#[tokio::test]
async fn a_batch_that_is_read_again_neither_counts_nor_is_closed_before_its_end() {
    let mut scene = Scene::new(KIB * KIB);
    let plan = Plan {
        version: VERSION,
        owner: "another".into(),
        start: 0,
        end: 20,
        rows: 20,
        rejected: Rejected::default(),
        content: String::new(),
        by_provenance: false,
        first: None,
        is_forgotten: false,
        was_moved: false,
        search: None,
        planned_at_ms: 0,
        frame: None,
    };
    scene.assign(0, Some(plan));
    scene.assign(1, None);
    (0..19).for_each(|_| assert_eq!(scene.record(0), None));
    assert!(!scene.tick().is_over, "or it would keep itself from getting there");
    (0..11).for_each(|_| assert_eq!(scene.record(1), None));
    assert!(scene.tick().is_over);
    let sealed = scene.work.budget.sealed();
    assert!((11 * KIB..13 * KIB).contains(&sealed), "the other one alone is closed: {sealed}");
    assert_eq!(scene.record(0), None);
    assert!(scene.work.budget.sealed() > sealed + 20 * KIB, "it has come to its end");
}

#[tokio::test]
async fn a_partition_that_is_ahead_of_its_writer_is_paused_alone() {
    let mut scene = Scene::new(2 * KIB);
    scene.assign(0, None);
    scene.assign(1, None);
    // One batch with the writer, and then as much waiting as a batch may hold.
    let flows: Vec<_> = (0..4).filter_map(|_| scene.record(0)).collect();
    assert_eq!(flows, [Flow::Pause]);
    assert_eq!(scene.record(1), None);
    assert_eq!(told(scene.tick().flows), []);
    scene.takes(1, 3 * KIB).await;
    assert_eq!(told(scene.tick().flows), [(0, Flow::Resume)]);
}

#[tokio::test]
async fn a_partition_is_quiet_only_when_its_writer_can_be_told_so() {
    let mut scene = Scene::new(KIB);
    scene.assign(0, None);
    // One with the writer, and one that fills the way to it.
    (0..2).for_each(|_| {
        scene.record(0);
    });
    scene.now += Duration::from_secs(2);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        scene.tick();
        assert_eq!(scene.work.quiet(scene.now), [], "ClickHouse has taken nothing");
    }
    scene.takes(2, 0).await;
    assert_eq!(scene.work.quiet(scene.now), [(name(0), 2)]);
    assert_eq!(scene.work.quiet(scene.now), [], "once");

    // Kafka was away when it was asked what follows.
    scene.work.look_again(&name(0), 1, scene.now);
    scene.now += Duration::from_secs(2);
    assert_eq!(scene.work.quiet(scene.now), [], "that was before the last record");
    scene.work.look_again(&name(0), 2, scene.now);
    assert_eq!(scene.work.quiet(scene.now), [], "not at once");
    scene.now += Duration::from_secs(2);
    assert_eq!(scene.work.quiet(scene.now), [(name(0), 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writer_ends_with_ends_the_session_and_the_others_in_order() {
    let mut scene = Scene::new(KIB);
    scene.assign(0, None);
    scene.assign(1, None);
    scene.clickhouse.close();
    while scene.record(0).is_none() {}
    let failing = async {
        loop {
            if let Some(broken) = tokio::task::block_in_place(|| scene.work.broken()) {
                let Broken::Session(failure) = broken else { panic!("{broken:?}") };
                return failure;
            }
            tokio::task::yield_now().await;
        }
    };
    let failure = tokio::time::timeout(Duration::from_secs(60), failing).await.unwrap();
    assert!(error_line(&failure).contains("IllegalGeneration"), "{}", error_line(&failure));
    tokio::task::block_in_place(|| scene.work.leave());
    assert!(scene.work.owned().each().next().is_none());
}
