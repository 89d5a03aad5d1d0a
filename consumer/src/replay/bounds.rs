//! From `--from` and `--to` to offsets.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{args::ReplayArgs, error::ReplayError};
use crate::{
    error::ConsumerError,
    source::{
        Position,
        reader::{Part, TopicReader},
    },
};

/// What to read of every partition of the topic. Partitions that are not chosen
/// have nothing to read. `limits`: what is at or past them is not the replay's.
///
/// # Errors
/// When a partition, an offset or a time is not there.
pub(super) fn resolve(
    reader: &TopicReader,
    args: &ReplayArgs,
    limits: Option<&HashMap<i32, i64>>,
    now: Timestamp,
) -> Result<Vec<Part>, ConsumerError> {
    let whole = reader.whole(&args.topic)?;
    let partitions: Vec<_> = whole.iter().map(|part| part.partition).collect();
    let by_time = |name: &str, position: Position| {
        let at =
            position.time(now).map_err(|why| ReplayError::refused(format!("{name}: {why}")))?;
        let offsets =
            |at: Timestamp| reader.offsets_at(&args.topic, &partitions, at.as_millisecond());
        at.map(offsets).transpose()
    };
    let times = (by_time("--from", args.from)?, by_time("--to", args.to)?);
    Ok(decide(&whole, args, limits, (times.0.as_ref(), times.1.as_ref()))?)
}

type Found = HashMap<i32, Option<i64>>;

fn decide(
    whole: &[Part],
    args: &ReplayArgs,
    limits: Option<&HashMap<i32, i64>>,
    times: (Option<&Found>, Option<&Found>),
) -> Result<Vec<Part>, ReplayError> {
    if let Some(missing) =
        args.partitions.iter().find(|wanted| whole.iter().all(|part| part.partition != **wanted))
    {
        return Err(ReplayError::refused(format!(
            "--partition {missing}: topic `{}` has {}",
            args.topic,
            match whole.len() {
                1 => "partition 0 alone".to_owned(),
                n => format!("partitions 0 to {}", n - 1),
            }
        )));
    }
    let decide = |part: &Part| {
        let Part { partition, from: low, until: high } = *part;
        if !args.partitions.is_empty() && !args.partitions.contains(&partition) {
            return Ok(Part { until: low, ..*part });
        }
        let place = |name: &str, position: Position, times: Option<&Found>| match position {
            Position::Beginning => Ok(low),
            Position::Now => Ok(high),
            Position::Offset(offset) if (low..=high).contains(&offset) => Ok(offset),
            Position::Offset(offset) => Err(ReplayError::refused(format!(
                "{name} {offset}: partition {partition} of `{}` has offsets {low} to {high}; \
                 choose others, or other partitions with --partition",
                args.topic
            ))),
            Position::At(_) | Position::Before(_) => {
                let found = times.and_then(|times| times.get(&partition).copied().flatten());
                Ok(found.unwrap_or(high).clamp(low, high))
            }
        };
        let from = place("--from", args.from, times.0)?;
        let mut until = place("--to", args.to, times.1)?;
        if let Some(limits) = limits {
            until = until.min(limits.get(&partition).copied().unwrap_or(low));
        }
        Ok(Part { partition, from, until: until.max(from) })
    };
    whole.iter().map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn args(line: &str) -> ReplayArgs {
        let words = ["replay", "--topic", "t", "--live"].into_iter().chain(line.split_whitespace());
        <Line as clap::Parser>::parse_from(words).args
    }

    /// Two partitions: 10 to 20, and 0 to 5.
    fn whole() -> [Part; 2] {
        [Part { partition: 0, from: 10, until: 20 }, Part { partition: 1, from: 0, until: 5 }]
    }

    fn bounds(line: &str, limits: Option<&[(i32, i64)]>) -> Result<Vec<(i64, i64)>, String> {
        let limits = limits.map(|limits| limits.iter().copied().collect());
        let times: Found = [(0, Some(15)), (1, None)].into();
        let parts = decide(&whole(), &args(line), limits.as_ref(), (Some(&times), Some(&times)));
        let parts = parts.map_err(|error| error.to_string())?;
        Ok(parts.iter().map(|part| (part.from, part.until)).collect())
    }

    #[test]
    fn places_become_offsets_of_each_partition() {
        assert_eq!(bounds("", None), Ok(vec![(10, 20), (0, 5)]));
        assert_eq!(bounds("--partition 1", None), Ok(vec![(10, 10), (0, 5)]));
        assert_eq!(bounds("--partition 0 --from 12 --to 14", None), Ok(vec![(12, 14), (0, 0)]));
        // Nothing in partition 1 is as young as that.
        assert_eq!(bounds("--from -1h", None), Ok(vec![(15, 20), (5, 5)]));
        assert_eq!(bounds("--to -1h", None), Ok(vec![(10, 15), (0, 5)]));
    }

    #[test]
    fn what_the_group_has_not_stored_is_left_to_it() {
        assert_eq!(bounds("", Some(&[(0, 17)])), Ok(vec![(10, 17), (0, 0)]));
        assert_eq!(bounds("--from -1h", Some(&[(0, 12), (1, 9)])), Ok(vec![(15, 15), (5, 5)]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let refused = |line: &str| bounds(line, None).unwrap_err();
        assert!(refused("--partition 2").contains("partitions 0 to 1"));
        assert!(refused("--from 9").contains("partition 0 of `t` has offsets 10 to 20"));
        assert!(refused("--partition 1 --to 6").contains("partition 1 of `t` has offsets 0 to 5"));
    }
}
