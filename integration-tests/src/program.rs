//! Outpour's own programs, run as what they are: processes.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
};

use crate::eventually;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Relay,
    Consumer,
}

impl Binary {
    /// The program's file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Binary::Relay => "outpour-relay",
            Binary::Consumer => "outpour-consumer",
        }
    }

    /// Where it was built: beside the running program, or a folder above.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn path(self) -> Result<PathBuf> {
        let exe = std::env::current_exe().context("cannot tell where this program is")?;
        exe.ancestors()
            .skip(1)
            .map(|dir| dir.join(self.name()))
            .find(|path| path.is_file())
            .with_context(|| {
                format!("{} is not built: cargo build --workspace --bins", self.name())
            })
    }

    /// A command of the program with one source of configuration: variables
    /// would win over the file, and a shell may have those of another stack.
    fn command<A: AsRef<OsStr>>(self, config: &Path, args: &[A]) -> Result<Command> {
        Ok(Self::command_of(&self.path()?, config, args))
    }

    fn command_of<A: AsRef<OsStr>>(program: &Path, config: &Path, args: &[A]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTPOUR_") && name != "OUTPOUR_LOG" {
                command.env_remove(name);
            }
        }
        // Ctrl-C is for this process, which then ends the other.
        command.args(args).arg("--config").arg(config).process_group(0);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started; how it ends is for the caller to look at.
    pub async fn output<A: AsRef<OsStr>>(self, config: &Path, args: &[A]) -> Result<Output> {
        self.command(config, args)?.output().await.context("cannot start the program")
    }

    /// Starts the program's main job with further `options`, and with its log at
    /// the end of `log`. Its client of Kafka is called like the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, config: &Path, log: &Path, options: &[&str]) -> Result<Program> {
        self.start_with(config, log, options, &[])
    }

    /// The same with further variables in its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(
        self,
        config: &Path,
        log: &Path,
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Program> {
        self.spawn(config, log, &[&["run"], options].concat(), variables)
    }

    /// Starts any command of the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        self,
        config: &Path,
        log: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Program> {
        self.spawn_from(&self.path()?, config, log, args, variables)
    }

    /// The same, of a build of the program that is elsewhere.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_from(
        self,
        program: &Path,
        config: &Path,
        log: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Program> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Self::command_of(program, config, args);
        if let (Binary::Consumer, Some(name)) = (self, log.file_stem()) {
            command.env("OUTPOUR_CONSUMER_CLIENT_ID", name);
        }
        command.envs(variables.iter().copied());
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("cannot start {}", self.name()))?;
        Ok(Program { binary: self, child, log: log.to_owned() })
    }
}

/// Builds both programs, so that no test runs one older than the code.
///
/// # Errors
/// When they do not compile.
pub async fn build() -> Result<()> {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    BUILT.get_or_try_init(|| cargo_build("--bins")).await.copied()
}

/// An example of the library, built.
///
/// # Errors
/// When it does not compile, or there is no such example.
pub async fn example(name: &str) -> Result<PathBuf> {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    BUILT.get_or_try_init(|| cargo_build("--examples")).await?;
    let exe = std::env::current_exe().context("cannot tell where this program is")?;
    let examples = exe.ancestors().skip(1).map(|dir| dir.join("examples").join(name));
    examples.into_iter().find(|path| path.is_file()).with_context(|| format!("no example {name}"))
}

async fn cargo_build(what: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The whole workspace: cargo chooses features by what it is asked to build,
    // and would build the dependencies again for less.
    command.args(["build", "--quiet", "--workspace", what]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells this test about itself makes build scripts run anew.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_MANIFEST_") || name_text.starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    let status = command.status().await?;
    ensure!(status.success(), "cargo build {what} failed");
    Ok(())
}

/// A running relay or consumer. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    binary: Binary,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// SIGKILL: no chance to tidy up.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill the program")
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Errors
    /// When it does not end in time, or not with exit code 0.
    pub async fn stop(mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        // It may have ended by itself: how, is told below.
        self.terminate().ok();
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            let seconds = PATIENCE.as_secs();
            bail!("{} did not stop within {seconds} s. {}", self.binary.name(), self.last_words());
        };
        let status = status?;
        ensure!(
            status.success(),
            "{} ended with {status}. {}",
            self.binary.name(),
            self.last_words()
        );
        Ok(())
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// Says how it ended, and what it said last.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} has ended with {status}. {}", self.binary.name(), self.last_words())
            }
        }
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGTERM, whatever it makes of that.
    ///
    /// # Errors
    /// When it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it stands still, its connections open.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.with_context(|| format!("{} has ended", self.binary.name()))?;
        kill_process(pid, signal).context("cannot signal the program")
    }

    /// The exit code, once it has ended by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn ended(&mut self, within: Duration) -> Result<Option<i32>> {
        let status = tokio::time::timeout(within, self.child.wait()).await;
        let status = status.with_context(|| format!("still running:\n{}", self.log_text()))??;
        Ok(status.code())
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// When that does not happen in time; shows the log.
    pub async fn logged(&self, text: &str, within: Duration) -> Result<()> {
        eventually(within, async || {
            ensure!(self.log_text().contains(text), "not logged: {text}\n{}", self.log_text());
            Ok(())
        })
        .await
    }

    /// Everything logged so far, by this and earlier runs with the same log.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where its log is, and how that ends.
    #[must_use]
    pub fn last_words(&self) -> String {
        const LAST: usize = 8;
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
        format!("Its log is {}; it ends with:\n{last}", self.log.display())
    }
}
