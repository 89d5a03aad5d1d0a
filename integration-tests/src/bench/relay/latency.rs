//! From a commit to a reader that sees only what is committed in Kafka, under a
//! steady load of single events.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use outpour_producer::Outbox;
use outpour_schemas::{Envelope, wire::header};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use super::{
    backlog,
    drain::{self, Mode},
};
use crate::{
    pipeline::{self, PATIENCE},
    place::Place,
    stack::Stack,
};

const EVENTS_PER_S: u64 = 1000;
const WRITERS: u64 = 4;
/// What comes first does not count. Topics are made, and the broker's JVM compiles
/// what it has not run before: in its first 20 s it takes nearly twice the CPU for the
/// same load.
const WARM_UP: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(30);

pub(super) struct Latency {
    /// How many were committed: fewer than wanted, where the machine is too slow.
    pub(super) events_per_s: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// When the commit of each event was acknowledged.
type Commits = Arc<Mutex<HashMap<String, Instant>>>;

pub(super) async fn measure(stack: &Stack, place: &Place, mode: Mode) -> Result<Latency> {
    let slot = format!("latency_{}", if mode == Mode::ExactlyOnce { "exactly" } else { "least" });
    backlog::create_slot(&backlog::connect(stack).await?, &slot).await?;
    let program = drain::start(stack, place, &slot, mode)?;
    program.logged("relay started", PATIENCE).await?;
    let commits = Commits::default();
    let written = Arc::new(AtomicBool::new(false));
    let reading = {
        let (brokers, topic) = (stack.kafka.url().to_owned(), format!("{slot}.order"));
        let (commits, written) = (Arc::clone(&commits), Arc::clone(&written));
        spawn_blocking(move || read(&brokers, &topic, &commits, &written))
    };
    let from = Instant::now() + WARM_UP;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let client = backlog::connect(stack).await?;
        writers.spawn(write(client, from + MEASURED, Arc::clone(&commits)));
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    written.store(true, Ordering::Relaxed);
    let seen = reading.await??;
    program.stop().await?;
    backlog::drop_slot(&backlog::connect(stack).await?, &slot).await?;
    let commits = commits.lock().unwrap_or_else(PoisonError::into_inner);
    let mut latencies = Histogram::<u64>::new(3)?;
    for (id, at) in commits.iter().filter(|(_, at)| **at >= from) {
        let seen = seen.get(id).with_context(|| format!("event {id} never came"))?;
        latencies.record(u64::try_from(seen.saturating_duration_since(*at).as_micros())?)?;
    }
    ensure!(!latencies.is_empty(), "no event was committed within {MEASURED:?}");
    // Of a machine that has other work, too; its latencies are those of a busy one.
    let pace = latencies.len() as f64 / MEASURED.as_secs_f64();
    let is_wanted = pace > EVENTS_PER_S as f64 * 0.9;
    let events_per_s = if is_wanted { EVENTS_PER_S } else { pace.round() as u64 };
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Latency { events_per_s, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

/// Commits one event at a time, evenly spread.
async fn write(mut client: tokio_postgres::Client, until: Instant, commits: Commits) -> Result<()> {
    let outbox = Outbox::default();
    let mut pace = interval(Duration::from_nanos(1_000_000_000 * WRITERS / EVENTS_PER_S));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut n = 0;
    while Instant::now() < until {
        pace.tick().await;
        n += 1;
        let event = Envelope { id: Uuid::now_v7(), ..pipeline::order(n) };
        let tx = client.transaction().await?;
        outbox.append_all(&tx, std::slice::from_ref(&event)).await?;
        tx.commit().await?;
        let mut commits = commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.insert(event.id.to_string(), Instant::now());
    }
    Ok(())
}

/// Reads until everything has come that was written.
fn read(
    brokers: &str,
    topic: &str,
    commits: &Commits,
    written: &AtomicBool,
) -> Result<HashMap<String, Instant>> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", topic)
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()?;
    reader.subscribe(&[topic])?;
    let mut seen = HashMap::new();
    let mut quiet_since = Instant::now();
    loop {
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(20)) {
            quiet_since = Instant::now();
            let id = pipeline::header(&message, header::ID).context("a record without id")?;
            seen.insert(id, quiet_since);
        } else if written.load(Ordering::Relaxed) {
            let wanted = commits.lock().unwrap_or_else(PoisonError::into_inner).len();
            if seen.len() >= wanted {
                return Ok(seen);
            }
            ensure!(quiet_since.elapsed() < PATIENCE, "only {} of {wanted} events", seen.len());
        }
    }
}
