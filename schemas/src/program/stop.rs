//! SIGTERM, SIGHUP and Ctrl-C: the first asks for an orderly end, the second
//! does not wait for one.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a process that a second signal ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// Calls `stop` at the first signal and ends the process at the second.
/// To be called once.
///
/// # Errors
/// When the operating system refuses the handler.
pub fn on_stop_signal(stop: impl Fn() + Send + 'static) -> Result<(), ctrlc::Error> {
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(ENDED_BY_SIGNAL);
        }
        tracing::info!("stopping");
        stop();
    })
}
