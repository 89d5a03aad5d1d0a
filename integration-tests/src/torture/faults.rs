//! Doing to processes, connections and tables what the schedule says.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    event::{KINDS, TINY_BYTES},
    schedule::{Entry, Fault},
    tables,
    world::World,
    writers::Books,
};
use crate::{proxy::Proxy, stack::Service};

/// A fault that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) fault: Fault,
    pub(super) began: Instant,
    pub(super) healed: Instant,
}

/// What several faults may not do at a time.
#[derive(Default)]
pub(super) struct Turns {
    /// Killing, pausing and restarting a service.
    services: Mutex<()>,
    /// Connections to each of them.
    ways: [Mutex<()>; 3],
    tables: Mutex<()>,
    /// One relay is taken over from while the other one is awake.
    relays: Mutex<()>,
    topics: Mutex<()>,
}

/// Does it, waits as long as it lasts, and undoes it. What of it must be waited
/// for because another one meets the same target comes later.
pub(super) async fn commit(
    world: &World,
    books: &Books,
    turns: &Turns,
    entry: Entry,
) -> Result<Done> {
    let Entry { fault, lasts, whom, .. } = entry;
    use Fault as F;
    let began = match fault {
        F::RelayKill | F::ConsumerKill => {
            let at = if fault == F::RelayKill { World::relay(whom) } else { World::consumer(whom) };
            let mut member = world.crew.member(at).await;
            let began = Instant::now();
            member.kill().await?;
            member.start()?;
            began
        }
        F::RelayKillInCommit => {
            let _way = turns.ways[1].lock().await;
            let mut member = world.crew.member(World::relay(whom)).await;
            let began = Instant::now();
            world.kafka.hold_back();
            sleep(lasts).await;
            let killed = member.kill().await;
            world.kafka.release();
            killed?;
            member.start()?;
            began
        }
        F::RelayPause | F::ConsumerPause => {
            let at =
                if fault == F::RelayPause { World::relay(whom) } else { World::consumer(whom) };
            let member = world.crew.member(at).await;
            let began = Instant::now();
            // One that has just ended by itself cannot be paused.
            if member.pause().is_ok() {
                sleep(lasts).await;
                member.resume()?;
            }
            began
        }
        F::RelayUsurped => {
            let _turn = turns.relays.lock().await;
            usurp(world, turns, lasts, whom).await?
        }
        F::StreamEnded => {
            let began = Instant::now();
            // It may be away altogether.
            end_stream(world).await.ok();
            began
        }
        F::Idle => {
            let began = Instant::now();
            books.set_idle(true);
            sleep(lasts).await;
            books.set_idle(false);
            began
        }
        F::RelayStop | F::ConsumerLeave => {
            let at = if fault == F::RelayStop { World::relay(whom) } else { World::consumer(whom) };
            let mut member = world.crew.member(at).await;
            let began = Instant::now();
            // With its services away it may have to be killed.
            member.stop().await.ok();
            sleep(lasts).await;
            member.start()?;
            began
        }
        F::ConsumerJoin => {
            let mut guest = world.crew.member(World::GUEST).await;
            let began = Instant::now();
            guest.start()?;
            sleep(lasts).await;
            guest.stop().await.ok();
            began
        }
        F::ConsumersKill => {
            let began = Instant::now();
            kill_consumers(world).await?;
            began
        }
        F::ConsumersKillAnswersLost | F::ConsumersKillRequestsLost => {
            let _way = turns.ways[1].lock().await;
            let began = Instant::now();
            match fault {
                F::ConsumersKillAnswersLost => world.kafka.hold_answers(),
                _ => world.kafka.hold_back(),
            }
            sleep(lasts).await;
            let killed = kill_consumers(world).await;
            world.kafka.cut();
            killed?;
            began
        }
        F::PostgresKill | F::PostgresRestart | F::PostgresPause => {
            service(turns, &world.stack.postgres, fault, lasts).await?
        }
        F::KafkaKill | F::KafkaRestart | F::KafkaPause => {
            service(turns, &world.stack.kafka, fault, lasts).await?
        }
        F::ClickHouseKill | F::ClickHouseRestart | F::ClickHousePause => {
            service(turns, &world.stack.clickhouse, fault, lasts).await?
        }
        F::PostgresCut | F::PostgresSlow | F::PostgresAnswersLost => {
            let _turn = turns.ways[0].lock().await;
            way(&world.postgres.iter().collect::<Vec<_>>(), fault, lasts).await
        }
        F::KafkaCut | F::KafkaSlow | F::KafkaAnswersLost | F::KafkaRequestsLost => {
            let _turn = turns.ways[1].lock().await;
            way(&[&world.kafka], fault, lasts).await
        }
        F::ClickHouseCut
        | F::ClickHouseSlow
        | F::ClickHouseAnswersLost
        | F::ClickHouseRequestsLate
        | F::MemoryLimit => {
            let _turn = turns.ways[2].lock().await;
            // That of one consumer, or of all.
            let ways: Vec<_> = match world.clickhouse.get(whom) {
                Some(one) => vec![one],
                None => world.clickhouse.iter().collect(),
            };
            way(&ways, fault, lasts).await
        }
        F::TooManyParts | F::ReadOnly | F::AddColumn => {
            let _turn = turns.tables.lock().await;
            alter(world, fault, lasts, whom).await?
        }
        F::AlteredCrash => {
            let (_tables, _ways) = (turns.tables.lock().await, turns.ways[2].lock().await);
            altered_crash(world, whom).await?
        }
        F::LateInsert => {
            let (_tables, _ways) = (turns.tables.lock().await, turns.ways[2].lock().await);
            late_insert(world, lasts, whom).await?
        }
        F::TinyRecords => {
            let _turn = turns.topics.lock().await;
            tiny_records(world, lasts, whom).await?
        }
    };
    Ok(Done { fault, began, healed: Instant::now() })
}

