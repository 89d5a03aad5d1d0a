//! A directory under `target` for one run at a time, such as `target/run`.

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::stack::{Stack, shared_dir};

pub(crate) struct Place {
    dir: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

impl Place {
    /// Takes `target/<name>` and ends what a run that was killed has left there.
    pub(crate) fn claim(name: &str) -> Result<Self> {
        let dir = shared_dir()?.with_file_name(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = File::options().create(true).append(true).open(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another run is under way in {}", dir.display())
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let place = Self { dir, _lock: lock };
        place.end_leftovers()?;
        Ok(place)
    }

    pub(crate) fn stack(&self) -> PathBuf {
        self.dir.join("stack")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("outpour.toml")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.dir.join(format!("{program}.log"))
    }

    fn pids(&self) -> PathBuf {
        self.dir.join("programs.pids")
    }

    /// Writes down who has to end with this run.
    pub(crate) fn record_programs(&self, pids: &[u32]) -> Result<()> {
        let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(self.pids(), lines)?;
        Ok(())
    }

    /// Nothing of an earlier run may join in this one.
    fn end_leftovers(&self) -> Result<()> {
        let pids = fs::read_to_string(self.pids()).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse::<i32>().ok()) {
            // The pid may be another's by now.
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_ours =
                String::from_utf8_lossy(&command).contains(&*self.config().to_string_lossy());
            if let (true, Some(pid)) = (is_ours, Pid::from_raw(pid)) {
                kill_process(pid, Signal::KILL).ok();
            }
        }
        Ok(())
    }

    /// Stops the services, whatever of them came to be.
    pub(crate) async fn stop_services(&self) -> Result<()> {
        match Stack::existing(&self.stack())? {
            Some(stack) => stack.down().await,
            None => Ok(()),
        }
    }
}
