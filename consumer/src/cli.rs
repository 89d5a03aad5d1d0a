//! The commands of `outpour-consumer`.

use std::io::Write;

use clap::{Parser, Subcommand};
use outpour_schemas::{
    config,
    program::{CommonArgs, on_stop_signal},
};
use tokio_util::sync::CancellationToken;

use crate::{error::ConsumerError, init, pipeline, status};

/// Writes Kafka topics to ClickHouse tables.
#[derive(Debug, Parser)]
#[command(name = "outpour-consumer", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the table event_log
    Init {
        /// Print the SQL instead of running it
        #[arg(long)]
        print_sql: bool,
    },
    /// Consume until told to stop
    Run,
    /// Show how far the group is
    Status {
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// # Errors
    /// Whatever the command did not manage.
    pub async fn run(self) -> Result<(), ConsumerError> {
        let config = config::load(self.common.config.as_deref())?;
        match self.command {
            Command::Init { print_sql: true } => {
                print(&format!("{};\n", init::sql(&config).join(";\n")))
            }
            Command::Init { print_sql: false } => {
                print(&format!("{}\n", init::init(&config).await?))
            }
            Command::Run => {
                let stop = CancellationToken::new();
                let asked = stop.clone();
                on_stop_signal(move || asked.cancel())?;
                pipeline::run(&config, stop).await?;
                tracing::info!("consumer stopped");
                Ok(())
            }
            Command::Status { json } => {
                let status = status::status(&config).await?;
                if json {
                    let text = serde_json::to_string(&status).map_err(std::io::Error::from);
                    print(&format!("{}\n", text.map_err(ConsumerError::Output)?))
                } else {
                    print(&format!("{}\n", status.table()))
                }
            }
        }
    }
}

/// Writes to standard output; a reader that has gone away is no error.
fn print(text: &str) -> Result<(), ConsumerError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ConsumerError::Output(error))
        }
        _ => Ok(()),
    }
}
