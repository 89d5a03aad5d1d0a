//! The part that streams: the feed on one side, those who watch on the other.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use clickhouse::Client;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_postgres::NoTls;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    Stages,
    counters::{Counters, Standstill},
    feed::Feed,
    kafka::{self, Arrival},
    latency::now_ms,
    orders,
    prober::{self, Sightings},
    programs::Programs,
    progress, tables,
    timing::Timing,
};
use crate::{flights::FlightDeparted, stack::Stack};

/// Flights at the end that are fed at a steady pace …
const PACED: usize = 5_000;
/// … of so many a second.
pub(super) const PACE: f64 = 1_000.0;

const CHECK: Duration = Duration::from_millis(250);
/// Nothing has moved anywhere for so long: it will not any more.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What was fed and seen.
pub(super) struct Streamed {
    pub(super) committed: u64,
    pub(super) rolled_back: Vec<Uuid>,
    pub(super) timing: Timing,
}

/// Feeds everything and returns when everything is through.
pub(super) async fn stream(
    stack: &Stack,
    client: &Client,
    flights: &[FlightDeparted],
    programs: &mut Programs,
    stages: &mut Stages,
) -> Result<Streamed> {
    let counters = Arc::new(Counters::default());
    let watchers = Watchers::start(stack, client, &counters);
    let paced = PACED.min(flights.len() / 4);
    let steady = flights.len() - paced;
    let total = (flights.len() + orders::AMOUNTS.len()) as u64;

    let feeding = async {
        let mut feed = Feed::connect(stack.postgres.url(), flights, &counters).await?;
        let full_speed = async {
            feed.at_full_speed(0..steady / 2).await?;
            feed.together(&orders::envelopes()?).await?;
            feed.at_full_speed(steady / 2..steady).await?;
            through(&counters).await;
            Ok(())
        };
        stages.time("full speed", full_speed).await?;
        let paced_from_ms = now_ms();
        let at_a_pace = async {
            feed.paced(steady..flights.len(), PACE).await?;
            through(&counters).await;
            Ok(())
        };
        stages.time("steady pace", at_a_pace).await?;
        anyhow::Ok((feed.into_rolled_back(), paced_from_ms))
    };
    let (rolled_back, paced_from_ms) = tokio::select! {
        fed = feeding => fed?,
        ended = guard(&counters, programs, Some(STANDSTILL)) => return Err(ended),
        () = progress::show(&counters, total) => bail!("the page has closed"),
    };
    let (sightings, arrivals) = watchers.finish().await?;
    let committed = counters.snapshot().committed;
    let timing = Timing { sightings, arrivals, paced_from_ms };
    Ok(Streamed { committed, rolled_back, timing })
}

/// Waits until everything that was committed has come all the way.
async fn through(counters: &Counters) {
    while !counters.snapshot().is_through() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns only when the stream cannot go on: a program has ended, or nothing
/// has moved for `patience`.
async fn guard(
    counters: &Counters,
    programs: &mut Programs,
    patience: Option<Duration>,
) -> anyhow::Error {
    let mut last = counters.snapshot();
    let mut moved = Instant::now();
    loop {
        if let Err(ended) = programs.check() {
            return ended;
        }
        let now = counters.snapshot();
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if patience.is_some_and(|patience| moved.elapsed() > patience) {
            let station = now.standstill();
            let name = match station {
                Standstill::Feed => "the feed into Postgres stands",
                Standstill::Relay => "the relay stands",
                Standstill::Consumers => "the consumers stand",
            };
            let trouble = counters.trouble().unwrap_or_default();
            return anyhow::anyhow!(
                "{name} still for {} s: {now}. {trouble}\n{}",
                moved.elapsed().as_secs(),
                programs.last_words(station)
            );
        }
        sleep(CHECK).await;
    }
}

/// Those who watch while it streams.
struct Watchers {
    prober: JoinHandle<Sightings>,
    follower: JoinHandle<Result<Vec<Arrival>>>,
    /// Ends them when this is dropped.
    stop: DropGuard,
}

impl Watchers {
    fn start(stack: &Stack, client: &Client, counters: &Arc<Counters>) -> Self {
        let stop = CancellationToken::new();
        let brokers = stack.kafka.url().to_owned();
        let follower = spawn_blocking({
            let (counters, stop) = (Arc::clone(counters), stop.clone());
            move || kafka::follow(&brokers, &counters, &stop)
        });
        let prober = tokio::spawn({
            let (client, counters, stop) = (client.clone(), Arc::clone(counters), stop.clone());
            async move { prober::watch(client, &counters, stop).await }
        });
        tokio::spawn({
            let (client, counters, stop) = (client.clone(), Arc::clone(counters), stop.clone());
            async move {
                while !stop.is_cancelled() {
                    tables::count(&client, &counters).await;
                    sleep(CHECK).await;
                }
            }
        });
        Self { prober, follower, stop: stop.drop_guard() }
    }

    async fn finish(self) -> Result<(Sightings, Vec<Arrival>)> {
        drop(self.stop);
        let sightings = self.prober.await?;
        Ok((sightings, self.follower.await?.context("cannot follow the topics")?))
    }
}

/// Shows the page until told to stop: what is done by hand shows up, too.
pub(super) async fn stay(
    stack: &Stack,
    client: &Client,
    total: u64,
    programs: &mut Programs,
    stop: &CancellationToken,
) -> Result<()> {
    let counters = Arc::new(Counters::default());
    let _watchers = Watchers::start(stack, client, &counters);
    let (postgres, connection) = tokio_postgres::connect(stack.postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    let count_commits = async {
        loop {
            let count = postgres.query_one("SELECT count(*) FROM outbox", &[]).await?;
            counters.committed.set(count.get::<_, i64>(0).unsigned_abs());
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = count_commits => ended,
        ended = guard(&counters, programs, None) => Err(ended),
        () = progress::show(&counters, total) => Ok(()),
    }
}
