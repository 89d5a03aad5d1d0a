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
    source::{Subscription, kafka::REQUEST_TIMEOUT},
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

/// The partitions in an assignment of the consumer protocol: after a version,
/// topics with their partitions. Empty where a member has none yet.
fn assigned(mut bytes: &[u8]) -> Option<Vec<String>> {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    fn int(bytes: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    fn short(bytes: &mut &[u8]) -> Option<i16> {
        Some(i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?))
    }
    short(&mut bytes)?;
    let mut all = Vec::new();
    for _ in 0..int(&mut bytes)? {
        let length = usize::try_from(short(&mut bytes)?).ok()?;
        let topic = std::str::from_utf8(take(&mut bytes, length)?).ok()?;
        for _ in 0..int(&mut bytes)? {
            all.push(format!("{topic}/{}", int(&mut bytes)?));
        }
    }
    Some(all)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_assignment_is_read_and_what_is_cut_off_is_not() {
        let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(assigned(&bytes).unwrap(), ["t/0", "t/7"]);
        bytes.pop();
        assert_eq!(assigned(&bytes), None);
        assert_eq!(assigned(&[0, 0, 0, 0, 0, 0]).unwrap(), Vec::<String>::new());
        assert_eq!(assigned(&[]), None);
    }

    proptest! {
        #[test]
        fn any_assignment_is_read_or_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            assigned(&bytes);
        }
    }
}
