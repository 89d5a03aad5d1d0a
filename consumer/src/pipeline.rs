//! Kafka → ClickHouse, from joining the group to leaving it.
//!
//! ```text
//!   Kafka ─poll─▶ RecordView ─▶ Batch ─seal─▶ Writer ─▶ plan and park, insert ─▶ ClickHouse
//!   source/       decode/       batch/        writer/    plan.rs dead_letter.rs  sink/
//! ```
//!
//! One thread polls, decodes and encodes; a task for each partition writes.
//! When anything is in doubt the session is given up and started over from the
//! committed plans, which is always right. What concerns a partition alone has that
//! one start over, in the same way; what concerns a table, those that write to it.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use outpour_schemas::{
    config::{Config, GroupProtocol},
    kafka::{Heard, client_config},
    program::error_line,
};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    assignment::{Assignment, Broken, Flow},
    batch::Limits,
    budget::Budget,
    dead_letter::KafkaDeadLetters,
    error::ConsumerError,
    health::{self, Monitor},
    replay::Terms,
    sink::ClickHouse,
    source::{
        TopicPartition, Topics,
        kafka::{self, GroupConsumer, GroupOffsets, Owner},
        member::Member,
        tail::Tail,
        topics::{TopicList, warn_of},
        verdict::{judge, kafka_error},
    },
    tables,
    writer::{ASKING, Edges, Refused},
};

type Owned = Assignment<ClickHouse, KafkaDeadLetters, GroupOffsets>;

/// Runs until `stop` is cancelled. A session that breaks for a reason that can
/// pass is followed by another.
///
/// # Errors
/// At the first start, for whatever keeps it from working; later only for what
/// does not pass by itself.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<(), ConsumerError> {
    run_on(config, None, stop).await
}

/// The same for a replay, whose group has a frame for each partition. It goes on
/// until it is stopped, also when every partition has come to its end.
pub(crate) async fn run_on(
    config: &Config,
    terms: Option<Arc<Terms>>,
    stop: CancellationToken,
) -> Result<(), ConsumerError> {
    /// A session that has lasted this long was a working one.
    const STEADY: Duration = Duration::from_secs(30);
    /// Up to twice as long. What is waited for has rows again soon after it is back.
    const MAX_DELAY: Duration = Duration::from_secs(1);
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_DELAY)
        .with_jitter()
        .without_max_times();
    let mut delays = backoff.build();
    let monitor = Arc::new(Monitor::new(config.consumer.stall_after.0));
    let _shown = health::show(config, &monitor).await?;
    let refused = Arc::default();
    // Beyond a session, so that the server that works is kept.
    let clickhouse = ClickHouse::new(&config.clickhouse)?;
    // A replay leaves nothing behind that somebody would wait for.
    let member = match terms {
        None => Member::of(&config.consumer),
        Some(_) => Member::default(),
    };
    let mut has_started = false;
    loop {
        let started_at = Instant::now();
        let lasting = Lasting {
            clickhouse: &clickhouse,
            monitor: &monitor,
            refused: &refused,
            terms: &terms,
            member: &member,
        };
        let error = match session(config, lasting, &stop, &mut has_started).await {
            Ok(()) => return Ok(()),
            Err(error) if has_started && error.is_transient() => error,
            Err(error) => return Err(error),
        };
        if started_at.elapsed() >= STEADY {
            delays = backoff.build();
        }
        monitor.failed(&error);
        if let ConsumerError::NameTaken = error {
            member.give_up(&config.consumer.group);
        }
        let delay = delays.next().unwrap_or(MAX_DELAY);
        tracing::warn!(
            error = error_line(&error),
            retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "consuming interrupted; starting over from the committed plans"
        );
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// What outlasts a session.
struct Lasting<'a> {
    clickhouse: &'a ClickHouse,
    monitor: &'a Arc<Monitor>,
    refused: &'a Arc<Refused>,
    terms: &'a Option<Arc<Terms>>,
    member: &'a Member,
}

