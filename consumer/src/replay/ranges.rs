//! Given ranges of offsets into their live tables, as far as they are missing there:
//! what an audit found, for one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use jiff::Timestamp;
use outpour_schemas::config::Config;
use tokio_util::sync::CancellationToken;

use super::{
    RUNS_ELSEWHERE,
    args::ReplayArgs,
    error::ReplayError,
    run::{self, blocking, to_the_end},
    target::{self, Target},
    terms::{Selection, Terms},
};
use crate::{
    dlq,
    error::ConsumerError,
    frame::Frame,
    sink::ClickHouse,
    source::{
        Position,
        group::{Commit, Group},
        reader::{Part, TopicReader},
    },
};

/// Offsets whose rows are wanted in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRange {
    pub topic: String,
    pub partition: i32,
    /// `table` or `database.table`, to which a route of the topic goes.
    pub table: String,
    pub from: i64,
    /// One past the last.
    pub until: i64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RangesReplayed {
    /// Of all ranges; markers of transactions count, too.
    pub offsets: i64,
    /// Records that do not fit, and were in the dead letters before.
    pub parked_before: u64,
    /// Records that do not fit, and are now.
    pub parked: u64,
}

/// Reads the ranges again and adds what the tables lack of them. What the live
/// group has not stored yet is refused: it is the group's.
///
/// # Errors
/// When a range is not there any more, or something keeps it from being read. It
/// may be called again with what is still missing then.
pub async fn replay_ranges(
    config: &Config,
    ranges: &[ReplayRange],
    stop: &CancellationToken,
) -> Result<RangesReplayed, ConsumerError> {
    let mut by_target: BTreeMap<(&str, &str), Vec<&ReplayRange>> = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.from < range.until) {
        by_target.entry((&range.topic, &range.table)).or_default().push(range);
    }
    let mut sum = RangesReplayed::default();
    for ((topic, table), ranges) in by_target {
        let came = of_one_table(config, (topic, table), &ranges, stop).await?;
        sum.offsets += came.offsets;
        sum.parked_before += came.parked_before;
        sum.parked += came.parked;
    }
    Ok(sum)
}

async fn of_one_table(
    config: &Config,
    (topic, table): (&str, &str),
    ranges: &[&ReplayRange],
    stop: &CancellationToken,
) -> Result<RangesReplayed, ConsumerError> {
    let target = Target::choose(config, &ReplayArgs::into_live(topic, table))?;
    let group = format!("{}.replay.{topic}.ranges.{table}", config.consumer.group);
    let replaying = target.config(config, &group, topic, None);
    target::check(&replaying, &ClickHouse::new(&config.clickhouse)?, true).await?;
    let (settings, read_topic) = (config.clone(), topic.to_owned());
    let wanted: Vec<ReplayRange> = ranges.iter().map(|range| (*range).clone()).collect();
    let (group, whole, parked) = blocking(move || {
        let reader = TopicReader::connect(&settings)?;
        let whole = reader.whole(&read_topic)?;
        let live = Group::connect(&settings, &settings.consumer.group, &read_topic)?;
        let partitions: Vec<_> = whole.iter().map(|part| part.partition).collect();
        let live = live.committed(&partitions)?;
        for range in &wanted {
            let part = whole.iter().find(|part| part.partition == range.partition);
            let stored = live.iter().find(|found| found.partition == range.partition);
            let stored = stored.and_then(|found| found.offset).unwrap_or(0);
            if part.is_none_or(|part| range.from < part.from) || range.until > stored {
                return Err(ReplayError::refused(format!(
                    "offsets {} to {} of {read_topic}/{}: Kafka has {}, and the group has stored \
                     what is before {stored}",
                    range.from,
                    range.until,
                    range.partition,
                    part.map_or("no such partition".to_owned(), |part| format!(
                        "{} to {}",
                        part.from, part.until
                    ))
                ))
                .into());
            }
        }
        let parked = dlq::read::parked(&reader, &read_topic)?;
        Ok((Group::connect(&settings, &group, &read_topic)?, whole, parked))
    })
    .await?;
    let group = Arc::new(group);
    let mut offsets: HashMap<i32, Vec<std::ops::Range<i64>>> = HashMap::new();
    for range in ranges {
        offsets.entry(range.partition).or_default().push(range.from..range.until);
    }
    let selection = Selection { offsets, ..Selection::default() };
    let terms = Arc::new(Terms { selection, parked, ..Terms::default() });
    let mut came = RangesReplayed::default();
    for parts in rounds(ranges, &whole) {
        let job = Frame::job(&format!("{parts:?}"));
        let began_at_ms = Timestamp::now().as_millisecond();
        let commit = |part: &Part| {
            let Part { partition, from, until } = *part;
            let frame = Frame { job: job.clone(), from, until, began_at_ms, swap: None };
            Commit { partition, offset: from, metadata: frame.metadata(true) }
        };
        let commits: Vec<_> = parts.iter().map(commit).collect();
        let committing = Arc::clone(&group);
        blocking(move || committing.commit(&commits, RUNS_ELSEWHERE)).await?;
        to_the_end(&replaying, &group, &parts, &terms, stop).await?;
        came.offsets += run::offsets(&parts);
    }
    came.parked_before = terms.counts.parked_before.load(Relaxed);
    came.parked = terms.counts.parked.load(Relaxed);
    Ok(came)
}

