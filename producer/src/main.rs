use std::process::ExitCode;

use clap::Parser;
use outpour_producer::{cli::Cli, error::RelayError};
use outpour_schemas::program;

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::start_logging(cli.common.log_format);
    program::finish(start(cli), RelayError::exit)
}

/// One thread: the relay is one loop, and handing each event of the log to
/// another thread would cost more than all that is done with it. The Kafka
/// client has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn start(cli: Cli) -> Result<(), RelayError> {
    cli.run().await
}
