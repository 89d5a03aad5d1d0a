//! Events straight into Kafka while Kafka is frozen, killed and started again.

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use integration_tests::{
    eventually,
    pipeline::{PATIENCE, Pipeline, order},
    stack::Stack,
};
use outpour_producer::{
    EventProducer,
    event_producer::{Delivery, Refusal, Settings, Undelivered},
};

use crate::event_producer::{all, by_key, event_of, seen, settings};

/// What the library logs in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The client reports on threads of its own, so the log is the whole process's.
    fn global() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
                .with_writer(move || writer.clone())
                .init();
            log
        };
        LOG.get_or_init(start).clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Hands over events of 1,000 bytes until there is no room for another one.
fn fill(producer: &EventProducer, numbers: &mut impl Iterator<Item = u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    loop {
        match producer.try_enqueue(event_of(numbers.next().unwrap(), 1000)) {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => {
                assert!(matches!(error.refusal, Refusal::Full { .. }), "{error}");
                return deliveries;
            }
        }
    }
}

/// A producer that knows its topic, before Kafka stops answering.
async fn producer(pipeline: &Pipeline<'_>, change: impl FnOnce(&mut Settings)) -> EventProducer {
    let mut settings = settings(pipeline);
    change(&mut settings);
    let producer = EventProducer::new(settings).unwrap();
    producer.send(order(0)).await.unwrap();
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_bounds_what_is_taken_and_every_end_is_told() {
    const QUEUE_BYTES: usize = 256 << 10;
    let log = Log::global();
    let stack = Stack::private("frozen").await.unwrap();
    let pipeline = Pipeline::bare(&stack, "").await.unwrap();
    let bounded = |settings: &mut Settings| {
        settings.queue_bytes = QUEUE_BYTES;
        settings.max_record_bytes = 16 << 10;
    };
    let patient = producer(&pipeline, bounded).await;
    let stopping = producer(&pipeline, bounded).await;
    let dropped = producer(&pipeline, bounded).await;
    let hasty = producer(&pipeline, |settings| {
        settings.delivery_timeout = Duration::from_secs(2);
    })
    .await;
    let mut numbers = 1..;
    stack.kafka.pause().await.unwrap();

    // As much as there is room for, and not a byte more.
    let taken = fill(&patient, &mut numbers);
    assert!(patient.queued_bytes() <= QUEUE_BYTES);
    assert!(patient.queued_bytes() > QUEUE_BYTES - 4096, "{}", patient.queued_bytes());
    assert!((60..=QUEUE_BYTES / 2000).contains(&taken.len()), "{} events", taken.len());
    // Whoever waits for room waits, and whoever gives up has taken nothing.
    let waiting = patient.enqueue(event_of(numbers.next().unwrap(), 1000));
    tokio::time::timeout(Duration::from_millis(300), waiting).await.unwrap_err();
    assert_eq!(patient.pending_events(), taken.len());
    let waiting = tokio::spawn({
        let (producer, event) = (patient.clone(), event_of(numbers.next().unwrap(), 1000));
        async move { producer.send(event).await }
    });

    // A flush ends when it was told to, and says how many are on their way.
    let began = Instant::now();
    eventually(PATIENCE, async || {
        anyhow::ensure!(patient.pending_events() == taken.len() + 1);
        Ok(())
    })
    .await
    .unwrap();
    let left = patient.flush(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(left, Undelivered { pending: taken.len() + 1, failed: 0 });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    // So does a shutdown, and every event comes back to whoever waits for it.
    let (kept, unclaimed) =
        (event_of(numbers.next().unwrap(), 10), event_of(numbers.next().unwrap(), 10));
    let id = unclaimed.id.to_string();
    let delivery = stopping.enqueue(kept.clone()).await.unwrap();
    drop(stopping.enqueue(unclaimed).await.unwrap());
    let began = Instant::now();
    let left = stopping.shutdown(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(left, Undelivered { pending: 2, failed: 0 });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let error = delivery.await.unwrap_err();
    assert_eq!((error.event.id, error.event.payload_text()), (kept.id, kept.payload_text()));
    assert!(matches!(error.refusal, Refusal::NotDelivered(_)), "{error}");
    assert_eq!((stopping.queued_bytes(), stopping.pending_events()), (0, 0));
    assert!(log.text().contains(&id), "{}", log.text());
    let error = stopping.try_enqueue(kept).unwrap_err();
    assert!(matches!(error.refusal, Refusal::Closed), "{error}");

    // Dropped without a word, it names what may be lost.
    let lost: Vec<_> = (0..3).map(|_| event_of(numbers.next().unwrap(), 10)).collect();
    for event in &lost {
        drop(dropped.enqueue(event.clone()).await.unwrap());
    }
    drop(dropped);
    let text = log.text();
    assert!(text.contains("dropped without shutdown") && text.contains("events=3"), "{text}");
    for event in &lost {
        assert!(text.contains(&event.id.to_string()), "{} is not in\n{text}", event.id);
    }

    // An event that nobody acknowledges fails in bounded time.
    let began = Instant::now();
    let event = event_of(numbers.next().unwrap(), 10);
    let error = hasty.send(event.clone()).await.unwrap_err();
    assert!(matches!(error.refusal, Refusal::NotDelivered(_)), "{error}");
    assert!(error.may_have_arrived() && error.event.id == event.id);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // One that nobody waits for is counted.
    drop(hasty.enqueue(event).await.unwrap());
    let failed = hasty.flush(PATIENCE).await.unwrap_err();
    assert_eq!(failed, Undelivered { pending: 0, failed: 1 });
    hasty.flush(Duration::ZERO).await.unwrap();
    // Nor is a topic found that nobody can be asked for.
    let mut elsewhere = order(1);
    elsewhere.aggregate_type = "elsewhere".into();
    let error = hasty.send(elsewhere).await.unwrap_err();
    assert!(matches!(error.refusal, Refusal::Unreachable { .. } | Refusal::NoTopic(_)), "{error}");

    // And when the broker goes on, so does everything that is still on its way.
    stack.kafka.resume().await.unwrap();
    for delivery in taken {
        delivery.await.unwrap();
    }
    waiting.await.unwrap().unwrap();
    patient.flush(PATIENCE).await.unwrap();
    assert_eq!(patient.queued_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_killed_broker_once_and_in_order() {
    const KEYS: u64 = 4;
    const EACH: u64 = 400;
    /// Events after which the broker is killed.
    const UNTIL: u64 = 100;
    let stack = Stack::private("killed").await.unwrap();
    let pipeline = Pipeline::bare(&stack, "").await.unwrap();
    let producer = producer(&pipeline, |settings| {
        settings.delivery_timeout = Duration::from_secs(120);
    })
    .await;

    let (sent, mut progress) = tokio::sync::watch::channel(0);
    let mut services = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let (producer, sent) = (producer.clone(), sent.clone());
        services.spawn(async move {
            // Some wait for each event, some for none.
            let mut deliveries = Vec::new();
            let mut published = 0;
            for n in 1..=EACH {
                let event = order(n * 10 + key);
                if key % 2 == 0 {
                    producer.send(event).await.unwrap();
                    published += 1;
                } else {
                    deliveries.push(producer.enqueue(event).await.unwrap());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                sent.send_modify(|sent| *sent += 1);
            }
            for delivery in deliveries {
                delivery.await.unwrap();
                published += 1;
            }
            published
        });
    }
    progress.wait_for(|&sent| sent >= UNTIL * KEYS).await.unwrap();
    stack.kafka.kill().await.unwrap();
    stack.kafka.start().await.unwrap();
    let published: u64 = services.join_all().await.into_iter().sum();
    assert_eq!(published, KEYS * EACH, "everything was acknowledged in the end");

    let records = all(&pipeline, seen);
    for (key, mut numbers) in by_key(&records) {
        let key: u64 = key.parse().unwrap();
        // The first one of all is the producer's own.
        numbers.retain(|&n| n != 0);
        assert_eq!(numbers, (1..=EACH).map(|n| n * 10 + key).collect::<Vec<_>>(), "key {key}");
    }
    producer.shutdown(PATIENCE).await.unwrap();
}
