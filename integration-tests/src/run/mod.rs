//! `make run`: the main job on real input, from nothing to a checked result.
//!
//! ```text
//! dataset ─▶ flights ─▶ feed ══▶ Postgres ─▶ relay ─▶ Kafka ─▶ consumers ─▶ ClickHouse
//!            orders ──┘                                 │                       │
//!                                          kafka::follow│                 prober│
//!                                                       ▼                       ▼
//!                    audit ◀── every station, event by event ── truth ──▶ report
//! ```
//!
//! Services and programs are real processes with their data and logs under
//! `target/run`. They end with the run, however it ends.

mod audit;
mod config;
mod counters;
mod feed;
mod kafka;
mod latency;
mod orders;
mod prober;
mod programs;
mod progress;
mod report;
mod stations;
mod stream;
mod tables;
mod timing;
mod truth;

use std::{env, fs, io::IsTerminal, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use outpour_schemas::program::Exit;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use self::{
    audit::{Fed, Findings},
    programs::Programs,
    report::Report,
    stream::Streamed,
    truth::Facts,
};
use crate::{
    flights::{self, FlightDeparted},
    place::Place,
    program::Binary,
    stack::{Stack, StackOptions},
};

/// The exit code of a program that a signal ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// What programs read after the run.
const REPORT: &str = "report.json";

/// What to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Feed only so many flights.
    pub rows: Option<usize>,
}

/// Runs it all and says how it ended: 0 if everything is as it should be, 3 if
/// something is not.
///
/// # Errors
/// When something could not run at all.
pub async fn run(options: Options) -> Result<ExitCode> {
    let stop = stop_on_signals()?;
    // Missing programs are told before anything is fetched for them.
    [Binary::Relay, Binary::Consumer].into_iter().try_for_each(|binary| binary.path().map(drop))?;
    let place = Place::claim("run")?;
    let outcome = on_services(&place, options, &stop).await;
    // Also those that came up before something went wrong.
    let stopped = place.stop_services().await;
    let code = outcome?;
    stopped?;
    Ok(code)
}

async fn on_services(
    place: &Place,
    options: Options,
    stop: &CancellationToken,
) -> Result<ExitCode> {
    let mut stages = Stages::default();
    // To its end even when told to stop: what is half started cannot be found.
    let launching = StackOptions { fresh: true, ..StackOptions::at(place.stack()) };
    let stack = stages.time("services", Stack::launch(launching)).await?;
    let reading = async { spawn_blocking(move || input(options)).await? };
    let flights = stages.time("data set", reading).await?;
    if stop.is_cancelled() {
        return Ok(INTERRUPTED.into());
    }
    fs::write(place.config(), config::toml(&stack))?;
    let client = clickhouse::Client::default().with_url(stack.clickhouse.url());
    let initialising = async {
        tables::create(&client).await.context("cannot create the tables")?;
        programs::init(place).await
    };
    stages.time("init", initialising).await?;

    let mut programs = Programs::start(place)?;
    let working = async {
        let streamed =
            stream::stream(&stack, &client, &flights, &mut programs, &mut stages).await?;
        let report = measured(&stack, &client, &flights, streamed, stages).await?;
        finish(&report, place)?;
        if stays_up() {
            invite(&stack);
            stream::stay(&stack, &client, report.counts.committed, &mut programs, stop).await?;
        }
        anyhow::Ok(if report.differences.is_empty() {
            ExitCode::SUCCESS
        } else {
            Exit::Finding.into()
        })
    };
    let worked = tokio::select! {
        // A stop that was waited for is no interruption.
        biased;
        worked = working => worked,
        () = stop.cancelled() => {
            eprintln!("{:<10} stopping", "run");
            Ok(INTERRUPTED.into())
        }
    };
    let stopped = programs.stop().await;
    let code = worked?;
    stopped?;
    Ok(code)
}

fn input(options: Options) -> Result<Vec<FlightDeparted>> {
    flights::read(&flights::csv()?, options.rows.unwrap_or(usize::MAX))
}

/// Checks everything and puts the result together.
async fn measured(
    stack: &Stack,
    client: &clickhouse::Client,
    flights: &[FlightDeparted],
    streamed: Streamed,
    mut stages: Stages,
) -> Result<Report> {
    let Streamed { committed, rolled_back, timing } = streamed;
    let counted = rolled_back.len() as u64;
    let fed = Fed { committed, rolled_back, facts: Facts::of(flights) };
    let findings = stages.time("audit", audit::audit(stack, client, fed)).await?;
    let throughput = timing.throughput(&findings.stored);
    let latency = timing.latencies(&findings.stored);
    let Findings { kafka, flights, orders, event_log, .. } = findings;
    let stations = [kafka, flights, orders, event_log];
    Ok(Report {
        counts: report::Counts {
            committed: findings.committed,
            rolled_back: counted,
            kafka: kafka.events,
            flights: flights.events,
            orders: orders.events,
            event_log: event_log.events,
            dead_letters: findings.dead_letters,
            group_lag: findings.group_lag,
        },
        missing: stations.iter().map(|station| station.missing).sum(),
        duplicates: stations.iter().map(|station| station.duplicates).sum(),
        stations: report::Stations { kafka, flights, orders, event_log },
        throughput,
        latency,
        answers: findings.facts,
        seconds: stages.0,
        differences: findings.differences,
    })
}

fn finish(report: &Report, place: &Place) -> Result<()> {
    report.write(&place.file(REPORT))?;
    report.print();
    println!("The same as JSON: {}", place.file(REPORT).display());
    Ok(())
}

/// A person is there to look, and to press Ctrl-C.
fn stays_up() -> bool {
    let ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal() && !ci
}

fn invite(stack: &Stack) {
    println!("\nEverything goes on running. An event of your own:");
    println!(
        "  psql {} -c \"INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) \
         VALUES (gen_random_uuid(), 'greeting', '1', 'said', '{{}}')\"",
        stack.postgres.url()
    );
    println!(
        "  curl '{}/?query=SELECT+*+FROM+event_log+WHERE+aggregate_type+!=+%27flight%27+FORMAT+Vertical'",
        stack.clickhouse.url()
    );
    println!("Ctrl-C ends it.\n");
}

/// Seconds that each stage took.
#[derive(Debug, Default)]
struct Stages(Vec<(&'static str, f64)>);

impl Stages {
    async fn time<T>(
        &mut self,
        stage: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let result = work.await;
        self.0.push((stage, began.elapsed().as_secs_f64()));
        result
    }
}

/// Cancelled by SIGINT, SIGTERM or SIGHUP. Further ones change nothing: ending
/// in order is quick, and ending at once would leave processes behind.
pub(crate) fn stop_on_signals() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let signals = signal(kind).context("cannot listen for signals")?;
        tokio::spawn(cancel_at_signal(signals, stop.clone()));
    }
    Ok(stop)
}

async fn cancel_at_signal(mut signals: Signal, stop: CancellationToken) {
    while signals.recv().await.is_some() {
        stop.cancel();
    }
}
