//! The decode floor: as fast as PostgreSQL decodes and sends the rows to a
//! client that does nothing with them.

use anyhow::{Context, Result, ensure};
use clap::Args;
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};
use tokio::{runtime, task::spawn_blocking};

use super::backlog::{Backlog, PUBLICATION};
use crate::{
    bench::{
        child::{self, Work},
        results::Outcome,
        usage::service_cpu_s,
    },
    eventually,
    pipeline::PATIENCE,
    stack::Stack,
};

/// Hears what a part of this program tells, with what the services have spent.
pub(super) async fn hear(stack: &Stack, args: &[&str]) -> Result<Outcome> {
    let spent = || service_cpu_s(&stack.postgres) + service_cpu_s(&stack.kafka);
    let (known, before) = (stack.postgres.pids(), spent());
    let told = child::hear(args).await?;
    // What a process has cost is told of it or, once it has ended, of its parent.
    eventually(PATIENCE, async || {
        let left = stack.postgres.pids().into_iter().find(|pid| !known.contains(pid));
        ensure!(left.is_none(), "process {left:?} of PostgreSQL still runs");
        Ok(())
    })
    .await?;
    Ok(told.outcome(spent() - before))
}

/// Reads a slot's rows and throws them away.
#[derive(Debug, Args)]
pub struct Floor {
    url: String,
    slot: String,
    rows: u64,
}

pub(super) async fn measure(stack: &Stack, backlog: &Backlog) -> Result<Outcome> {
    let rows = backlog.rows.to_string();
    hear(stack, &["floor", stack.postgres.url(), "floor", &rows]).await
}

impl Floor {
    /// Nothing is ever confirmed, so that the next round finds the same rows. On
    /// one thread, as the relay reads: handing rows to another costs more.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(self) -> Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        spawn_blocking(move || runtime.block_on(self.read())).await?
    }

    async fn read(self) -> Result<()> {
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
        let (mut rows, mut work) = (0, None);
        while rows < self.rows {
            match client.recv().await?.context("the stream ended")? {
                ReplicationEvent::XLogData { data, .. } if data.first() == Some(&b'I') => {
                    work.get_or_insert_with(Work::begin);
                    rows += 1;
                }
                _ => {}
            }
        }
        let told = work.context("no rows")?.done(rows);
        client.shutdown().await?;
        told.tell()
    }
}
