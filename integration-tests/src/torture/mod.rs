//! `make torture`: every process is killed, paused and cut off again and again
//! while events are written, and then each event has to be where it belongs.
//!
//! ```text
//! writers ══▶ Postgres ══ proxy ══▶ 2 relays ══ proxy ══▶ Kafka ══▶ 3 consumers ══ proxy ══▶ ClickHouse
//!    │            │                                          │                                  │
//!  ledger     watch: slot                                follower                        watch: rows
//!    │            │                                          │                                  │
//!    └────────────┴───────────────▶ oracle ◀─────────────────┴──────────────────────────────────┘
//!
//! schedule ──▶ faults, on every process, connection, topic and table
//! ```
//!
//! The ledger is written by the transactions that write the events. What is found
//! in Kafka and ClickHouse is read with nothing of Outpour's in between.

mod crew;
mod ending;
mod event;
mod faults;
mod follower;
mod ledger;
mod life;
mod mutants;
mod oracle;
mod recovery;
mod report;
mod schedule;
mod tables;
mod watch;
mod world;
mod writers;

use std::{
    fs,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use fastrand::Rng;
use futures_util::future::{join_all, try_join_all};
use outpour_producer::Outbox;
use outpour_schemas::program::Exit;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::mutants::hunt;
use self::{
    crew::Programs,
    faults::{Done, Turns},
    follower::Follower,
    report::Report,
    schedule::{Entry, Fault},
    watch::Watch,
    world::{CONSUMERS, RELAYS, World},
    writers::{Books, WRITERS, Writer},
};
use crate::{
    place::Place,
    program::Binary,
    run::{INTERRUPTED, stop_on_signals},
    stack::{Stack, StackOptions},
};

/// What programs read after the run.
const REPORT: &str = "report.json";

#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    /// Of the faults.
    pub duration: Duration,
}

/// Runs a campaign and says how it ended: 0 if nothing was violated, 3 otherwise.
///
/// # Errors
/// When it could not run.
pub async fn run(options: Options) -> Result<ExitCode> {
    // Missing programs are told before anything is started for them.
    [Binary::Relay, Binary::Consumer].into_iter().try_for_each(|binary| binary.path().map(drop))?;
    let stop = stop_on_signals()?;
    Ok(match campaign(&Campaign::whole(&options), &stop).await? {
        None => INTERRUPTED.into(),
        Some(report) if report.is_clean() => ExitCode::SUCCESS,
        Some(_) => Exit::Finding.into(),
    })
}

/// One run on services of its own.
struct Campaign {
    seed: u64,
    duration: Duration,
    /// The faults that are dealt.
    kinds: Vec<Fault>,
    /// One that goes on all the time.
    throughout: Option<Fault>,
    programs: Programs,
    /// For everything to arrive in the end. Longer than any time-out that a fault
    /// can leave behind.
    patience: Duration,
    /// Whether the first violation ends it.
    is_hunt: bool,
}

impl Campaign {
    fn whole(options: &Options) -> Self {
        Self {
            seed: options.seed,
            duration: options.duration,
            kinds: Fault::ALL.to_vec(),
            throughout: None,
            programs: Programs::default(),
            patience: Duration::from_secs(300),
            is_hunt: false,
        }
    }
}

/// `None` if it was told to stop before its end.
async fn campaign(campaign: &Campaign, stop: &CancellationToken) -> Result<Option<Report>> {
    let place = Arc::new(Place::claim("torture")?);
    let report = on_services(&place, campaign, stop).await;
    // Also those that came up before something went wrong.
    let stopped = place.stop_services().await;
    let report = report?;
    stopped?;
    Ok(report)
}

async fn on_services(
    place: &Arc<Place>,
    campaign: &Campaign,
    stop: &CancellationToken,
) -> Result<Option<Report>> {
    // To its end even when told to stop: what is half started cannot be found.
    let stack = Stack::launch(StackOptions {
        fresh: true,
        fsync: false,
        proxied: true,
        ..StackOptions::at(place.stack())
    })
    .await?;
    let working = async {
        let world = World::new(Arc::clone(place), stack, &campaign.programs).await?;
        on_world(&world, campaign).await
    };
    // The programs die with their world.
    stop.run_until_cancelled(working).await.transpose()
}

/// Everything that goes on during a run.
#[derive(Default)]
struct Run {
    books: Books,
    follower: Follower,
    watch: Watch,
}

