//! The relay and two consumers of one group, as the processes they are.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{counters::Standstill, place::Place};

const RELAY: &str = "outpour-relay";
const CONSUMER: &str = "outpour-consumer";
/// For an orderly end, after which it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the two programs were built: beside this one.
pub(super) struct Binaries {
    relay: PathBuf,
    consumer: PathBuf,
}

impl Binaries {
    pub(super) fn find() -> Result<Self> {
        let exe = std::env::current_exe().context("cannot tell where this program is")?;
        let find = |name: &str| {
            let path = exe.with_file_name(name);
            let is_there = path.is_file();
            ensure!(is_there, "{} is not built: cargo build --workspace --bins", path.display());
            Ok(path)
        };
        Ok(Self { relay: find(RELAY)?, consumer: find(CONSUMER)? })
    }

    /// `init` of both, each of which tells what is wrong.
    pub(super) async fn init(&self, place: &Place) -> Result<()> {
        for binary in [&self.relay, &self.consumer] {
            let mut init = command(binary, place, "init");
            let output = init.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await?;
            let said = [output.stdout, output.stderr].concat();
            let name = binary.file_name().unwrap_or_default().display();
            if !output.status.success() {
                bail!("{name} init failed: {}", String::from_utf8_lossy(&said).trim());
            }
            fs::write(place.log(&format!("{name}-init")), said)?;
        }
        Ok(())
    }
}

/// A command with one source of configuration, the run's own file: variables
/// would win over it, and a shell may have those of another stack.
fn command(binary: &Path, place: &Place, verb: &str) -> Command {
    let mut command = Command::new(binary);
    command.arg(verb).arg("--config").arg(place.config());
    for (name, _) in std::env::vars_os() {
        if is_configuration(&name) {
            command.env_remove(name);
        }
    }
    // Ctrl-C is for this program, which then ends the others in their order.
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    command
}

fn is_configuration(name: &OsString) -> bool {
    name.to_string_lossy().starts_with("OUTPOUR_") && name != "OUTPOUR_LOG"
}

struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// All three. Dropping them kills them.
pub(super) struct Programs {
    relay: Program,
    consumers: [Program; 2],
}

impl Programs {
    pub(super) fn start(binaries: &Binaries, place: &Place) -> Result<Self> {
        let start = |name: &'static str, binary: &Path| {
            let log = place.log(name);
            let out =
                File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
            let mut command = command(binary, place, "run");
            if binary == binaries.consumer {
                // Told apart in the group.
                command.env("OUTPOUR_CONSUMER_CLIENT_ID", name);
            }
            let child = command.stdout(out.try_clone()?).stderr(out).spawn();
            let child = child.with_context(|| format!("cannot start {}", binary.display()))?;
            Ok::<_, anyhow::Error>(Program { name, child, log })
        };
        let programs = Self {
            relay: start("relay", &binaries.relay)?,
            consumers: [
                start("consumer-1", &binaries.consumer)?,
                start("consumer-2", &binaries.consumer)?,
            ],
        };
        let pids: Vec<_> = programs.all().filter_map(|program| program.child.id()).collect();
        place.record_programs(&pids)?;
        Ok(programs)
    }

    fn all(&self) -> impl Iterator<Item = &Program> {
        std::iter::once(&self.relay).chain(&self.consumers)
    }

    /// Fails if one has ended that nobody has told to.
    pub(super) fn check(&mut self) -> Result<()> {
        for program in std::iter::once(&mut self.relay).chain(&mut self.consumers) {
            if let Some(status) = program.child.try_wait()? {
                bail!("{} has ended with {status}.\n{}", program.name, tail(&program.log));
            }
        }
        Ok(())
    }

    /// What those say that stand still.
    pub(super) fn last_words(&self, of: Standstill) -> String {
        let logs: Vec<_> = match of {
            Standstill::Feed => return String::new(),
            Standstill::Relay => vec![tail(&self.relay.log)],
            Standstill::Consumers => self.consumers.iter().map(|c| tail(&c.log)).collect(),
        };
        logs.join("\n")
    }

    /// Ends them orderly. The consumers last: they have the shorter way left.
    pub(super) async fn stop(self) -> Result<()> {
        let [first, second] = self.consumers;
        self.relay.stop().await?;
        tokio::try_join!(first.stop(), second.stop())?;
        Ok(())
    }
}

impl Program {
    async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).ok();
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                ensure!(
                    status.success(),
                    "{} ended with {status}.\n{}",
                    self.name,
                    tail(&self.log)
                );
            }
            Err(_) => {
                self.child.kill().await?;
                bail!(
                    "{} did not stop within {} s and was killed.\n{}",
                    self.name,
                    PATIENCE.as_secs(),
                    tail(&self.log)
                );
            }
        }
        Ok(())
    }
}

/// Where a log is and what it ends with.
fn tail(log: &Path) -> String {
    const LAST: usize = 8;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
    format!("Its log is {}; it ends with:\n{last}", log.display())
}
