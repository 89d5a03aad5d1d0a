//! Doing to processes, connections and tables what the schedule says.

mod processes;
mod tables;
mod topics;

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{sync::Mutex, time::sleep};

use super::{
    schedule::{Entry, Fault},
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
    to_postgres: Mutex<()>,
    to_kafka: Mutex<()>,
    to_clickhouse: Mutex<()>,
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
        F::RelayKillInCommit => processes::kill_in_commit(world, turns, lasts, whom).await?,
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
            processes::usurp(world, turns, lasts, whom).await?
        }
        F::StreamEnded => {
            let began = Instant::now();
            // It may be away altogether.
            processes::end_stream(world).await.ok();
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
            processes::kill_consumers(world).await?;
            began
        }
        F::ConsumersKillAnswersLost | F::ConsumersKillRequestsLost => {
            processes::kill_all_in_commit(world, turns, fault, lasts).await?
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
            let _turn = turns.to_postgres.lock().await;
            way(&world.postgres.iter().collect::<Vec<_>>(), fault, lasts).await
        }
        F::KafkaCut | F::KafkaSlow | F::KafkaAnswersLost | F::KafkaRequestsLost => {
            let _turn = turns.to_kafka.lock().await;
            way(&[&world.kafka], fault, lasts).await
        }
        F::ClickHouseCut
        | F::ClickHouseSlow
        | F::ClickHouseAnswersLost
        | F::ClickHouseRequestsLate
        | F::MemoryLimit => {
            let _turn = turns.to_clickhouse.lock().await;
            // That of one consumer, or of all.
            let ways: Vec<_> = match world.clickhouse.get(whom) {
                Some(one) => vec![one],
                None => world.clickhouse.iter().collect(),
            };
            way(&ways, fault, lasts).await
        }
        F::TooManyParts | F::ReadOnly | F::AddColumn => {
            let _turn = turns.tables.lock().await;
            tables::alter(world, fault, lasts, whom).await?
        }
        F::AlteredCrash => {
            let (_tables, _ways) = (turns.tables.lock().await, turns.to_clickhouse.lock().await);
            tables::altered_crash(world, whom).await?
        }
        F::LateInsert => {
            let (_tables, _ways) = (turns.tables.lock().await, turns.to_clickhouse.lock().await);
            tables::late_insert(world, lasts, whom).await?
        }
        F::TinyRecords => {
            let _turn = turns.topics.lock().await;
            topics::tiny_records(world, lasts, whom).await?
        }
    };
    Ok(Done { fault, began, healed: Instant::now() })
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
