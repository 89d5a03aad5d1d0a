//! One service of the stack: what a test may do to it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    control::Control,
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
    control: Control,
}

impl Service {
    pub(super) fn new(kind: Kind, url: String, control: Control) -> Self {
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
        self.control
            .start(Arc::clone(&step))
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
                Err(silence) if Instant::now() < end => match self.control.check_alive().await {
                    Ok(()) => return Err(silence),
                    Err(ended) => Err(ended),
                },
                answer => answer,
            })
        });
        answered.await.and_then(|answer| answer).with_context(|| {
            format!("{} at {} does not answer; {}", self.kind, self.url, self.control.log_end())
        })
    }

    /// Whether it answers now.
    pub async fn is_ready(&self) -> bool {
        // What does not run need not be asked; Kafka's client would wait long.
        if !self.control.is_alive().await {
            return false;
        }
        match Probe::new(self.kind, &self.url) {
            Ok(probe) => probe.ask().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Ends it the way its makers mean it to be ended.
    pub async fn stop(&self) -> Result<()> {
        self.control.stop().await.with_context(|| format!("cannot stop {}", self.kind))
    }

    /// `kill -9` to every process of it at once; returns when all are gone.
    pub async fn kill(&self) -> Result<()> {
        self.control.kill().await.with_context(|| format!("cannot kill {}", self.kind))
    }

    /// Freezes every process of it: connections stay open and silent.
    pub async fn pause(&self) -> Result<()> {
        self.control.pause().await.with_context(|| format!("cannot pause {}", self.kind))
    }

    /// Lets a paused service go on.
    pub async fn resume(&self) -> Result<()> {
        self.control.resume().await.with_context(|| format!("cannot resume {}", self.kind))
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

    pub(super) fn control(&self) -> &Control {
        &self.control
    }
}
