use std::process::ExitCode;

use clap::Parser;
use outpour_producer::{cli::Cli, error::RelayError};
use outpour_schemas::program;

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::start_logging(cli.common.log_format);
    program::finish(start(cli), RelayError::exit)
}

#[tokio::main]
async fn start(cli: Cli) -> Result<(), RelayError> {
    cli.run().await
}
