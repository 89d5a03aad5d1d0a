//! From what happened to whether that is good enough. Pure; time is passed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use outpour_schemas::program::{Readiness, State};

use crate::source::TopicPartition;

/// A partition that this consumer owns.
#[derive(Debug)]
struct Owned {
    /// Everything before it is stored or parked.
    stored: i64,
    /// One past the last record that can be read, once the broker has told.
    end: Option<i64>,
    /// Since when a batch is planned and not stored.
    planned_at: Option<Instant>,
    /// When it last got on, or had nothing to get on with.
    moved_at: Instant,
    /// What keeps its batch from being stored.
    trouble: Option<String>,
    /// Whether nothing of it is read until somebody acts.
    is_held_back: bool,
}

impl Owned {
    fn has_work(&self) -> bool {
        // Where a partition ends that is not read is not known.
        self.is_held_back
            || self.planned_at.is_some()
            || self.end.is_some_and(|end| end > self.stored)
    }
}

/// What is known of a consumer.
#[derive(Debug, Default)]
pub(super) struct Standing {
    joined: bool,
    is_retrying: bool,
    /// Sessions that failed since something was stored, and why the last did.
    failed: u32,
    last_error: String,
    /// How many topics there are that the group reads, as far as is known.
    topics: Option<usize>,
    /// A partition that no member of the group has.
    left_to_nobody: Option<String>,
    partitions: HashMap<TopicPartition, Owned>,
}

/// What the metrics show of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) ready: bool,
    /// Records that can be read and are not stored, markers of transactions
    /// included; `None` where the broker has not told yet.
    pub(crate) lags: Vec<(TopicPartition, Option<i64>)>,
    /// For how long the oldest plan has been open.
    pub(crate) plan_age: Duration,
}

impl Standing {
    pub(super) fn joined(&mut self) {
        (self.joined, self.is_retrying) = (true, false);
    }

    pub(super) fn reads(&mut self, topics: usize, left_to_nobody: Option<String>) {
        (self.topics, self.left_to_nobody) = (Some(topics), left_to_nobody);
    }

    pub(super) fn failed(&mut self, error: String) {
        self.is_retrying = true;
        self.failed += 1;
        self.last_error = error;
        self.partitions.clear();
    }

    pub(super) fn assigned(&mut self, partition: TopicPartition, stored: i64, now: Instant) {
        // What starts over from where it stood has not moved.
        let before = self.partitions.remove(&partition).filter(|owned| owned.stored == stored);
        let (moved_at, trouble) =
            before.map_or((now, None), |owned| (owned.moved_at, owned.trouble));
        let owned =
            Owned { stored, end: None, planned_at: None, moved_at, trouble, is_held_back: false };
        self.partitions.insert(partition, owned);
    }

    pub(super) fn revoked(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    /// All partitions are given up; which they were.
    pub(super) fn left(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.partitions).into_keys().collect()
    }

