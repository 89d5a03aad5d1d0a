//! Inserts that hold rows of several partitions.

use std::collections::HashMap;

use super::*;

const PARTITIONS: i32 = 8;

async fn scene() -> Scene {
    Scene::with_partitions(PARTITIONS, "").await
}

/// A consumer that has stored 0 to 99, which are in all partitions, and is idle.
async fn started(scene: &Scene) -> Program {
    let consumer = scene.pipeline.consumer().unwrap();
    scene.send(0..100);
    scene.comes_to(100).await;
    consumer
}

/// Waits until 100 to 199 are planned, most of them together.
async fn planned(scene: &Scene) {
    eventually(PATIENCE, async || {
        let plans = scene.plans().await?;
        let rows: usize = plans.iter().map(|plan| plan.rows).sum();
        ensure!(rows == 100, "{rows} rows are planned");
        let mut joint = HashMap::new();
        for name in plans.iter().filter_map(|plan| plan.first.clone()) {
            *joint.entry(name).or_insert(0) += 1;
        }
        ensure!(joint.values().any(|plans| *plans > 2), "{joint:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Two that share what one had, each with a way of its own to ClickHouse.
async fn heirs(scene: &Scene) -> [Program; 2] {
    let heirs = ["heir-1", "heir-2"].map(|name| scene.heir_called(name));
    for heir in &heirs {
        heir.logged("partition assigned", PATIENCE).await.unwrap();
    }
    heirs
}

async fn ends(scene: &Scene, programs: [Program; 2]) {
    scene.send(200..230);
    scene.comes_to(230).await;
    for program in programs {
        program.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_inserts_are_few_however_many_partitions_there_are() {
    let scene = Scene::with_partitions(64, "").await;
    scene.send(0..100);
    let consumer = scene.pipeline.consumer().unwrap();
    scene.comes_to(100).await;
    scene.send(100..200);
    scene.comes_to(200).await;
    // Each insert takes a number.
    let sql = "SELECT max(max_block_number) FROM system.parts
               WHERE database = currentDatabase() AND table = 'numbers'";
    let inserts: i64 = scene.pipeline.clickhouse().query(sql).fetch_one().await.unwrap();
    assert!(inserts <= 16, "{inserts} inserts");
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_insert_that_landed_unheard_is_not_repeated_by_those_who_share_its_partitions() {
    let scene = scene().await;
    let consumer = started(&scene).await;
    scene.proxy.hold_answers();
    scene.send(100..200);
    scene.pipeline.arrived("numbers", 200).await.unwrap();
    planned(&scene).await;
    consumer.kill().await.unwrap();
    scene.proxy.cut();
    let heirs = heirs(&scene).await;
    scene.comes_to(200).await;
    ends(&scene, heirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_insert_that_never_landed_is_done_by_those_who_share_its_partitions() {
    let scene = scene().await;
    let consumer = started(&scene).await;
    scene.proxy.hold_back();
    scene.send(100..200);
    planned(&scene).await;
    consumer.kill().await.unwrap();
    scene.proxy.cut();
    let heirs = heirs(&scene).await;
    scene.comes_to(200).await;
    ends(&scene, heirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_insert_of_a_sleeper_comes_after_those_who_share_its_partitions() {
    let scene = scene().await;
    let sleeper = started(&scene).await;
    scene.proxy.hold_back();
    scene.send(100..200);
    planned(&scene).await;
    sleeper.pause().unwrap();
    let heirs = heirs(&scene).await;
    scene.comes_to(200).await;
    scene.woken(&sleeper).await;
    ends(&scene, heirs).await;
    sleeper.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_insert_is_taken_apart_for_a_row_that_is_refused_and_for_no_other() {
    let scene = scene().await;
    scene.sql("ALTER TABLE numbers ADD CONSTRAINT few CHECK n != 150").await;
    let consumer = started(&scene).await;
    scene.send(100..200);
    scene.pipeline.arrived("numbers", 199).await.unwrap();
    scene.at_rest().await.unwrap();
    consumer.logged("inserting each by itself", PATIENCE).await.unwrap();
    consumer.logged("record parked", PATIENCE).await.unwrap();
    assert_eq!(consumer.log_text().matches("record parked").count(), 1);
    consumer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_inserts_leave_out_a_table_with_a_view_from_the_moment_it_has_one() {
    let scene = scene().await;
    let consumer = started(&scene).await;
    let scene = scene.with_view().await;
    scene.sql("INSERT INTO seen SELECT n FROM numbers").await;
    consumer.logged("tables have changed", PATIENCE).await.unwrap();
    scene.proxy.hold_back();
    scene.send(100..200);
    let plans = eventually(PATIENCE, async || {
        let plans = scene.plans().await?;
        let rows: usize = plans.iter().map(|plan| plan.rows).sum();
        ensure!(rows == 100, "{rows} rows are planned");
        Ok(plans)
    });
    let plans = plans.await.unwrap();
    assert!(plans.iter().all(|plan| plan.first.is_none()), "{plans:?}");
    consumer.kill().await.unwrap();
    scene.proxy.cut();
    let heirs = heirs(&scene).await;
    scene.comes_to(200).await;
    ends(&scene, heirs).await;
}
