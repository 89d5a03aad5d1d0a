//! How far the reading of topics is: a bar on a terminal, a line in the log now
//! and then elsewhere.

use std::{
    fmt,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{
    HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use tokio_util::task::AbortOnDropHandle;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Counts offsets, markers of transactions included. Shown until it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    _lines: Option<AbortOnDropHandle<()>>,
}

impl Progress {
    /// Of `all` offsets, of which `done` were read before.
    pub(crate) fn show(what: &str, all: u64, done: u64) -> Self {
        const TEMPLATE: &str =
            "{prefix} [{bar:36}] {human_pos} / {human_len} offsets, {rate}, {eta} to go {msg}";
        let has_terminal = std::io::stderr().is_terminal();
        let target =
            if has_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(all), target);
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // Writing to the bar's own text does not fail.
            write!(text, "{}/s", HumanCount(state.per_sec() as u64)).ok();
        };
        let style = ProgressStyle::with_template(TEMPLATE);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
        bar.set_prefix(what.to_owned());
        bar.set_position(done);
        bar.reset_eta();
        let lines =
            (!has_terminal).then(|| AbortOnDropHandle::new(tokio::spawn(lines(bar.clone(), done))));
        Progress { bar, _lines: lines }
    }

    /// What readers count on.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

async fn lines(bar: ProgressBar, before: u64) {
    let began = Instant::now();
    let all = bar.length().unwrap_or_default();
    loop {
        tokio::time::sleep(LINE_EVERY).await;
        let done = bar.position();
        let per_s = done.saturating_sub(before) as f64 / began.elapsed().as_secs_f64();
        let left = Duration::try_from_secs_f64(all.saturating_sub(done) as f64 / per_s);
        let left =
            left.map_or_else(|_| "unknown".to_owned(), |left| HumanDuration(left).to_string());
        let message = bar.message();
        let at = (!message.is_empty()).then_some(message);
        tracing::info!(done, all, per_s = per_s.round(), left, at, "{}", bar.prefix());
    }
}
