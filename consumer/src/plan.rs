//! The plan of a batch: what is about to be inserted, written down first.
//!
//! It stands in the metadata of the group's committed offset, which is the
//! batch's first. Whoever owns the partition next finds it there and knows that
//! the outcome is open: the same range is read again, and if it encodes to the
//! same content, it is inserted under the same token, which ClickHouse drops if
//! it has it already (I5). The offset itself passes a batch only with the plan
//! of the next one, or when the partition is idle (I6).

use std::{ops::Range, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    frame::Frame,
    rejected::{Rejected, RouteId},
    source::TopicPartition,
};

/// What the brokers allow by default for an offset's metadata.
pub const MAX_METADATA_BYTES: usize = 4096;

/// The metadata of an offset up to which everything is stored, with no batch under
/// way. Who moves a group's offsets by hand leaves none.
pub const STORED: &str = "outpour: stored";

/// A batch ends when naming what is rejected takes this much of it.
pub const MAX_REJECTED_BYTES: usize = 3072;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    /// The consumer that made it, for people.
    pub owner: String,
    /// First offset of the batch, as committed.
    pub start: i64,
    /// One past the last.
    pub end: i64,
    pub rows: usize,
    /// What is in the dead letters, where they are written together with the
    /// plan; else what will have been before anything is inserted.
    #[serde(default, skip_serializing_if = "Rejected::is_empty")]
    pub rejected: Rejected,
    /// Hash of every block that is inserted, and of what is rejected. A change of
    /// a table's columns changes it, too.
    pub content: String,
    /// Whether the tables are asked what they have, since an earlier plan of the
    /// range left its outcome open and its token cannot be relied on.
    #[serde(default)]
    pub by_provenance: bool,
    /// What stands in tokens in the place of the content where the tables are asked:
    /// that of the range's first plan, whose insert may still be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Whether a table may have forgotten the tokens of the range, though they are not
    /// old: others' inserts have pushed them out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_forgotten: bool,
    /// Whether somebody had moved the group's offset, and the tables may have rows of
    /// what follows, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_moved: bool,
    /// How far its rows are stored in parts, since ClickHouse refuses some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// When the range was planned first, in milliseconds since the Unix epoch.
    pub planned_at_ms: i64,
    /// The replay that the batch belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
}

/// The search for the rows of a range that ClickHouse refuses. A part is planned
/// before it is inserted, as the whole was, so that whoever comes next sends that
/// very part again: a view that has missed it gets it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    pub route: RouteId,
    /// Before it each row is stored or refused.
    pub from: i64,
    /// Up to here it is being inserted, under a token of its own.
    pub to: i64,
}

/// Metadata that is not a plan of ours.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the committed metadata is not a plan: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the plan has version {0}, this program knows {VERSION_OF_JOINT}")]
    Version(u32),
}

pub const VERSION: u32 = 1;

/// Of a plan whose first insert had rows of other partitions, too. A program that does not
/// know of such inserts would ask for its rows under a token that was never used.
pub const VERSION_OF_JOINT: u32 = 2;

/// What the name of such an insert begins with.
const JOINT: &str = "joint/";

impl Plan {
    /// The plan in an offset's metadata, if there is one.
    ///
    /// # Errors
    /// When something else stands there, such as another program's notes.
    pub fn parse(metadata: &str) -> Result<Option<Self>, PlanError> {
        if metadata.is_empty() || metadata == STORED || Frame::parse(metadata).is_some() {
            return Ok(None);
        }
        let plan: Plan = serde_json::from_str(metadata)?;
        match plan.version {
            VERSION | VERSION_OF_JOINT => Ok(Some(plan)),
            later => Err(PlanError::Version(later)),
        }
    }

    /// # Errors
    /// Never for a plan of our own making.
    pub fn metadata(&self) -> Result<String, PlanError> {
        let text = serde_json::to_string(self)?;
        debug_assert!(text.len() <= MAX_METADATA_BYTES, "the broker would refuse the plan");
        Ok(text)
    }

    /// Bytes that the plans of `owner` take at most.
    #[must_use]
    pub fn longest(owner: &str) -> usize {
        let plan = Plan {
            version: VERSION,
            owner: owner.to_owned(),
            start: i64::MAX,
            end: i64::MAX,
            rows: usize::MAX,
            rejected: Rejected::default(),
            content: "0".repeat(32),
            by_provenance: false,
            first: Some(format!("{}@{}", "0".repeat(32), i64::MAX)),
            is_forgotten: true,
            was_moved: true,
            search: Some(Search { route: RouteId::NONE, from: i64::MAX, to: i64::MAX }),
            planned_at_ms: i64::MAX,
            frame: None,
        };
        let rest = plan.metadata().map_or(MAX_METADATA_BYTES, |metadata| metadata.len());
        // The name of the list, and what a batch may still add when it is due.
        rest + MAX_REJECTED_BYTES + 100
    }

