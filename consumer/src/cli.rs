//! The commands of `outpour-consumer`.

use clap::{CommandFactory, Parser, Subcommand};
use outpour_schemas::{
    config::{self, Config},
    program::{CommonArgs, CompletionsArgs, ManArgs, StatusArgs, on_stop_signal, print},
};
use tokio_util::sync::CancellationToken;

use crate::{
    dlq::{self, DlqCommand},
    doctor,
    error::ConsumerError,
    gap, init, pipeline, reconcile,
    replay::{self, ReplayArgs},
    status,
};

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
    Run {
        /// Go on behind records that Kafka removed before they were read
        #[arg(long)]
        accept_gap: bool,
    },
    /// Check everything that can go wrong before it does
    ///
    /// Proves on scratch tables that ClickHouse drops a repeated insert, and
    /// drops them again; a consumer that runs is not disturbed. Ends with 3 if
    /// there is a problem, and with 1 if ClickHouse or Kafka cannot be asked.
    Doctor {
        /// A list of {check, level, what, why, fix}
        #[arg(long)]
        json: bool,
        /// Create nothing: judge by what the settings say alone
        #[arg(long)]
        no_probe: bool,
    },
    /// Compare what the tables have with what Kafka holds, offset by offset
    ///
    /// Finds what is missing, what is there more than once and what should not be
    /// there, up to the group's committed offsets. Changes nothing without --fix, and a
    /// consumer that runs is not disturbed. Ends with 3 if the two differ.
    Reconcile(reconcile::Args),
    /// Read a topic again, from any place, into any table
    ///
    /// Works in a group of its own: started again after a crash, it goes on where
    /// it was. The live consumer is not disturbed, and no row is stored twice.
    Replay(Box<ReplayArgs>),
    /// Look at what was parked, and send it through again
    #[command(subcommand)]
    Dlq(Box<DlqCommand>),
    /// Show how far the group is
    Status(StatusArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
}

impl Cli {
    /// # Errors
    /// Whatever the command did not manage.
    pub async fn run(self) -> Result<(), ConsumerError> {
        match self.command {
            Command::Completions(args) => return Ok(args.run(Cli::command())?),
            Command::Man(args) => return Ok(args.run(Cli::command())?),
            _ => {}
        }
        let config = config::load(self.common.config.as_deref())?;
        let text = match self.command {
            Command::Init { print_sql: true } => format!("{};\n", init::sql(&config).join(";\n")),
            Command::Init { print_sql: false } => format!("{}\n", init::init(&config).await?),
            Command::Run { accept_gap } => return run(&config, accept_gap).await,
            Command::Doctor { json, no_probe } => {
                let stop = stop_signal()?;
                let report = doctor::doctor(&config, !no_probe, &stop).await?;
                return Ok(report.tell(json)?);
            }
            Command::Reconcile(args) => {
                let mut report = reconcile::reconcile(&config, &args).await?;
                if args.fix {
                    report = reconcile::fix(&config, &args, report, &stop_signal()?).await?;
                }
                print(&if args.json {
                    report.json().map_err(std::io::Error::from)?
                } else {
                    report.text()
                })?;
                return Ok(report.verdict()?);
            }
            Command::Replay(args) => replay::replay(&config, &args, &stop_signal()?).await?,
            Command::Dlq(command) => dlq::run(&config, *command, &stop_signal()?).await?,
            Command::Status(args) => {
                return args.show(async || status::status(&config).await).await;
            }
            // Told above: they need no configuration.
            Command::Completions(_) | Command::Man(_) => return Ok(()),
        };
        Ok(print(&text)?)
    }
}

async fn run(config: &Config, accept_gap: bool) -> Result<(), ConsumerError> {
    let stop = stop_signal()?;
    if accept_gap {
        gap::accept(config).await?;
    }
    pipeline::run(config, stop).await?;
    tracing::info!("consumer stopped");
    Ok(())
}

/// Cancelled when the program is told to stop.
fn stop_signal() -> Result<CancellationToken, ConsumerError> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    on_stop_signal(move || asked.cancel())?;
    Ok(stop)
}
