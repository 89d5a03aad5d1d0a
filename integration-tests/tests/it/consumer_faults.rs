//! The consumer dies, sleeps or hears nothing at every step of its protocol, and
//! each event is in the table once all the same.

mod joint;
mod late;
mod routes;
mod window;

use anyhow::{Result, ensure};
use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, header},
    program::{Binary, Program},
    proxy::Proxy,
    stack::Stack,
};
use outpour_consumer::plan::{Plan, VERSION_OF_JOINT};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::consumer::Feed;

/// A consumer that reaches ClickHouse through a proxy, and a table of numbers.
struct Scene {
    pipeline: Pipeline<'static>,
    proxy: Proxy,
    feed: Feed,
    has_view: bool,
}

impl Scene {
    /// With a materialised view that copies every row.
    async fn new() -> Scene {
        Scene::of("").await.with_view().await
    }

    async fn with_view(self) -> Scene {
        for sql in [
            "CREATE TABLE seen (n UInt64) ENGINE = MergeTree ORDER BY n
             SETTINGS non_replicated_deduplication_window = 10000",
            "CREATE MATERIALIZED VIEW seeing TO seen AS SELECT n FROM numbers",
        ] {
            self.sql(sql).await;
        }
        Scene { has_view: true, ..self }
    }

    async fn of(partition_by: &str) -> Scene {
        Scene::with_partitions(1, partition_by).await
    }

