//! The pipeline under a replay's own group, until every partition has come to its
//! end. How far it is, the group knows: whoever else works on the same replay
//! counts, too.

use std::{sync::Arc, time::Duration};

use outpour_schemas::config::Config;
use tokio_util::sync::CancellationToken;

use super::{error::ReplayError, terms::Terms};
use crate::{
    error::ConsumerError,
    pipeline,
    progress::Progress,
    source::{
        group::{Committed, Group},
        reader::Part,
    },
};

/// Runs blocking calls where they hold nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    calls: impl FnOnce() -> Result<T, ConsumerError> + Send + 'static,
) -> Result<T, ConsumerError> {
    tokio::task::spawn_blocking(calls).await.map_err(ConsumerError::Worker)?
}

/// Offsets of `parts`.
pub(super) fn offsets(parts: &[Part]) -> i64 {
    parts.iter().map(|part| part.until - part.from).sum()
}

/// How many of them are stored or parked.
pub(super) fn done(parts: &[Part], committed: &[Committed]) -> i64 {
    let of = |part: &Part| {
        let found = committed.iter().find(|found| found.partition == part.partition);
        let offset = found.and_then(|found| found.offset).unwrap_or(part.from);
        offset.clamp(part.from, part.until) - part.from
    };
    parts.iter().map(of).sum()
}

/// Works until all of `parts` is stored or parked.
///
/// # Errors
/// When it is interrupted, or what does not pass by itself keeps it from working.
pub(super) async fn to_the_end(
    config: &Config,
    group: &Arc<Group>,
    parts: &[Part],
    terms: &Arc<Terms>,
    stop: &CancellationToken,
) -> Result<(), ConsumerError> {
    const EVERY: Duration = Duration::from_millis(200);
    let all = offsets(parts);
    let ended = stop.child_token();
    let mut working = Box::pin(pipeline::run_on(config, Some(Arc::clone(terms)), ended.clone()));
    let mut progress: Option<Progress> = None;
    let mut last = 0;
    loop {
        tokio::select! {
            // Only what was stopped ends well.
            outcome = &mut working => {
                outcome?;
                return Err(ReplayError::Interrupted { done: last, all }.into());
            }
            () = tokio::time::sleep(EVERY) => {}
        }
        let (asked, partitions) =
            (Arc::clone(group), parts.iter().map(|part| part.partition).collect::<Vec<_>>());
        let asking = blocking(move || asked.committed(&partitions));
        let committed = tokio::select! {
            outcome = &mut working => {
                outcome?;
                return Err(ReplayError::Interrupted { done: last, all }.into());
            }
            committed = asking => committed,
        };
        match committed {
            Ok(committed) => last = done(parts, &committed),
            Err(error) => {
                tracing::debug!(%error, "how far it is cannot be asked");
                continue;
            }
        }
        let count = |offsets: i64| offsets.unsigned_abs();
        let progress = progress.get_or_insert_with(|| {
            Progress::show(&config.consumer.topics.join(", "), count(all), count(last))
        });
        progress.bar().set_position(count(last));
        if last >= all {
            ended.cancel();
            return working.await;
        }
    }
}
