use std::process::ExitCode;

use clap::Parser;
use outpour_consumer::{cli::Cli, error::ConsumerError};
use outpour_schemas::program;

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::start_logging(cli.common.log_format);
    program::finish(start(cli), ConsumerError::exit)
}

#[tokio::main]
async fn start(cli: Cli) -> Result<(), ConsumerError> {
    cli.run().await
}
