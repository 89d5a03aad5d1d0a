//! Inserts that land after somebody else has asked the table what it has of their
//! rows, and tables that are asked after they have landed.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_lands_after_its_table_was_altered_and_asked() {
    let scene = Scene::new().await;
    let (sleeper, _) = scene.asleep_before_the_insert().await;
    scene.sql("ALTER TABLE numbers ADD COLUMN note String DEFAULT 'none'").await;
    let heir = scene.heir();
    scene.comes_to(10).await;
    heir.logged("asking the tables which rows are missing", PATIENCE).await.unwrap();
    scene.woken(&sleeper).await;
    scene.send(10..12);
    scene.comes_to(12).await;
    heir.stop().await.unwrap();
    sleeper.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_lands_after_its_plan_grew_old_and_the_table_was_asked() {
    let scene = Scene::new().await;
    let (sleeper, plan) = scene.asleep_before_the_insert().await;
    let an_hour_ago = plan.planned_at_ms - 3_600_000;
    scene.plan_instead(&Plan { planned_at_ms: an_hour_ago, ..plan }).await;
    let heir = scene.heir();
    scene.comes_to(10).await;
    heir.logged("asking the tables which rows are missing", PATIENCE).await.unwrap();
    scene.woken(&sleeper).await;
    scene.send(10..12);
    scene.comes_to(12).await;
    heir.stop().await.unwrap();
    sleeper.stop().await.unwrap();
}
