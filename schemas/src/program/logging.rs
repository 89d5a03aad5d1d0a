//! Structured logs on standard error; standard output belongs to the command.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the life of the process. `OUTPOUR_LOG` filters, in the
/// syntax of tracing's `EnvFilter`, such as `info,outpour_producer=debug`.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("OUTPOUR_LOG")
        // The client libraries repeat what the programs say in their own words.
        .unwrap_or_else(|_| EnvFilter::new("info,pgwire_replication=off,librdkafka=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    #[cfg(feature = "mutants")]
    crate::mutants::announce();
}
