//! What a campaign works on: services of its own, a proxy on every way to them,
//! two relays, three consumers and a fourth that comes and goes.

use std::{fs, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client as Postgres, NoTls};

use super::{
    crew::{Crew, Member, Programs},
    ledger, tables,
};
use crate::{place::Place, program::Binary, proxy::Proxy, stack::Stack};

pub(super) const GROUP: &str = "outpour";
pub(super) const RELAYS: usize = 2;
/// Those that run all the time.
pub(super) const CONSUMERS: usize = 3;

pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) place: Arc<Place>,
    pub(super) crew: Crew,
    /// To Postgres, one for each relay.
    pub(super) postgres: Vec<Proxy>,
    /// To Kafka, for everybody: brokers tell their clients one address.
    pub(super) kafka: Proxy,
    /// To ClickHouse, one for each consumer.
    pub(super) clickhouse: Vec<Proxy>,
}

impl World {
    /// Both `init`s done, the programs not started.
    pub(super) async fn new(place: Arc<Place>, stack: Stack, programs: &Programs) -> Result<Self> {
        let (listens, advertised) =
            stack.kafka_behind_proxy().context("Kafka has no listener behind a proxy")?;
        let kafka = Proxy::at(advertised, &format!("127.0.0.1:{listens}")).await?;
        let mut postgres = Vec::new();
        let database = host(stack.postgres.url()).context("Postgres has no address")?;
        for _ in 0..RELAYS {
            postgres.push(Proxy::to(&database).await?);
        }
        let mut clickhouse = Vec::new();
        let address = host(stack.clickhouse.url()).context("ClickHouse has no address")?;
        for _ in 0..=CONSUMERS {
            clickhouse.push(Proxy::to(&address).await?);
        }
        fs::write(place.config(), toml(&stack))?;
        let mut members = Vec::new();
        let name = |of: &str, at: usize| format!("{of}-{}", at + 1);
        for (at, proxy) in postgres.iter().enumerate() {
            let url = stack.postgres.url().replace(&database, &proxy.address().to_string());
            let variable = ("OUTPOUR_POSTGRES_URL", url);
            let name = name("relay", at);
            members.push(Member::new(&place, programs, Binary::Relay, &name, variable)?);
        }
        for (at, proxy) in clickhouse.iter().enumerate() {
            let variable = ("OUTPOUR_CLICKHOUSE_URL", format!("http://{}", proxy.address()));
            let name = name("consumer", at);
            members.push(Member::new(&place, programs, Binary::Consumer, &name, variable)?);
        }
        for member in &members {
            // What an earlier run said is not this one's.
            fs::write(member.log(), "")?;
        }
        let world = Self { stack, place, crew: Crew::new(members), postgres, kafka, clickhouse };
        ledger::create(&world.connect().await?).await.context("cannot create the ledger")?;
        tables::create(&world.client()).await.context("cannot create the tables")?;
        for binary in [Binary::Relay, Binary::Consumer] {
            world.command(binary, &["init"]).await?;
        }
        Ok(world)
    }

    pub(super) fn relay(at: usize) -> usize {
        at % RELAYS
    }

    pub(super) fn consumer(at: usize) -> usize {
        RELAYS + at % CONSUMERS
    }

    pub(super) const GUEST: usize = RELAYS + CONSUMERS;

    /// Straight to the database.
    pub(super) async fn connect(&self) -> Result<Postgres> {
        let (client, connection) =
            tokio_postgres::connect(self.stack.postgres.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Straight to ClickHouse.
    pub(super) fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(self.stack.clickhouse.url())
    }

    /// Runs a command of a program to its end; what it printed.
    pub(super) async fn command(&self, binary: Binary, args: &[&str]) -> Result<String> {
        let output = binary.output(&self.place.config(), args).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{} {}: {}: {said}{complaint}", binary.name(), args.join(" "), output.status);
        }
        Ok(said)
    }
}

/// `host:port` of a URL.
fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split_once('@').map_or(rest, |(_, host)| host);
    Some(rest.split('/').next()?.to_owned())
}

/// Straight to everything: the programs get their proxies by environment, except
/// for Kafka's, which tells its clients where to come.
fn toml(stack: &Stack) -> String {
    let advertised = stack.kafka_behind_proxy().map_or(0, |(_, advertised)| advertised);
    format!(
        r#"[postgres]
url = "{}"

[kafka]
brokers = "127.0.0.1:{advertised}"

[clickhouse]
url = "{}"
insert_timeout = "4s"

[relay]
http_listen = "127.0.0.1:0"
topic_partitions = 12
topic_replication_factor = 1
transaction_timeout = "10s"
max_transaction_rows = 700

[consumer]
group = "{GROUP}"
http_listen = "127.0.0.1:0"
dead_letter_partitions = 1
dead_letter_replication_factor = 1
memory = "64 MiB"

[batch]
max_delay = "300ms"

[[routes]]
topic = "outbox.event.order"
table = "orders"
columns = {{ event_id = "$id" }}

[[routes]]
topic = "outbox.event.payment"
table = "payments"
columns = {{ event_id = "$id" }}
"#,
        stack.postgres.url(),
        stack.clickhouse.url(),
    )
}
