//! The decode floor: as fast as PostgreSQL decodes and sends the rows to a
//! client that does nothing with them.

use std::{path::PathBuf, process::Stdio, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::backlog::{Backlog, PUBLICATION};
use crate::{
    bench::{
        results::Outcome,
        usage::{cpu_s, peak_rss_mib, service_cpu_s},
    },
    eventually,
    pipeline::PATIENCE,
    stack::Stack,
};

/// What a measured process of this program tells the one that started it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    rows_per_s: f64,
    cpu_s: f64,
    rss_mib: f64,
}

impl Told {
    pub(super) fn now(rows: u64, began: Instant) -> Self {
        let me = std::process::id();
        let rows_per_s = rows as f64 / began.elapsed().as_secs_f64();
        Self { rows_per_s, cpu_s: cpu_s(me), rss_mib: peak_rss_mib(me) }
    }

    pub(super) fn tell(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Runs this program with `args` and hears what it tells, so that its memory
/// and processor time are those of the case alone.
pub(super) async fn hear(stack: &Stack, args: &[String]) -> Result<Outcome> {
    let known = stack.postgres.pids();
    let before = service_cpu_s(&stack.postgres) + service_cpu_s(&stack.kafka);
    let me: PathBuf = std::env::current_exe()?;
    let output = Command::new(me)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{args:?} ended with {}", output.status);
    let told: Told = serde_json::from_slice(&output.stdout)?;
    // What a process has cost is told of it or, once it has ended, of its parent.
    eventually(PATIENCE, async || {
        let left = stack.postgres.pids().into_iter().find(|pid| !known.contains(pid));
        ensure!(left.is_none(), "process {left:?} of PostgreSQL still runs");
        Ok(())
    })
    .await?;
    let after = service_cpu_s(&stack.postgres) + service_cpu_s(&stack.kafka);
    Ok(Outcome {
        rows_per_s: told.rows_per_s,
        client_cpu_s: told.cpu_s,
        server_cpu_s: after - before,
        rss_mib: told.rss_mib,
    })
}

/// Reads a slot's rows and throws them away.
#[derive(Debug, Args)]
pub struct Floor {
    url: String,
    slot: String,
    rows: u64,
}

pub(super) async fn measure(stack: &Stack, backlog: &Backlog) -> Result<Outcome> {
    let url = stack.postgres.url().to_owned();
    let args = ["floor".to_owned(), url, "floor".to_owned(), backlog.rows.to_string()];
    hear(stack, &args).await
}

impl Floor {
    /// Nothing is ever confirmed, so that the next round finds the same rows.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(self) -> Result<()> {
        let target: tokio_postgres::Config = self.url.parse()?;
        let [tokio_postgres::config::Host::Tcp(host)] = target.get_hosts() else {
            anyhow::bail!("expected one host in {}", self.url)
        };
        let config = ReplicationConfig::new(
            host,
            target.get_user().context("no user")?,
            String::from_utf8_lossy(target.get_password().unwrap_or_default()),
            target.get_dbname().context("no database")?,
            &self.slot,
            PUBLICATION,
        )
        .with_port(*target.get_ports().first().context("no port")?);
        let mut client = ReplicationClient::connect(config).await?;
        let (mut rows, mut began) = (0, None);
        while rows < self.rows {
            match client.recv().await?.context("the stream ended")? {
                ReplicationEvent::XLogData { data, .. } if data.first() == Some(&b'I') => {
                    began.get_or_insert_with(Instant::now);
                    rows += 1;
                }
                _ => {}
            }
        }
        let told = Told::now(rows, began.context("no rows")?);
        client.shutdown().await?;
        told.tell()
    }
}
