//! Questions about the group: who is in it, and how far it is.

use outpour_schemas::kafka::Watched;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};

use super::super::facts::{Group, Member, Offsets};
use crate::{
    plan::Plan,
    source::{Subscription, assigned, kafka::REQUEST_TIMEOUT},
};

pub(super) fn group(client: &BaseConsumer<Watched>, name: &str) -> Result<Group, KafkaError> {
    let list = client.fetch_group_list(Some(name), REQUEST_TIMEOUT)?;
    let Some(found) = list.groups().iter().find(|group| group.name() == name) else {
        return Ok(Group::default());
    };
    let members = found.members().iter().map(|member| Member {
        client: member.client_id().to_owned(),
        host: member.client_host().trim_start_matches('/').to_owned(),
        partitions: member.assignment().and_then(assigned).unwrap_or_default(),
    });
    Ok(Group {
        state: found.state().to_owned(),
        protocol_type: found.protocol_type().to_owned(),
        protocol: found.protocol().to_owned(),
        members: members.collect(),
    })
}

/// What the group has committed for every partition that it reads, and where
/// the log of each begins and ends; or why the group may not be asked.
pub(super) fn offsets(
    client: &BaseConsumer<Watched>,
    metadata: &Metadata,
    subscription: &Subscription,
) -> Result<Result<Vec<Offsets>, String>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    let mut leaderless = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| subscription.takes(topic.name())) {
        for partition in topic.partitions() {
            asked.add_partition(topic.name(), partition.id());
            if partition.leader() < 0 {
                leaderless.push((topic.name(), partition.id()));
            }
        }
    }
    if asked.count() == 0 {
        return Ok(Ok(Vec::new()));
    }
    let refused = |error: &KafkaError| {
        error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
    };
    let committed = match client.committed_offsets(asked, REQUEST_TIMEOUT) {
        Ok(committed) => committed,
        Err(error) if refused(&error) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for element in committed.elements() {
        match element.error() {
            Err(error) if refused(&error) => return Ok(Err(error.to_string())),
            other => other?,
        }
        let (topic, number) = (element.topic(), element.partition());
        // Who asks for its ends waits for a leader.
        let log = if leaderless.contains(&(topic, number)) {
            None
        } else {
            let (low, high) = client.fetch_watermarks(topic, number, REQUEST_TIMEOUT)?;
            Some(low..high)
        };
        all.push(Offsets {
            partition: format!("{topic}/{number}"),
            topic: topic.to_owned(),
            number,
            committed: element.offset().to_raw().filter(|offset| *offset >= 0),
            plan: Plan::parse(element.metadata()),
            log,
        });
    }
    all.sort_by(|a, b| (&a.topic, a.number).cmp(&(&b.topic, b.number)));
    Ok(Ok(all))
}
