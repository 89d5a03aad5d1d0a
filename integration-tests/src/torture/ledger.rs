//! What was committed, by the database's own word: a table that is written in the
//! same transactions as the events, and that no part of Outpour reads.

use std::collections::HashMap;

use anyhow::{Context, Result};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::event::{Event, Fate, KINDS, Values};

/// A key's row orders the transactions that write it: whoever updates it holds
/// it until the commit.
const TABLES: &str = "
    CREATE TABLE key (kind text, key text, seq bigint NOT NULL, PRIMARY KEY (kind, key));
    CREATE TABLE ledger (
        id uuid PRIMARY KEY, kind text NOT NULL, key text NOT NULL, seq bigint NOT NULL,
        fate text NOT NULL, expected text NOT NULL);
    CREATE TABLE other_work (done int NOT NULL);
    INSERT INTO other_work VALUES (0)";

pub(super) async fn create(client: &Client) -> Result<()> {
    Ok(client.batch_execute(TABLES).await?)
}

/// A commit that no relay has anything to do with.
pub(super) async fn other_work(client: &Client) -> Result<()> {
    client.batch_execute("UPDATE other_work SET done = done + 1").await?;
    Ok(())
}

/// Takes the next `count` numbers of a key; returns the last one. Other writers
/// of the key wait until this transaction has ended.
pub(super) async fn take_numbers(
    tx: &Transaction<'_>,
    kind: &str,
    key: &str,
    count: i64,
) -> Result<i64> {
    const TAKE: &str = "INSERT INTO key VALUES ($1, $2, $3)
                        ON CONFLICT (kind, key) DO UPDATE SET seq = key.seq + $3 RETURNING seq";
    Ok(tx.query_one(TAKE, &[&kind, &key, &count]).await?.get(0))
}

pub(super) async fn note(tx: &Transaction<'_>, events: &[Event]) -> Result<()> {
    const NOTE: &str = "INSERT INTO ledger
                        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[],
                                             $5::text[], $6::text[])";
    let texts =
        |of: fn(&Event) -> Result<String>| events.iter().map(of).collect::<Result<Vec<_>>>();
    let ids: Vec<_> = events.iter().map(|event| event.envelope.id).collect();
    let kinds = texts(|event| Ok(event.kind.to_owned()))?;
    let keys = texts(|event| Ok(event.key.clone()))?;
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    let fates = texts(|event| Ok(serde_json::to_string(&event.fate)?))?;
    let values = texts(|event| Ok(serde_json::to_string(&event.values)?))?;
    tx.execute(NOTE, &[&ids, &kinds, &keys, &seqs, &fates, &values]).await?;
    Ok(())
}

/// One committed event.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) seq: i64,
    pub(super) fate: Fate,
    pub(super) values: Values,
}

/// Everything that was committed.
pub(super) async fn read(client: &Client) -> Result<HashMap<Uuid, Entry>> {
    let rows = client.query("SELECT id, kind, key, seq, fate, expected FROM ledger", &[]).await?;
    rows.iter()
        .map(|row| {
            let kind: &str = row.get(1);
            let entry = Entry {
                kind: KINDS.into_iter().find(|known| *known == kind).context("unknown kind")?,
                key: row.get(2),
                seq: row.get(3),
                fate: serde_json::from_str(row.get(4))?,
                values: serde_json::from_str(row.get(5))?,
            };
            Ok((row.get(0), entry))
        })
        .collect()
}
