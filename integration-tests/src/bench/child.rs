//! Cases that are parts of this program: each runs as a process of its own, so
//! that its memory and processor time are those of the case alone.

use std::{path::PathBuf, process::Stdio, time::Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{
    results::Outcome,
    usage::{cpu_s, peak_rss_mib},
};

/// What a measured process tells the one that started it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    rows_per_s: f64,
    cpu_s: f64,
    rss_mib: f64,
}

/// What is measured, from when it began: what comes before, such as making the
/// rows, is not part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    began: Instant,
    cpu_s: f64,
}

impl Work {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), cpu_s: cpu_s(std::process::id()) }
    }

    /// It ends now.
    pub(super) fn done(self, rows: u64) -> Told {
        let me = std::process::id();
        Told {
            rows_per_s: rows as f64 / self.began.elapsed().as_secs_f64(),
            cpu_s: cpu_s(me) - self.cpu_s,
            rss_mib: peak_rss_mib(me),
        }
    }
}

impl Told {
    pub(super) fn tell(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }

    /// With what the services have spent meanwhile.
    pub(super) fn outcome(&self, server_cpu_s: f64) -> Outcome {
        let Told { rows_per_s, cpu_s, rss_mib } = *self;
        Outcome { rows_per_s, client_cpu_s: cpu_s, server_cpu_s, rss_mib }
    }
}

/// Runs this program with `args` and hears what it tells.
pub(super) async fn hear(args: &[&str]) -> Result<Told> {
    let me: PathBuf = std::env::current_exe()?;
    let output =
        Command::new(me).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    // `output` takes what it says, whatever it was told.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?} ended with {}: {said}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
