//! A service without a database: it sends what it reads on standard input, a
//! reading a line, straight into Kafka.
//!
//! ```text
//! seq 1 1000 | KAFKA=127.0.0.1:9092 cargo run -p outpour-producer --features kafka --example event_producer
//! ```
//!
//! It takes lines as fast as Kafka acknowledges them and no faster, and ends when
//! the input does, with everything acknowledged or with what was not.

use std::{
    env,
    error::Error,
    io::{self, BufRead},
    time::Duration,
};

use outpour_producer::{
    Envelope, Event, EventProducer,
    event_producer::{Kafka, Settings},
};
use serde::Serialize;

#[derive(Serialize)]
struct ReadingTaken {
    sensor: String,
    value: String,
}

impl Event for ReadingTaken {
    const AGGREGATE_TYPE: &'static str = "sensor";

    fn aggregate_id(&self) -> String {
        self.sensor.clone()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let defaults = Settings::default();
    let producer = EventProducer::new(Settings {
        kafka: Kafka {
            brokers: env::var("KAFKA").unwrap_or_else(|_| "127.0.0.1:9092".to_owned()),
            ..Kafka::default()
        },
        topic_prefix: env::var("TOPIC_PREFIX").unwrap_or(defaults.topic_prefix),
        ..Settings::default()
    })?;
    let reading = |value: String| ReadingTaken { sensor: "thermometer-1".to_owned(), value };

    // One event, and the certainty that Kafka has it.
    let first = producer.log_event(&reading("started".to_owned())).await?;
    println!("event {} is at {}/{}", first.id, first.partition, first.offset);

    // Many: taken as there is room, without waiting for each acknowledgement.
    // Whatever becomes of those that nobody waits for, `shutdown` tells.
    for line in io::stdin().lock().lines() {
        match producer.enqueue(Envelope::of(&reading(line?))?).await {
            Ok(delivery) => drop(delivery),
            // A service would keep the event elsewhere, or say no to its caller.
            Err(error) => eprintln!("{error}"),
        }
    }
    producer.shutdown(Duration::from_secs(30)).await?;
    println!("everything is acknowledged");
    Ok(())
}
