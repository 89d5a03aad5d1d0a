//! How far the reading of Kafka is: a bar on a terminal, else a line now and then.

use std::{
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shown until it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    _lines: Option<AbortOnDropHandle<()>>,
}

impl Progress {
    /// Of `total` offsets.
    pub(super) fn show(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{prefix} [{bar:36}] {human_pos} / {human_len} offsets, {rate}, {eta} to go {msg}",
        );
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // Writing to the bar's own text does not fail.
            write!(text, "{}/s", HumanCount(state.per_sec() as u64)).ok();
        };
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
        bar.set_prefix("reconcile");
        let told = bar.clone();
        let lines = (!std::io::stderr().is_terminal())
            .then(|| AbortOnDropHandle::new(tokio::spawn(lines(told, total))));
        Progress { bar, _lines: lines }
    }

    /// What the readers count on.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

async fn lines(bar: ProgressBar, total: u64) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(LINE_EVERY).await;
        let read = bar.position();
        let rate = read as f64 / started.elapsed().as_secs_f64();
        eprintln!(
            "reconcile: {} of {} offsets read ({}/s){}",
            HumanCount(read),
            HumanCount(total),
            HumanCount(rate as u64),
            match bar.message() {
                message if message.is_empty() => message,
                message => format!(", {message}"),
            }
        );
    }
}
