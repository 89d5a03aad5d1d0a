//! Reading a topic again.
//!
//! ```text
//! args.rs ─▶ target.rs, bounds.rs ─▶ Frames, committed by the group ─▶ run.rs: the pipeline ─▶ report.rs
//!                                                      swap/: several runs, and EXCHANGE TABLES between
//! ```
//!
//! It is the ordinary pipeline in a group of its own, so that plans, recovery and
//! the memory limit are the same. What is different stands in the [`Frame`]s that
//! the group's offsets carry (where each partition begins and ends, and which
//! tokens are its own) and in the `Terms`. The offsets begin as if somebody had
//! moved them there by hand: as far as a table has rows of a partition, it is
//! asked which it has, and only the others are inserted.

mod args;
mod bounds;
mod check;
mod error;
mod estimate;
mod ranges;
mod report;
mod run;
mod swap;
mod target;
mod terms;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use jiff::Timestamp;
use outpour_schemas::config::Config;
use tokio_util::sync::CancellationToken;

pub use self::{
    args::ReplayArgs,
    error::ReplayError,
    ranges::{RangesReplayed, ReplayRange, replay_ranges},
};
use self::{
    report::Report,
    run::to_the_end,
    target::{Kind, Target},
};
pub(crate) use self::{
    run::blocking,
    terms::{Parked, Terms},
};
use crate::{
    confirm::{Unconfirmed, confirm},
    dlq,
    error::ConsumerError,
    frame::Frame,
    sink::ClickHouse,
    source::{
        group::{Commit, Committed, Group},
        reader::{Part, TopicReader},
    },
    table::TableName,
};

/// What to do about members of a replay's group.
const RUNS_ELSEWHERE: &str = "the same replay runs somewhere else. Let it finish, or stop it";

/// # Errors
/// When something keeps it from being done; what is refused changes nothing.
pub(crate) async fn replay(
    config: &Config,
    args: &ReplayArgs,
    stop: &CancellationToken,
) -> Result<String, ConsumerError> {
    let scene = Scene::set(config, args).await?;
    let report = match &scene.target.kind {
        Kind::Swap { live, shadow } => swap::swap(&scene, live, shadow, stop).await?,
        Kind::Live | Kind::Into(_) => scene.replay(stop).await?,
    };
    Ok(if args.json { report.json()? } else { report.text() })
}

/// What one command works with.
struct Scene<'a> {
    config: &'a Config,
    args: &'a ReplayArgs,
    target: Target,
    clickhouse: ClickHouse,
    reader: Arc<TopicReader>,
    /// The replay's own group.
    group: Arc<Group>,
    /// The group that consumes the topic.
    live: Arc<Group>,
    partitions: Vec<i32>,
    began: Instant,
}

/// What the group says of an earlier replay to the same target.
enum Standing {
    New,
    /// The same, and whether every partition has come to its end.
    Ours {
        frames: Vec<(i32, Frame)>,
        is_done: bool,
    },
}

impl<'a> Scene<'a> {
    async fn set(config: &'a Config, args: &'a ReplayArgs) -> Result<Self, ConsumerError> {
        args.check()?;
        let target = Target::choose(config, args)?;
        let clickhouse = ClickHouse::new(&config.clickhouse)?;
        let name = format!("{}.replay.{}.{}", config.consumer.group, args.topic, target.id());
        let (settings, topic) = (config.clone(), args.topic.clone());
        let (reader, group, live, partitions) = blocking(move || {
            let reader = TopicReader::connect(&settings)?;
            let partitions = reader.partitions(&topic)?;
            if partitions.is_empty() {
                let brokers = &settings.kafka.brokers;
                let missing = format!("topic `{topic}` does not exist on Kafka at {brokers}");
                return Err(ReplayError::Refused(missing).into());
            }
            let group = Group::connect(&settings, &name, &topic)?;
            let live = Group::connect(&settings, &settings.consumer.group, &topic)?;
            Ok((reader, group, live, partitions))
        })
        .await?;
        Ok(Scene {
            config,
            args,
            target,
            clickhouse,
            reader: Arc::new(reader),
            group: Arc::new(group),
            live: Arc::new(live),
            partitions,
            began: Instant::now(),
        })
    }

    async fn committed(&self, group: &Arc<Group>) -> Result<Vec<Committed>, ConsumerError> {
        let (group, partitions) = (Arc::clone(group), self.partitions.clone());
        blocking(move || group.committed(&partitions)).await
    }

