//! The suite `consumer`: from a Kafka topic to ClickHouse tables.
//!
//! | case | what it does with the records |
//! | --- | --- |
//! | `kafka-limit` | reads them from Kafka and throws them away |
//! | `encode` | makes blocks of them, from memory, on one thread |
//! | `clickhouse-limit` | inserts those blocks, made before |
//! | `consumer` | the consumer, exactly once |
//! | `json-each-row` | Kafka's client and JSONEachRow, as written by hand |
//! | `kafka-engine` | ClickHouse's Kafka engine with a materialised view |
//!
//! The first three are the stages that the consumer is made of; the slowest is
//! its limit. Every case writes to a table of its own. The server's time is
//! ClickHouse's, merging included.

mod dataset;
mod drain;
mod encode;
mod json_each_row;
mod topic;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tokio::task::spawn_blocking;

pub use self::{
    dataset::Dataset,
    encode::{Encode, Insert},
    json_each_row::JsonEachRow,
    topic::Consume,
};
use super::{
    Options, child,
    results::{Outcome, Results},
    usage::service_cpu_s,
};
use crate::{eventually, pipeline::PATIENCE, place::Place, stack::Stack};

const SUITE: &str = "consumer";

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    KafkaLimit,
    Encode,
    ClickhouseLimit,
    Consumer,
    JsonEachRow,
    KafkaEngine,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::KafkaLimit => "kafka-limit",
            Case::Encode => "encode",
            Case::ClickhouseLimit => "clickhouse-limit",
            Case::Consumer => "consumer",
            Case::JsonEachRow => "json-each-row",
            Case::KafkaEngine => "kafka-engine",
        }
    }
}

pub(super) async fn measure(
    stack: &Stack,
    place: &Place,
    options: Options,
    results: &mut Results,
) -> Result<()> {
    let wanted = |dataset: &Dataset| options.dataset.is_none_or(|only| only == *dataset);
    for dataset in dataset::ALL.into_iter().filter(wanted) {
        let rows = options.rows;
        let brokers = stack.kafka.url().to_owned();
        spawn_blocking(move || topic::fill(&brokers, dataset, rows)).await??;
        let wanted = |case: &Case| options.case.is_none_or(|only| only == *case);
        let mut cases: Vec<(Case, Vec<Outcome>)> = Case::value_variants()
            .iter()
            .copied()
            .filter(wanted)
            .map(|case| (case, vec![]))
            .collect();
        let mut tables = Vec::new();
        for round in 0..options.rounds.get() {
            for (case, outcomes) in &mut cases {
                let table = format!("{}_{}_{round}", dataset.name(), case.name().replace('-', "_"));
                let run = Run { stack, place, dataset, table: &table, rows };
                outcomes.extend(run.case(*case).await.with_context(|| table.clone())?);
                tables.push(table);
            }
        }
        // Not before: ext4 goes around inodes that were just freed, one by one, and a
        // case behind thousands of them would pay for it with seconds of CPU.
        for table in tables {
            let drop = format!("DROP TABLE {table} SYNC");
            stack.clickhouse_admin().query(&drop).execute().await?;
        }
        let name = format!("{rows} {}", dataset.name());
        for (case, outcomes) in cases.iter().filter(|(_, all)| !all.is_empty()) {
            results.add(SUITE, &name, case.name(), rows, outcomes);
        }
    }
    Ok(())
}

/// One case once.
struct Run<'a> {
    stack: &'a Stack,
    place: &'a Place,
    dataset: Dataset,
    table: &'a str,
    rows: u64,
}

impl Run<'_> {
    /// `None` if it cannot be run here.
    async fn case(&self, case: Case) -> Result<Option<Outcome>> {
        let Run { stack, place, dataset, table, rows } = *self;
        let client = stack.clickhouse_admin();
        client.query(&dataset.create(table)).execute().await?;
        let before = self.server_cpu_s().await?;
        let (name, count) = (dataset.name(), rows.to_string());
        let (brokers, url) = (stack.kafka.url(), stack.clickhouse.url());
        let topic = dataset.topic();
        let outcome = match case {
            Case::KafkaLimit => {
                child::hear(&["consume", brokers, &topic, &count]).await?.outcome(0.0)
            }
            Case::Encode => child::hear(&["encode", name, url, table, &count]).await?.outcome(0.0),
            Case::ClickhouseLimit => {
                child::hear(&["insert", name, url, table, &count]).await?.outcome(0.0)
            }
            Case::JsonEachRow => {
                let args = ["json-each-row", name, brokers, url, table, &count];
                child::hear(&args).await?.outcome(0.0)
            }
            Case::Consumer => drain::consumer(stack, place, dataset, table, rows).await?,
            Case::KafkaEngine => match drain::engine(stack, dataset, table, rows).await? {
                Some(outcome) => outcome,
                None => return Ok(None),
            },
        };
        if !matches!(case, Case::KafkaLimit | Case::Encode) {
            // What has to be merged some time is merged now, whoever made the parts.
            client.query(&format!("OPTIMIZE TABLE {table} FINAL")).execute().await?;
        }
        let server_cpu_s = self.server_cpu_s().await? - before;
        if !matches!(case, Case::KafkaLimit | Case::Encode) {
            let found: u64 =
                client.query(&format!("SELECT count() FROM {table}")).fetch_one().await?;
            ensure!(found == rows, "{table} has {found} rows, not {rows}");
        }
        Ok(Some(Outcome { server_cpu_s, ..outcome }))
    }

    /// What ClickHouse has spent so far, with the merges that inserts entail.
    async fn server_cpu_s(&self) -> Result<f64> {
        let client = self.stack.clickhouse_admin();
        eventually(PATIENCE, async || {
            let merges: u64 = client
                .query("SELECT count() FROM system.merges WHERE database = 'default'")
                .fetch_one()
                .await?;
            ensure!(merges == 0, "{merges} merges are under way");
            Ok(())
        })
        .await?;
        Ok(service_cpu_s(&self.stack.clickhouse))
    }
}