async fn session(
    config: &Config,
    Lasting { clickhouse, monitor, refused, terms, member }: Lasting<'_>,
    stop: &CancellationToken,
    has_started: &mut bool,
) -> Result<(), ConsumerError> {
    let found = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        found = tables::find(config, clickhouse) => found?,
    };
    let routes = tables::join(config, &found);
    // Later on, somebody may be about to mend them.
    let routes = if *has_started { routes } else { routes.or_refuse()? };
    let client = client_config(&config.kafka)?;
    let heard = Heard::default();
    let (list, topics, cluster) = reach_kafka(config, &client, &heard).await?;
    let missing = topics.missing.iter();
    let is_none_there = !*has_started && topics.found.is_empty();
    if let Some(topic) = missing.clone().min().filter(|_| is_none_there).cloned() {
        return Err(ConsumerError::NoTopic { topic, brokers: config.kafka.brokers.clone() });
    }
    missing.for_each(|topic| warn_of(topic));
    *has_started = true;
    let failed = |source| kafka_error(config, "joining the group", source);
    let offsets = GroupOffsets::default();
    let name = member.name();
    let letters = KafkaDeadLetters::connect(
        &config.consumer,
        &client,
        name.as_deref(),
        heard.clone(),
        offsets.clone(),
    );
    let edges = Edges {
        sink: clickhouse.clone(),
        dead_letters: letters.map_err(failed)?,
        offsets: offsets.clone(),
        monitor: Arc::clone(monitor),
        refused: Arc::clone(refused),
        asking: Semaphore::new(ASKING),
        cluster,
        owner: format!("{}/{}", config.consumer.client_id, std::process::id()),
    };
    let work = Assignment::new(
        Handle::current(),
        edges,
        routes,
        &config.consumer.environment,
        Limits::from(&config.batch),
        Budget::of(config.consumer.memory),
    );
    // An epoch says nothing of single partitions.
    let has_generations = config.consumer.group_protocol == GroupProtocol::Classic;
    let work = work.replaying(terms.clone()).sharing_inserts(has_generations);
    let work = Arc::new(work);
    let owner: Arc<dyn Owner> = Arc::clone(&work) as Arc<dyn Owner>;
    let consumer = kafka::connect(config, &client, name.as_deref(), owner, heard);
    let consumer = Arc::new(consumer.map_err(failed)?);
    kafka::subscribe(&consumer, &topics.found).map_err(failed)?;
    if offsets.consumer.set(Arc::downgrade(&consumer)).is_err() {
        debug_assert!(false, "a session joins once");
    }
    let _watch = watch_tables(config, clickhouse.clone(), found, &work);
    monitor.joined();
    monitor.reads(&topics);
    let group = &config.consumer.group;
    tracing::info!(group, topics = ?config.consumer.topics, found = topics.found.len(), "consumer started");
    follow_topics(config, list, topics, &consumer, (monitor, &work));
    let (config, stop) = (config.clone(), stop.clone());
    // Not the async executor's thread: the client's callbacks block in it.
    tokio::task::spawn_blocking(move || {
        let outcome = watch_tails(&config, &client, &work)
            .map_err(|source| kafka_error(&config, "connecting", source))
            .and_then(|quiet| poll(&config, &consumer, &work, &quiet, &stop));
        work.leave();
        leave(consumer, move |consumer| {
            // Another session follows one that broke, and is given what this one had.
            if let (Some(name), true) = (name, stop.is_cancelled()) {
                kafka::leave_for_good(consumer, &config.consumer.group, &name);
            }
        });
        outcome
    })
    .await
    .map_err(ConsumerError::Worker)?
}

/// A task that looks at the tables: now and then, and when a writer asks for it. Those
/// that have changed are joined with their routes anew, and what writes to them starts
/// over. Those that cannot be written to are told of.
fn watch_tables(
    config: &Config,
    clickhouse: ClickHouse,
    mut found: Vec<tables::Found>,
    work: &Arc<Owned>,
) -> AbortOnDropHandle<()> {
    /// How late a new column may be noticed.
    const EVERY: Duration = Duration::from_secs(10);
    let (config, work) = (config.clone(), Arc::clone(work));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            work.tell_of_held_back_tables();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = work.table_is_in_doubt() => {}
            }
            let now = tables::find(&config, &clickhouse).await;
            // ClickHouse is away: nothing is inserted either.
            let Ok(now) = now.inspect_err(|error| {
                tracing::debug!(error = error_line(error), "the tables cannot be looked at");
            }) else {
                continue;
            };
            let changed = tables::changed(&found, &now);
            let routes = (!changed.is_empty()).then(|| tables::join(&config, &now));
            work.tables_were_read(routes, &changed);
            found = now;
        }
    }))
}

/// Asks which Kafka this is, and which topics there are to read.
async fn reach_kafka(
    config: &Config,
    client: &ClientConfig,
    heard: &Heard,
) -> Result<(TopicList, Topics, String), ConsumerError> {
    let list = TopicList::connect(config, client, heard.clone())?;
    let ask = move || {
        let cluster = list.cluster()?;
        let topics = list.look()?;
        Ok((list, topics, cluster))
    };
    tokio::task::spawn_blocking(ask).await.map_err(ConsumerError::Worker)?
}

/// Reads topics that come to be from then on.
fn follow_topics(
    config: &Config,
    list: TopicList,
    topics: Topics,
    consumer: &Arc<GroupConsumer>,
    (monitor, work): (&Arc<Monitor>, &Arc<Owned>),
) {
    let (config, monitor, work) = (config.clone(), Arc::clone(monitor), Arc::clone(work));
    list.follow(Arc::downgrade(consumer), topics, move |seen| match seen {
        Ok(topics) => monitor.reads(topics),
        Err(source) => work.start_over(kafka_error(&config, "subscribing to topics", source)),
    });
}

