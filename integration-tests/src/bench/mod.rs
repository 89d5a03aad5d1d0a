//! `make bench`: Outpour beside the limits that nobody can beat on the same
//! machine, with the same rows, in the same run.
//!
//! ```text
//! relay/      backlog ─▶ decode floor │ produce ceiling │ relay, either way ─▶ latency
//! consumer/   topic ─▶ consume │ encode │ insert │ consumer │ what others do
//!                          └───────────────┴──────────────┴──▶ results ─▶ table, JSON
//! ```
//!
//! A figure by itself says more about the machine than about the program: what
//! counts is the ratio between two figures of one run.

mod child;
mod consumer;
mod relay;
mod results;
mod usage;

use std::{num::NonZeroU32, process::ExitCode};

use anyhow::Result;
use clap::ValueEnum;

use self::results::Results;
use crate::{
    place::Place,
    program::Binary,
    stack::{Stack, StackOptions},
};

pub use self::{
    consumer::{Case, Consume, Dataset, Encode, Insert, JsonEachRow},
    relay::{Ceiling, Floor},
};

/// Which half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    Relay,
    Consumer,
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Both unless one is named.
    pub suite: Option<Suite>,
    /// All of the suite `consumer` unless one is named.
    pub case: Option<Case>,
    /// Both of the suite `consumer` unless one is named.
    pub dataset: Option<Dataset>,
    /// Rows of the backlog.
    pub rows: u64,
    /// Rows that are committed together.
    pub per_transaction: u64,
    /// How often each case is run; the median counts.
    pub rounds: NonZeroU32,
}

/// Measures, prints the table and writes `target/bench/results.json`.
///
/// # Errors
/// When something could not be measured.
pub async fn run(options: Options) -> Result<ExitCode> {
    for binary in [Binary::Relay, Binary::Consumer] {
        binary.path()?;
    }
    let place = Place::claim("bench")?;
    let measured = async {
        let launching = StackOptions { fresh: true, ..StackOptions::at(place.stack()) };
        let stack = Stack::launch(launching).await?;
        let mut results = Results::default();
        if options.suite != Some(Suite::Consumer) {
            relay::measure(&stack, &place, options, &mut results).await?;
        }
        if options.suite != Some(Suite::Relay) {
            consumer::measure(&stack, &place, options, &mut results).await?;
        }
        anyhow::Ok(results)
    };
    let outcome = tokio::select! {
        measured = measured => measured,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    let stopped = place.stop_services().await;
    let results = outcome?;
    stopped?;
    let file = place.file("results.json");
    results.write(&file)?;
    println!("{}", results.table());
    println!("The same as JSON: {}", file.display());
    Ok(ExitCode::SUCCESS)
}