/// Those that run, all at once; they are started again.
async fn kill_consumers(world: &World) -> Result<()> {
    for mut member in world.crew.all().await.split_off(super::world::RELAYS) {
        let ran = member.id().is_some();
        member.kill().await?;
        if ran {
            member.start()?;
        }
    }
    Ok(())
}

/// A relay stands still with a Kafka transaction open and rows that it has not read,
/// and both wake with it when another one has taken over.
async fn usurp(world: &World, turns: &Turns, lasts: Duration, whom: usize) -> Result<Instant> {
    /// Long enough for rows to come, which wait for Kafka or for the relay.
    const ROWS: Duration = Duration::from_millis(300);
    let member = world.crew.member(World::relay(whom)).await;
    let began = Instant::now();
    // What is slow anyway keeps transactions open by itself.
    let way = turns.ways[1].try_lock();
    if way.is_ok() {
        world.kafka.hold_back();
        sleep(ROWS).await;
    }
    let is_paused = member.pause().is_ok();
    if way.is_ok() {
        world.kafka.release();
    }
    drop(way);
    if is_paused {
        sleep(ROWS).await;
        end_stream(world).await.ok();
        sleep(lasts).await;
        member.resume()?;
    }
    Ok(began)
}

async fn service(
    turns: &Turns,
    service: &Service,
    fault: Fault,
    lasts: Duration,
) -> Result<Instant> {
    use Fault as F;
    let _turn = turns.services.lock().await;
    let began = Instant::now();
    match fault {
        F::PostgresPause | F::KafkaPause | F::ClickHousePause => {
            service.pause().await?;
            sleep(lasts).await;
            service.resume().await?;
        }
        F::PostgresKill | F::KafkaKill | F::ClickHouseKill => {
            service.kill().await?;
            sleep(lasts).await;
            service.start().await?;
        }
        _ => service.restart().await?,
    }
    Ok(began)
}

