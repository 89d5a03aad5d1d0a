//! One service of the stack: what a test may do to it.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;

use super::{
    native::NativeService,
    progress::{Progress, Step},
    ready::Probe,
};

/// How long a service may take from its start to its first answer.
const START_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Kafka,
    ClickHouse,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Kafka, Self::ClickHouse];

    /// In file names, container names and progress lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
        }
    }

    /// The variable that carries the service's address.
    pub fn env_name(self) -> &'static str {
        match self {
            Self::Postgres => "OUTPOUR_POSTGRES_URL",
            Self::Kafka => "OUTPOUR_KAFKA_BROKERS",
            Self::ClickHouse => "OUTPOUR_CLICKHOUSE_URL",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Kafka => "Kafka",
            Self::ClickHouse => "ClickHouse",
        })
    }
}

/// A running (or stopped, killed, paused) service. Whatever is done to it, its
/// data and its address stay.
pub struct Service {
    kind: Kind,
    url: String,
    control: NativeService,
}

impl Service {
    pub(super) fn new(kind: Kind, url: String, control: NativeService) -> Self {
        Self { kind, url, control }
    }

    /// Where it is: a URL, for Kafka `host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Starts it if it does not run, and returns when it answers.
    pub async fn start(&self) -> Result<()> {
        self.start_showing(Arc::new(Progress::silent().step(self.kind.name()))).await
    }

    pub(super) async fn start_showing(&self, step: Arc<Step>) -> Result<()> {
        let shown = Arc::clone(&step);
        self.blocking(move |control| control.start(&shown))
            .await
            .with_context(|| format!("cannot start {}", self.kind))?;
        self.ready().await?;
        step.finish(&format!("ready at {}", self.url));
        Ok(())
    }

    /// Waits until it answers, however long that takes within reason.
    pub async fn ready(&self) -> Result<()> {
        let probe = Probe::new(self.kind, &self.url)?;
        let end = Instant::now() + START_DEADLINE;
        let answered = crate::eventually(START_DEADLINE, async || {
            Ok(match probe.ask().await {
                // Waiting on is only worth while as long as it lives.
                Err(silence) if Instant::now() < end => match self.control.check_alive() {
                    Ok(()) => return Err(silence),
                    Err(ended) => Err(ended),
                },
                answer => answer,
            })
        });
        answered.await.and_then(|answer| answer).with_context(|| {
            format!("{} at {} does not answer. {}", self.kind, self.url, self.control.log())
        })
    }

    /// Whether it answers now.
    pub async fn is_ready(&self) -> bool {
        // What does not run need not be asked; Kafka's client would wait long.
        if self.control.check_alive().is_err() {
            return false;
        }
        match Probe::new(self.kind, &self.url) {
            Ok(probe) => probe.ask().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Ends it the way its makers mean it to be ended.
    pub async fn stop(&self) -> Result<()> {
        self.blocking(|control| control.stop())
            .await
            .with_context(|| format!("cannot stop {}", self.kind))
    }

    /// `kill -9` to every process of it at once; returns when all are gone.
    pub async fn kill(&self) -> Result<()> {
        self.blocking(|control| control.kill())
            .await
            .with_context(|| format!("cannot kill {}", self.kind))
    }

    /// Freezes every process of it: connections stay open and silent.
    pub async fn pause(&self) -> Result<()> {
        self.blocking(|control| control.pause())
            .await
            .with_context(|| format!("cannot pause {}", self.kind))
    }

    /// Lets a paused service go on.
    pub async fn resume(&self) -> Result<()> {
        self.blocking(|control| control.resume())
            .await
            .with_context(|| format!("cannot resume {}", self.kind))
    }

    /// Stops and starts it on the same data and port.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// The processes it consists of; empty when it does not run or runs in a
    /// container.
    pub fn pids(&self) -> Vec<i32> {
        self.control.pids()
    }

    pub(super) fn control(&self) -> &NativeService {
        &self.control
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(NativeService) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let control = self.control.clone();
        spawn_blocking(move || work(control)).await?
    }
}

/// A service's log file; shown as where it is and what it ends with.
pub(super) struct Log(pub(super) PathBuf);

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: usize = 8;
        let text = fs::read(&self.0).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
        write!(f, "Its log is {}; it ends with:\n{last}", self.0.display())
    }
}