/// One range of every partition at a time; ranges that are close to each other are
/// read together.
fn rounds(ranges: &[&ReplayRange], whole: &[Part]) -> Vec<Vec<Part>> {
    /// Reading past so many offsets takes less than joining a group once more.
    const CLOSE: i64 = 100_000;
    let mut merged: BTreeMap<i32, Vec<Part>> = BTreeMap::new();
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| (range.partition, range.from));
    for range in sorted {
        let ReplayRange { partition, from, until, .. } = *range;
        let parts = merged.entry(partition).or_default();
        match parts.last_mut() {
            Some(last) if from - last.until <= CLOSE => last.until = last.until.max(until),
            _ => parts.push(Part { partition, from, until }),
        }
    }
    let count = merged.values().map(Vec::len).max().unwrap_or(0);
    let round = |at: usize| {
        let part = |whole: &Part| {
            let found = merged.get(&whole.partition).and_then(|parts| parts.get(at));
            // What has nothing in this round is where it ends.
            found.copied().unwrap_or(Part { until: whole.from, ..*whole })
        };
        whole.iter().map(part).collect()
    };
    (0..count).map(round).collect()
}

impl ReplayArgs {
    fn into_live(topic: &str, table: &str) -> Self {
        ReplayArgs {
            topic: topic.to_owned(),
            from: Position::Beginning,
            to: Position::Now,
            live: true,
            into: None,
            swap: false,
            table: Some(table.to_owned()),
            partitions: Vec::new(),
            keys: Vec::new(),
            event_types: Vec::new(),
            dry_run: false,
            yes: true,
            restart: false,
            drop_old: false,
            json: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_all_partitions_go_together_and_close_ones_are_one() {
        let range = |partition, from, until| ReplayRange {
            topic: "t".into(),
            partition,
            table: "x".into(),
            from,
            until,
        };
        let ranges =
            [range(0, 500_000, 500_001), range(0, 20, 30), range(0, 0, 10), range(1, 5, 6)];
        let whole = [0, 1, 2].map(|partition| Part { partition, from: 0, until: 1_000_000 });
        let rounds = rounds(&ranges.iter().collect::<Vec<_>>(), &whole);
        let bounds = |parts: &Vec<Part>| {
            parts.iter().map(|part| (part.from, part.until)).collect::<Vec<_>>()
        };
        assert_eq!(
            rounds.iter().map(bounds).collect::<Vec<_>>(),
            [vec![(0, 30), (5, 6), (0, 0)], vec![(500_000, 500_001), (0, 0), (0, 0)]]
        );
    }
}
