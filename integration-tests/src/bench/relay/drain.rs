//! The relay itself, working off the backlog.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use outpour_schemas::{Lsn, wire::CHECKPOINT_TOPIC};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::task::spawn_blocking;

use super::backlog::{self, Backlog};
use crate::{
    bench::{
        results::Outcome,
        usage::{cpu_s, peak_rss_mib, service_cpu_s},
    },
    place::Place,
    program::{Binary, Program},
    stack::Stack,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    ExactlyOnce,
    AtLeastOnce,
}

impl Mode {
    pub(super) fn settings(self) -> &'static str {
        match self {
            Mode::ExactlyOnce => "delivery = \"exactly-once\"",
            Mode::AtLeastOnce => "delivery = \"at-least-once\"",
        }
    }
}

/// A relay with its own slot and log.
pub(super) fn start(stack: &Stack, place: &Place, slot: &str, mode: Mode) -> Result<Program> {
    let config = place.file(&format!("{slot}.toml"));
    std::fs::write(&config, backlog::config(stack, slot, mode.settings()))?;
    let log = place.log(slot);
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let program = Binary::Relay.start(&config, &log, &[])?;
    place.record_programs(&program.id().into_iter().collect::<Vec<_>>())?;
    Ok(program)
}

pub(super) async fn measure(
    stack: &Stack,
    place: &Place,
    backlog: &Backlog,
    slot: &str,
    mode: Mode,
) -> Result<Outcome> {
    let services = || service_cpu_s(&stack.postgres) + service_cpu_s(&stack.kafka);
    let before = services();
    let mut program = start(stack, place, slot, mode)?;
    let pid = program.id().context("the relay has ended")?;
    let (brokers, watched, to) = (stack.kafka.url().to_owned(), slot.to_owned(), backlog.to);
    let watching = spawn_blocking(move || Progress::watch(&brokers, &watched, to)).await?;
    program.check()?;
    let progress = watching.with_context(|| program.last_words())?;
    let outcome = Outcome {
        rows_per_s: progress.rows_per_s(backlog),
        client_cpu_s: cpu_s(pid),
        server_cpu_s: services() - before,
        rss_mib: peak_rss_mib(pid),
    };
    program.stop().await?;
    backlog::drop_slot(&backlog::connect(stack).await?, slot).await?;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stack.kafka.url()).create()?;
    admin.delete_topics(&[&format!("{slot}.order")], &AdminOptions::new()).await?;
    Ok(outcome)
}

/// The relay's own checkpoints, which come with the records that they stand
/// for, as a read_committed reader sees them.
struct Progress {
    first: (Lsn, Instant),
    last: (Lsn, Instant),
}

impl Progress {
    /// Blocks until everything before `to` is published.
    fn watch(brokers: &str, slot: &str, to: Lsn) -> Result<Self> {
        const SILENCE: Duration = Duration::from_secs(60);
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let mut partition = TopicPartitionList::new();
        partition.add_partition_offset(CHECKPOINT_TOPIC, 0, Offset::Beginning)?;
        reader.assign(&partition)?;
        // The first checkpoint is written before anything is published.
        let mut seen: Vec<(Lsn, Instant)> = Vec::new();
        let mut heard = Instant::now();
        while seen.last().is_none_or(|(lsn, _)| *lsn < to) {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if message.key() == Some(slot.as_bytes()) => {
                    let value: serde_json::Value =
                        serde_json::from_slice(message.payload().context("no checkpoint")?)?;
                    let lsn = value["end_lsn"].as_str().context("no end_lsn")?.parse()?;
                    heard = Instant::now();
                    seen.push((lsn, heard));
                }
                // The topic comes into being with the first relay.
                _ if heard.elapsed() > SILENCE => bail!("no progress for {SILENCE:?}"),
                _ => {}
            }
        }
        let first = *seen.get(1).context("too few rows to measure")?;
        let last = *seen.last().context("no checkpoint")?;
        Ok(Self { first, last })
    }

    /// Every row takes the same room in the log.
    fn rows_per_s(&self, backlog: &Backlog) -> f64 {
        let of = |lsn: Lsn| lsn.min(backlog.to).bytes_since(backlog.from) as f64;
        let share = (of(self.last.0) - of(self.first.0)) / of(backlog.to);
        share * backlog.rows as f64 / (self.last.1 - self.first.1).as_secs_f64()
    }
}