/// A thread that looks where quiet partitions end. It ends with the sender.
fn watch_tails(
    config: &Config,
    client: &ClientConfig,
    work: &Arc<Owned>,
) -> Result<Quiet, KafkaError> {
    let tail = Tail::connect(&config.consumer, client)?;
    let work = Arc::clone(work);
    let (quiet, partitions) = mpsc::channel::<(TopicPartition, i64)>();
    thread::spawn(move || {
        for (partition, from) in partitions {
            match tail.empty_until(&partition, from) {
                Ok(Some(end)) => work.passed(&partition, from, end),
                Ok(None) => {}
                // It matters to nothing but what the lag looks like.
                Err(error) => {
                    tracing::debug!(%partition, %error, "end not found; looking again");
                    work.look_again(&partition, from, Instant::now());
                }
            }
        }
    });
    Ok(quiet)
}

type Quiet = mpsc::Sender<(TopicPartition, i64)>;

/// Polls until told to stop, or until the session has to be started over.
fn poll(
    config: &Config,
    consumer: &GroupConsumer,
    work: &Owned,
    quiet: &Quiet,
    stop: &CancellationToken,
) -> Result<(), ConsumerError> {
    /// Between looks at the clock of every partition.
    const TICK: Duration = Duration::from_millis(10);
    /// Memory mostly comes back soon: until then nothing is taken from the client,
    /// which loses nothing, where a pause would have it fetch anew. The group and
    /// its rebalances wait for the poll no longer than this.
    const HOLD: Duration = Duration::from_secs(1);
    let mut ticked_at = Instant::now();
    let mut caught_up_at = ticked_at;
    let mut over_since: Option<Instant> = None;
    while !stop.is_cancelled() {
        let is_held = over_since.is_some_and(|since| since.elapsed() < HOLD);
        let polled = if is_held {
            thread::sleep(TICK);
            None
        } else {
            consumer.poll(TICK)
        };
        let now = Instant::now();
        match polled {
            Some(Ok(message)) => {
                if let Some((partition, flow)) = work.record(&kafka::view(&message), now) {
                    set_flow(config, consumer, &partition, flow)?;
                }
            }
            Some(Err(error)) => judge(config, consumer, error)?,
            None if is_held => {}
            None => caught_up_at = now,
        }
        if now.duration_since(ticked_at) >= TICK {
            ticked_at = now;
            let tick = work.tick(now, caught_up_at);
            let mut flows = tick.flows;
            over_since = tick.is_over.then(|| over_since.unwrap_or(now));
            if over_since.is_some_and(|since| now.duration_since(since) >= HOLD) {
                flows.extend(work.brake());
            }
            for (partition, flow) in flows {
                set_flow(config, consumer, &partition, flow)?;
            }
            for partition in work.quiet(now) {
                // The watcher lives as long as this sender.
                quiet.send(partition).ok();
            }
            if consumer.context().has_lost_a_leader() {
                let lost = KafkaError::MessageConsumption(RDKafkaErrorCode::LeaderNotAvailable);
                return Err(kafka_error(config, "following a partition's leader", lost));
            }
            while let Some(broken) = work.broken() {
                match broken {
                    Broken::Session(failure) => return Err(failure),
                    Broken::Partition(partition) => {
                        kafka::read_again(consumer, work, &partition)
                            .unwrap_or_else(|error| work.failed(error));
                    }
                }
            }
        }
    }
    Ok(())
}

fn set_flow(
    config: &Config,
    consumer: &GroupConsumer,
    partition: &TopicPartition,
    flow: Flow,
) -> Result<(), ConsumerError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(&partition.topic, partition.partition);
    let outcome = match flow {
        Flow::Pause => {
            tracing::info!(%partition, "partition paused until ClickHouse has taken a batch");
            consumer.pause(&list)
        }
        Flow::Resume => {
            tracing::info!(%partition, "partition resumed");
            consumer.resume(&list)
        }
        Flow::End => consumer.pause(&list),
    };
    outcome.map_err(|source| kafka_error(config, "pausing a partition", source))
}

/// Closes the client, after `farewell`. Both can hang while brokers are away, and the
/// group notices by itself, so that nobody waits for it long.
fn leave(consumer: Arc<GroupConsumer>, farewell: impl FnOnce(&GroupConsumer) + Send + 'static) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (left, has_left) = mpsc::channel();
    thread::spawn(move || {
        farewell(&consumer);
        drop(consumer);
        // Nobody listens any more when it took too long.
        left.send(()).ok();
    });
    if has_left.recv_timeout(PATIENCE).is_err() {
        tracing::warn!("leaving the group took too long; it will notice by the session time-out");
    }
}
