//! The end: everything at every station is read and compared.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, ensure};
use clickhouse::Client;
use tokio::task::spawn_blocking;
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::{
    config::GROUP,
    kafka::{self, Contents},
    orders,
    stations::Station,
    tables::{self, StoredFlight},
    truth::{ALL_FLIGHTS, Facts},
};
use crate::{eventually, stack::Stack};

/// An idle consumer commits its last batch within a second.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);

/// What was found.
pub(super) struct Findings {
    /// Rows of the outbox: flights and orders.
    pub(super) committed: u64,
    pub(super) kafka: Station,
    pub(super) flights: Station,
    pub(super) orders: Station,
    pub(super) event_log: Station,
    pub(super) dead_letters: u64,
    /// Records the group has not committed as done.
    pub(super) group_lag: i64,
    pub(super) facts: Facts,
    pub(super) stored: Vec<StoredFlight>,
    /// Everything that is not as it should be, a line each.
    pub(super) differences: Vec<String>,
}

/// What was fed, as the feed knows it.
pub(super) struct Fed {
    pub(super) committed: u64,
    pub(super) rolled_back: Vec<Uuid>,
    /// From the input.
    pub(super) facts: Facts,
}

pub(super) async fn audit(stack: &Stack, client: &Client, fed: Fed) -> Result<Findings> {
    let outbox = Outbox::read(stack.postgres.url()).await?;
    let contents = read_topics(stack).await?;
    let group_lag = await_group(stack, &contents).await?;
    let stored = tables::stored_flights(client).await?;
    let facts = Facts::ask(client).await?;
    let amounts = tables::order_amounts(client).await?;
    let rolled_back: HashSet<Uuid> = fed.rolled_back.into_iter().collect();
    let all: HashSet<Uuid> = outbox.flights.union(&outbox.orders).copied().collect();

    let stored_ids: Vec<_> = stored.iter().map(|row| row.event_id).collect();
    let orders = tables::event_ids(client, "orders").await?;
    let event_log = tables::event_ids(client, "event_log").await?;
    let mut findings = Findings {
        committed: all.len() as u64,
        kafka: Station::compare(&all, &rolled_back, &contents.event_ids),
        flights: Station::compare(&outbox.flights, &rolled_back, &stored_ids),
        orders: Station::compare(&outbox.orders, &rolled_back, &orders),
        event_log: Station::compare(&all, &rolled_back, &event_log),
        dead_letters: contents.dead_letters,
        group_lag,
        facts,
        stored,
        differences: Vec::new(),
    };

    let mut differences = Vec::new();
    if findings.committed != fed.committed {
        differences.push(format!(
            "Postgres: {} outbox rows, {} were committed",
            findings.committed, fed.committed
        ));
    }
    let in_outbox = rolled_back.intersection(&all).count();
    if in_outbox > 0 {
        differences.push(format!("Postgres: {in_outbox} events rolled back"));
    }
    differences.extend(findings.kafka.differences("Kafka"));
    differences.extend(findings.flights.differences("flights"));
    differences.extend(findings.orders.differences("orders"));
    differences.extend(findings.event_log.differences("event_log"));
    let counts = [
        ("Kafka: {} records stand before an earlier one of their partition", contents.out_of_order),
        ("{} dead letters", contents.dead_letters),
        ("{} records are not committed by the group", group_lag.unsigned_abs()),
    ];
    let wrong = counts.into_iter().filter(|(_, count)| *count > 0);
    differences.extend(wrong.map(|(what, count)| what.replace("{}", &count.to_string())));
    differences.extend(fed.facts.differences(&findings.facts)?);
    if fed.facts.flights == ALL_FLIGHTS {
        differences.extend(findings.facts.differences_from_published());
    }
    differences.extend(orders::differences(&amounts));
    findings.differences = differences;
    Ok(findings)
}

async fn read_topics(stack: &Stack) -> Result<Contents> {
    let brokers = stack.kafka.url().to_owned();
    spawn_blocking(move || kafka::read_all(&brokers)).await?
}

/// Waits until the group has committed everything; returns what it has not.
async fn await_group(stack: &Stack, contents: &Contents) -> Result<i64> {
    let lag = async || {
        let (brokers, ends) = (stack.kafka.url().to_owned(), contents.ends.clone());
        spawn_blocking(move || kafka::lag(&brokers, GROUP, &ends)).await?
    };
    let caught_up = eventually(COMMIT_DEADLINE, async || {
        let lag = lag().await?;
        ensure!(lag == 0, "the group is {lag} records behind");
        Ok(0)
    });
    match caught_up.await {
        Ok(lag) => Ok(lag),
        // Behind for good, which is a finding, or not to be asked.
        Err(_) => lag().await.context("cannot ask for the group's lag"),
    }
}

/// Ids of what was committed.
struct Outbox {
    flights: HashSet<Uuid>,
    orders: HashSet<Uuid>,
}

impl Outbox {
    async fn read(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let ids = async |aggregate_type: &str| {
            let select = "SELECT id FROM outbox WHERE aggregatetype = $1";
            let rows = client.query(select, &[&aggregate_type]).await?;
            Ok::<_, anyhow::Error>(rows.iter().map(|row| row.get(0)).collect())
        };
        Ok(Self { flights: ids("flight").await?, orders: ids("order").await? })
    }
}
