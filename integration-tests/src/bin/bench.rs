//! `make bench`: Outpour's speed beside its limits.

use std::{num::NonZeroU32, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use integration_tests::bench::{
    self, Case, Ceiling, Consume, Dataset, Encode, Floor, Insert, JsonEachRow, Options, Suite,
};

/// Measures the relay and the consumer beside their physical limits, on services
/// of its own, and writes target/bench/results.json.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    /// Only this half
    #[arg(long, env = "SUITE")]
    suite: Option<Suite>,
    /// Only this case of the suite `consumer`
    #[arg(long, env = "CASE", requires = "suite")]
    case: Option<Case>,
    /// Only this dataset of the suite `consumer`
    #[arg(long, env = "DATASET", requires = "suite")]
    dataset: Option<Dataset>,
    /// Rows of the backlog that is worked off
    #[arg(long, env = "ROWS", default_value = "500000", value_name = "N")]
    rows: u64,
    /// Rows that are committed together
    #[arg(long, env = "PER_TRANSACTION", default_value = "100", value_name = "N")]
    per_transaction: u64,
    /// How often each case is run; the median counts
    #[arg(long, env = "ROUNDS", default_value = "3", value_name = "N")]
    rounds: NonZeroU32,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program runs of itself, as a process that can be measured.
#[derive(Subcommand)]
#[command(hide = true)]
enum Part {
    Floor(Floor),
    Ceiling(Ceiling),
    Consume(Consume),
    Encode(Encode),
    Insert(Insert),
    JsonEachRow(JsonEachRow),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { suite, case, dataset, rows, per_transaction, rounds, part } = cli;
    match part {
        Some(Part::Floor(floor)) => floor.run().await?,
        Some(Part::Ceiling(ceiling)) => ceiling.run().await?,
        Some(Part::Consume(consume)) => consume.run().await?,
        Some(Part::Encode(encode)) => encode.run().await?,
        Some(Part::Insert(insert)) => insert.run().await?,
        Some(Part::JsonEachRow(json_each_row)) => json_each_row.run().await?,
        None => {
            return bench::run(Options { suite, case, dataset, rows, per_transaction, rounds })
                .await;
        }
    }
    Ok(ExitCode::SUCCESS)
}
