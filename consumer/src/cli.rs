//! The commands of `outpour-consumer`.

use clap::{Parser, Subcommand};
use outpour_schemas::{
    config::{self, Config},
    program::{CommonArgs, on_stop_signal, print},
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
        let text = match self.command {
            Command::Init { print_sql: true } => format!("{};\n", init::sql(&config).join(";\n")),
            Command::Init { print_sql: false } => format!("{}\n", init::init(&config).await?),
            Command::Run => return run(&config).await,
            Command::Status { json: true } => {
                let status = status::status(&config).await?;
                format!("{}\n", serde_json::to_string(&status).map_err(std::io::Error::from)?)
            }
            Command::Status { json: false } => {
                format!("{}\n", status::status(&config).await?.table())
            }
        };
        Ok(print(&text)?)
    }
}

async fn run(config: &Config) -> Result<(), ConsumerError> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    on_stop_signal(move || asked.cancel())?;
    pipeline::run(config, stop).await?;
    tracing::info!("consumer stopped");
    Ok(())
}
