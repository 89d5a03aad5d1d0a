//! `status --watch`: looks that follow one another, with rates, until interrupted.

use std::{path::Path, process::Stdio};

use integration_tests::{
    pipeline::{PATIENCE, Pipeline},
    program::Binary,
    stack::Stack,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::consumer::Feed;

struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(binary: Binary, config: &Path, args: &[&str]) -> Watch {
        let mut command = Command::new(binary.path().unwrap());
        command.arg("status").args(args).arg("--config").arg(config);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap().expect("it goes on")
    }

    async fn look(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn interrupt(mut self) -> Option<i32> {
        let id = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_status_is_watched_with_its_rates() {
    let pipeline =
        Pipeline::new(Stack::shared().await.unwrap(), "max_delay = '50ms'").await.unwrap();
    let feed = Feed::of(&pipeline, "order").await;
    feed.send_all(0..10);
    let consumer = pipeline.consumer().unwrap();
    pipeline.arrived("event_log", 10).await.unwrap();
    let mut watch =
        Watch::start(Binary::Consumer, &pipeline.config(), &["--watch", "0.1", "--json"]);
    let first = watch.look().await;
    assert_eq!(first["offsets_per_s"], Value::Null, "{first}");
    assert!(watch.look().await["offsets_per_s"].is_number());
    feed.send_all(10..500);
    let mut fastest: f64 = 0.0;
    loop {
        let look = watch.look().await;
        fastest = fastest.max(look["offsets_per_s"].as_f64().unwrap());
        if look["partitions"][0]["committed"] == 500 {
            assert_eq!(look["lag"], 0);
            break;
        }
    }
    assert!(fastest > 0.0);
    assert_eq!(watch.interrupt().await, Some(0));
    consumer.stop().await.unwrap();

    // Not on a terminal: one table after the other, the second with a rate.
    let mut watch = Watch::start(Binary::Consumer, &pipeline.config(), &["--watch", "0.1"]);
    while !watch.line().await.contains("batch under way") {}
    let header = loop {
        let line = watch.line().await;
        assert!(!line.contains('\x1b'), "{line}");
        if line.contains("batch under way") {
            break line;
        }
    };
    assert!(header.contains("offsets/s"), "{header}");
    // Whoever stops reading ends it, too.
    drop(watch.lines);
    let status = timeout(PATIENCE, watch.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_status_is_watched_with_its_rates() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let relay = pipeline.relay().unwrap();
    pipeline.commit_orders(0..10, 10).await.unwrap();
    pipeline.reader(&pipeline.topic("order")).unwrap().take(10, |_| Some(())).unwrap();
    let mut watch = Watch::start(Binary::Relay, &pipeline.config(), &["--json", "--watch=0.1"]);
    assert_eq!(watch.look().await["published_bytes_per_s"], Value::Null);
    pipeline.commit_orders(10..200, 10).await.unwrap();
    while watch.look().await["published_bytes_per_s"].as_f64().is_none_or(|rate| rate == 0.0) {}
    assert_eq!(watch.interrupt().await, Some(0));
    relay.stop().await.unwrap();

    let output = pipeline.relay_output(&["status", "--watch", "0"]).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("expected a number of seconds"), "{error}");
}
