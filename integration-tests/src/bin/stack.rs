//! `stack up`, `stack down`, `stack status`: the services alone.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use integration_tests::stack::{Stack, StackOptions, shared_dir};

/// Real PostgreSQL, Kafka and ClickHouse on this machine.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the services up, fetching what is missing; at once if they are
    Up(At),
    /// Stop the services; their data stays
    Down(At),
    /// Say what runs and where; exit 1 unless all three answer
    Status(At),
}

#[derive(Args)]
struct At {
    /// The stack's directory [default: target/stack of this checkout]
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl At {
    fn dir(self) -> Result<PathBuf> {
        self.dir.map_or_else(shared_dir, Ok)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(at) => up(at.dir()?).await,
        Command::Down(at) => down(at.dir()?).await,
        Command::Status(at) => status(at.dir()?).await,
    }
}

async fn up(dir: PathBuf) -> Result<ExitCode> {
    let stack = Stack::launch(StackOptions { dir, ..Stack::shared_options()? }).await?;
    for (name, url) in stack.env() {
        println!("{name}={url}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn down(dir: PathBuf) -> Result<ExitCode> {
    match Stack::existing(&dir)? {
        Some(stack) => {
            stack.down().await?;
            println!("stopped; the data stays in {}", dir.display());
        }
        None => println!("there is no stack in {}", dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(dir: PathBuf) -> Result<ExitCode> {
    let Some(stack) = Stack::existing(&dir)? else {
        println!("there is no stack in {}", dir.display());
        return Ok(ExitCode::FAILURE);
    };
    let mut all_answer = true;
    for service in stack.services() {
        let answers = service.is_ready().await;
        all_answer &= answers;
        let state = if answers { "answers" } else { "does not answer" };
        println!("{:<11} {:<16} {}", service.kind().to_string(), state, service.url());
    }
    Ok(if all_answer { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
