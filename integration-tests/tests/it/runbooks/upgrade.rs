//! Each program is replaced by another while events flow.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use integration_tests::{pipeline::Pipeline, program::Program, stack::Stack};

use super::{
    commands,
    shell::{Shell, says},
};
use crate::records::{assert_once_and_in_order, read};

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_replaced_while_events_flow_and_none_is_missing_or_there_twice() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let replaced = AtomicBool::new(false);
    let events = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let mut count = 0;
        while !replaced.load(Relaxed) {
            pace.tick().await;
            pipeline.commit_orders(count..count + 10, 5).await.unwrap();
            count += 10;
        }
        count
    };
    let replacing = async {
        let programs = replace(&pipeline).await;
        replaced.store(true, Relaxed);
        programs
    };
    let (count, [relay, consumer]) = tokio::join!(events, replacing);
    pipeline.arrived("event_log", count).await.unwrap();
    pipeline.at_rest(count.cast_signed()).await.unwrap();
    let count = usize::try_from(count).unwrap();
    assert_once_and_in_order(&read(&pipeline, "order", count), count);
    let all = commands(TITLE);
    let compared = Shell::of(&pipeline).run(all.last().unwrap()).await;
    assert!(compared.contains("0 missing") && compared.contains("once."), "{compared}");
    relay.stop().await.unwrap();
    consumer.stop().await.unwrap();
}

const TITLE: &str = "Upgrading with no gap";

/// Relay and consumer that are there in the end.
async fn replace(pipeline: &Pipeline<'_>) -> [Program; 2] {
    let shell = Shell::of(pipeline);
    let old_relay = pipeline.relay().unwrap();
    let old_consumer = pipeline.consumer().unwrap();
    says(&old_relay, "relay started").await;
    says(&old_consumer, "partition assigned").await;
    let all = commands(TITLE);
    let (first, last) = all.split_at(6);
    for command in first {
        shell.run(command).await;
    }
    let [consumer, stop_consumer, relay, stop_relay, _proof] = last else { panic!("{last:#?}") };
    let consumer = shell.start(consumer, "consumer-2.log");
    says(&consumer, "consumer started").await;
    assert!(stop_consumer.starts_with("kill -TERM "), "{stop_consumer}");
    old_consumer.stop().await.unwrap();
    says(&consumer, "partition assigned").await;
    let relay = shell.start(relay, "relay-2.log");
    says(&relay, "waiting to take over").await;
    assert!(stop_relay.starts_with("kill -TERM "), "{stop_relay}");
    old_relay.stop().await.unwrap();
    says(&relay, "relay started").await;
    [relay, consumer]
}
