//! One pipeline of its own on a stack that others use, too: its own databases,
//! topics, slot and group, told apart by a name that nobody else has.

mod reader;

use std::{io::Write as _, path::PathBuf, process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use clickhouse::Client as ClickHouse;
use outpour_schemas::{Envelope, identity};
use tokio_postgres::{Client as Postgres, NoTls};

pub use self::reader::{Reader, header};
use crate::{
    eventually,
    program::{self, Binary, Program},
    stack::{Stack, shared_dir},
};

/// Long enough for anything that works, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Pipeline<'s> {
    pub stack: &'s Stack,
    /// Part of every name.
    pub name: String,
    pub postgres_url: String,
    pub clickhouse_database: String,
    dir: PathBuf,
}

impl<'s> Pipeline<'s> {
    /// A pipeline with both `init`s done. `settings` is TOML that goes into the
    /// configuration: whole sections, or keys of `[batch]`.
    ///
    /// # Errors
    /// When a service or a program does not do what it should.
    pub async fn new(stack: &'s Stack, settings: &str) -> Result<Pipeline<'s>> {
        let pipeline = Self::bare(stack, settings).await?;
        succeeded(&pipeline.relay_output(&["init"]).await?)?;
        succeeded(&pipeline.consumer_output(&["init"]).await?)?;
        Ok(pipeline)
    }

    /// The same without any `init`.
    ///
    /// # Errors
    /// When a service does not do what it should.
    pub async fn bare(stack: &'s Stack, settings: &str) -> Result<Pipeline<'s>> {
        program::build().await?;
        let name = stack.unique("p");
        let dir = shared_dir()?.with_file_name("it").join(&name);
        std::fs::create_dir_all(&dir)?;
        let pipeline = Pipeline {
            stack,
            postgres_url: stack.database().await?,
            clickhouse_database: stack.clickhouse_database().await?,
            name,
            dir,
        };
        pipeline.configure(settings)?;
        Ok(pipeline)
    }

    /// Writes the configuration anew; programs started from now on read it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, settings: &str) -> Result<()> {
        let Pipeline { name, postgres_url, clickhouse_database, .. } = self;
        let kafka = self.stack.kafka.url();
        let clickhouse = self.stack.clickhouse.url();
        let text = format!(
            "[postgres]\nurl = \"{postgres_url}\"\n\
             [kafka]\nbrokers = \"{kafka}\"\n\
             [clickhouse]\nurl = \"{clickhouse}\"\ndatabase = \"{clickhouse_database}\"\n\
             [relay]\ntransaction_timeout = \"15s\"\nslot = \"{name}\"\npublication = \"{name}\"\n\
             topic_partitions = 6\ntopic_replication_factor = 1\n\
             http_listen = \"127.0.0.1:0\"\n\
             dead_letter_topic = \"{name}.dead-letter\"\n\
             route_topic_replacement = \"outbox.event.{name}.${{routedByValue}}\"\n\
             [consumer]\ngroup = \"{name}\"\ntopics = ['^outbox\\.event\\.{name}\\..*']\n\
             dead_letter_partitions = 1\ndead_letter_replication_factor = 1\nhttp_listen = \"127.0.0.1:0\"\n\
             [batch]\n{settings}\n"
        );
        std::fs::write(self.config(), text).context("cannot write the configuration")
    }

    /// Writes the configuration anew, with events of `aggregate_type` going to `table`,
    /// their ids to its column `event_id`. `batch` is keys of `[batch]`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn route(&self, aggregate_type: &str, table: &str, batch: &str) -> Result<()> {
        let topic = self.topic(aggregate_type);
        self.configure(&format!(
            "{batch}\n[[routes]]\ntopic = '{topic}'\ntable = '{table}'\n\
             columns = {{ event_id = '$id' }}\n"
        ))
    }

