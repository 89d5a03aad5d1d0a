//! The group's consumer: what is polled, and what happens when partitions come
//! and go.
//!
//! What is taken away is given up, its writer joined, before the group moves on:
//! everything with the classic protocol, single partitions with the newer one.
//! librdkafka stamps a commit with the generation at which it is *sent*, so a
//! commit still in flight when a partition is given up could pass under the next
//! generation.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use outpour_schemas::{
    config::Config,
    kafka::Heard,
    mutants::{self, Mutant},
};
use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{
        BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata,
        RebalanceProtocol,
    },
    error::{KafkaError, RDKafkaErrorCode},
    groups::GroupInfo,
    message::{BorrowedMessage, Headers, Message},
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};
use smallvec::SmallVec;

use super::{RecordView, TopicPartition, settings::group_settings};
use crate::{
    frame::Frame,
    plan::{Plan, PlanError, STORED},
    writer::{Commit, Offsets},
};

/// Longest wait for an answer that a healthy cluster gives at once.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a partition is to be read from.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) partition: TopicPartition,
    /// The committed offset; 0 where there is none yet.
    pub(crate) offset: i64,
    /// The plan that stands in its metadata: its outcome is open.
    pub(crate) plan: Option<Plan>,
    /// Whether somebody else has committed the offset, or one shortly before it.
    pub(crate) was_moved: bool,
    /// What a replay is to do with the partition.
    pub(crate) frame: Option<Frame>,
}

impl Start {
    fn position(&self) -> Offset {
        match self.offset {
            0 if self.plan.is_none() => Offset::Beginning,
            offset => Offset::Offset(offset),
        }
    }
}

/// Who works on the partitions.
pub(crate) trait Owner: Send + Sync + 'static {
    fn assigned(&self, starts: Vec<Start>);
    /// A partition of its own is about to come from `start` on once more.
    fn starts_over(&self, start: Start);
    /// Returns only when nothing of these partitions is under way any more.
    fn revoked(&self, partitions: &[TopicPartition]);
    /// Records before `end` can be read, the last that were committed included.
    fn ends(&self, partition: TopicPartition, end: i64);
    /// The group cannot be worked in as things are.
    fn failed(&self, error: StartError);
}

/// The callbacks of the client. They run inside `poll`.
pub(crate) struct Context {
    owner: Arc<dyn Owner>,
    heard: Heard,
}

pub(crate) type GroupConsumer = BaseConsumer<Context>;

/// A client that is to be in the group as `name`, if it has one, with the callbacks going
/// to `owner` and `heard`. It joins once it has [subscribed](subscribe).
pub(crate) fn connect(
    config: &Config,
    client: &ClientConfig,
    name: Option<&str>,
    owner: Arc<dyn Owner>,
    heard: Heard,
) -> Result<GroupConsumer, KafkaError> {
    group_settings(config, client, name).create_with_context(Context { owner, heard })
}

/// Has the group deal out the partitions of these topics, in place of those before. With
/// none to read the group is not joined.
pub(crate) fn subscribe(
    client: &GroupConsumer,
    topics: &BTreeSet<String>,
) -> Result<(), KafkaError> {
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    if topics.is_empty() { Ok(()) } else { client.subscribe(&topics) }
}

impl Context {
    /// See [`Heard::has_lost_a_leader`].
    pub(crate) fn has_lost_a_leader(&self) -> bool {
        self.heard.has_lost_a_leader()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.note(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        for (name, topic) in statistics.topics {
            let name: Arc<str> = name.into();
            for (number, partition) in topic.partitions {
                // Negative: not known, or the entry that stands for none.
                if number >= 0 && partition.ls_offset >= 0 {
                    let name = TopicPartition { topic: Arc::clone(&name), partition: number };
                    self.owner.ends(name, partition.ls_offset);
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let is_whole = !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(consumer, partitions, is_whole)
            }
            _ => {
                self.owner.revoked(&names(partitions));
                let unassigned = if is_whole {
                    consumer.unassign()
                } else {
                    consumer.incremental_unassign(partitions)
                };
                unassigned.map_err(StartError::from)
            }
        };
        if let Err(error) = outcome {
            self.owner.failed(error);
        }
    }
}

impl Context {
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
        is_whole: bool,
    ) -> Result<(), StartError> {
        let assign = |list: &TopicPartitionList| match is_whole {
            true => consumer.assign(list),
            false => consumer.incremental_assign(list),
        };
        let starts = match committed(consumer, partitions.clone()) {
            Ok(starts) => starts,
            Err(error) => {
                // The group waits for an answer, even if it is to start over.
                if is_whole {
                    consumer.unassign()?;
                } else {
                    assign(partitions)?;
                }
                return Err(error);
            }
        };
        let mut from = TopicPartitionList::with_capacity(starts.len());
        for start in &starts {
            from.add_partition_offset(
                &start.partition.topic,
                start.partition.partition,
                start.position(),
            )?;
        }
        self.owner.assigned(starts);
        assign(&from)?;
        // The client remembers a pause beyond the assignment it was made in.
        Ok(consumer.resume(&from)?)
    }
}

/// Has the group give away what the member `name` had, at once: a client that merely
/// ends leaves it to him until his session times out.
pub(crate) fn leave_for_good(consumer: &GroupConsumer, group: &str, name: &str) {
    /// A healthy group needs a few milliseconds.
    const PATIENCE: Duration = Duration::from_secs(2);
    const MOMENT: Duration = Duration::from_millis(10);
    let until = Instant::now() + PATIENCE;
    consumer.unsubscribe();
    // The client leaves when its partitions are given up, in its callbacks, and does
    // not tell when it has.
    let is_in = || -> Result<bool, KafkaError> {
        let found = consumer.fetch_group_list(Some(group), PATIENCE)?;
        let ours = format!("{name}-");
        Ok(found.groups().iter().flat_map(GroupInfo::members).any(|m| m.id().starts_with(&ours)))
    };
    loop {
        while consumer.poll(MOMENT).is_some() {}
        match is_in() {
            Ok(true) if Instant::now() < until => {}
            Ok(is_in) => {
                if is_in {
                    tracing::warn!(
                        group,
                        name,
                        "not left within two seconds; the session will time out"
                    );
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%error, group, name, "whether the group is left cannot be asked");
                return;
            }
        }
    }
}

/// Has a partition read again from its committed offset, without the group. What the
/// client has fetched of it already is dropped by the seek. Between polls only.
pub(crate) fn read_again(
    consumer: &GroupConsumer,
    owner: &dyn Owner,
    partition: &TopicPartition,
) -> Result<(), StartError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(&partition.topic, partition.partition);
    for start in committed(consumer, list.clone())? {
        list.set_all_offsets(start.position())?;
        owner.starts_over(start);
    }
    let sought = consumer.seek_partitions(list, REQUEST_TIMEOUT)?;
    sought.elements().iter().try_for_each(TopicPartitionListElem::error)?;
    // It may have been paused while it waited for its writer.
    Ok(consumer.resume(&sought)?)
}

