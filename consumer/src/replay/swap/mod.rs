//! A table built anew beside the live one, and put in its place while consumers
//! go on.
//!
//! ```text
//! shadow made ─▶ filled up to where the group is ─▶ checked ─▶ caught up ─▶ EXCHANGE ─▶ the rest
//!  copies what Kafka has lost                                                            by provenance
//! ```
//!
//! What the live consumer stores between the last catching up and the exchange is
//! in the old table alone. After the exchange, batches that were under way are
//! waited for, since they may have gone to either table, and what the group has
//! committed by then is added to the new one as far as it is missing. What is
//! committed later went to the new one.
//!
//! The frames say which table is which by UUID: names change hands.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Scene, Standing, check,
    error::ReplayError,
    parts,
    report::Report,
    run::{blocking, offsets, to_the_end},
    target::{self, execute},
};
use crate::{
    error::ConsumerError,
    frame::{Frame, Swap},
    sink::ClickHouse,
    source::{
        group::{Commit, Committed},
        reader::Part,
    },
    table::TableName,
};

mod fitness;

/// So many offsets may be left to be added after the exchange.
const REST: i64 = 50_000;

type Frames = Vec<(i32, Frame)>;

pub(super) async fn swap(
    scene: &Scene<'_>,
    live: &TableName,
    shadow: &TableName,
    stop: &CancellationToken,
) -> Result<Report, ConsumerError> {
    Swapping { scene, live, shadow, stop }.run().await
}

struct Swapping<'a> {
    scene: &'a Scene<'a>,
    live: &'a TableName,
    shadow: &'a TableName,
    stop: &'a CancellationToken,
}

