//! The services as plain processes on loopback.
//!
//! Whether one runs is written down beside its data (`<name>.process`), so any
//! process can find, stop or kill what another has started.

mod clickhouse;
pub(crate) mod install;
mod kafka;
mod postgres;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

pub(super) use self::process::Process;
use super::{ports::Ports, progress::Step, service::Kind};

/// One program: where it comes from, what it needs on disk, how it is run.
/// All of it blocks.
trait Daemon: Send + Sync {
    /// Gets the program onto this machine, if it is not there.
    fn install(&self, step: &Step) -> Result<()>;
    /// Makes what must be on disk before it starts; keeps what is there.
    fn prepare(&self, step: &Step) -> Result<()>;
    fn command(&self) -> Result<Command>;
    fn shutdown(&self) -> Shutdown;
    fn data_dirs(&self) -> Vec<PathBuf>;
}

/// How a program is asked to end, and how long that may take.
struct Shutdown {
    signal: Signal,
    patience: Duration,
}

#[derive(Clone)]
pub(super) struct NativeService {
    kind: Kind,
    dir: PathBuf,
    daemon: Arc<dyn Daemon>,
}

impl NativeService {
    pub(super) fn new(kind: Kind, dir: &Path, ports: &Ports, fsync: bool) -> Self {
        let daemon: Arc<dyn Daemon> = match kind {
            Kind::Postgres => Arc::new(postgres::Postgres::new(dir, ports, fsync)),
            Kind::Kafka => Arc::new(kafka::Kafka::new(dir, ports)),
            Kind::ClickHouse => Arc::new(clickhouse::ClickHouse::new(
                dir,
                ports.clickhouse,
                ports.clickhouse_native,
            )),
        };
        let dir = dir.to_path_buf();
        Self { kind, dir, daemon }
    }

    fn record(&self) -> PathBuf {
        self.dir.join(format!("{}.process", self.kind.name()))
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.kind.name()))
    }

    /// Where its log is, and what it ends with.
    pub(super) fn log_end(&self) -> String {
        const LAST: usize = 8;
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
        format!("its log is {}; it ends with:\n{last}", self.log().display())
    }

    pub(super) fn process(&self) -> Option<Process> {
        Process::load(&self.record()).filter(|process| process.is_alive())
    }

    fn running(&self) -> Result<Process> {
        self.process()
            .with_context(|| format!("{} does not run in {}", self.kind, self.dir.display()))
    }

    /// Its process and all below it.
    pub(super) fn pids(&self) -> Vec<i32> {
        let tree = self.process().map(Process::tree).unwrap_or_default();
        tree.into_iter().map(Process::pid).collect()
    }

    pub(super) fn start(&self, step: &Step) -> Result<()> {
        if let Some(process) = self.process() {
            // Whoever paused it may have died before resuming it.
            return process.resume_tree();
        }
        self.daemon.install(step)?;
        self.daemon.prepare(step)?;
        step.doing("starting");
        Process::spawn(self.daemon.command()?, &self.log())?.save(&self.record())
    }

    pub(super) fn stop(&self) -> Result<()> {
        let Shutdown { signal, patience } = self.daemon.shutdown();
        match self.process() {
            Some(process) => process.end_with(signal, patience),
            None => Ok(()),
        }
    }

    pub(super) fn kill(&self) -> Result<()> {
        self.process().map_or(Ok(()), Process::kill_tree)
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.running()?.pause_tree().map(drop)
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.running()?.resume_tree()
    }

    /// Kills it and removes its data.
    pub(super) fn discard(&self) -> Result<()> {
        self.kill()?;
        for dir in self.daemon.data_dirs() {
            if dir.exists() {
                fs::remove_dir_all(&dir)
                    .with_context(|| format!("cannot remove {}", dir.display()))?;
            }
        }
        Ok(())
    }
}
