//! The commands of `outpour-relay`.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use outpour_schemas::{
    config::{self, Mode},
    program::{CommonArgs, CompletionsArgs, ManArgs, StatusArgs, on_stop_signal, print},
};
use tokio_util::sync::CancellationToken;

use crate::{
    doctor, emit,
    error::RelayError,
    init, poll,
    relay::{self, StartOptions},
    status,
};

/// Carries committed outbox events from PostgreSQL to Kafka.
#[derive(Debug, Parser)]
#[command(name = "outpour-relay", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the outbox table and what else the relay needs in the database
    Init {
        /// Print the SQL instead of running it
        #[arg(long)]
        print_sql: bool,
    },
    /// Publish events until told to stop
    Run {
        /// Start although events are lost, from where the slot stands
        #[arg(long)]
        accept_gap: bool,
    },
    /// Check everything that can go wrong before it does
    ///
    /// Changes nothing and disturbs no relay. Ends with 3 if there is a problem,
    /// and with 1 if PostgreSQL or Kafka cannot be asked.
    Doctor {
        /// A list of {check, level, what, why, fix}
        #[arg(long)]
        json: bool,
    },
    /// Show how far the relay is
    Status(StatusArgs),
    /// Write JSON lines to the outbox
    Emit {
        /// Standard input if absent
        file: Option<PathBuf>,
        /// Rows that are committed together
        #[arg(long, value_name = "N", default_value = "100")]
        per_transaction: NonZeroUsize,
    },
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
}

impl Cli {
    /// # Errors
    /// Whatever the command did not manage.
    pub async fn run(self) -> Result<(), RelayError> {
        match self.command {
            Command::Completions(args) => return Ok(args.run(Cli::command())?),
            Command::Man(args) => return Ok(args.run(Cli::command())?),
            _ => {}
        }
        let config = config::load(self.common.config.as_deref())?;
        let text = match self.command {
            Command::Init { print_sql: true } => init::print_sql(&config),
            Command::Init { print_sql: false } => {
                return init::init(&config, &stopped_by_signal()?, print).await;
            }
            Command::Run { accept_gap } => {
                let stop = stopped_by_signal()?;
                return relay::run(&config, StartOptions { accept_gap }, stop).await;
            }
            Command::Doctor { json } => {
                let report = doctor::doctor(&config).await?;
                return Ok(report.tell(json)?);
            }
            Command::Status(args) if config.relay.mode == Mode::Poll => {
                return args.show(async || poll::status(&config).await).await;
            }
            Command::Status(args) => {
                return args.show(async || status::status(&config).await).await;
            }
            Command::Emit { file, per_transaction } => {
                let done = emit::emit(&config, file.as_deref(), per_transaction.get()).await?;
                format!("{} events in {} transactions\n", done.events, done.transactions)
            }
            // Told above: they need no configuration.
            Command::Completions(_) | Command::Man(_) => return Ok(()),
        };
        Ok(print(&text)?)
    }
}

/// Cancelled by the first signal that asks for an end.
fn stopped_by_signal() -> Result<CancellationToken, RelayError> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    on_stop_signal(move || asked.cancel())?;
    Ok(stop)
}
