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

/// What has landed under the first token lacks the rows of a type that the route
/// did not take then.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_only_a_later_route_makes_come_in_though_the_insert_landed() {
    const ANNOUNCED: &str = "announced";
    let scene = Scene::of("").await;
    scene.sql("CREATE TABLE announced AS numbers").await;
    let topic = &scene.feed.topic;
    let route = |table: &str, types: &str| {
        format!(
            "[[routes]]\ntopic = '{topic}'\ntable = '{table}'\nevent_types = {types}\n\
             columns = {{ event_id = '$id' }}\n"
        )
    };
    let apart = [route("numbers", "['happened']"), route(ANNOUNCED, "['announced']")].concat();
    scene.pipeline.configure(&format!("max_delay = '300ms'\n{apart}")).unwrap();
    let consumer = scene.started().await;
    scene.proxy.hold_answers();
    scene.send(5..8);
    (8..10).for_each(|n| scene.feed.send_event(n, ANNOUNCED, &format!("{{\"n\": {n}}}"), None));
    scene.pipeline.arrived("numbers", 8).await.unwrap();
    assert_eq!(scene.planned().await.end, 10);
    consumer.kill().await.unwrap();
    scene.proxy.cut();

    let together = route("numbers", "['happened', 'announced']");
    scene.pipeline.configure(&format!("max_delay = '300ms'\n{together}")).unwrap();
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(10).await;
    consumer.logged("asking the tables which rows are missing", PATIENCE).await.unwrap();
    consumer.stop().await.unwrap();
}
