//! What is done to a table, and to who writes to it meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{sleep, timeout};

use crate::{
    proxy::Proxy,
    torture::{
        event::KINDS,
        schedule::Fault,
        tables,
        world::{RELAYS, World},
    },
};

pub(super) async fn alter(
    world: &World,
    fault: Fault,
    lasts: Duration,
    whom: usize,
) -> Result<Instant> {
    let table = tables::table(KINDS[whom % KINDS.len()]);
    let (alter, undo) = match fault {
        Fault::ReadOnly => ("MODIFY SETTING table_readonly = 1", "RESET SETTING table_readonly"),
        Fault::TooManyParts => (
            "MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1, \
             max_delay_to_insert = 1",
            "RESET SETTING parts_to_throw_insert, parts_to_delay_insert, max_delay_to_insert",
        ),
        _ => {
            let began = Instant::now();
            add_column(world, &table).await?;
            return Ok(began);
        }
    };
    let began = Instant::now();
    sql(world, &format!("ALTER TABLE {table} {alter}")).await?;
    sleep(lasts).await;
    sql(world, &format!("ALTER TABLE {table} {undo}")).await?;
    Ok(began)
}

/// Waits for ClickHouse, should it be away.
async fn sql(world: &World, sql: &str) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const ONE_TRY: Duration = Duration::from_secs(5);
    crate::eventually(PATIENCE, async || {
        Ok(timeout(ONE_TRY, world.client().query(sql).execute()).await??)
    })
    .await
}

async fn add_column(world: &World, table: &str) -> Result<()> {
    let name = format!("added_{}", uuid::Uuid::now_v7().simple());
    let add = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} UInt8 DEFAULT 7");
    sql(world, &add).await
}

pub(super) async fn altered_crash(world: &World, whom: usize) -> Result<Instant> {
    /// Long enough for a batch to be closed and inserted.
    const LANDING: Duration = Duration::from_millis(800);
    let began = Instant::now();
    world.clickhouse.iter().for_each(Proxy::hold_answers);
    sleep(LANDING).await;
    let mut consumers = world.crew.all().await.split_off(RELAYS);
    let mut ran = Vec::new();
    for member in &mut consumers {
        ran.push(member.id().is_some());
        member.kill().await?;
    }
    let altered = add_column(world, &tables::table(KINDS[whom % KINDS.len()])).await;
    world.clickhouse.iter().for_each(Proxy::cut);
    for (member, ran) in consumers.iter_mut().zip(ran) {
        if ran {
            member.start()?;
        }
    }
    altered?;
    Ok(began)
}

pub(super) async fn late_insert(world: &World, lasts: Duration, whom: usize) -> Result<Instant> {
    /// Long enough for a batch to be planned and sent.
    const SENDING: Duration = Duration::from_millis(800);
    let began = Instant::now();
    let consumer = world.crew.member(World::consumer(whom)).await;
    let way = &world.clickhouse[World::consumer(whom) - RELAYS];
    way.hold_back();
    sleep(SENDING).await;
    let is_paused = consumer.pause().is_ok();
    let altered = add_column(world, &tables::table(KINDS[whom % KINDS.len()])).await;
    sleep(lasts).await;
    way.release();
    if is_paused {
        sleep(SENDING).await;
        consumer.resume()?;
    }
    altered?;
    Ok(began)
}
