//! Going on behind records that Kafka removed before they were read.
//!
//! The pipeline never does so by itself. Told to, the group's offsets are moved to
//! where the log begins now, once and before it is joined: what is accepted is this
//! gap, not the next one. As after any move, the tables are asked what they have.

use outpour_schemas::config::Config;

use crate::{
    error::ConsumerError,
    source::{
        Subscription,
        group::{Commit, Committed, Group},
        reader::{Part, TopicReader},
    },
};

/// Offsets of one partition that the group has not read and Kafka does not have.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    partition: i32,
    from: i64,
    /// Where the log begins.
    until: i64,
}

/// Moves the group behind every gap, and says so.
///
/// # Errors
/// When Kafka cannot be asked, or the group has members.
pub(crate) async fn accept(config: &Config) -> Result<(), ConsumerError> {
    let config = config.clone();
    let accepting = tokio::task::spawn_blocking(move || accept_blocking(&config));
    accepting.await.map_err(ConsumerError::Worker)?
}

fn accept_blocking(config: &Config) -> Result<(), ConsumerError> {
    let group = &config.consumer.group;
    let reader = TopicReader::connect(config)?;
    let subscription = Subscription::of(&config.consumer.topics);
    let mut any = false;
    for topic in reader.topics()?.iter().filter(|topic| subscription.takes(topic)) {
        let parts = reader.whole(topic)?;
        let offsets = Group::connect(config, group, topic)?;
        let partitions: Vec<_> = parts.iter().map(|part| part.partition).collect();
        let gaps = gaps(&parts, &offsets.committed(&partitions)?);
        if gaps.is_empty() {
            continue;
        }
        // Nothing beside the offset: that tells that it was moved.
        let commit = |gap: &Gap| Commit {
            partition: gap.partition,
            offset: gap.until,
            metadata: String::new(),
        };
        let commits: Vec<_> = gaps.iter().map(commit).collect();
        offsets.commit(&commits, "stop its consumers, and start one with --accept-gap")?;
        any = true;
        for Gap { partition, from, until } in gaps {
            tracing::warn!(
                group,
                topic,
                partition,
                from,
                until,
                "gap accepted by --accept-gap: these offsets were never read"
            );
        }
    }
    if !any {
        tracing::info!(group, "no gap to accept");
    }
    Ok(())
}

fn gaps(parts: &[Part], committed: &[Committed]) -> Vec<Gap> {
    let gap = |part: &Part| {
        let of = committed.iter().find(|committed| committed.partition == part.partition)?;
        // A partition of which nothing was read yet begins where the log does.
        let from = of.offset.filter(|offset| *offset < part.from)?;
        Some(Gap { partition: part.partition, from, until: part.from })
    };
    parts.iter().filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_group_and_the_log_is_a_gap() {
        let part = |partition| Part { partition, from: 10, until: 90 };
        let committed =
            |partition, offset| Committed { partition, offset, plan: None, frame: None };
        let parts: Vec<_> = (0..5).map(part).collect();
        let offsets = [Some(9), Some(10), Some(95), None].into_iter().zip(0..);
        let committed: Vec<_> = offsets.map(|(offset, number)| committed(number, offset)).collect();
        assert_eq!(gaps(&parts, &committed), [Gap { partition: 0, from: 9, until: 10 }]);
    }
}