fn names(partitions: &TopicPartitionList) -> Vec<TopicPartition> {
    let name = |element: TopicPartitionListElem<'_>| TopicPartition {
        topic: element.topic().into(),
        partition: element.partition(),
    };
    partitions.elements().into_iter().map(name).collect()
}

/// Why a partition cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("the batch under way in {partition} was planned by a newer version: {source}")]
    Plan { partition: TopicPartition, source: PlanError },
}

/// What the group has committed for `partitions`.
fn committed(
    consumer: &GroupConsumer,
    partitions: TopicPartitionList,
) -> Result<Vec<Start>, StartError> {
    consumer
        .committed_offsets(partitions, REQUEST_TIMEOUT)?
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            let partition =
                TopicPartition { topic: element.topic().into(), partition: element.partition() };
            let plan = match Plan::parse(element.metadata()) {
                Ok(plan) => plan,
                // Going on without it could store its rows a second time.
                Err(error @ PlanError::Version(_)) => {
                    return Err(StartError::Plan { partition, source: error });
                }
                Err(error) => {
                    tracing::warn!(%partition, %error, "metadata of the committed offset ignored");
                    None
                }
            };
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            let is_ours = element.metadata().starts_with(STORED);
            let frame = match &plan {
                Some(plan) => plan.frame.clone(),
                None => Frame::parse(element.metadata()),
            };
            let was_moved = match &plan {
                Some(plan) => plan.was_moved,
                None => offset.is_some() && !is_ours,
            };
            Ok(Start { partition, offset: offset.unwrap_or(0), plan, was_moved, frame })
        })
        .collect()
}

/// A record, as the client holds it.
pub(crate) fn view<'a>(message: &'a BorrowedMessage<'_>) -> RecordView<'a> {
    let headers = message.headers().map_or_else(SmallVec::new, |headers| {
        headers.iter().map(|header| (header.key, header.value)).collect()
    });
    RecordView {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        headers,
    }
}

/// Synchronous commits, off the async executor: the call can wait for a
/// coordinator for as long as the client's time-outs allow.
#[derive(Clone, Default)]
pub(crate) struct GroupOffsets {
    /// Known once the group has been joined, and gone once it has been left.
    pub(crate) consumer: Arc<OnceLock<Weak<GroupConsumer>>>,
}

impl GroupOffsets {
    fn consumer(&self) -> Result<Arc<GroupConsumer>, KafkaError> {
        self.consumer.get().and_then(Weak::upgrade).ok_or_else(gone)
    }

    /// As which member of which generation the group knows this consumer.
    pub(crate) fn group(&self) -> Result<ConsumerGroupMetadata, KafkaError> {
        self.consumer()?.group_metadata().ok_or_else(gone)
    }
}

/// The group has been left.
fn gone() -> KafkaError {
    KafkaError::ConsumerCommit(RDKafkaErrorCode::State)
}

/// Offsets with what stands beside them, each of another partition.
pub(crate) fn offset_list(commits: &[Commit]) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::with_capacity(commits.len());
    for Commit { partition, offset, metadata } in commits {
        let mut element = offsets.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(*offset))?;
        // Once only: setting it a second time leaks the first.
        element.set_metadata(metadata);
    }
    Ok(offsets)
}

impl Offsets for GroupOffsets {
    /// The client tells of an error if the coordinator refuses any of them.
    async fn commit(&self, commits: Vec<Commit>) -> Result<(), KafkaError> {
        /// Until the client has heard of the group's new epoch with a heartbeat.
        const ATTEMPTS: u32 = 50;
        const EVERY: Duration = Duration::from_millis(200);
        let mut attempts = 0;
        loop {
            let consumer = self.consumer()?;
            let offsets = offset_list(&commits)?;
            let mode = match mutants::active(Mutant::CommitUnawaited) {
                true => CommitMode::Async,
                false => CommitMode::Sync,
            };
            let commit = move || consumer.commit(&offsets, mode);
            let outcome = tokio::task::spawn_blocking(commit).await.unwrap_or_else(|_| Err(gone()));
            attempts += 1;
            match outcome {
                Err(error) if is_stale(&error) && attempts < ATTEMPTS => {
                    tokio::time::sleep(EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether the group has only moved on to another epoch, of which this member may
/// well be part. Whoever is not any more is told so.
pub(crate) fn is_stale(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::StaleMemberEpoch)
}
