//! The manners that both programs share: how they end, how they log, what they
//! say of themselves over HTTP, how they stand and what a check found, and the
//! manual.

mod exit;
mod finding;
mod http;
mod logging;
mod manual;
mod memory;
mod process;
mod standing;
mod state;
mod stop;
pub mod tls;

use std::path::PathBuf;

pub use self::{
    exit::{Exit, error_line, finish, print},
    finding::{DoctorError, Finding, Level, Report, named},
    http::{HttpError, HttpServer, Observed, Readiness},
    logging::{LogFormat, start_logging},
    manual::{CompletionsArgs, ManArgs},
    standing::{Standing, StatusArgs, per_second},
    state::State,
    stop::on_stop_signal,
};

/// The options that every command of both programs takes.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Configuration file; outpour.toml in the working directory if it exists
    #[arg(long, global = true, env = "OUTPOUR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}
