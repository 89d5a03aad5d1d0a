//! How a program stands: told once, or again and again.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    pin::pin,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::error_line;

/// The options of `status`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StatusArgs {
    /// One object; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Look again every so many seconds, 2 if not said, until interrupted; with rates
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    const SHORTEST: f64 = 0.1;
    const LONGEST: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (SHORTEST..=LONGEST).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("expected a number of seconds, from 0.1 to 86400"),
    }
}

/// What one look tells.
pub trait Standing: Serialize {
    /// Fills in what takes two looks: how fast things change.
    fn compare(&mut self, before: &Self, elapsed: Duration);

    /// As a person reads it, with a line feed at the end.
    fn text(&self) -> String;
}

/// How much a number that grows has grown in a second; `None` where it was set back.
#[must_use]
pub fn per_second(before: u64, now: u64, elapsed: Duration) -> Option<f64> {
    let grown = now.checked_sub(before)?;
    let rate = grown as f64 / elapsed.as_secs_f64();
    // One decimal is all that two looks tell.
    rate.is_finite().then(|| (rate * 10.0).round() / 10.0)
}

impl StatusArgs {
    /// Shows what `look` finds. Once it has found something, a look that fails is
    /// told and followed by the next.
    ///
    /// # Errors
    /// When the first look fails, or standard output cannot be written.
    pub async fn show<S: Standing, E: Error + From<io::Error>>(
        &self,
        mut look: impl AsyncFnMut() -> Result<S, E>,
    ) -> Result<(), E> {
        let mut standing = look().await?;
        let mut looked_at = Instant::now();
        let Some(every) = self.watch else {
            write(&self.text(&standing)?)?;
            return Ok(());
        };
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        let mut page = Page::new(!self.json && io::stdout().is_terminal());
        let mut next = tokio::time::interval(every);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        next.tick().await;
        if !page.show(&self.text(&standing)?)? {
            return Ok(());
        }
        loop {
            let looked = tokio::select! {
                // From the first look on, or one that comes during a look is lost.
                signal = &mut interrupted => return Ok(signal?),
                looked = async { next.tick().await; look().await } => looked,
            };
            match looked {
                Ok(mut now) => {
                    now.compare(&standing, looked_at.elapsed());
                    (standing, looked_at) = (now, Instant::now());
                    if !page.show(&self.text(&standing)?)? {
                        return Ok(());
                    }
                }
                Err(error) => eprintln!("error: {}", error_line(&error)),
            }
        }
    }

    fn text<S: Standing>(&self, standing: &S) -> io::Result<String> {
        Ok(match self.json {
            true => format!("{}\n", serde_json::to_string(standing)?),
            false => standing.text(),
        })
    }
}

/// Where looks are shown: a screen that is redrawn in place, or one after another.
struct Page {
    is_screen: bool,
    has_shown: bool,
}

impl Page {
    fn new(is_screen: bool) -> Self {
        Page { is_screen, has_shown: false }
    }

    /// `false` once nobody reads any more.
    fn show(&mut self, text: &str) -> io::Result<bool> {
        write(&self.drawn(text))
    }

    fn drawn(&mut self, text: &str) -> String {
        /// To the first column of the first line.
        const HOME: &str = "\x1b[H";
        const CLEAR_SCREEN: &str = "\x1b[2J";
        const CLEAR_LINE_FROM_HERE: &str = "\x1b[K";
        const CLEAR_SCREEN_FROM_HERE: &str = "\x1b[J";
        if !self.is_screen {
            return text.to_owned();
        }
        // Cleared once, then drawn over: a screen that is cleared each time flickers.
        let clear = if self.has_shown { "" } else { CLEAR_SCREEN };
        self.has_shown = true;
        let lines = text.replace('\n', &format!("{CLEAR_LINE_FROM_HERE}\n"));
        format!("{clear}{HOME}{lines}{CLEAR_SCREEN_FROM_HERE}")
    }
}

/// `false` if nobody reads it.
fn write(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_a_number_that_grows_and_time() {
        let second = Duration::from_secs(1);
        assert_eq!(per_second(10, 15, 2 * second), Some(2.5));
        assert_eq!(per_second(10, 10, second), Some(0.0));
        assert_eq!(per_second(10, 9, second), None);
        assert_eq!(per_second(10, 11, Duration::ZERO), None);
        assert_eq!(per_second(0, 1, 3 * second), Some(0.3));
    }

    #[test]
    fn seconds_are_more_than_none() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "", "NaN", "inf", "100000"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_screen_is_cleared_once_and_drawn_over_from_then_on() {
        let mut screen = Page::new(true);
        assert_eq!(screen.drawn("a\nb\n"), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(screen.drawn("c\n"), "\x1b[Hc\x1b[K\n\x1b[J");
        let mut file = Page::new(false);
        assert_eq!(file.drawn("a\n") + &file.drawn("b\n"), "a\nb\n");
    }
}
