//! Names by which tests that share a stack keep out of each other's way.
//!
//! Every such name ends in a mark of its own shape, which names made of it keep.
//! When a stack comes up that was wholly down, no test is running on it: what bears
//! the mark was left behind.

use std::{sync::LazyLock, time::Duration};

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::{Stack, layout::postgres_url};

const MARK: &str = "_t";
const MARK_DIGITS: usize = 12;
/// The same as a pattern that both databases understand.
static LEFTOVER: LazyLock<String> = LazyLock::new(|| format!("{MARK}[0-9a-f]{{{MARK_DIGITS}}}$"));

const KAFKA_PATIENCE: Duration = Duration::from_secs(20);

impl Stack {
    /// A name nobody else has, for a topic, group, table, database or slot.
    pub fn unique(&self, prefix: &str) -> String {
        let digits = Uuid::now_v7().simple().to_string();
        // The last digits of this version are random, the first are the time.
        format!("{prefix}{MARK}{}", &digits[digits.len() - MARK_DIGITS..])
    }

    /// The URL of a new, empty PostgreSQL database.
    pub async fn database(&self) -> Result<String> {
        let name = self.unique("db");
        let admin = self.postgres_admin().await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .context("cannot create a database")?;
        let config: tokio_postgres::Config = self.postgres.url().parse()?;
        let port = config.get_ports().first().context("the URL has no port")?;
        Ok(postgres_url(*port, &name))
    }

    /// The name of a new, empty ClickHouse database.
    pub async fn clickhouse_database(&self) -> Result<String> {
        let name = self.unique("db");
        self.clickhouse_admin().query(&format!("CREATE DATABASE {name}")).execute().await?;
        Ok(name)
    }

    pub(super) async fn forget_earlier_tests(&self) -> Result<()> {
        tokio::try_join!(self.clean_postgres(), self.clean_kafka(), self.clean_clickhouse())?;
        Ok(())
    }

    async fn clean_postgres(&self) -> Result<()> {
        let admin = self.postgres_admin().await?;
        let drop_slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                          WHERE NOT active AND (slot_name ~ $1 OR database ~ $1)";
        admin.execute(drop_slots, &[&*LEFTOVER]).await?;
        let databases = admin
            .query("SELECT datname::text FROM pg_database WHERE datname ~ $1", &[&*LEFTOVER])
            .await?;
        for row in databases {
            let name: &str = row.get(0);
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        }
        Ok(())
    }

    async fn clean_clickhouse(&self) -> Result<()> {
        let admin = self.clickhouse_admin();
        let query =
            admin.query("SELECT name FROM system.databases WHERE match(name, ?)").bind(&*LEFTOVER);
        for name in query.fetch_all::<String>().await? {
            admin.query(&format!("DROP DATABASE IF EXISTS {name} SYNC")).execute().await?;
        }
        Ok(())
    }

    async fn clean_kafka(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.kafka.url()).create()?;
        let (admin, leftovers) = tokio::task::spawn_blocking(move || {
            let metadata = admin.inner().fetch_metadata(None, KAFKA_PATIENCE)?;
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            let leftovers: Vec<String> = names.filter(|name| is_marked(name)).collect();
            anyhow::Ok((admin, leftovers))
        })
        .await??;
        if !leftovers.is_empty() {
            let names: Vec<&str> = leftovers.iter().map(String::as_str).collect();
            let options = AdminOptions::new().operation_timeout(Some(KAFKA_PATIENCE));
            admin.delete_topics(&names, &options).await?;
        }
        Ok(())
    }

    async fn postgres_admin(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(self.postgres.url(), NoTls).await?;
        // Ends when the client is dropped.
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) fn clickhouse_admin(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(self.clickhouse.url())
    }
}

/// Whether a part of a topic's name, between dots, bears the mark: a relay's topics
/// have it in the middle.
fn is_marked(topic: &str) -> bool {
    topic.split('.').any(|part| {
        part.rsplit_once(MARK).is_some_and(|(_, digits)| {
            digits.len() == MARK_DIGITS
                && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_names_are_leftovers() {
        assert!(is_marked("orders_t0123456789ab"));
        assert!(is_marked("outbox.event.p_t0123456789ab.order"));
        assert!(!is_marked("orders"));
        assert!(!is_marked("my_table"));
        assert!(!is_marked("orders_t0123456789abc"));
        assert!(!is_marked("outbox.event.order_t01234567.89ab"));
    }
}