    /// By which ClickHouse knows a repeated insert. The cluster tells one
    /// Kafka from another, the content a topic from its namesake made later.
    #[must_use]
    pub fn token(&self, cluster: &str, partition: &TopicPartition, table: &str) -> String {
        self.token_of(&self.content, cluster, partition, table)
    }

    /// By which ClickHouse knows the first insert of the range: one that is still under
    /// way from an earlier plan, and one of what the table does not have, are the same
    /// to it, and whichever comes second is dropped. Where the first insert had rows of
    /// other partitions, they have this token in common.
    pub(crate) fn first_token(
        &self,
        cluster: &str,
        partition: &TopicPartition,
        table: &str,
    ) -> String {
        let name = self.name();
        match name.starts_with(JOINT) {
            true => format!("outpour/{cluster}/{name}/{table}"),
            false => self.token_of(&name, cluster, partition, table),
        }
    }

    /// Whether that insert had rows of other partitions, too.
    pub(crate) fn is_joint(&self) -> bool {
        self.first.as_ref().is_some_and(|name| name.starts_with(JOINT))
    }

    /// By which it knows what is still missing of the partition's own rows, whatever they
    /// are encoded to by then, if others have used the first token.
    pub(crate) fn own_token(
        &self,
        cluster: &str,
        partition: &TopicPartition,
        table: &str,
    ) -> String {
        self.token_of(&self.name(), cluster, partition, table)
    }

    /// By which it knows what the table does not have even then.
    pub(crate) fn rest_token(
        &self,
        cluster: &str,
        partition: &TopicPartition,
        table: &str,
    ) -> String {
        format!("{}/rest", self.token(cluster, partition, table))
    }

    /// What stands for the range in its first token. A range that is read again since
    /// somebody moved the offset is another each time: what is missing then may be what
    /// was inserted under its token, and deleted.
    pub(crate) fn name(&self) -> String {
        match &self.first {
            Some(first) => first.clone(),
            None if self.by_provenance => format!("{}@{}", self.content, self.planned_at_ms),
            None => self.content.clone(),
        }
    }

    /// The same plan, with its rows to be inserted together with those of other plans, by
    /// the name of all of them. Whoever finds it goes on without the others, so that it
    /// says what holds for one that is alone: under the first token, and then the rest.
    #[must_use]
    pub(crate) fn joining(self, name: &str) -> Self {
        let first = Some(format!("{JOINT}{name}"));
        Plan { version: VERSION_OF_JOINT, by_provenance: true, first, ..self }
    }

    /// The same plan, with the tables to be asked what they have.
    #[must_use]
    pub(crate) fn asking(&self) -> Self {
        Plan { first: Some(self.name()), by_provenance: true, ..self.clone() }
    }

    /// By which it knows a part of the range that is stored alone.
    pub(crate) fn part_token(
        &self,
        part: &Range<i64>,
        cluster: &str,
        partition: &TopicPartition,
        table: &str,
    ) -> String {
        let whole = self.token_of(&self.name(), cluster, partition, table);
        format!("{whole}/{}-{}", part.start, part.end)
    }

    fn token_of(
        &self,
        content: &str,
        cluster: &str,
        partition: &TopicPartition,
        table: &str,
    ) -> String {
        let epoch = self.frame.as_ref().map(|frame| format!("/{}", frame.epoch()));
        format!(
            "outpour/{cluster}/{}/{}/{}-{}/{}/{table}{}",
            partition.topic,
            partition.partition,
            self.start,
            self.end,
            content,
            epoch.unwrap_or_default()
        )
    }