async fn on_world(world: &World, campaign: &Campaign) -> Result<Report> {
    let run = Run::default();
    let reading = CancellationToken::new();
    // A thread would go on for ever if this ended early.
    let _reading = reading.clone().drop_guard();
    let follower = run.follower.clone();
    let (brokers, until) = (world.stack.kafka.url().to_owned(), reading.clone());
    let mut following = spawn_blocking(move || follower.follow(&brokers, &until));
    let watch = run.watch.clone();
    let looking = async {
        tokio::join!(
            run.watch.rows(world, &run.books),
            run.watch.slot(world, &run.books, &run.follower),
            run.watch.group(world, &run.books, &run.follower),
            async {
                let refused = |what| watch.report(what, None);
                if let Err(error) = world.crew.look_after(&world.place, refused).await {
                    watch.report(format!("cannot look after the programs: {error:#}"), None);
                }
            },
        );
    };
    let working = async {
        for at in (0..RELAYS + CONSUMERS).rev() {
            world.crew.member(at).await.start()?;
        }
        let done = under_fire(world, campaign, &run).await?;
        let healed = Instant::now();
        let (entries, unrest) = ending::settle(world, campaign.patience, &run).await?;
        anyhow::Ok((done, entries, unrest, healed.elapsed()))
    };
    let worked = tokio::select! {
        worked = working => worked,
        () = looking => unreachable!("looking goes on for ever"),
        found = caught(&run), if campaign.is_hunt => Err(found),
        followed = &mut following => Err(match followed? {
            Ok(()) => anyhow!("nobody reads the topics any more"),
            Err(error) => error.context("cannot read what was published"),
        }),
    };
    reading.cancel();
    let (done, ledger, unrest, settled) = worked?;
    following.await??;
    let mut report = ending::result(world, campaign, &run, &done, &ledger, settled).await?;
    report.violations.extend(unrest);
    report.print();
    ending::tell_lives(world, &run, &ledger, &report)?;
    report::write_memory(&run.watch.watched().memory, &world.place.file("memory.csv"))?;
    report.write(&world.place.file(REPORT))?;
    println!("The same as JSON: {}", world.place.file(REPORT).display());
    Ok(report)
}

/// Waits for the first violation that shows while a run goes on.
async fn caught(run: &Run) -> anyhow::Error {
    const LOOK: Duration = Duration::from_millis(200);
    loop {
        let seen = run.follower.seen().violations.first().map(|(what, _)| what.clone());
        let watched = run.watch.violations().into_iter().next().map(|violation| violation.what);
        if let Some(what) = watched.or(seen) {
            return Caught(what).into();
        }
        sleep(LOOK).await;
    }
}

/// What ends a hunt.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Caught(String);

/// Writers write and faults happen, for as long as the schedule says.
async fn under_fire(world: &World, campaign: &Campaign, run: &Run) -> Result<Vec<Done>> {
    let writing = CancellationToken::new();
    let writers = (0..WRITERS).map(|at| {
        let mut writer = Writer {
            url: world.stack.postgres.url(),
            books: &run.books,
            random: Rng::with_seed(campaign.seed ^ (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            outbox: Outbox::default(),
        };
        let writing = &writing;
        async move { writer.work(writing).await }
    });
    let (turns, began) = (Turns::default(), Instant::now());
    let timeline = fs::File::create(world.place.file("timeline.txt"))?;
    let lasts = campaign.duration;
    let throughout =
        campaign.throughout.map(|fault| Entry { at: Duration::ZERO, fault, lasts, whom: 0 });
    let faults = schedule::schedule(campaign.seed, campaign.duration, &campaign.kinds);
    let faults = throughout.into_iter().chain(faults).map(|entry| {
        let (turns, mut timeline) = (&turns, &timeline);
        async move {
            sleep(entry.at).await;
            let outcome = faults::commit(world, &run.books, turns, entry).await;
            let done = outcome.with_context(|| format!("fault {}", entry.fault.name()))?;
            let (from, to) = (done.began - began, done.healed - began);
            let line = format!(
                "{:8.2} {:8.2}  {} ({})\n",
                from.as_secs_f64(),
                to.as_secs_f64(),
                entry.fault.name(),
                entry.whom
            );
            std::io::Write::write_all(&mut timeline, line.as_bytes())?;
            anyhow::Ok(done)
        }
    });
    let faulting = async {
        let done = try_join_all(faults).await;
        if done.is_ok() {
            sleep(campaign.duration.saturating_sub(began.elapsed())).await;
        }
        writing.cancel();
        done
    };
    let (_, done) = tokio::join!(join_all(writers), faulting);
    done
}
