//! The relays and consumers, kept running as a supervisor would.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::sleep,
};

use crate::{
    place::Place,
    program::{Binary, Program},
};

/// Exit codes that say that starting again is of no use (docs/operations.md), and
/// that of a panic, such as that of an assertion.
const REFUSALS: [i32; 3] = [2, 3, 101];

/// What the programs log.
const LOG: &str = "outpour_consumer=debug,outpour_producer=debug,info,pgwire_replication=off";

/// Which build of the programs runs, and with which further variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    /// Where they are, if not beside this program.
    pub(super) dir: Option<PathBuf>,
    pub(super) variables: Vec<(String, String)>,
}

/// One process that is to run.
pub(super) struct Member {
    pub(super) name: String,
    binary: Binary,
    program_file: PathBuf,
    config: PathBuf,
    log: PathBuf,
    variables: Vec<(String, String)>,
    program: Option<Program>,
    /// Whether it ought to run.
    wanted: bool,
    /// How often it has ended by itself, and with which exit code last.
    ended: Vec<Option<i32>>,
}

impl Member {
    pub(super) fn new(
        place: &Place,
        programs: &Programs,
        binary: Binary,
        name: &str,
        (variable, value): (&str, String),
    ) -> Result<Self> {
        let mut variables = programs.variables.clone();
        variables.push((variable.to_owned(), value));
        // The log is what a violation is explained from.
        variables.push(("OUTPOUR_LOG".to_owned(), LOG.to_owned()));
        let program_file = match &programs.dir {
            Some(dir) => dir.join(binary.name()),
            None => binary.path()?,
        };
        Ok(Self {
            name: name.to_owned(),
            binary,
            program_file,
            config: place.config(),
            log: place.log(name),
            variables,
            program: None,
            wanted: false,
            ended: Vec::new(),
        })
    }

    pub(super) fn start(&mut self) -> Result<()> {
        self.wanted = true;
        if self.program.is_none() {
            let variables: Vec<_> =
                self.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
            let args = ["run", "--log-format", "json"];
            let started = self.binary.spawn_from(
                &self.program_file,
                &self.config,
                &self.log,
                &args,
                &variables,
            )?;
            self.program = Some(started);
        }
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<()> {
        match self.program.take() {
            Some(program) => program.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM; SIGKILL where that does not help, which is told.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.wanted = false;
        match self.program.take() {
            Some(program) => program.stop().await,
            None => Ok(()),
        }
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), Program::pause)
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), Program::resume)
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.program.as_ref().and_then(Program::id)
    }

    pub(super) fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// Starts it again if it has ended by itself. What it refuses to go on with is
    /// returned, once.
    async fn look_after(&mut self) -> Result<Option<String>> {
        const AT_ONCE: Duration = Duration::from_millis(1);
        let Some(program) = &mut self.program else {
            if self.wanted {
                self.start()?;
            }
            return Ok(None);
        };
        if program.check().is_ok() {
            return Ok(None);
        }
        let code = program.ended(AT_ONCE).await?;
        let words = program.last_words();
        self.program = None;
        let refuses = code.is_some_and(|code| REFUSALS.contains(&code));
        let told = self.ended.last().is_some_and(|last| *last == code);
        self.ended.push(code);
        let name = &self.name;
        Ok((refuses && !told).then(|| format!("{name} refuses to run ({code:?}): {words}")))
    }
}

#[derive(Clone)]
pub(super) struct Crew {
    members: Arc<Vec<Mutex<Member>>>,
}

impl Crew {
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self { members: Arc::new(members.into_iter().map(Mutex::new).collect()) }
    }

    /// Waits until nobody else does something to it.
    pub(super) async fn member(&self, at: usize) -> MutexGuard<'_, Member> {
        self.members[at].lock().await
    }

    pub(super) async fn all(&self) -> Vec<MutexGuard<'_, Member>> {
        let mut all = Vec::new();
        for member in self.members.iter() {
            all.push(member.lock().await);
        }
        all
    }

    /// Starts again whoever ends by itself; `refused` is given what one says that
    /// will not go on.
    pub(super) async fn look_after(&self, place: &Place, refused: impl Fn(String)) -> Result<()> {
        const ROUND: Duration = Duration::from_millis(300);
        loop {
            let mut pids = Vec::new();
            for member in self.members.iter() {
                // Whoever is being treated badly right now is left alone.
                let Ok(mut member) = member.try_lock() else { continue };
                let looked = member.look_after().await;
                if let Some(what) = looked.with_context(|| member.name.clone())? {
                    refused(what);
                }
                pids.extend(member.id());
            }
            place.record_programs(&pids)?;
            sleep(ROUND).await;
        }
    }

    /// How often members have ended by themselves.
    pub(super) async fn ended(&self) -> Vec<(String, Vec<Option<i32>>)> {
        let all = self.all().await;
        all.iter().map(|member| (member.name.clone(), member.ended.clone())).collect()
    }
}

/// Resident memory of a process, in MiB.
fn resident_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// One look at the memory of all.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) at: Instant,
    pub(super) member: String,
    pub(super) is_relay: bool,
    pub(super) mib: f64,
}

impl Crew {
    /// What those take that are not being treated badly right now.
    pub(super) fn memory(&self) -> Vec<Memory> {
        let at = Instant::now();
        let members = self.members.iter().filter_map(|member| member.try_lock().ok());
        members
            .filter_map(|member| {
                let mib = resident_mib(member.id()?)?;
                let is_relay = member.binary == Binary::Relay;
                Some(Memory { at, member: member.name.clone(), is_relay, mib })
            })
            .collect()
    }
}