impl Swapping<'_> {
    async fn run(&self) -> Result<Report, ConsumerError> {
        let scene = self.scene;
        let mut steps = Vec::new();
        // Whether the shadow is what an unfinished swap has begun to fill.
        let mut is_ours = false;
        let mut frames = match scene.standing().await? {
            Standing::Ours { frames, is_done: true } if !scene.args.restart => {
                return self.done_before(&frames).await;
            }
            Standing::Ours { frames, .. } if !scene.args.restart => frames,
            Standing::Ours { frames, .. } => {
                is_ours = self.has_begun(&frames).await?;
                Vec::new()
            }
            Standing::New => Vec::new(),
        };
        if frames.is_empty() {
            let lost = self.may_begin(is_ours).await?;
            frames = scene.frames(&scene.bounds().await?);
            if scene.args.dry_run {
                return self.would(&parts(&frames), lost).await;
            }
            scene.ask(&format!(
                "Build {} anew from {} offsets of {} and exchange it?",
                self.live,
                offsets(&parts(&frames)),
                scene.args.topic
            ))?;
            let live = self.uuid(self.live).await?;
            let swap = Swap { live, shadow: Uuid::nil(), is_after: false };
            frames.iter_mut().for_each(|(_, frame)| frame.swap = Some(swap));
            scene.begin(&frames, false).await?;
        } else if scene.args.dry_run {
            return self.would(&parts(&frames), 0).await;
        }
        let mut parked = (0, 0);
        if swap_of(&frames)?.shadow.is_nil() {
            let copied = self.make(&mut frames).await?;
            if copied > 0 {
                steps.push(format!("{copied} rows copied that Kafka no longer has"));
            }
        }
        let swap = swap_of(&frames)?;
        if !swap.is_after {
            if self.uuid(self.live).await? == swap.live {
                parked = self.fill(&frames).await?;
                let (topic, settings) = (&scene.args.topic, scene.settings(Some(self.shadow)));
                let compared = (topic.as_str(), parts(&frames));
                let checked = check::check(
                    &settings,
                    &scene.clickhouse,
                    &scene.reader,
                    (compared.0, &compared.1),
                    (self.shadow, self.live),
                );
                steps.push(format!("{} rows checked against Kafka", checked.await?));
                self.catch_up(&mut frames).await?;
                self.exchange(swap).await?;
            }
            self.is_exchanged(swap).await?;
            self.after(&mut frames, swap).await?;
        }
        self.is_exchanged(swap).await?;
        steps.push("tables exchanged".to_owned());
        let settings = scene.settings(None);
        let terms = scene.terms().await?;
        to_the_end(&settings, &scene.group, &parts(&frames), &terms, self.stop).await?;
        let rows = scene.rows(std::slice::from_ref(self.live), &parts(&frames)).await?;
        let drop_old = self.drop_old(swap).await?;
        Ok(Report {
            steps,
            rows: Some(rows),
            parked_before: parked.0,
            parked: parked.1,
            drop_old,
            ..scene.report("done", &parts(&frames))
        })
    }

    async fn would(&self, parts: &[Part], lost: u64) -> Result<Report, ConsumerError> {
        let mut steps = vec![format!("make {} like {} and fill it", self.shadow, self.live)];
        if lost > 0 {
            steps.push(format!("copy {lost} rows that Kafka no longer has"));
        }
        steps.push("compare it with Kafka".to_owned());
        steps.push(format!("exchange it with {} and add what came meanwhile", self.live));
        let estimate = self.scene.estimate(parts).await?;
        Ok(Report { steps, estimate, ..self.scene.report("dry_run", parts) })
    }

    /// Nothing that this would undo is there; how many rows Kafka no longer has.
    async fn may_begin(&self, is_ours: bool) -> Result<u64, ConsumerError> {
        fitness::check(self.scene, self.live).await?;
        let is_there = target::finding(&self.scene.clickhouse, self.shadow).await?.is_some();
        if is_there && !is_ours {
            return Err(ReplayError::refused(format!(
                "table {} exists, as an earlier --swap leaves the old one: drop it with DROP \
                 TABLE {}, or rename it to keep it",
                self.shadow,
                self.shadow.quoted()
            ))
            .into());
        }
        fitness::lost(self.scene, self.live).await
    }

    /// Whether the shadow is what an unfinished swap has made: it may be made anew.
    async fn has_begun(&self, frames: &Frames) -> Result<bool, ConsumerError> {
        let Ok(swap) = swap_of(frames) else { return Ok(false) };
        Ok(match target::finding(&self.scene.clickhouse, self.shadow).await? {
            Some(_) if swap.is_after => false,
            Some(_) => swap.shadow.is_nil() || self.uuid(self.shadow).await? == swap.shadow,
            None => false,
        })
    }

    async fn drop_shadow(&self) -> Result<(), ConsumerError> {
        let sql = format!("DROP TABLE IF EXISTS {} SYNC", self.shadow.quoted());
        execute(&self.scene.clickhouse, "dropping the unfinished table", &sql).await
    }

    /// Makes the shadow with what Kafka no longer has. Whatever of it a killed
    /// process has left is dropped first, so that nothing of that can come twice.
    async fn make(&self, frames: &mut Frames) -> Result<u64, ConsumerError> {
        let swap = swap_of(frames)?;
        if self.uuid(self.live).await? != swap.live {
            return Err(self.changed().into());
        }
        self.drop_shadow().await?;
        target::create_like(&self.scene.clickhouse, self.shadow, self.live).await?;
        let copied = fitness::copy(self.scene, self.live, self.shadow, self.stop).await?;
        let swap = Swap { shadow: self.uuid(self.shadow).await?, ..swap };
        frames.iter_mut().for_each(|(_, frame)| frame.swap = Some(swap));
        self.scene.begin(frames, false).await?;
        Ok(copied)
    }

    /// What does not fit: letters that were there, and new ones.
    async fn fill(&self, frames: &Frames) -> Result<(u64, u64), ConsumerError> {
        use std::sync::atomic::Ordering::Relaxed;
        let settings = self.scene.settings(Some(self.shadow));
        let terms = self.scene.terms().await?;
        to_the_end(&settings, &self.scene.group, &parts(frames), &terms, self.stop).await?;
        let counts = &terms.counts;
        Ok((counts.parked_before.load(Relaxed), counts.parked.load(Relaxed)))
    }

    /// Fills until little is left.
    async fn catch_up(&self, frames: &mut Frames) -> Result<(), ConsumerError> {
        /// A consumer that is as fast as this is never caught up with.
        const ROUNDS: usize = 10;
        for _ in 0..ROUNDS {
            let stored = self.scene.stored().await?;
            let rest = rest(frames, &stored);
            tracing::info!(rest, "offsets to catch up with the group");
            if rest <= REST {
                break;
            }
            self.extend(frames, &stored, false).await?;
            self.fill(frames).await?;
        }
        Ok(())
    }

    /// Moves the bounds on to what the live group has stored.
    async fn extend(
        &self,
        frames: &mut Frames,
        stored: &HashMap<i32, i64>,
        may_be_there: bool,
    ) -> Result<(), ConsumerError> {
        let committed = self.scene.committed(&self.scene.group).await?;
        for (partition, frame) in frames.iter_mut() {
            if let Some(until) = stored.get(partition) {
                frame.until = frame.until.max(*until);
            }
        }
        self.scene.commit(commits(frames, &committed, may_be_there)).await
    }

    async fn exchange(&self, swap: Swap) -> Result<(), ConsumerError> {
        let now = (self.uuid(self.live).await?, self.uuid(self.shadow).await?);
        if now != (swap.live, swap.shadow) {
            return Err(self.changed().into());
        }
        let sql = format!("EXCHANGE TABLES {} AND {}", self.live.quoted(), self.shadow.quoted());
        // Once: a second one would undo it. What it came to, the UUIDs tell.
        let outcome = self.scene.clickhouse.execute(&sql).await;
        match outcome {
            Err(source) if self.uuid(self.live).await? == swap.live => {
                let clickhouse = &self.scene.clickhouse;
                Err(ConsumerError::clickhouse("exchanging the tables", clickhouse, source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn is_exchanged(&self, swap: Swap) -> Result<(), ConsumerError> {
        match self.uuid(self.live).await? == swap.shadow {
            true => Ok(()),
            false => Err(self.changed().into()),
        }
    }

    /// Bounds for what the old table got and the new one did not.
    async fn after(&self, frames: &mut Frames, swap: Swap) -> Result<(), ConsumerError> {
        let stored = self.settled().await?;
        let swap = Swap { is_after: true, ..swap };
        frames.iter_mut().for_each(|(_, frame)| frame.swap = Some(swap));
        self.extend(frames, &stored, true).await
    }

    /// What the live group has committed once every batch is stored that may have
    /// been under way during the exchange. Those of a group without members are
    /// inserted again, into the new table, by whoever comes next.
    async fn settled(&self) -> Result<HashMap<i32, i64>, ConsumerError> {
        const EVERY: Duration = Duration::from_millis(200);
        let open = self.scene.committed(&self.scene.live).await?;
        let mut has_told = false;
        loop {
            let now = self.scene.committed(&self.scene.live).await?;
            let live = Arc::clone(&self.scene.live);
            if is_settled(&open, &now) || !blocking(move || live.may_have_members()).await? {
                return self.scene.stored().await;
            }
            if !has_told {
                tracing::info!(
                    group = self.scene.config.consumer.group,
                    "waiting for batches that the live consumers have under way"
                );
                has_told = true;
            }
            tokio::select! {
                () = self.stop.cancelled() => {
                    return Err(ReplayError::Paused.into());
                }
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn done_before(&self, frames: &Frames) -> Result<Report, ConsumerError> {
        let drop_old = match swap_of(frames) {
            Ok(swap) if !self.scene.args.dry_run => self.drop_old(swap).await?,
            _ => None,
        };
        Ok(Report { drop_old, ..self.scene.report("done_before", &parts(frames)) })
    }

    /// The statement that drops the old table, unless that was asked for.
    async fn drop_old(&self, swap: Swap) -> Result<Option<String>, ConsumerError> {
        let is_there = target::finding(&self.scene.clickhouse, self.shadow).await?.is_some();
        if !is_there || self.uuid(self.shadow).await? != swap.live {
            return Ok(None);
        }
        let sql = format!("DROP TABLE {}", self.shadow.quoted());
        if !self.scene.args.drop_old {
            return Ok(Some(sql));
        }
        execute(&self.scene.clickhouse, "dropping the old table", &sql).await?;
        Ok(None)
    }

    async fn uuid(&self, table: &TableName) -> Result<Uuid, ConsumerError> {
        uuid(&self.scene.clickhouse, table).await
    }

    fn changed(&self) -> ReplayError {
        ReplayError::refused(format!(
            "table {} or {} is not the one that the replay began with: somebody has exchanged or \
             made one anew. Begin anew with --restart",
            self.live, self.shadow
        ))
    }
}

async fn uuid(clickhouse: &ClickHouse, table: &TableName) -> Result<Uuid, ConsumerError> {
    let asking = clickhouse.on_any(|| {
        const UUID: &str =
            "SELECT toString(uuid) FROM system.tables WHERE database = ? AND name = ?";
        clickhouse.fetch::<String>(clickhouse.query(UUID).bind(&table.database).bind(&table.table))
    });
    let found = asking
        .await
        .map_err(|source| ConsumerError::clickhouse("reading the tables", clickhouse, source))?;
    let uuid = found.first().and_then(|text| text.parse().ok());
    uuid.ok_or_else(|| {
        ReplayError::refused(format!("table {table} does not exist any more")).into()
    })
}

fn swap_of(frames: &Frames) -> Result<Swap, ReplayError> {
    let swap = frames.iter().find_map(|(_, frame)| frame.swap);
    swap.ok_or_else(|| {
        ReplayError::refused("the earlier replay was no --swap; begin with --restart")
    })
}

/// Offsets between the frames and what the live group has stored.
fn rest(frames: &Frames, stored: &HashMap<i32, i64>) -> i64 {
    let rest = |(partition, frame): &(i32, Frame)| {
        stored.get(partition).map_or(0, |stored| (stored - frame.until).max(0))
    };
    frames.iter().map(rest).sum()
}

/// Goes on where the group is, with other frames.
fn commits(frames: &Frames, committed: &[Committed], may_be_there: bool) -> Vec<Commit> {
    let commit = |(partition, frame): &(i32, Frame)| {
        let found = committed.iter().find(|found| found.partition == *partition);
        let offset = found.and_then(|found| found.offset).unwrap_or(frame.from);
        Commit { partition: *partition, offset, metadata: frame.metadata(may_be_there) }
    };
    frames.iter().map(commit).collect()
}

/// Whether the batches that were `open` are stored by `now`.
fn is_settled(open: &[Committed], now: &[Committed]) -> bool {
    open.iter().filter_map(|found| Some((found.partition, found.plan.as_ref()?.end))).all(
        |(partition, end)| {
            let now = now.iter().find(|now| now.partition == partition);
            now.and_then(|now| now.offset).is_some_and(|offset| offset >= end)
        },
    )
}
