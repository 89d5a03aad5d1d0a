//! SIGTERM and Ctrl-C: the first asks for an orderly end, the second does not.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first signal and ends the process at the second.
pub(crate) async fn on_signal(stop: CancellationToken) {
    const ENDED_BY_SIGNAL: i32 = 130;
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received; stop the process with SIGKILL");
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next().await;
    tracing::info!("stopping");
    stop.cancel();
    next().await;
    std::process::exit(ENDED_BY_SIGNAL);
}
