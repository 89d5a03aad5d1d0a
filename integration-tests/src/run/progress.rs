//! Where the events are, live: bars on a terminal, else a line now and then.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::counters::{Counters, Snapshot};

const TICK: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(2);
/// The rate is that of the last so many ticks.
const RATE_OVER: usize = 10;

/// Shows `counters` for as long as it is polled.
pub(super) async fn show(counters: &Counters, total: u64) {
    let mut rate = Rate::default();
    let mut page = std::io::stderr().is_terminal().then(|| Page::new(total));
    let mut told = Instant::now();
    loop {
        let now = counters.snapshot();
        let rate = rate.at(now.in_event_log, Instant::now());
        match &mut page {
            Some(page) => page.draw(&now, rate),
            None if told.elapsed() >= LINE_EVERY => {
                told = Instant::now();
                eprintln!("{:<10} {}", "stream", line(&now, rate));
            }
            None => {}
        }
        sleep(TICK).await;
    }
}

fn line(now: &Snapshot, rate: f64) -> String {
    format!(
        "committed {}, in Kafka {}, in ClickHouse {} ({}/s), {} behind",
        HumanCount(now.committed),
        HumanCount(now.in_kafka),
        HumanCount(now.in_event_log),
        HumanCount(rate as u64),
        HumanCount(now.behind()),
    )
}

/// Events a second over the last ticks.
#[derive(Default)]
struct Rate {
    seen: Vec<(u64, Instant)>,
}

impl Rate {
    fn at(&mut self, count: u64, now: Instant) -> f64 {
        self.seen.push((count, now));
        if self.seen.len() > RATE_OVER {
            self.seen.remove(0);
        }
        let (first, since) = self.seen[0];
        let seconds = (now - since).as_secs_f64();
        if seconds > 0.0 { count.saturating_sub(first) as f64 / seconds } else { 0.0 }
    }
}

struct Page {
    /// Draws the others; removed from the screen with them.
    _bars: MultiProgress,
    stations: [ProgressBar; 4],
    status: ProgressBar,
}

impl Page {
    fn new(total: u64) -> Self {
        let bars = MultiProgress::new();
        let station = |name: &'static str| {
            let bar = bars.add(ProgressBar::new(total));
            bar.set_style(style("{prefix:<22} [{bar:36}] {human_pos:>9} / {human_len}"));
            bar.set_prefix(name);
            bar
        };
        let stations =
            ["committed in Postgres", "in Kafka", "in typed tables", "in event_log"].map(station);
        let status = bars.add(ProgressBar::no_length());
        status.set_style(style("{prefix:<22} {msg}"));
        status.set_prefix("now");
        Self { _bars: bars, stations, status }
    }

    fn draw(&mut self, now: &Snapshot, rate: f64) {
        let counts = [now.committed, now.in_kafka, now.in_typed_tables, now.in_event_log];
        for (bar, count) in self.stations.iter().zip(counts) {
            // More may be added by hand while the page stays up.
            bar.set_length(bar.length().unwrap_or_default().max(count));
            bar.set_position(count);
        }
        let mut status = format!(
            "{}/s into ClickHouse, {} behind",
            HumanCount(rate as u64),
            HumanCount(now.behind())
        );
        if now.rolled_back > 0 {
            status.push_str(&format!(", {} rolled back", HumanCount(now.rolled_back)));
        }
        self.status.set_message(status);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        for bar in self.stations.iter().chain([&self.status]) {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_ticks() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        assert_eq!(rate.at(0, start), 0.0);
        for second in 1..=20 {
            // Slow at first, then ten times as fast.
            let count = if second <= 10 { second } else { 10 + (second - 10) * 10 };
            rate.at(count, start + Duration::from_secs(second));
        }
        assert_eq!(rate.at(120, start + Duration::from_secs(21)), 10.0);
    }
}
