//! What is done to several processes, or to one at a certain moment.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{sleep, timeout};

use super::Turns;
use crate::torture::{
    schedule::Fault,
    world::{RELAYS, World},
};

/// Those that run, all at once; they are started again.
pub(super) async fn kill_consumers(world: &World) -> Result<()> {
    for mut member in world.crew.all().await.split_off(RELAYS) {
        let ran = member.id().is_some();
        member.kill().await?;
        if ran {
            member.start()?;
        }
    }
    Ok(())
}

/// A relay is killed while Kafka gets nothing from it; what it has sent arrives then.
pub(super) async fn kill_in_commit(
    world: &World,
    turns: &Turns,
    lasts: Duration,
    whom: usize,
) -> Result<Instant> {
    let _way = turns.to_kafka.lock().await;
    let mut member = world.crew.member(World::relay(whom)).await;
    let began = Instant::now();
    world.kafka.hold_back();
    sleep(lasts).await;
    let killed = member.kill().await;
    world.kafka.release();
    killed?;
    member.start()?;
    Ok(began)
}

/// All consumers are killed while Kafka does not answer, or gets nothing from them.
pub(super) async fn kill_all_in_commit(
    world: &World,
    turns: &Turns,
    fault: Fault,
    lasts: Duration,
) -> Result<Instant> {
    let _way = turns.to_kafka.lock().await;
    let began = Instant::now();
    match fault {
        Fault::ConsumersKillAnswersLost => world.kafka.hold_answers(),
        _ => world.kafka.hold_back(),
    }
    sleep(lasts).await;
    let killed = kill_consumers(world).await;
    world.kafka.cut();
    killed?;
    Ok(began)
}

/// A relay stands still with a Kafka transaction open and rows that it has not read,
/// and both wake with it when another one has taken over.
pub(super) async fn usurp(
    world: &World,
    turns: &Turns,
    lasts: Duration,
    whom: usize,
) -> Result<Instant> {
    /// Long enough for rows to come, which wait for Kafka or for the relay.
    const ROWS: Duration = Duration::from_millis(300);
    let member = world.crew.member(World::relay(whom)).await;
    let began = Instant::now();
    // What is slow anyway keeps transactions open by itself.
    let way = turns.to_kafka.try_lock();
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

/// Ends the session in which a relay reads the slot.
pub(super) async fn end_stream(world: &World) -> Result<()> {
    const ONE_TRY: Duration = Duration::from_secs(3);
    const END: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                       WHERE slot_name = 'outpour' AND active";
    let ending = async {
        world.connect().await?.execute(END, &[]).await?;
        anyhow::Ok(())
    };
    timeout(ONE_TRY, ending).await?
}
