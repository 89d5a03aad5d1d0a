//! What writes to a table by itself, watched from outside: the consumer, and
//! ClickHouse's own Kafka engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clickhouse::Client;
use tokio::time::interval;

use super::dataset::Dataset;
use crate::{
    bench::{
        results::Outcome,
        usage::{cpu_s, peak_rss_mib},
    },
    pipeline::PATIENCE,
    place::Place,
    program::Binary,
    stack::Stack,
};

/// The consumer with its default batches.
pub(super) async fn consumer(
    stack: &Stack,
    place: &Place,
    dataset: Dataset,
    table: &str,
    rows: u64,
) -> Result<Outcome> {
    let config = place.file(&format!("{table}.toml"));
    std::fs::write(&config, settings(stack, dataset, table))?;
    let log = place.log(table);
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let mut program = Binary::Consumer.start(&config, &log, &[])?;
    let pid = program.id().context("the consumer has ended")?;
    place.record_programs(&[pid])?;
    let assigned = async {
        program.logged("partition assigned", PATIENCE).await?;
        anyhow::Ok(Instant::now())
    };
    let began = assigned.await?;
    let rows_per_s = arrival(&stack.clickhouse_admin(), table, rows, Some(began)).await;
    program.check()?;
    let outcome = Outcome {
        rows_per_s: rows_per_s.with_context(|| program.last_words())?,
        client_cpu_s: cpu_s(pid),
        server_cpu_s: 0.0,
        rss_mib: peak_rss_mib(pid),
    };
    program.stop().await?;
    Ok(outcome)
}

fn settings(stack: &Stack, dataset: Dataset, table: &str) -> String {
    let (kafka, clickhouse, topic) = (stack.kafka.url(), stack.clickhouse.url(), dataset.topic());
    format!(
        "[kafka]\nbrokers = \"{kafka}\"\n[clickhouse]\nurl = \"{clickhouse}\"\n\
         [consumer]\ngroup = \"{table}\"\ntopics = [\"{topic}\"]\nhttp_listen = \"127.0.0.1:0\"\n\
         [[routes]]\ntopic = \"{topic}\"\ntable = \"{table}\"\n\
         columns = {{ event_id = \"$id\", committed_at = \"$timestamp\" }}\n"
    )
}

/// ClickHouse's own: a table that reads the topic, and a view that moves what it
/// reads. `None` where the server has no threads for it: the engine inside the
/// Python package, which stands for the server without Docker, has none.
pub(super) async fn engine(
    stack: &Stack,
    dataset: Dataset,
    table: &str,
    rows: u64,
) -> Result<Option<Outcome>> {
    let client = stack.clickhouse_admin();
    let (brokers, topic, names) = (stack.kafka.url(), dataset.topic(), dataset.names());
    let queue = format!(
        "CREATE TABLE {table}_queue ({}) ENGINE = Kafka SETTINGS kafka_broker_list = '{brokers}', \
         kafka_topic_list = '{topic}', kafka_group_name = '{table}', \
         kafka_format = 'JSONEachRow', kafka_num_consumers = 2, kafka_thread_per_consumer = 1, \
         kafka_max_block_size = 100000, kafka_flush_interval_ms = 1000, \
         date_time_input_format = 'best_effort'",
        dataset.definitions()
    );
    if let Err(error) = client.query(&queue).execute().await {
        eprintln!("{:<10} {table} is left out: {error}", "bench");
        return Ok(None);
    }
    let view = format!(
        "CREATE MATERIALIZED VIEW {table}_view TO {table} ({}) AS SELECT {names} FROM {table}_queue",
        dataset.definitions()
    );
    client.query(&view).execute().await?;
    let rows_per_s = arrival(&client, table, rows, None).await?;
    for drop in [format!("DROP TABLE {table}_queue SYNC"), format!("DROP VIEW {table}_view SYNC")] {
        client.query(&drop).execute().await?;
    }
    Ok(Some(Outcome { rows_per_s, ..Outcome::default() }))
}

/// Waits until the table has all rows. How many came in a second, since it `began`
/// to read; where that is not known, from when the first were there. Joining a
/// group takes seconds, whoever joins.
async fn arrival(client: &Client, table: &str, rows: u64, began: Option<Instant>) -> Result<f64> {
    let count = format!("SELECT count() FROM {table}");
    let mut looks = interval(Duration::from_millis(50));
    let (mut first, mut last) = (None, (0, Instant::now()));
    loop {
        looks.tick().await;
        let found: u64 = client.query(&count).fetch_one().await?;
        if found > last.0 {
            last = (found, Instant::now());
            first.get_or_insert(last);
        }
        if found >= rows {
            break;
        }
        if last.1.elapsed() > PATIENCE {
            bail!("{table} has {found} of {rows} rows, and nothing comes");
        }
    }
    let (before, began) = began.map(|began| (0, began)).or(first).context("no rows")?;
    let seconds = (last.1 - began).as_secs_f64();
    if seconds == 0.0 {
        bail!("everything came at once: too few rows to measure");
    }
    Ok((rows - before) as f64 / seconds)
}