    /// What the live group has committed, by partition: what is before it is stored
    /// or parked, and what is not is the group's to store.
    async fn stored(&self) -> Result<HashMap<i32, i64>, ConsumerError> {
        let committed = self.committed(&self.live).await?;
        let stored: HashMap<_, _> =
            committed.iter().filter_map(|found| Some((found.partition, found.offset?))).collect();
        if stored.is_empty() {
            return Err(ReplayError::refused(format!(
                "group `{}` has stored nothing of topic `{}` yet: all of it is the consumer's; use \
                 --into for another table",
                self.config.consumer.group, self.args.topic
            ))
            .into());
        }
        Ok(stored)
    }

    /// What is asked for, of the tables that the topic goes to now.
    fn job(&self) -> String {
        Frame::job(&format!("{} {}", self.args.asked_for(), target::listed(&self.target.live)))
    }

    /// # Errors
    /// When another replay to the same target has not come to its end.
    async fn standing(&self) -> Result<Standing, ConsumerError> {
        let committed = self.committed(&self.group).await?;
        let frames: Vec<_> = committed
            .iter()
            .filter_map(|found| Some((found.partition, found.frame.clone()?)))
            .collect();
        let Some((_, first)) = frames.first() else { return Ok(Standing::New) };
        let parts = parts(&frames);
        let (all, done) = (run::offsets(&parts), run::done(&parts, &committed));
        let is_ours = frames.iter().all(|(_, frame)| frame.job == self.job());
        let is_swapping = first.swap.is_some_and(|swap| !swap.is_after);
        let is_done = done >= all && !is_swapping;
        if is_ours {
            return Ok(Standing::Ours { frames, is_done });
        }
        if is_done || self.args.restart {
            return Ok(Standing::New);
        }
        Err(ReplayError::refused(format!(
            "a replay of `{}` into {} with other options, begun at {:.0}, is at {done} of {all} \
             offsets: finish it with its options, or begin anew with --restart",
            self.args.topic,
            self.target.text(),
            first.began_at(),
        ))
        .into())
    }

    async fn replay(&self, stop: &CancellationToken) -> Result<Report, ConsumerError> {
        let settings = self.settings(self.target.other());
        let (mut frames, mut is_new) = (Vec::new(), true);
        match self.standing().await? {
            Standing::Ours { frames, is_done: true } if !self.args.restart => {
                return Ok(self.report("done_before", &parts(&frames)));
            }
            Standing::Ours { frames: found, .. } if !self.args.restart => {
                (frames, is_new) = (found, false);
            }
            Standing::Ours { .. } | Standing::New => {}
        }
        if is_new {
            frames = self.frames(&self.bounds().await?);
        }
        let parts = parts(&frames);
        let is_there = self.check().await?;
        if run::offsets(&parts) == 0 {
            return Ok(self.report("nothing", &parts));
        }
        let mut steps = Vec::new();
        if let Some(other) = self.target.other().filter(|_| !is_there) {
            steps.push(format!("create table {other} like {}", target::listed(&self.target.live)));
        }
        if !is_new {
            steps.push("go on where it was interrupted".to_owned());
        }
        if self.args.dry_run {
            let estimate = self.estimate(&parts).await?;
            return Ok(Report { steps, estimate, ..self.report("dry_run", &parts) });
        }
        if self.target.kind == Kind::Live {
            self.ask(&format!(
                "Add what is missing of {} offsets of {} to {}?",
                run::offsets(&parts),
                self.args.topic,
                self.target.text()
            ))?;
        }
        if let (Some(other), [live]) = (self.target.other(), self.target.live.as_slice()) {
            target::create_like(&self.clickhouse, other, live).await?;
        }
        if is_new {
            self.begin(&frames, true).await?;
        }
        let tables = self.target.other().map_or(self.target.live.as_slice(), std::slice::from_ref);
        let before = self.rows(tables, &parts).await?;
        let terms = self.terms().await?;
        to_the_end(&settings, &self.group, &parts, &terms, stop).await?;
        let rows = self.rows(tables, &parts).await?;
        let counts = &terms.counts;
        Ok(Report {
            steps,
            rows: Some(rows),
            rows_added: Some(rows.saturating_sub(before)),
            parked_before: counts.parked_before.load(Relaxed),
            parked: counts.parked.load(Relaxed),
            ..self.report("done", &parts)
        })
    }

    /// The configuration of a consumer that writes to `other`, or the live tables.
    fn settings(&self, other: Option<&TableName>) -> Config {
        self.target.config(self.config, &self.group.name, &self.args.topic, other)
    }

    async fn bounds(&self) -> Result<Vec<Part>, ConsumerError> {
        let limits = match self.target.kind {
            Kind::Live | Kind::Swap { .. } => Some(self.stored().await?),
            Kind::Into(_) => None,
        };
        let (reader, args) = (Arc::clone(&self.reader), self.args.clone());
        blocking(move || bounds::resolve(&reader, &args, limits.as_ref(), Timestamp::now())).await
    }

