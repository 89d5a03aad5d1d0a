//! Tokens that inserts of others have pushed out of the table's memory, long before
//! they are old.

use super::*;

impl Scene {
    /// A table that remembers as little as is allowed, in which each row is a part.
    async fn forgetful() -> Scene {
        let scene = Scene::of("PARTITION BY n").await;
        let few = "ALTER TABLE numbers MODIFY SETTING non_replicated_deduplication_window = 1000";
        scene.sql(few).await;
        scene
    }

    /// Somebody else's insert, of more parts than the table remembers.
    async fn others_push_out_what_it_remembers(&self) {
        self.sql(
            "INSERT INTO numbers SETTINGS max_partitions_per_insert_block = 0, async_insert = 0,
               insert_deduplicate = 1, insert_deduplication_token = 'others'
             SELECT generateUUIDv4(), 1000000 + number, 'others', 0, number FROM numbers(1100)",
        )
        .await;
    }

    /// Waits for all of `rows` numbers, each once.
    async fn ours_come_to(&self, rows: u64) {
        self.at_rest().await.unwrap();
        let sql = "SELECT count(), uniqExact(n) FROM numbers WHERE _topic != 'others'";
        let found: (u64, u64) = self.pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
        assert_eq!(found, (rows, rows));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_pushed_out_before_a_restart_is_not_relied_on() {
    let scene = Scene::forgetful().await;
    scene.killed_after_the_insert().await;
    scene.others_push_out_what_it_remembers().await;
    let consumer = scene.pipeline.consumer().unwrap();
    scene.send(10..12);
    scene.ours_come_to(12).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_pushed_out_before_another_attempt_is_not_relied_on() {
    let scene = Scene::forgetful().await;
    let consumer = scene.started().await;
    scene.proxy.hold_answers();
    scene.send(5..10);
    scene.pipeline.arrived("numbers", 10).await.unwrap();
    scene.others_push_out_what_it_remembers().await;
    scene.proxy.cut();
    consumer.logged("insert failed; trying again", PATIENCE).await.unwrap();
    scene.send(10..12);
    scene.ours_come_to(12).await;
    consumer.stop().await.unwrap();
}
