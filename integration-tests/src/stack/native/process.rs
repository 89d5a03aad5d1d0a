//! A detached process that can be found again by another process, and the
//! whole tree under it.
//!
//! A pid alone may have been reused by a stranger, so a process is its pid and
//! its start time. A process group would not do as "the whole tree": Postgres
//! gives each backend its own session. The tree is therefore walked in `/proc`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How long the kernel may take to carry out a signal that cannot be refused.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pid: i32,
    /// In clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    started: u64,
}

/// What `/proc/<pid>/stat` says that matters here.
struct Stat {
    state: u8,
    parent: i32,
    started: u64,
}

impl Process {
    pub(crate) fn me() -> Result<Self> {
        let pid = i32::try_from(std::process::id())?;
        Self::now_at(pid).context("this process is not in /proc; the native stack needs Linux")
    }

    /// The process that has this pid now.
    fn now_at(pid: i32) -> Option<Self> {
        let started = stat(pid)?.started;
        Some(Self { pid, started })
    }

    /// Starts `command` in its own process group with its output appended to
    /// `log`, so that neither Ctrl-C nor the end of this process reaches it.
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = i32::try_from(child.id())?;
        // Not yet waited for, so even if it has died its entry is still there.
        Self::now_at(pid).with_context(|| format!("process {pid} vanished as it started"))
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    pub(crate) fn load(record: &Path) -> Option<Self> {
        let text = fs::read_to_string(record).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    pub(crate) fn save(self, record: &Path) -> Result<()> {
        fs::write(record, format!("{} {}\n", self.pid, self.started))
            .with_context(|| format!("cannot write {}", record.display()))
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.started == self.started)
    }

    /// A zombie counts as dead: it holds neither files nor ports.
    pub(crate) fn is_alive(self) -> bool {
        // If it is this process's own child, somebody has to collect it.
        if let Some(pid) = Pid::from_raw(self.pid) {
            waitpid(Some(pid), WaitOptions::NOHANG).ok();
        }
        self.stat().is_some_and(|stat| !matches!(stat.state, b'Z' | b'X'))
    }

    fn is_stopped(self) -> bool {
        self.stat().is_none_or(|stat| matches!(stat.state, b'T' | b't' | b'Z' | b'X'))
    }

    /// Itself, then all its descendants, parents before children.
    pub(crate) fn tree(self) -> Vec<Self> {
        let mut children: HashMap<i32, Vec<Self>> = HashMap::new();
        for pid in all_pids() {
            if let Some(stat) = stat(pid) {
                let started = stat.started;
                children.entry(stat.parent).or_default().push(Self { pid, started });
            }
        }
        let mut tree = vec![self];
        let mut next = 0;
        while let Some(parent) = tree.get(next) {
            tree.extend(children.remove(&parent.pid).unwrap_or_default());
            next += 1;
        }
        tree
    }

    /// Sends `signal`; to a process that is gone that is no error.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.stat().is_some()) else {
            return Ok(());
        };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(io::Error::from(error))
                .with_context(|| format!("cannot send signal {signal:?} to process {}", self.pid)),
        }
    }

    /// Stops every process of the tree and returns them. Returns when all of
    /// them stand still, so that none can have a child that was not seen.
    pub(crate) fn pause_tree(self) -> Result<Vec<Self>> {
        let end = Instant::now() + SIGNAL_DEADLINE;
        loop {
            let tree = self.tree();
            let moving: Vec<_> = tree.iter().filter(|process| !process.is_stopped()).collect();
            if moving.is_empty() {
                return Ok(tree);
            }
            ensure!(Instant::now() < end, "process {} does not stop", self.pid);
            for process in moving {
                process.signal(Signal::STOP)?;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Children first: a parent that wakes should find them awake.
    pub(crate) fn resume_tree(self) -> Result<()> {
        self.tree().into_iter().rev().try_for_each(|process| process.signal(Signal::CONT))
    }

    /// Kills the whole tree at one moment, as a power cut would, and returns
    /// when nothing of it is left.
    pub(crate) fn kill_tree(self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let tree = self.pause_tree()?;
        for process in &tree {
            process.signal(Signal::KILL)?;
        }
        await_end(&tree, SIGNAL_DEADLINE)
    }

    /// Sends `signal` to the root alone and waits until the whole tree has
    /// ended; what is still there after `patience` is killed.
    pub(crate) fn end_with(self, signal: Signal, patience: Duration) -> Result<()> {
        let tree = self.tree();
        self.resume_tree()?;
        self.signal(signal)?;
        if await_end(&tree, patience).is_err() {
            eprintln!(
                "process {} did not end within {} s of {signal:?}; killing it",
                self.pid,
                patience.as_secs()
            );
            self.kill_tree()?;
        }
        await_end(&tree, SIGNAL_DEADLINE)
    }
}

fn await_end(tree: &[Process], patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    while let Some(left) = tree.iter().find(|process| process.is_alive()) {
        if Instant::now() >= end {
            bail!("process {} is still there", left.pid);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name, in brackets, may itself hold brackets and spaces; the
/// fields are counted from behind its last bracket.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "42 (a) S b) T 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started), (b'T', 7, 987));
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let me = Process::me().unwrap();
        let before_me = Process { started: me.started - 1, ..me };
        assert!(me.is_alive());
        assert!(!before_me.is_alive());
        // Would end this test if it were delivered.
        before_me.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn a_killed_tree_is_gone_with_children_in_other_sessions() {
        let dir = std::env::temp_dir().join(format!("outpour-process-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 600 & setsid sleep 600 & echo ready; wait"]);
        let root = Process::spawn(command, &dir.join("log")).unwrap();
        let end = Instant::now() + SIGNAL_DEADLINE;
        while root.tree().len() < 3 {
            assert!(Instant::now() < end);
            thread::yield_now();
        }
        let tree = root.pause_tree().unwrap();
        assert!(tree.iter().all(|process| process.is_alive() && process.is_stopped()));
        root.kill_tree().unwrap();
        assert!(!tree.iter().any(|process| process.is_alive()));
        fs::remove_dir_all(&dir).unwrap();
    }
}