    pub(super) fn planned(&mut self, partition: &TopicPartition, now: Instant) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.planned_at.get_or_insert(now);
        }
    }

    /// Everything before `end` is stored or parked, or was never a record.
    pub(super) fn stored(&mut self, partition: &TopicPartition, end: i64, now: Instant) {
        self.failed = 0;
        if let Some(owned) = self.partitions.get_mut(partition) {
            (owned.stored, owned.planned_at, owned.moved_at) = (end, None, now);
            owned.trouble = None;
        }
    }

    pub(super) fn troubled(&mut self, partition: &TopicPartition, error: String) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.trouble = Some(error);
        }
    }

    pub(super) fn held_back(&mut self, partition: &TopicPartition, error: String) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            (owned.trouble, owned.is_held_back) = (Some(error), true);
        }
    }

    /// The broker told where a partition ends.
    pub(super) fn ends(&mut self, partition: &TopicPartition, end: i64, now: Instant) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            let had_work = owned.has_work();
            owned.end = Some(end);
            if !had_work {
                // From here on there may be something to get on with.
                owned.moved_at = now;
            }
        }
    }

    fn state(&self) -> State {
        match self {
            Standing { joined: false, .. } => State::Starting,
            Standing { is_retrying: true, .. } => State::Retrying,
            Standing { partitions, .. } if partitions.is_empty() => State::Standby,
            _ => State::Active,
        }
    }

    pub(super) fn readiness(&self, now: Instant, stall_after: Duration) -> Readiness {
        let state = self.state();
        let reason = match state {
            State::Starting if self.failed == 0 => Some("it is joining the group".to_owned()),
            State::Starting | State::Retrying if self.failed >= State::REPEATEDLY => Some(format!(
                "{} sessions in a row failed and stored nothing, the last with: {}",
                self.failed, self.last_error
            )),
            State::Starting => Some(self.last_error.clone()),
            _ if self.topics == Some(0) => {
                Some("no topic exists that consumer.topics takes".to_owned())
            }
            _ => match &self.left_to_nobody {
                Some(partition) => Some(format!("no member of the group has {partition}")),
                None => self.stalled(now, stall_after),
            },
        };
        Readiness { ready: reason.is_none(), state: state.name(), reason }
    }

    /// The partition that has stood still the longest, if any has for too long.
    fn stalled(&self, now: Instant, stall_after: Duration) -> Option<String> {
        let (partition, owned) = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.has_work())
            .min_by_key(|(_, owned)| owned.moved_at)?;
        let stood = now.saturating_duration_since(owned.moved_at);
        if stood < stall_after {
            return None;
        }
        let why = owned.trouble.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        Some(format!("nothing of {partition} was stored for {} s{why}", stood.as_secs()))
    }

    pub(super) fn snapshot(&self, now: Instant, stall_after: Duration) -> Snapshot {
        let lag = |owned: &Owned| owned.end.map(|end| (end - owned.stored).max(0));
        let plans = self.partitions.values().filter_map(|owned| owned.planned_at);
        Snapshot {
            state: self.state(),
            ready: self.readiness(now, stall_after).ready,
            lags: self.partitions.iter().map(|(name, owned)| (name.clone(), lag(owned))).collect(),
            plan_age: plans
                .min()
                .map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    fn partition() -> TopicPartition {
        TopicPartition { topic: "orders".into(), partition: 3 }
    }

    fn active(now: Instant) -> Standing {
        let mut standing = Standing::default();
        standing.joined();
        standing.assigned(partition(), 10, now);
        standing
    }

    fn reason(standing: &Standing, now: Instant) -> Option<String> {
        standing.readiness(now, STALL).reason
    }

    #[test]
    fn a_partition_that_starts_over_from_where_it_stood_has_not_moved() {
        let now = Instant::now();
        let mut standing = active(now);
        standing.ends(&partition(), 20, now);
        standing.planned(&partition(), now);
        standing.troubled(&partition(), "the table has changed".to_owned());
        standing.assigned(partition(), 10, now + STALL);
        standing.ends(&partition(), 20, now + STALL);
        assert!(reason(&standing, now + STALL * 2).unwrap().contains("the table has changed"));
        // From another offset it has.
        standing.assigned(partition(), 15, now + STALL * 2);
        assert_eq!(reason(&standing, now + STALL * 2), None);
    }

    #[test]
    fn it_is_not_ready_before_it_is_in_the_group_and_ready_without_a_partition() {
        let now = Instant::now();
        let mut standing = Standing::default();
        assert!(!standing.readiness(now, STALL).ready);
        standing.joined();
        standing.reads(1, None);
        let readiness = standing.readiness(now, STALL);
        assert_eq!((readiness.ready, readiness.state), (true, "standby"));
        standing.reads(1, Some("orders/7".to_owned()));
        assert!(reason(&standing, now).unwrap().contains("has orders/7"));
        standing.reads(0, None);
        assert!(reason(&standing, now).unwrap().contains("consumer.topics"), "nothing to read");
    }

    #[test]
    fn an_idle_partition_never_stalls_and_one_with_work_does() {
        let now = Instant::now();
        let later = now + STALL * 10;
        let mut standing = active(now);
        assert_eq!(reason(&standing, later), None, "the end is not known");
        standing.ends(&partition(), 10, now);
        assert_eq!(reason(&standing, later), None);
        standing.ends(&partition(), 15, later);
        assert_eq!(reason(&standing, later), None, "it has only just come");
        standing.planned(&partition(), later);
        standing.troubled(&partition(), "connection refused".to_owned());
        let stalled = reason(&standing, later + STALL).unwrap();
        assert!(stalled.contains("orders/3") && stalled.contains("connection refused"));
        standing.stored(&partition(), 15, later + STALL);
        assert_eq!(reason(&standing, later + STALL * 10), None);
    }

    #[test]
    fn a_partition_that_is_held_back_stalls_though_its_end_is_not_known() {
        let now = Instant::now();
        let mut standing = active(now);
        standing.held_back(&partition(), "table t does not exist".to_owned());
        assert_eq!(reason(&standing, now), None, "somebody may be about to mend it");
        assert!(reason(&standing, now + STALL).unwrap().contains("table t does not exist"));
        standing.assigned(partition(), 10, now + STALL);
        assert_eq!(reason(&standing, now + STALL * 2), None);
    }

    #[test]
    fn storing_something_now_and_then_is_getting_on() {
        let now = Instant::now();
        let mut standing = active(now);
        standing.ends(&partition(), 1_000_000, now);
        for minute in 1..10 {
            let at = now + STALL * minute / 2;
            standing.ends(&partition(), 1_000_000, at);
            assert_eq!(reason(&standing, at), None);
            standing.stored(&partition(), 10 + i64::from(minute), at);
        }
    }

    #[test]
    fn sessions_that_fail_again_and_again_are_told_with_the_last_reason() {
        let now = Instant::now();
        let mut standing = active(now);
        for n in 1..=2 {
            standing.failed(format!("failure {n}"));
            assert!(standing.readiness(now, STALL).ready, "it may pass");
        }
        standing.failed("failure 3".to_owned());
        assert!(reason(&standing, now).unwrap().contains("failure 3"));
        standing.joined();
        standing.assigned(partition(), 10, now);
        standing.stored(&partition(), 11, now);
        standing.failed("failure 4".to_owned());
        assert_eq!(reason(&standing, now), None);
    }

    #[test]
    fn lags_and_the_age_of_plans_are_shown() {
        let now = Instant::now();
        let mut standing = active(now);
        assert_eq!(standing.snapshot(now, STALL).lags, [(partition(), None)]);
        standing.ends(&partition(), 25, now);
        standing.planned(&partition(), now);
        let snapshot = standing.snapshot(now + Duration::from_secs(2), STALL);
        assert_eq!(snapshot.lags, [(partition(), Some(15))]);
        assert_eq!(snapshot.plan_age, Duration::from_secs(2));
        assert_eq!(standing.left(), [partition()]);
        assert_eq!(standing.snapshot(now, STALL).state, State::Standby);
    }
}
