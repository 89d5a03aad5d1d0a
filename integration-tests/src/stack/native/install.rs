//! Getting programs through the ordinary package clients, once per user.
//!
//! What a client fetches goes to a staging directory of the cache and is
//! renamed into place when it is complete and verified, under a lock: a cached
//! directory that exists is whole.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::stack::{lock::Lock, progress::Step};

/// How much of a failed command's output an error repeats.
const LAST_LINES: usize = 15;
const TICK: Duration = Duration::from_millis(200);

/// apt-get serves one at a time, and one update per process is enough.
static APT_IS_UPDATED: Mutex<bool> = Mutex::new(false);

/// The directory `name` of the cache, made by `build` if it is not there yet.
pub(crate) fn cached(
    name: &str,
    step: &Step,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let wanted = cache.join(name);
    if wanted.exists() {
        return Ok(wanted);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = Lock::acquire_noting(&cache.join(format!("{name}.lock")), || {
        step.doing("waiting for another process that is fetching the same");
    })?;
    if wanted.exists() {
        return Ok(wanted);
    }
    let staging = cache.join(format!("{name}.staging"));
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir(&staging)?;
    build(&staging)?;
    fs::rename(&staging, &wanted)
        .with_context(|| format!("cannot move {} into place", staging.display()))?;
    Ok(wanted)
}

/// The directory that [`cached`] made or will make.
pub(super) fn cached_dir(name: &str) -> Result<PathBuf> {
    Ok(cache_dir()?.join(name))
}

fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir()
            .context("set HOME or XDG_CACHE_HOME to say where to cache")?
            .join(".cache"),
    };
    ensure!(base.is_absolute(), "the cache directory {} must be absolute", base.display());
    Ok(base.join("outpour"))
}

/// The path of `program` if it can be run.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs Debian packages when that is allowed, else says what to run.
pub(super) fn debian_packages(packages: &[&str], step: &Step) -> Result<()> {
    let names = packages.join(" ");
    ensure!(
        is_root() && on_path("apt-get").is_some(),
        "{names} is missing. Install it with\n    sudo apt-get update && sudo apt-get install -y --no-install-recommends {names}\n\
         or, on another system, the packages of the same programs"
    );
    let mut is_updated = APT_IS_UPDATED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_updated {
        step.doing("apt-get update");
        run(apt_get().arg("update"), |_| {})?;
        *is_updated = true;
    }
    step.doing(format!("apt-get install {names}"));
    run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages), |_| {})
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs `command` to its end, showing each line of its output to `watch`.
pub(crate) fn run(command: &mut Command, mut watch: impl FnMut(&str)) -> Result<()> {
    let shown = format!("{command:?}");
    let (output, input) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(input.try_clone()?)
        .stdout(input)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    // The command holds the pipe's writing end, and would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut last = VecDeque::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        watch(&line);
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{shown} failed ({status}):\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

/// Runs `command` to its end, calling `tick` now and then meanwhile.
pub(super) fn run_watching(command: &mut Command, mut tick: impl FnMut()) -> Result<()> {
    thread::scope(|scope| {
        let running = scope.spawn(|| run(command, |_| {}));
        while !running.is_finished() {
            tick();
            thread::sleep(TICK);
        }
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
