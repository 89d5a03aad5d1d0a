//! The committed offsets of a group, asked and set from outside of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use outpour_schemas::{
    config::{Config, GroupProtocol},
    kafka::{Watched, client_config},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::kafka::REQUEST_TIMEOUT;
use crate::{error::ConsumerError, frame::Frame, plan::Plan};

/// What a group has committed for one partition.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) partition: i32,
    pub(crate) offset: Option<i64>,
    /// The batch under way.
    pub(crate) plan: Option<Plan>,
    pub(crate) frame: Option<Frame>,
}

/// An offset to be committed, with what stands beside it.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) metadata: String,
}

/// One topic in one group. All of it blocks.
pub(crate) struct Group {
    client: BaseConsumer<Watched>,
    pub(crate) name: String,
    topic: String,
    brokers: String,
    /// After which a member that was killed is not one any more.
    session_timeout: Duration,
    /// Whether the client library can ask for its members.
    tells_members: bool,
}

impl Group {
    pub(crate) fn connect(config: &Config, name: &str, topic: &str) -> Result<Self, ConsumerError> {
        let brokers = config.kafka.brokers.clone();
        let client = client_config(&config.kafka)?
            .set("client.id", &config.consumer.client_id)
            .set("group.id", name)
            .set("enable.auto.commit", "false")
            .create_with_context(Watched::default())
            .map_err(|source| ConsumerError::Kafka {
                doing: "connecting",
                brokers: brokers.clone(),
                source,
            })?;
        Ok(Group {
            client,
            name: name.to_owned(),
            topic: topic.to_owned(),
            brokers,
            session_timeout: config.consumer.session_timeout.0,
            tells_members: config.consumer.group_protocol == GroupProtocol::Classic,
        })
    }

    fn failed(&self, doing: &'static str) -> impl Fn(KafkaError) -> ConsumerError {
        let brokers = self.brokers.clone();
        move |source| ConsumerError::Kafka { doing, brokers: brokers.clone(), source }
    }

    pub(crate) fn committed(&self, partitions: &[i32]) -> Result<Vec<Committed>, ConsumerError> {
        let failed = self.failed("asking for committed offsets");
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked.add_partition(&self.topic, *partition);
        }
        let found = self.client.committed_offsets(asked, REQUEST_TIMEOUT).map_err(&failed)?;
        let elements = found.elements();
        let committed = elements.iter().map(|element| {
            element.error().map_err(&failed)?;
            let plan = Plan::parse(element.metadata()).ok().flatten();
            let frame = match &plan {
                Some(plan) => plan.frame.clone(),
                None => Frame::parse(element.metadata()),
            };
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            let partition = element.partition();
            let plan = plan.filter(|plan| Some(plan.start) == offset);
            Ok(Committed { partition, offset, plan, frame })
        });
        committed.collect()
    }

    /// Commits all of it or nothing. A group takes that from outside only while it
    /// has no member, so that one that was killed is waited for; `advice` is for
    /// whoever has others running.
    pub(crate) fn commit(
        &self,
        commits: &[Commit],
        advice: &'static str,
    ) -> Result<(), ConsumerError> {
        const EVERY: Duration = Duration::from_millis(250);
        /// Beyond the session time-out.
        const GRACE: Duration = Duration::from_secs(15);
        let failed = self.failed("committing where to begin");
        let until = Instant::now() + self.session_timeout + GRACE;
        let mut has_told = false;
        loop {
            let mut offsets = TopicPartitionList::with_capacity(commits.len());
            for Commit { partition, offset, metadata } in commits {
                let mut element = offsets.add_partition(&self.topic, *partition);
                element.set_offset(Offset::Offset(*offset)).map_err(&failed)?;
                // Once only: setting it a second time leaks the first.
                element.set_metadata(metadata.as_str());
            }
            match self.client.commit(&offsets, CommitMode::Sync) {
                Ok(()) => return Ok(()),
                Err(error) if !has_members(&error) => return Err(failed(error)),
                Err(_) if Instant::now() >= until => {
                    let group = self.name.clone();
                    return Err(ConsumerError::GroupInUse { group, advice });
                }
                Err(_) => {}
            }
            if !has_told {
                tracing::info!(group = self.name, "waiting until the group has no members");
                has_told = true;
            }
            thread::sleep(EVERY);
        }
    }

    /// Whether it has members, or may have.
    pub(crate) fn may_have_members(&self) -> Result<bool, ConsumerError> {
        if !self.tells_members {
            return Ok(true);
        }
        let groups = self.client.fetch_group_list(Some(&self.name), REQUEST_TIMEOUT);
        let groups = groups.map_err(self.failed("asking for members of the group"))?;
        Ok(groups.groups().iter().any(|group| !group.members().is_empty()))
    }
}

/// What the coordinator answers to somebody who is no member, while others are.
fn has_members(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::StaleMemberEpoch
        )
    )
}
