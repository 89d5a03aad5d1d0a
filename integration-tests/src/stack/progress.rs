//! What a fetch or a start is doing, and how far it is.
//!
//! On a terminal each step is one live line; elsewhere (CI, a log file) it is
//! a plain line when it begins, at every tenth, and when it ends.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All steps of one launch.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    is_silent: bool,
}

impl Progress {
    pub(crate) fn on_stderr() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, is_silent: false }
    }

    /// For what a test does in passing.
    pub(crate) fn silent() -> Self {
        Self { bars: None, is_silent: true }
    }

    pub(crate) fn step(&self, subject: &'static str) -> Step {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_prefix(subject);
            bar.set_style(spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step {
            subject,
            bar,
            is_silent: self.is_silent,
            tenths: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

/// One subject's way: any number of phases, then done.
pub(crate) struct Step {
    subject: &'static str,
    bar: Option<ProgressBar>,
    is_silent: bool,
    tenths: AtomicU64,
    began: Instant,
}

impl Step {
    /// A new phase whose length is not known.
    pub(crate) fn doing(&self, what: impl AsRef<str>) {
        let what = what.as_ref();
        self.tenths.store(0, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => {
                bar.set_style(spinner());
                bar.set_message(what.to_owned());
            }
            None => self.line(what),
        }
    }

    /// How far the phase is, once that is known.
    pub(crate) fn at(&self, done: u64, total: u64) {
        let done = done.min(total);
        if let Some(bar) = &self.bar {
            bar.set_style(measured());
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let tenths = done * 10 / total.max(1);
        if self.tenths.fetch_max(tenths, Ordering::Relaxed) < tenths {
            self.line(&format!("{}%", tenths * 10));
        }
    }

    pub(crate) fn finish(&self, how: &str) {
        let how = format!("{how} ({:.1} s)", self.began.elapsed().as_secs_f32());
        match &self.bar {
            Some(bar) => {
                bar.set_style(spinner());
                bar.finish_with_message(how);
            }
            None => self.line(&how),
        }
    }

    fn line(&self, what: &str) {
        if !self.is_silent {
            eprintln!("{:<10} {what}", self.subject);
        }
    }
}

fn spinner() -> ProgressStyle {
    style("{prefix:<10} {spinner} {msg}")
}

fn measured() -> ProgressStyle {
    style("{prefix:<10} {spinner} {msg} [{bar:24}] {percent}%")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