    /// How old it is; 0 by a clock that is behind the planner's.
    pub(crate) fn age_at(&self, now: Timestamp) -> Duration {
        let ms = now.as_millisecond().saturating_sub(self.planned_at_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rejected::RouteId;

    fn plan(start: i64, end: i64) -> Plan {
        Plan {
            version: VERSION,
            owner: "host-1".into(),
            start,
            end,
            rows: 10,
            rejected: Rejected::default(),
            content: "0123456789abcdef".into(),
            by_provenance: false,
            first: None,
            is_forgotten: false,
            was_moved: false,
            search: None,
            planned_at_ms: 1,
            frame: None,
        }
    }

    fn frame(began_at_ms: i64) -> Frame {
        Frame { job: Frame::job("x"), from: 0, until: i64::MAX, began_at_ms, swap: None }
    }

    proptest! {
        #[test]
        fn a_plan_survives_its_metadata_and_fits(
            start: i64, end: i64, owner in ".{0,100}", gaps in vec(1..100_000_i64, 0..1000)
        ) {
            let (mut rejected, mut offset) = (Rejected::default(), 0);
            for gap in gaps {
                offset += gap;
                if rejected.text_size() < MAX_REJECTED_BYTES {
                    rejected.add(RouteId::NONE, offset);
                }
            }
            let plan = Plan { owner, rejected, ..plan(start, end) };
            let metadata = plan.metadata().unwrap();
            prop_assert!(metadata.len() <= MAX_METADATA_BYTES);
            let back = Plan::parse(&metadata).unwrap().unwrap();
            prop_assert_eq!(back.metadata().unwrap(), metadata);
            prop_assert!(back.rejected.iter().eq(plan.rejected.iter()));
        }

        #[test]
        fn any_metadata_is_parsed_or_refused_without_panic(text: String) {
            prop_assert!(!matches!(Plan::parse(&text), Ok(Some(_))));
        }
    }

    #[test]
    fn no_metadata_is_no_plan_and_a_later_version_is_refused() {
        assert_eq!(Plan::parse("").unwrap(), None);
        assert_eq!(Plan::parse(STORED).unwrap(), None);
        let later = Plan { version: 3, ..plan(0, 1) }.metadata().unwrap();
        assert!(matches!(Plan::parse(&later), Err(PlanError::Version(3))));
    }

    #[test]
    fn tokens_differ_by_range_partition_cluster_content_and_table() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let other = TopicPartition { topic: "t".into(), partition: 1 };
        let base = plan(0, 10);
        let tokens = [
            base.token("c", &partition, "a"),
            base.token("c", &partition, "b"),
            base.token("d", &partition, "a"),
            base.token("c", &other, "a"),
            plan(0, 11).token("c", &partition, "a"),
            Plan { content: "x".into(), ..base.clone() }.token("c", &partition, "a"),
            Plan { frame: Some(frame(1)), ..base.clone() }.token("c", &partition, "a"),
            Plan { frame: Some(frame(2)), ..base.clone() }.token("c", &partition, "a"),
        ];
        let distinct: std::collections::HashSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), tokens.len());
    }
    #[test]
    fn whoever_asks_the_table_goes_by_the_token_of_the_first_plan() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let first = |plan: &Plan| plan.first_token("c", &partition, "a");
        let planned = plan(0, 10);
        let token = planned.token("c", &partition, "a");
        assert_eq!(first(&planned), token);
        assert_eq!(first(&planned.asking()), token);
        let altered = Plan { content: "after an ALTER".into(), ..planned.asking() };
        assert_eq!(first(&altered), token);
        assert_eq!(first(&altered.asking()), token, "however often it is planned anew");
        assert_ne!(altered.token("c", &partition, "a"), token);
    }

    #[test]
    fn plans_of_a_joint_insert_have_its_token_in_common_and_nothing_else() {
        let partitions = [0, 1].map(|partition| TopicPartition { topic: "t".into(), partition });
        let plans = [plan(0, 10), Plan { content: "other".into(), ..plan(0, 10) }]
            .map(|plan| Plan::parse(&plan.joining("all").metadata().unwrap()).unwrap().unwrap());
        let both = |token: &dyn Fn(&Plan, &TopicPartition) -> String| {
            [token(&plans[0], &partitions[0]), token(&plans[1], &partitions[1])]
        };
        let [one, other] = both(&|plan, partition| plan.first_token("c", partition, "a"));
        assert_eq!(one, other);
        assert_ne!(one, plans[0].first_token("c", &partitions[0], "b"));
        assert_ne!(one, plan(0, 10).joining("others").first_token("c", &partitions[0], "a"));
        let [one, other] = both(&|plan, partition| plan.rest_token("c", partition, "a"));
        assert_ne!(one, other);
        let [one, other] = both(&|plan, partition| plan.part_token(&(0..5), "c", partition, "a"));
        assert_ne!(one, other);
        // Planned anew by whoever finds it alone.
        let again = Plan { first: Some(plans[0].name()), ..plan(0, 10) };
        assert_eq!(
            again.first_token("c", &partitions[0], "a"),
            plans[1].first_token("c", &partitions[1], "a")
        );
    }

    #[test]
    fn what_was_deleted_comes_again_as_often_as_the_offset_is_moved() {
        let partition = TopicPartition { topic: "t".into(), partition: 0 };
        let first = |plan: &Plan| plan.first_token("c", &partition, "a");
        let moved = |planned_at_ms| Plan { by_provenance: true, planned_at_ms, ..plan(0, 10) };
        let tokens = [plan(0, 10), moved(5), moved(6)].map(|plan| first(&plan));
        let distinct: std::collections::HashSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), tokens.len());
        let found_by_the_next = Plan { planned_at_ms: 7, ..moved(5).asking() };
        assert_eq!(first(&found_by_the_next), tokens[1], "it may be under way");
    }
}
