//! `make torture`: faults on every process while events are written, and the proof
//! that none was lost, doubled or bent.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use integration_tests::torture::{Options, hunt, run};

/// Runs two relays and three consumers on services of their own, kills, pauses and
/// cuts off every process again and again, and compares what was committed in
/// Postgres with what is in Kafka and ClickHouse. Exits 0 if nothing is violated, 3
/// if something is, 1 if it could not run.
#[derive(Parser)]
#[command(name = "torture")]
struct Cli {
    /// How long faults happen: `90s`, `10m`
    #[arg(long, env = "DURATION", default_value = "3m", value_parser = duration)]
    duration: Duration,
    /// Decides which fault comes when, and what is written
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// Instead, whether each mutant of the programs in this directory is caught
    #[arg(long, value_name = "DIR")]
    mutants: Option<PathBuf>,
    /// Only these of them
    #[arg(requires = "mutants")]
    names: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{unit}` is no unit of time; s, m and h are")),
    };
    let number: u64 = number.parse().map_err(|error| format!("`{number}`: {error}"))?;
    Ok(Duration::from_secs(number * seconds))
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { duration, seed, mutants, names } = Cli::parse();
    let ended = match mutants {
        Some(dir) => hunt(dir, &names, seed, duration).await,
        None => run(Options { seed, duration }).await,
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
