//! Looking at everything while the run goes on: what must hold at any moment, how
//! far the rows are, and how much memory the programs take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use outpour_schemas::Lsn;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    metadata::MetadataTopic,
};
use tokio::{task::spawn_blocking, time::sleep};
use uuid::Uuid;

use super::{
    crew::Memory,
    event::{Fate, KINDS},
    follower::{self, Follower},
    report::Violation,
    tables,
    world::{GROUP, World},
    writers::Books,
};

/// How many rows were in the tables at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) rows: u64,
    /// How many there had to be one day, by what had been committed then.
    pub(super) due: u64,
}

#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) samples: Vec<Sample>,
    pub(super) memory: Vec<Memory>,
    violations: Vec<Violation>,
}

/// Shared by all that look.
#[derive(Debug, Default, Clone)]
pub(super) struct Watch {
    watched: Arc<Mutex<Watched>>,
}

impl Watch {
    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self, what: String, event: Option<Uuid>) {
        let mut watched = self.watched();
        // One that goes on is told once.
        if watched.violations.iter().all(|known| known.what != what) {
            eprintln!("{:<10} {what}", "violation");
            watched.violations.push(Violation { what, event });
        }
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.watched().violations.clone()
    }

    /// Counts rows, again and again. ClickHouse may be away.
    pub(super) async fn rows(&self, world: &World, books: &Books) {
        const GAP: Duration = Duration::from_millis(250);
        let client = world.client();
        loop {
            let due = books.stored();
            let at = Instant::now();
            let mut rows = 0;
            let mut answered = true;
            for kind in KINDS {
                match tables::count(&client, kind, "1").await {
                    Ok(count) => {
                        rows += count.rows;
                        if count.rows > count.events {
                            self.report(format!("I5: {kind} has rows twice"), None);
                        }
                    }
                    Err(_) => answered = false,
                }
            }
            if answered {
                self.watched().samples.push(Sample { at, rows, due });
            }
            self.watched().memory.extend(world.crew.memory());
            sleep(GAP).await;
        }
    }

    /// I7: whatever the slot has left behind is in Kafka.
    pub(super) async fn slot(&self, world: &World, books: &Books, follower: &Follower) {
        const GAP: Duration = Duration::from_secs(1);
        /// For a reader to come to what Kafka has committed, brokers that are away
        /// and transactions of dead relays included.
        const PATIENCE: Duration = Duration::from_secs(60);
        const CONFIRMED: &str = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'outpour'";
        let mut due: HashMap<Uuid, Instant> = HashMap::new();
        loop {
            sleep(GAP).await;
            let asked = async {
                let client = world.connect().await?;
                let lsn: Option<String> = client.query_one(CONFIRMED, &[]).await?.get(0);
                anyhow::Ok(lsn.context("no slot")?.parse::<Lsn>()?)
            };
            let Ok(Ok(confirmed)) = tokio::time::timeout(GAP * 3, asked).await else { continue };
            let now = Instant::now();
            due.extend(books.left_behind(confirmed).into_iter().map(|id| (id, now)));
            {
                let seen = follower.seen();
                due.retain(|id, _| !seen.is_published(id));
            }
            let missing = due.iter().find(|(_, since)| since.elapsed() > PATIENCE);
            let Some((&id, _)) = missing else { continue };
            let brokers = world.stack.kafka.url().to_owned();
            let looked = spawn_blocking(move || follower::is_published_now(&brokers, id)).await;
            match looked {
                Ok(Ok(true)) => drop(due.remove(&id)),
                Ok(Ok(false)) => {
                    let what = format!(
                        "I7: the slot has passed {confirmed}, and an event before it is not in Kafka"
                    );
                    self.report(what, Some(id));
                    due.clear();
                }
                // Kafka is away.
                _ => {}
            }
        }
    }

    /// I6: whatever the group has left behind is stored.
    pub(super) async fn group(&self, world: &World, books: &Books, follower: &Follower) {
        const GAP: Duration = Duration::from_secs(2);
        let mut kept = Kept::default();
        loop {
            sleep(GAP).await;
            let brokers = world.stack.kafka.url().to_owned();
            let asking = spawn_blocking(move || committed(&brokers)).await;
            let Ok(Ok(committed)) = asking else { continue };
            kept.take(follower, books);
            for ((kind, partition), offset) in committed {
                let Some(expected) = kept.below(follower, kind, partition, offset) else {
                    continue;
                };
                let condition = format!("_partition = {partition} AND _offset < {offset}");
                let Ok(count) = tables::count(&world.client(), kind, &condition).await else {
                    continue;
                };
                if count.events < expected {
                    let what = format!(
                        "I6: the group has committed {offset} of {kind}/{partition}, before which {expected} rows belong and {} are",
                        count.events
                    );
                    self.report(what, None);
                }
            }
        }
    }
}

/// Offsets that have to become rows, by topic and partition.
#[derive(Default)]
struct Kept {
    offsets: HashMap<(Arc<str>, i32), Vec<i64>>,
    taken: usize,
}

impl Kept {
    fn take(&mut self, follower: &Follower, books: &Books) {
        let seen = follower.seen();
        for record in &seen.records[self.taken..] {
            if matches!(books.fate(&record.id), Some(Fate::Stored | Fate::Bulky)) {
                let log = (record.place.topic.clone(), record.place.partition);
                self.offsets.entry(log).or_default().push(record.place.offset);
            }
        }
        self.taken = seen.records.len();
    }

    /// How many there are below `offset`; `None` while they are not all known.
    fn below(&self, follower: &Follower, kind: &str, partition: i32, offset: i64) -> Option<u64> {
        let topic: Arc<str> = Arc::from(format!("outbox.event.{kind}"));
        let log = (topic, partition);
        let offsets = self.offsets.get(&log)?;
        // What was read after they were taken is not among them, and a marker may
        // be what stands just below.
        let is_known = follower.seen().positions.get(&log).is_some_and(|read| *read >= offset)
            || offsets.last().is_some_and(|last| *last + 1 >= offset);
        is_known.then(|| offsets.partition_point(|known| *known < offset) as u64)
    }
}

/// The group's offsets, by aggregate type and partition. Blocks.
fn committed(brokers: &str) -> Result<HashMap<(&'static str, i32), i64>> {
    const REQUEST: Duration = Duration::from_secs(3);
    let client: BaseConsumer = ClientConfig::new()
        .set_log_level(RDKafkaLogLevel::Emerg)
        .set("bootstrap.servers", brokers)
        .set("group.id", GROUP)
        .create()?;
    let mut asked = TopicPartitionList::new();
    for kind in KINDS {
        let topic = format!("outbox.event.{kind}");
        let metadata = client.fetch_metadata(Some(&topic), REQUEST)?;
        for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
            asked.add_partition(&topic, partition.id());
        }
    }
    let answered = client.committed_offsets(asked, REQUEST)?;
    let mut committed = HashMap::new();
    for element in answered.elements() {
        let kind = KINDS.into_iter().find(|kind| element.topic().ends_with(kind));
        let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
        if let (Some(kind), Some(offset)) = (kind, offset) {
            committed.insert((kind, element.partition()), offset);
        }
    }
    Ok(committed)
}