    fn frames(&self, parts: &[Part]) -> Vec<(i32, Frame)> {
        let (job, began_at_ms) = (self.job(), Timestamp::now().as_millisecond());
        let frame = |part: &Part| {
            let job = job.clone();
            let frame = Frame { job, from: part.from, until: part.until, began_at_ms, swap: None };
            (part.partition, frame)
        };
        parts.iter().map(frame).collect()
    }

    /// Commits where every partition begins. `may_be_there`: the tables are asked.
    async fn begin(
        &self,
        frames: &[(i32, Frame)],
        may_be_there: bool,
    ) -> Result<(), ConsumerError> {
        let commit = |(partition, frame): &(i32, Frame)| Commit {
            partition: *partition,
            offset: frame.from,
            metadata: frame.metadata(may_be_there),
        };
        self.commit(frames.iter().map(commit).collect()).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Result<(), ConsumerError> {
        let group = Arc::clone(&self.group);
        blocking(move || group.commit(&commits, RUNS_ELSEWHERE)).await
    }

    /// Sees to it that the target is fit; whether it is there.
    async fn check(&self) -> Result<bool, ConsumerError> {
        let other = match self.target.other() {
            Some(other) => target::finding(&self.clickhouse, other).await?.map(|_| other),
            None => None,
        };
        // What is not there yet will be like the live one.
        let is_live = self.target.kind == Kind::Live;
        target::check(&self.settings(other), &self.clickhouse, is_live).await?;
        Ok(other.is_some() || is_live)
    }

    fn ask(&self, question: &str) -> Result<(), Unconfirmed> {
        confirm(question, self.args.yes)
    }

    /// The terms of a run, with the letters that are there by now.
    async fn terms(&self) -> Result<Arc<Terms>, ConsumerError> {
        let (reader, topic) = (Arc::clone(&self.reader), self.args.topic.clone());
        let parked = blocking(move || dlq::read::parked(&reader, &topic)).await?;
        let known_as = match (self.target.other(), self.target.live.as_slice()) {
            (Some(other), [live]) => Some((other.to_string().into(), live.to_string().into())),
            _ => None,
        };
        Ok(Arc::new(Terms {
            selection: self.args.selection(),
            parked,
            known_as,
            is_renamed: matches!(self.target.kind, Kind::Swap { .. }),
            ..Terms::default()
        }))
    }

    async fn rows(&self, tables: &[TableName], parts: &[Part]) -> Result<u64, ConsumerError> {
        let mut rows = 0;
        for table in tables {
            let of_parts = check::of_parts(&self.args.topic, parts);
            let sql = format!("SELECT count() FROM {} WHERE {of_parts}", table.quoted());
            let counting = self
                .clickhouse
                .on_any(|| self.clickhouse.fetch::<u64>(self.clickhouse.query(&escaped(&sql))));
            let counted = counting.await.map_err(|source| {
                ConsumerError::clickhouse("counting rows", &self.clickhouse, source)
            })?;
            rows += counted.first().copied().unwrap_or(0);
        }
        Ok(rows)
    }

    async fn estimate(&self, parts: &[Part]) -> Result<Option<report::Estimate>, ConsumerError> {
        let (reader, topic, parts) =
            (Arc::clone(&self.reader), self.args.topic.clone(), parts.to_vec());
        blocking(move || estimate::estimate(&reader, &topic, &parts).map(Some)).await
    }

    fn report(&self, state: &'static str, parts: &[Part]) -> Report {
        Report {
            state,
            topic: self.args.topic.clone(),
            mode: match self.target.kind {
                Kind::Live => "live",
                Kind::Into(_) => "into",
                Kind::Swap { .. } => "swap",
            },
            target: self.target.text(),
            group: self.group.name.clone(),
            partitions: parts.iter().map(Into::into).collect(),
            offsets: run::offsets(parts),
            rows: None,
            rows_added: None,
            parked_before: 0,
            parked: 0,
            seconds: self.began.elapsed().as_secs_f64(),
            steps: Vec::new(),
            drop_old: None,
            estimate: None,
        }
    }
}

/// A `?` in a query stands for a value unless it is doubled.
fn escaped(sql: &str) -> String {
    sql.replace('?', "??")
}

fn parts(frames: &[(i32, Frame)]) -> Vec<Part> {
    let part = |(partition, frame): &(i32, Frame)| Part {
        partition: *partition,
        from: frame.from,
        until: frame.until.max(frame.from),
    };
    frames.iter().map(part).collect()
}
