//! `make run`: real flights from an outbox to ClickHouse, checked to the last.

use std::process::ExitCode;

use clap::Parser;
use integration_tests::run::{Options, run};

/// Streams the 336,776 flights of a year from Postgres through Kafka into
/// ClickHouse, on services of its own, and checks the result. Exits 0 if
/// everything is as it should be, 3 if something is not, 1 if it could not run.
#[derive(Parser)]
#[command(name = "run")]
struct Cli {
    /// Feed only so many flights
    #[arg(long, env = "ROWS", value_name = "N")]
    rows: Option<usize>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options { rows: Cli::parse().rows }).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
