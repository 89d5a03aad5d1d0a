//! Waiting for a condition instead of sleeping and hoping.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

/// The pauses between two attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Runs `attempt` until it succeeds, with growing pauses between.
///
/// # Errors
/// Once `deadline` has passed, with the last attempt's error as the cause. An
/// attempt that is still under way then is dropped.
pub async fn eventually<T>(
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut pause = PAUSES.0;
    let mut last = anyhow!("the first attempt did not finish");
    loop {
        match timeout_at(end, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => break,
        }
        if Instant::now() + pause >= end {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    Err(last).with_context(|| format!("still not so after {} s", deadline.as_secs_f32()))
}
