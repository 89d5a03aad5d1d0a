//! The rows that every case works on: an outbox full of them, and slots that
//! stand before the first.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use outpour_schemas::Lsn;
use tokio_postgres::{Client, NoTls};

use super::Options;
use crate::{place::Place, program::Binary, stack::Stack};

/// Keys of the rows, spread evenly.
pub(super) const KEYS: u64 = 1000;
pub(super) const PUBLICATION: &str = "outpour";

pub(super) struct Backlog {
    pub(super) rows: u64,
    /// The log between which all rows are.
    pub(super) from: Lsn,
    pub(super) to: Lsn,
}

/// `rows` rows of an order each, in transactions of `per_transaction`.
const FEED: &str = "
CREATE OR REPLACE PROCEDURE bench_feed(n bigint, per_transaction bigint) LANGUAGE plpgsql AS $$
DECLARE i bigint := 0;
BEGIN
    WHILE i < n LOOP
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
        SELECT gen_random_uuid(), 'order', (k % 1000)::text, 'order_placed',
               jsonb_build_object('order_id', k, 'customer', 'customer-' || k % 1000,
                   'total', (k % 100000) / 100.0, 'currency', 'EUR', 'items', k % 7,
                   'note', md5(k::text))
        FROM generate_series(i, least(i + per_transaction, n) - 1) k;
        COMMIT;
        i := i + per_transaction;
    END LOOP;
END $$";

pub(super) async fn connect(stack: &Stack) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(stack.postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Backlog {
    pub(super) async fn write(
        stack: &Stack,
        place: &Place,
        options: Options,
        slots: &[String],
    ) -> Result<Self> {
        std::fs::write(place.config(), config(stack, "floor", ""))?;
        let output = Binary::Relay.output(&place.config(), &["init"]).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let client = connect(stack).await?;
        for slot in slots.iter().filter(|slot| *slot != "floor") {
            create_slot(&client, slot).await?;
        }
        client.batch_execute(FEED).await?;
        // How the rows came to be is not what is measured.
        client.batch_execute("SET synchronous_commit = off").await?;
        let began = Instant::now();
        let from = end_of_log(&client).await?;
        let (rows, each) = (options.rows, options.per_transaction);
        client.batch_execute(&format!("CALL bench_feed({rows}, {each})")).await?;
        let to = end_of_log(&client).await?;
        // Else it would begin by itself amid a case, which would pay for it.
        client.batch_execute("VACUUM (FREEZE, ANALYZE) outbox").await?;
        client.batch_execute("CHECKPOINT").await?;
        // One more row: of log without events in it a relay that has caught up
        // takes note only now and then.
        client.batch_execute("CALL bench_feed(1, 1)").await?;
        eprintln!(
            "{:<10} {rows} rows, {each} a transaction, written in {:.1} s",
            "bench",
            began.elapsed().as_secs_f64()
        );
        Ok(Self { rows, from, to })
    }
}

pub(super) async fn create_slot(client: &Client, slot: &str) -> Result<()> {
    client
        .execute("SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')", &[&slot])
        .await
        .with_context(|| format!("cannot create slot {slot}"))?;
    Ok(())
}

/// A slot that is done with keeps the log from being removed.
pub(super) async fn drop_slot(client: &Client, slot: &str) -> Result<()> {
    client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await?;
    Ok(())
}

async fn end_of_log(client: &Client) -> Result<Lsn> {
    let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
    Ok(row.get::<_, String>(0).parse()?)
}

/// A configuration with a slot and topics of the case's own.
pub(super) fn config(stack: &Stack, slot: &str, relay: &str) -> String {
    let (postgres, kafka) = (stack.postgres.url(), stack.kafka.url());
    format!(
        "[postgres]\nurl = \"{postgres}\"\n[kafka]\nbrokers = \"{kafka}\"\n\
         [relay]\ntopic_partitions = 6\ntopic_replication_factor = 1\nsnapshot = \"never\"\nslot = \"{slot}\"\npublication = \"{PUBLICATION}\"\n\
         route_topic_replacement = \"{slot}.${{routedByValue}}\"\n{relay}\n"
    )
}
