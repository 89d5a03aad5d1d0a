//! Whether the campaign would notice: the programs with one rule of the protocols
//! taken away, under the faults that show it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use outpour_schemas::{
    mutants::{Mutant, VARIABLE},
    program::Exit,
};
use tokio_util::sync::CancellationToken;

use super::{Campaign, Caught, campaign, crew::Programs, schedule::Fault};
use crate::{
    program::Binary,
    run::{INTERRUPTED, stop_on_signals},
};

/// The faults under which a mutant shows; `None` where a campaign has none, since it
/// takes what somebody does to the configuration, the slot or the group.
fn shown_by(mutant: Mutant) -> Option<&'static [Fault]> {
    use Fault as F;
    use Mutant as M;
    Some(match mutant {
        M::NoGapCheck | M::CheckpointUnsettled | M::RowCountForgotten | M::MovesIgnored => {
            return None;
        }
        M::NoFencing => &[F::RelayUsurped],
        M::CheckpointBeforeFencing => &[F::StreamEnded, F::RelayUsurped],
        M::CheckpointOutside => &[F::RelayKill],
        M::NoCheckpoint => &[F::RelayKill, F::PostgresRestart, F::StreamEnded],
        M::NoRowCount => &[F::StreamEnded],
        M::ConfirmEarly | M::KeepaliveInFlight => &[F::RelayKillInCommit],
        M::KeepaliveWithoutCheckpoint => &[F::Idle, F::RelayKill],
        M::AbortedIsDone => &[F::KafkaPause, F::RelayPause, F::Idle],
        M::RandomPartition | M::RefusedIsDone | M::RestLeftOut | M::BentValue => &[],
        M::NoPlan | M::PlanIgnored => {
            &[F::ConsumersKill, F::ClickHouseAnswersLost, F::ConsumerKill]
        }
        M::PlanAtTheEnd => &[F::ConsumersKill, F::ClickHouseSlow, F::ClickHousePause],
        M::CommitUnawaited => &[F::ConsumersKillRequestsLost],
        M::LettersOutside | M::LettersAfterPlan | M::LettersAgain => &[F::ConsumersKillAnswersLost],
        M::NoHandOver => &[F::ConsumerJoin, F::ConsumerLeave, F::ClickHouseSlow],
        M::NoToken | M::TokenPerOwner => &[F::ClickHouseAnswersLost, F::ConsumersKill],
        M::NoProvenance => &[F::AlteredCrash],
        M::FirstTokenForgotten => &[F::LateInsert],
        M::InsertGivenUp => &[F::ClickHouseKill, F::ReadOnly],
        M::ReadUncommitted => &[F::RelayKill, F::RelayPause, F::KafkaPause],
    })
}

/// What goes on all the time: with a slow Kafka a program that is met is mostly in the
/// midst of a commit, or of a transaction that takes several.
fn throughout(mutant: Mutant) -> Option<Fault> {
    use Mutant as M;
    let has_to_be_in_a_commit = matches!(mutant, M::CheckpointBeforeFencing | M::NoRowCount);
    has_to_be_in_a_commit.then_some(Fault::KafkaSlow)
}

/// Runs a campaign against each mutant, or against those that are named, until it is
/// caught. `dir` has programs that were built with the feature `mutants`.
///
/// # Errors
/// When a campaign could not run, or a name is none.
pub async fn hunt(
    dir: PathBuf,
    names: &[String],
    seed: u64,
    duration: Duration,
) -> Result<ExitCode> {
    for binary in [Binary::Relay, Binary::Consumer] {
        let path = dir.join(binary.name());
        ensure!(path.is_file(), "{} is not there: make mutants builds it", path.display());
    }
    if let Some(unknown) = names.iter().find(|name| Mutant::named(name).is_none()) {
        bail!("`{unknown}` is no mutant");
    }
    let stop = stop_on_signals()?;
    let asked =
        |mutant: &Mutant| names.is_empty() || names.iter().any(|name| *name == mutant.name());
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["mutant", "caught after s", "by"]);
    let mut all = true;
    for mutant in Mutant::ALL.into_iter().filter(asked) {
        let Some(kinds) = shown_by(mutant) else { continue };
        let (after, by) = match one(&dir, mutant, kinds, (seed, duration), &stop).await? {
            _ if stop.is_cancelled() => return Ok(INTERRUPTED.into()),
            Some((after, by)) => (format!("{:.0}", after.as_secs_f64()), by),
            None => {
                all = false;
                ("never".to_owned(), String::new())
            }
        };
        println!("{:<28} {after:>6}  {by}", mutant.name());
        table.add_row([mutant.name().to_owned(), after, by]);
    }
    println!("{table}");
    Ok(if all { ExitCode::SUCCESS } else { Exit::Finding.into() })
}

/// How long it took, and what was seen.
async fn one(
    dir: &std::path::Path,
    mutant: Mutant,
    kinds: &[Fault],
    (seed, duration): (u64, Duration),
    stop: &CancellationToken,
) -> Result<Option<(Duration, String)>> {
    let began = Instant::now();
    let variables = vec![(VARIABLE.to_owned(), mutant.name().to_owned())];
    let hunting = Campaign {
        seed,
        duration,
        kinds: kinds.to_vec(),
        throughout: throughout(mutant),
        programs: Programs { dir: Some(dir.to_owned()), variables },
        patience: Duration::from_secs(40),
        is_hunt: true,
    };
    match campaign(&hunting, stop).await {
        Ok(report) => {
            // A machine that is too slow is not what is looked for.
            let mut violations = report.into_iter().flat_map(|report| report.violations);
            let first = violations.find(|violation| !violation.is_unrest());
            Ok(first.map(|violation| (began.elapsed(), violation.what)))
        }
        Err(error) => match error.downcast::<Caught>() {
            Ok(Caught(what)) => Ok(Some((began.elapsed(), what))),
            Err(error) => Err(error),
        },
    }
}
