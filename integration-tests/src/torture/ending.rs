//! The end of a run: everything comes to rest, is compared, and told.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Campaign, Run,
    event::{Fate, KINDS},
    faults::Done,
    ledger::{self, Entry},
    life,
    oracle::{self, Found, Verdict},
    recovery,
    report::{self, Report, Violation},
    tables,
    world::{CONSUMERS, RELAYS, World},
    writers,
};
use crate::{eventually, program::Binary};

/// Heals everything, waits until everything has arrived or nothing more comes, and
/// returns what was committed, and what did not come to rest.
pub(super) async fn settle(
    world: &World,
    patience: Duration,
    run: &Run,
) -> Result<(HashMap<Uuid, Entry>, Option<Violation>)> {
    let client = world.connect().await?;
    // What a writer sent last may still be on its way.
    eventually(patience, async || {
        const WRITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let writing: i64 = client.query_one(WRITING, &[&writers::NAME]).await?.get(0);
        ensure!(writing == 0, "{writing} writers are still at work");
        Ok(())
    })
    .await?;
    let ledger = ledger::read(&client).await?;
    let of = |fate| ledger.values().filter(|entry| entry.fate == fate).count() as u64;
    let (least, bulky) = (of(Fate::Stored), of(Fate::Bulky));
    let letters = (of(Fate::Poison) + of(Fate::Unpublishable)) as usize;
    let arrived = eventually(patience, async || {
        let mut rows = 0;
        for kind in KINDS {
            rows += tables::count(&world.client(), kind, "1").await?.events;
        }
        let parked = run.follower.seen().letters.len();
        ensure!(
            rows >= least
                && parked >= letters
                && rows + parked as u64 >= least + bulky + letters as u64,
            "{rows} rows of {least}, {parked} letters of {letters}, and {bulky} of either"
        );
        let status = world.command(Binary::Consumer, &["status", "--json"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let lag = status["lag"].as_i64().context("no lag")?;
        ensure!(lag == 0, "a lag of {lag}");
        Ok(())
    })
    .await;
    Ok((ledger, arrived.err().map(|error| Violation::unrest(&error))))
}

pub(super) async fn result(
    world: &World,
    campaign: &Campaign,
    run: &Run,
    done: &[Done],
    ledger: &HashMap<Uuid, Entry>,
    settled: Duration,
) -> Result<Report> {
    let mut rows = BTreeMap::new();
    for kind in KINDS {
        rows.insert(kind, tables::read(&world.client(), kind).await?);
    }
    let verdict = {
        let seen = run.follower.seen();
        oracle::judge(&Found { ledger, records: &seen.records, letters: &seen.letters, rows })
    };
    let mut violations = run.watch.violations();
    let dead_letters = {
        let seen = run.follower.seen();
        let of_reader = seen.violations.iter().cloned();
        violations.extend(of_reader.map(|(what, event)| Violation { what, event }));
        seen.letters.len() as u64
    };
    let Verdict { lost, duplicated, out_of_order, bent, unexpected, violations: judged } = verdict;
    violations.extend(judged);
    for key in tables::wrong_sums(&world.client()).await? {
        let what = format!("the materialised view has other sums than its table for key {key}");
        violations.push(Violation { what, event: None });
    }
    for args in [&["reconcile"][..], &["reconcile", "--outbox"]] {
        if let Err(error) = timeout(Duration::from_secs(120), world.command(Binary::Consumer, args))
            .await
            .context("no answer in time")?
        {
            let what = format!("reconcile does not agree: {error:#}");
            violations.push(Violation { what, event: None });
        }
    }
    for log in logs(world) {
        if let Some(line) = fs::read_to_string(&log)?.lines().find(|line| line.contains("panicked"))
        {
            let what = format!("a panic, in {}: {line}", log.display());
            violations.push(Violation { what, event: None });
        }
    }
    let mut faults: BTreeMap<_, u64> = BTreeMap::new();
    done.iter().for_each(|done| *faults.entry(done.fault).or_default() += 1);
    let restarts = world.crew.ended().await.into_iter();
    let watched = run.watch.watched();
    Ok(Report {
        seed: campaign.seed,
        duration_s: campaign.duration.as_secs(),
        events: ledger.len() as u64,
        transactions: run.books.transactions(),
        rolled_back: run.books.rolled_back(),
        dead_letters,
        faults,
        lost,
        duplicated,
        out_of_order,
        bent,
        unexpected,
        violations,
        recovery: recovery::recoveries(done, &watched.samples),
        relay_rss_mib: report::quarters(&watched.memory, true),
        consumer_rss_mib: report::quarters(&watched.memory, false),
        restarts: restarts.map(|(name, ended)| (name, ended.len())).collect(),
        settled_s: settled.as_secs_f64(),
    })
}

/// The logs of all programs.
fn logs(world: &World) -> Vec<PathBuf> {
    let relays = (1..=RELAYS).map(|at| format!("relay-{at}"));
    let consumers = (1..=CONSUMERS + 1).map(|at| format!("consumer-{at}"));
    relays.chain(consumers).map(|name| world.place.log(&name)).collect()
}

/// Writes down what is known of the first events that something went wrong with.
pub(super) fn tell_lives(
    world: &World,
    run: &Run,
    ledger: &HashMap<Uuid, Entry>,
    report: &Report,
) -> Result<()> {
    const AT_MOST: usize = 5;
    let logs = logs(world);
    let seen = run.follower.seen();
    let events: Vec<_> = report.violations.iter().filter_map(|violation| violation.event).collect();
    let lives: Vec<_> = events
        .iter()
        .take(AT_MOST)
        .map(|id| life::of_event(*id, ledger.get(id), &seen, &logs))
        .collect();
    if !lives.is_empty() {
        let path = world.place.file("lives.txt");
        fs::write(&path, lives.join("\n"))?;
        println!("What is known of the first of them: {} (seed {})", path.display(), report.seed);
    }
    Ok(())
}
