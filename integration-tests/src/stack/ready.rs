//! Does a service really answer? A connection alone proves nothing.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_postgres::NoTls;

use super::service::Kind;

/// How long one question may take: loopback answers at once, or not yet.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) enum Probe {
    Postgres(tokio_postgres::Config),
    Kafka(Arc<BaseConsumer>),
    ClickHouse(clickhouse::Client),
}

impl Probe {
    pub(super) fn new(kind: Kind, url: &str) -> Result<Self> {
        Ok(match kind {
            Kind::Postgres => Self::Postgres(url.parse()?),
            Kind::Kafka => {
                let client = ClientConfig::new()
                    .set("bootstrap.servers", url)
                    .set("reconnect.backoff.ms", "20")
                    .set("reconnect.backoff.max.ms", "200")
                    .create()?;
                Self::Kafka(Arc::new(client))
            }
            Kind::ClickHouse => Self::ClickHouse(clickhouse::Client::default().with_url(url)),
        })
    }

    pub(super) async fn ask(&self) -> Result<()> {
        let answer = async {
            match self {
                Self::Postgres(config) => postgres(config).await,
                Self::Kafka(client) => kafka(client).await,
                Self::ClickHouse(client) => Ok(client.query("SELECT 1").execute().await?),
            }
        };
        timeout(PATIENCE, answer).await.context("no answer in time")?
    }
}

async fn postgres(config: &tokio_postgres::Config) -> Result<()> {
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query("SELECT 1").await;
    connection.abort();
    answer?;
    Ok(())
}

/// A broker is in its own metadata only once the controller has let it in:
/// from then on it takes topics and records.
async fn kafka(client: &Arc<BaseConsumer>) -> Result<()> {
    let client = Arc::clone(client);
    let metadata = spawn_blocking(move || client.fetch_metadata(None, PATIENCE / 2)).await??;
    ensure!(!metadata.brokers().is_empty(), "no broker is registered yet");
    Ok(())
}