    /// Sets one more key for programs started from now on, as the `.env` beside
    /// the configuration: `OUTPOUR_<SECTION>_<KEY>=value`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, variable: &str) -> Result<()> {
        let mut file =
            std::fs::File::options().create(true).append(true).open(self.file(".env"))?;
        writeln!(file, "{variable}").context("cannot write .env")
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("outpour.toml")
    }

    /// A file of this pipeline's own.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The topic of an aggregate type.
    #[must_use]
    pub fn topic(&self, aggregate_type: &str) -> String {
        format!("outbox.event.{}.{aggregate_type}", self.name)
    }

    /// # Errors
    /// When the program cannot be started.
    pub async fn relay_output(&self, args: &[&str]) -> Result<Output> {
        Binary::Relay.output(&self.config(), args).await
    }

    /// # Errors
    /// When the program cannot be started.
    pub async fn consumer_output(&self, args: &[&str]) -> Result<Output> {
        Binary::Consumer.output(&self.config(), args).await
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn relay(&self) -> Result<Program> {
        self.relay_with(&[])
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn relay_with(&self, options: &[&str]) -> Result<Program> {
        Binary::Relay.start(&self.config(), &self.file("relay.log"), options)
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn consumer(&self) -> Result<Program> {
        Binary::Consumer.start(&self.config(), &self.file("consumer.log"), &[])
    }

    /// Any command of the consumer, with a log of its own.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn consumer_command(&self, args: &[&str]) -> Result<Program> {
        let log = self.file(&format!("{}.log", args.first().unwrap_or(&"command")));
        Binary::Consumer.spawn(&self.config(), &log, args, &[])
    }

    /// Where its relay parks what no topic takes: its own, as a reader of a topic
    /// waits for every open transaction in it.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.dead-letter", self.name)
    }

    /// A connection to its database.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn postgres(&self) -> Result<Postgres> {
        let (client, connection) = tokio_postgres::connect(&self.postgres_url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    #[must_use]
    pub fn clickhouse(&self) -> ClickHouse {
        ClickHouse::default()
            .with_url(self.stack.clickhouse.url())
            .with_database(&self.clickhouse_database)
    }

    /// Runs a statement in its ClickHouse database.
    ///
    /// # Errors
    /// When ClickHouse refuses it; names the statement.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.clickhouse().query(sql).execute().await.with_context(|| sql.to_owned())
    }

    /// Rows of a table, and distinct event ids among them.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn count(&self, table: &str) -> Result<(u64, u64)> {
        let sql = format!("SELECT count(), uniqExact(event_id) FROM {table}");
        Ok(self.clickhouse().query(&sql).fetch_one().await?)
    }

    /// Waits until `table` holds `rows` rows, each event once.
    ///
    /// # Errors
    /// When it does not come to that, or goes past it.
    pub async fn arrived(&self, table: &str, rows: u64) -> Result<()> {
        eventually(PATIENCE, async || {
            let found = self.count(table).await?;
            ensure!(found == (rows, rows), "{table}: (rows, events) {found:?}, expected {rows}");
            Ok(())
        })
        .await
    }

    /// The group's committed offsets as `status --json` tells them, summed up:
    /// committed records, and lag.
    ///
    /// # Errors
    /// When the program does not tell.
    pub async fn committed_and_lag(&self) -> Result<(i64, i64)> {
        let output = self.consumer_output(&["status", "--json"]).await?;
        succeeded(&output)?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let partitions = status["partitions"].as_array().context("no partitions")?;
        let committed = partitions.iter().filter_map(|p| p["committed"].as_i64()).sum();
        Ok((committed, status["lag"].as_i64().context("no lag")?))
    }

    /// Waits until the group has committed `at_least` offsets and nothing is left to
    /// read; how many it has committed.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn at_rest(&self, at_least: i64) -> Result<i64> {
        eventually(PATIENCE, async || {
            let (committed, lag) = self.committed_and_lag().await?;
            ensure!(committed >= at_least && lag == 0, "committed {committed}, lag {lag}");
            Ok(committed)
        })
        .await
    }

    /// Commits `ids` as events of aggregate type `order`, keyed by id modulo 10,
    /// `per_transaction` at a time.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn commit_orders(
        &self,
        ids: std::ops::Range<u64>,
        per_transaction: usize,
    ) -> Result<()> {
        let mut client = self.postgres().await?;
        let outbox = outpour_producer::Outbox::default();
        let ids: Vec<_> = ids.collect();
        for chunk in ids.chunks(per_transaction) {
            let rows: Vec<_> = chunk.iter().map(|id| order(*id)).collect();
            let tx = client.transaction().await?;
            outbox.append_all(&tx, &rows).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

impl Drop for Pipeline<'_> {
    /// Gives the slot back: a server has only so many, and each keeps its log.
    /// What fails here is forgotten when the stack is next brought up.
    fn drop(&mut self) {
        const MOMENT: Duration = Duration::from_secs(10);
        let (url, slot) = (self.postgres_url.clone(), self.name.clone());
        // A thread of its own, as the test's runtime cannot be waited on here.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(MOMENT, drop_slot(&url, &slot)).await? })
        });
        dropping.join().ok();
    }
}

async fn drop_slot(url: &str, slot: &str) -> Result<()> {
    const HOLDER: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                          WHERE slot_name = $1 AND active";
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                        WHERE slot_name = $1";
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.execute(HOLDER, &[&slot]).await?;
    eventually(PATIENCE, async || Ok(client.execute(DROP, &[&slot]).await?)).await?;
    Ok(())
}

/// An event whose id follows from `id`.
#[must_use]
pub fn order(id: u64) -> Envelope {
    let payload = format!(r#"{{"n": {id}, "total": "{id}.0001"}}"#);
    Envelope {
        id: identity::derived_event_id("order", &id.to_string()),
        aggregate_type: "order".to_owned(),
        aggregate_id: (id % 10).to_string(),
        event_type: "order_placed".to_owned(),
        // Written just above.
        payload: serde_json::value::RawValue::from_string(payload).ok(),
        occurred_at: None,
        schema_version: 1,
        traceparent: None,
    }
}

/// # Errors
/// When the command failed; says what it said.
pub fn succeeded(output: &Output) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}", output.status);
    Ok(())
}
