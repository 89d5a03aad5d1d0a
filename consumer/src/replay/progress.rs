//! How far a replay is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts offsets, markers of transactions included.
pub(super) struct Progress {
    bar: ProgressBar,
    what: String,
    has_terminal: bool,
    began: (Instant, u64),
    told_at: Instant,
}

impl Progress {
    pub(super) fn new(what: &str, all: u64, done: u64) -> Self {
        let has_terminal = std::io::stderr().is_terminal();
        let target =
            if has_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(all), target).with_message(what.to_owned());
        const TEMPLATE: &str =
            "{msg} {wide_bar} {human_pos}/{human_len} offsets, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Progress { bar, what: what.to_owned(), has_terminal, began: (now, done), told_at: now }
    }

    pub(super) fn at(&mut self, done: u64) {
        const EVERY: Duration = Duration::from_secs(5);
        self.bar.set_position(done);
        if self.has_terminal || self.told_at.elapsed() < EVERY {
            return;
        }
        self.told_at = Instant::now();
        let all = self.bar.length().unwrap_or(done);
        let per_s = self.rate(done);
        let left = Duration::try_from_secs_f64((all.saturating_sub(done)) as f64 / per_s);
        let left =
            left.map_or_else(|_| "unknown".to_owned(), |left| HumanDuration(left).to_string());
        tracing::info!(done, all, per_s = per_s.round(), left, "{}", self.what);
    }

    fn rate(&self, done: u64) -> f64 {
        done.saturating_sub(self.began.1) as f64 / self.began.0.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