async fn way(ways: &[&Proxy], fault: Fault, lasts: Duration) -> Instant {
    use Fault as F;
    const LATE_BY: Duration = Duration::from_millis(40);
    let began = Instant::now();
    match fault {
        F::PostgresSlow | F::KafkaSlow | F::ClickHouseSlow => {
            ways.iter().for_each(|way| way.slow_down(LATE_BY));
            sleep(lasts).await;
            ways.iter().for_each(|way| way.release());
        }
        F::PostgresAnswersLost | F::KafkaAnswersLost | F::ClickHouseAnswersLost => {
            ways.iter().for_each(|way| way.hold_answers());
            sleep(lasts).await;
            ways.iter().for_each(|way| way.cut());
        }
        F::KafkaRequestsLost => {
            ways.iter().for_each(|way| way.hold_back());
            sleep(lasts).await;
            ways.iter().for_each(|way| way.cut());
        }
        F::ClickHouseRequestsLate => {
            ways.iter().for_each(|way| way.hold_back());
            sleep(lasts).await;
            ways.iter().for_each(|way| way.release());
        }
        F::MemoryLimit => {
            ways.iter().for_each(|way| way.answer_instead(OVER_THE_LIMIT));
            sleep(lasts).await;
            ways.iter().for_each(|way| way.cut());
        }
        _ => ways.iter().for_each(|way| way.cut()),
    }
    began
}

/// What ClickHouse says then. Its limit cannot be set while the embedded engine
/// runs, so these words come from the proxy.
const OVER_THE_LIMIT: &str = "HTTP/1.1 500 Internal Server Error\r\n\
    X-ClickHouse-Exception-Code: 241\r\nConnection: close\r\nContent-Length: 100\r\n\r\n\
    Code: 241. DB::Exception: (total) memory limit exceeded: would use 1.00 GiB. (MEMORY_LIMIT_EXCEEDED)\n";

async fn alter(world: &World, fault: Fault, lasts: Duration, whom: usize) -> Result<Instant> {
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

async fn altered_crash(world: &World, whom: usize) -> Result<Instant> {
    /// Long enough for a batch to be closed and inserted.
    const LANDING: Duration = Duration::from_millis(800);
    let began = Instant::now();
    world.clickhouse.iter().for_each(Proxy::hold_answers);
    sleep(LANDING).await;
    let mut consumers = world.crew.all().await.split_off(super::world::RELAYS);
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

async fn late_insert(world: &World, lasts: Duration, whom: usize) -> Result<Instant> {
    /// Long enough for a batch to be planned and sent.
    const SENDING: Duration = Duration::from_millis(800);
    let began = Instant::now();
    let consumer = world.crew.member(World::consumer(whom)).await;
    let way = &world.clickhouse[World::consumer(whom) - super::world::RELAYS];
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

/// Ends the session in which a relay reads the slot.
async fn end_stream(world: &World) -> Result<()> {
    const ONE_TRY: Duration = Duration::from_secs(3);
    const END: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                       WHERE slot_name = 'outpour' AND active";
    let ending = async {
        world.connect().await?.execute(END, &[]).await?;
        anyhow::Ok(())
    };
    timeout(ONE_TRY, ending).await?
}

async fn tiny_records(world: &World, lasts: Duration, whom: usize) -> Result<Instant> {
    let topic = format!("outbox.event.{}", KINDS[whom % KINDS.len()]);
    let began = Instant::now();
    largest_record(world, &topic, TINY_BYTES).await?;
    sleep(lasts).await;
    largest_record(world, &topic, 1_048_588).await?;
    Ok(began)
}

async fn largest_record(world: &World, topic: &str, bytes: u32) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const ONE_TRY: Duration = Duration::from_secs(5);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.stack.kafka.url()).create()?;
    let bytes = bytes.to_string();
    crate::eventually(PATIENCE, async || {
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let options = AdminOptions::new().request_timeout(Some(ONE_TRY));
        for result in admin.alter_configs([&change], &options).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    })
    .await
}
