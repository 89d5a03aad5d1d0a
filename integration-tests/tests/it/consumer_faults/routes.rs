//! Routes that are changed while the outcome of a batch is open.

use super::*;

/// ClickHouse knows a batch, and its plan the rows that are parked, by the route's
/// topic and table, not by its place.
#[tokio::test(flavor = "multi_thread")]
async fn routes_that_are_added_before_one_leave_its_open_plan_as_it_is() {
    let scene = Scene::new().await;
    let consumer = scene.started().await;
    scene.proxy.hold_answers();
    scene.feed.send(100, "{\"n\": -1}");
    scene.send(5..10);
    scene.pipeline.arrived("numbers", 10).await.unwrap();
    scene.planned().await;
    consumer.kill().await.unwrap();
    scene.proxy.cut();
    scene.sql("CREATE TABLE others AS numbers").await;
    let topic = &scene.feed.topic;
    let route = |what: &str| format!("[[routes]]\n{what}\ncolumns = {{ event_id = '$id' }}\n");
    let routes = [
        route("topic = '^another.topic$'\ntable = 'numbers'"),
        route(&format!("topic = '{topic}'\ntable = 'others'\nevent_types = ['never']")),
        route(&format!("topic = '{topic}'\ntable = 'numbers'")),
    ];
    scene.pipeline.configure(&format!("max_delay = '300ms'\n{}", routes.concat())).unwrap();
    let consumer = scene.pipeline.consumer().unwrap();
    scene.send(10..12);
    scene.comes_to(12).await;
    assert_eq!(letters(&scene, 1), ["5"], "parked once");
    consumer.stop().await.unwrap();
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