    async fn with_partitions(partitions: i32, partition_by: &str) -> Scene {
        let stack = Stack::shared().await.unwrap();
        let pipeline = Pipeline::new(stack, "").await.unwrap();
        pipeline.route("number", "numbers", "max_delay = '300ms'").unwrap();
        let proxy = Proxy::to(stack.clickhouse.url().strip_prefix("http://").unwrap());
        let proxy = proxy.await.unwrap();
        pipeline.set(&format!("OUTPOUR_CLICKHOUSE_URL=http://{}", proxy.address())).unwrap();
        let feed = Feed::with_partitions(&pipeline, "number", partitions).await;
        let scene = Scene { pipeline, proxy, feed, has_view: false };
        let create = format!(
            "CREATE TABLE numbers (event_id UUID, n UInt64, _topic LowCardinality(String),
               _partition UInt32, _offset UInt64) ENGINE = MergeTree {partition_by} ORDER BY n
             SETTINGS non_replicated_deduplication_window = 10000"
        );
        scene.sql(&create).await;
        scene
    }

    async fn sql(&self, sql: &str) {
        self.pipeline.clickhouse().query(sql).execute().await.unwrap();
    }

    fn send(&self, numbers: std::ops::Range<u64>) {
        numbers.for_each(|n| self.feed.send(n, &format!("{{\"n\": {n}}}")));
    }

    /// Waits until there is nothing left to do, and looks whether all of `rows`
    /// numbers are there, each once, in the table and in what the view made of it.
    async fn comes_to(&self, rows: u64) {
        self.at_rest().await.unwrap();
        self.pipeline.arrived("numbers", rows).await.unwrap();
        if self.has_view {
            let sql = "SELECT count(), uniqExact(n), sum(n) FROM seen";
            let found: (u64, u64, u64) =
                self.pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
            assert_eq!(found, (rows, rows, (0..rows).sum()), "what the view has");
        }
    }

    /// No plan is open, and nothing waits.
    async fn at_rest(&self) -> Result<()> {
        eventually(PATIENCE, async || {
            let (_, lag) = self.pipeline.committed_and_lag().await?;
            let plans = self.plans().await?;
            ensure!(lag == 0 && plans.is_empty(), "lag {lag}, {} open plans", plans.len());
            Ok(())
        })
        .await
    }

    /// The open plan, as the group has it.
    async fn plan(&self) -> Result<Option<Plan>> {
        Ok(self.plans().await?.into_iter().next())
    }

    /// Those of all partitions.
    async fn plans(&self) -> Result<Vec<Plan>> {
        let output = self.pipeline.consumer_output(&["status", "--json"]).await?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let partitions = status["partitions"].as_array().into_iter().flatten();
        let plans = partitions.map(|partition| partition["plan"].clone());
        Ok(plans
            .filter(|plan| !plan.is_null())
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()?)
    }

    async fn planned(&self) -> Plan {
        let plan = async || self.plan().await?.ok_or_else(|| anyhow::anyhow!("no plan is open"));
        eventually(PATIENCE, plan).await.unwrap()
    }

    /// A consumer that has stored 0 to 4 and is idle.
    async fn started(&self) -> Program {
        let consumer = self.pipeline.consumer().unwrap();
        self.send(0..5);
        self.comes_to(5).await;
        consumer
    }

    /// A consumer killed with 5 to 9 planned, and the request on its way.
    async fn killed_before_the_insert(&self) -> Plan {
        let consumer = self.started().await;
        self.proxy.hold_back();
        self.send(5..10);
        let plan = self.planned().await;
        consumer.kill().await.unwrap();
        plan
    }

    /// A consumer killed with 5 to 9 stored, without having heard of it.
    async fn killed_after_the_insert(&self) -> Plan {
        let consumer = self.started().await;
        self.proxy.hold_answers();
        self.send(5..10);
        self.pipeline.arrived("numbers", 10).await.unwrap();
        let plan = self.planned().await;
        consumer.kill().await.unwrap();
        self.proxy.cut();
        plan
    }

    /// A consumer that stands still with 5 to 9 planned, and the request on its way.
    async fn asleep_before_the_insert(&self) -> (Program, Plan) {
        let sleeper = self.started().await;
        self.proxy.hold_back();
        self.send(5..10);
        let plan = self.planned().await;
        sleeper.pause().unwrap();
        (sleeper, plan)
    }

    /// Another one, that has a way of its own to ClickHouse.
    fn heir(&self) -> Program {
        self.heir_called("heir")
    }

    fn heir_called(&self, name: &str) -> Program {
        let direct = self.pipeline.stack.clickhouse.url();
        let log = self.pipeline.file(&format!("{name}.log"));
        let variables = [("OUTPOUR_CLICKHOUSE_URL", direct)];
        Binary::Consumer.start_with(&self.pipeline.config(), &log, &[], &variables).unwrap()
    }

    /// The sleeper's insert arrives, and the sleeper finds out.
    async fn woken(&self, sleeper: &Program) {
        sleeper.resume().unwrap();
        self.proxy.release();
        sleeper.logged("partitions given up", PATIENCE).await.unwrap();
    }

    fn client(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.pipeline.stack.kafka.url())
            .set("group.id", &self.pipeline.name)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }

    /// Puts another plan in the place of the group's, once its members are gone.
    async fn plan_instead(&self, plan: &Plan) {
        let client = self.client();
        eventually(PATIENCE, async || {
            let mut offsets = TopicPartitionList::new();
            let mut element = offsets.add_partition(&self.feed.topic, 0);
            element.set_offset(Offset::Offset(plan.start))?;
            element.set_metadata(plan.metadata()?);
            Ok(client.commit(&offsets, CommitMode::Sync)?)
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_plan_and_insert() {
    let scene = Scene::new().await;
    let plan = scene.killed_before_the_insert().await;
    assert_eq!((plan.start, plan.end, plan.rows), (5, 10, 5));
    scene.proxy.cut();
    assert_eq!(scene.pipeline.count("numbers").await.unwrap(), (5, 5), "it must not have landed");
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(10).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_insert_and_next_plan() {
    let scene = Scene::new().await;
    scene.killed_after_the_insert().await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.send(10..12);
    scene.comes_to(12).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_insert_that_landed_is_lost() {
    let scene = Scene::new().await;
    let consumer = scene.started().await;
    scene.proxy.hold_answers();
    scene.send(5..10);
    scene.pipeline.arrived("numbers", 10).await.unwrap();
    scene.proxy.cut();
    consumer.logged("insert failed; trying again", PATIENCE).await.unwrap();
    scene.send(10..12);
    scene.comes_to(12).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_wakes_after_its_partition_was_handed_over_and_inserts() {
    let scene = Scene::new().await;
    let (sleeper, _) = scene.asleep_before_the_insert().await;
    let heir = scene.heir();
    scene.comes_to(10).await;
    scene.woken(&sleeper).await;
    scene.send(10..12);
    scene.comes_to(12).await;
    heir.stop().await.unwrap();
    scene.send(12..14);
    scene.comes_to(14).await;
    sleeper.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_older_than_tokens_are_remembered_is_resolved_by_provenance() {
    let scene = Scene::of("").await;
    let plan = scene.killed_after_the_insert().await;
    // One of its rows is gone: only the table itself can tell.
    scene.sql("ALTER TABLE numbers DELETE WHERE n = 7 SETTINGS mutations_sync = 1").await;
    let an_hour_ago = plan.planned_at_ms - 3_600_000;
    scene.plan_instead(&Plan { planned_at_ms: an_hour_ago, ..plan }).await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(10).await;
    consumer.logged("asking the tables which rows are missing", PATIENCE).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_somebody_moves_back_bring_in_what_is_missing_and_nothing_twice() {
    let scene = Scene::of("").await;
    let consumer = scene.started().await;
    scene.send(5..10);
    scene.comes_to(10).await;
    consumer.stop().await.unwrap();
    scene.sql("ALTER TABLE numbers DELETE WHERE n IN (2, 7) SETTINGS mutations_sync = 1").await;
    let client = scene.client();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&scene.feed.topic, 0, Offset::Offset(0)).unwrap();
    client.commit(&offsets, CommitMode::Sync).unwrap();
    let consumer = scene.pipeline.consumer().unwrap();
    scene.send(10..12);
    scene.comes_to(12).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_content_has_changed_is_resolved_by_provenance() {
    let scene = Scene::new().await;
    scene.killed_after_the_insert().await;
    scene.sql("ALTER TABLE numbers ADD COLUMN note String DEFAULT 'none'").await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(10).await;
    consumer.logged("asking the tables which rows are missing", PATIENCE).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_of_which_one_table_partition_landed_is_completed() {
    let scene = Scene::of("PARTITION BY n % 2").await;
    let plan = scene.killed_before_the_insert().await;
    scene.proxy.cut();
    // As a server does that is killed between its parts: the even ones are there.
    let cluster = scene.client().client().fetch_cluster_id(PATIENCE).unwrap();
    let topic = scene.feed.topic.as_str();
    let partition = outpour_consumer::source::TopicPartition { topic: topic.into(), partition: 0 };
    let database = &scene.pipeline.clickhouse_database;
    let token = plan.token(&cluster, &partition, &format!("{database}.numbers#{topic}"));
    let id = "toUUID(concat('00000000-0000-0000-0000-', leftPad(hex(number), 12, '0')))";
    scene
        .sql(&format!(
            "INSERT INTO numbers SETTINGS async_insert = 0, insert_deduplicate = 1,
               insert_deduplication_token = '{token}'
             SELECT {id}, number, '{topic}', 0, number FROM numbers(5, 5) WHERE number % 2 = 0"
        ))
        .await;
    assert_eq!(scene.pipeline.count("numbers").await.unwrap(), (7, 7));
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(10).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_read_from_its_beginning_and_nothing_of_it_dropped() {
    made_anew(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_that_is_made_anew_while_it_is_read_is_read_from_its_beginning() {
    made_anew(true).await;
}

async fn made_anew(while_it_is_read: bool) {
    let scene = Scene::of("").await;
    let mut consumer = Some(scene.started().await);
    if !while_it_is_read {
        consumer.take().unwrap().stop().await.unwrap();
    }
    let topic = scene.feed.topic.as_str();
    let admin = &scene.feed.admin;
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    eventually(PATIENCE, async || {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let made = admin.create_topics([&new], &AdminOptions::new()).await?;
        ensure!(made[0].is_ok(), "{made:?}");
        Ok(())
    })
    .await
    .unwrap();
    // The same offsets again.
    let feed = Feed::to(&scene.pipeline, "number");
    (5..10).for_each(|n| feed.send(n, &format!("{{\"n\": {n}}}")));
    let consumer = consumer.unwrap_or_else(|| scene.pipeline.consumer().unwrap());
    scene.comes_to(10).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_removed_under_an_open_plan_stop_the_consumer_and_are_named() {
    let scene = Scene::new().await;
    scene.killed_before_the_insert().await;
    scene.proxy.cut();
    let mut removed = TopicPartitionList::new();
    removed.add_partition_offset(&scene.feed.topic, 0, Offset::Offset(7)).unwrap();
    scene.feed.admin.delete_records(&removed, &AdminOptions::new()).await.unwrap();
    let mut consumer = scene.pipeline.consumer().unwrap();
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(3), "{}", consumer.log_text());
    let told = format!("offset 5 of {}/0 is no longer in Kafka", scene.feed.topic);
    assert!(consumer.log_text().contains(&told), "{}", consumer.log_text());
    assert_eq!(scene.pipeline.count("numbers").await.unwrap(), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_newer_version_stops_the_consumer() {
    let scene = Scene::new().await;
    let plan = scene.killed_after_the_insert().await;
    scene.plan_instead(&Plan { version: VERSION_OF_JOINT + 1, ..plan }).await;
    let mut consumer = scene.pipeline.consumer().unwrap();
    assert_eq!(consumer.ended(PATIENCE).await.unwrap(), Some(3), "{}", consumer.log_text());
    let told = format!("under way in {}/0 was planned by a newer version", scene.feed.topic);
    assert!(consumer.log_text().contains(&told), "{}", consumer.log_text());
}

/// Offsets of the letters of a scene's topic.
fn letters(scene: &Scene, count: usize) -> Vec<String> {
    let topic = format!("outpour.dead-letter.{}", scene.feed.topic);
    let reader = scene.pipeline.reader(&topic).unwrap();
    let letters = reader.take(count, |message| {
        assert_eq!(message.payload(), Some(b"{\"n\": -1}".as_slice()));
        header(message, "outpour-source-offset")
    });
    reader.nothing_more().unwrap();
    letters.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_dead_letters_are_written() {
    let scene = Scene::new().await;
    let topic = format!("outpour.dead-letter.{}", scene.feed.topic);
    // Too small for a letter, and not for the mark of an aborted transaction (78
    // bytes): each is begun, and none is committed.
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "200");
    let admin = &scene.feed.admin;
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let consumer = scene.started().await;
    scene.feed.send(100, "{\"n\": -1}");
    scene.send(5..7);
    consumer.logged("dead letters cannot be written", PATIENCE).await.unwrap();
    consumer.kill().await.unwrap();
    assert_eq!(scene.plan().await.unwrap(), None, "letters and plan are one");
    let resource = ResourceSpecifier::Topic(&topic);
    let alter = AlterConfig::new(resource).set("max.message.bytes", "1000000");
    admin.alter_configs([&alter], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(7).await;
    assert_eq!(letters(&scene, 1), ["5"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_dead_letters_written_and_the_insert_open() {
    let scene = Scene::new().await;
    let consumer = scene.started().await;
    scene.proxy.hold_back();
    scene.feed.send(100, "{\"n\": -1}");
    scene.send(5..7);
    scene.feed.send(101, "{\"n\": -1}");
    let plan = scene.planned().await;
    consumer.kill().await.unwrap();
    scene.proxy.cut();
    assert_eq!(plan.rejected.iter().map(|(_, offset)| offset).collect::<Vec<_>>(), [5, 8]);
    // The table has changed, so that all of it is planned anew.
    scene.sql("ALTER TABLE numbers ADD COLUMN note String DEFAULT 'none'").await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(7).await;
    assert_eq!(letters(&scene, 2), ["5", "8"]);
    consumer.stop().await.unwrap();
}
