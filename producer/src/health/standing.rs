//! From what happened to whether that is good enough. Pure; time is passed in.

use std::time::{Duration, Instant};

use outpour_schemas::{Lsn, program::Readiness};

/// As many sessions in a row have to fail before somebody should look.
const REPEATEDLY: u32 = 3;

/// What a relay is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet publishing for the first time.
    Starting,
    /// Waiting for the slot that another relay holds.
    Standby,
    /// Publishing, or waiting for something to publish.
    Active,
    /// Between a session that failed and the next one.
    Retrying,
}

impl State {
    pub(crate) const ALL: [State; 4] =
        [State::Starting, State::Standby, State::Active, State::Retrying];

    /// A stable name for probes and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Standby => "standby",
            State::Active => "active",
            State::Retrying => "retrying",
        }
    }
}

/// How PostgreSQL sees its log and the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogView {
    /// The end of what is on disk.
    pub(crate) end: Lsn,
    /// Up to where the slot is confirmed.
    pub(crate) confirmed: Option<Lsn>,
    /// Bytes of log that the slot keeps on disk.
    pub(crate) retained_bytes: Option<u64>,
    /// Bytes of log until the slot may be lost, where that is limited.
    pub(crate) safe_bytes: Option<u64>,
    /// Up to where the server has read the log for whoever holds the slot.
    pub(crate) sent: Option<Lsn>,
}

/// Sessions that failed since there was progress.
#[derive(Debug)]
struct Failing {
    sessions: u32,
    last_at: Instant,
    last_error: String,
}

/// What is known of a relay.
#[derive(Debug)]
pub(super) struct Standing {
    state: State,
    state_since: Instant,
    failing: Option<Failing>,
    /// Everything before it is in Kafka, as far as this relay has seen to it.
    published: Lsn,
    published_commit_us: Option<i64>,
    /// Everything before it came from PostgreSQL.
    read: Lsn,
    /// Whether records wait for their commit in Kafka.
    in_hand: bool,
    /// Of one that polls: whether all that it could take is locked by another
    /// session.
    held_up: Option<bool>,
    /// When it last got on, or had nothing to get on with.
    moved_at: Instant,
    log: Option<LogView>,
    log_error: Option<String>,
}

/// What the metrics show of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) ready: bool,
    pub(crate) published: Lsn,
    pub(crate) published_commit_us: Option<i64>,
    /// For how long the oldest event has waited.
    pub(crate) behind: Duration,
    pub(crate) lag_bytes: Option<u64>,
    pub(crate) retained_bytes: Option<u64>,
    pub(crate) safe_bytes: Option<u64>,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Standing {
            state: State::Starting,
            state_since: now,
            failing: None,
            published: Lsn::ZERO,
            published_commit_us: None,
            read: Lsn::ZERO,
            in_hand: false,
            held_up: None,
            moved_at: now,
            log: None,
            log_error: None,
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            self.state = state;
            self.state_since = now;
        }
        self.in_hand = false;
    }

    pub(super) fn started(&mut self, published: Lsn, now: Instant) {
        self.enter(State::Active, now);
        self.published = published;
        self.read = published;
        self.moved_at = now;
    }

    pub(super) fn stands_by(&mut self, now: Instant) {
        self.enter(State::Standby, now);
    }

    pub(super) fn failed(&mut self, error: String, now: Instant) {
        // A relay that has never started ends with its error instead.
        self.enter(State::Retrying, now);
        let sessions = self.failing.as_ref().map_or(0, |failing| failing.sessions) + 1;
        self.failing = Some(Failing { sessions, last_at: now, last_error: error });
    }

    pub(super) fn began(&mut self, now: Instant) {
        if !self.in_hand && self.has_nothing_to_do() {
            self.moved_at = now;
        }
        self.in_hand = true;
    }

    pub(super) fn published(&mut self, published: Lsn, commit_us: Option<i64>, now: Instant) {
        self.published = published;
        self.published_commit_us = commit_us.or(self.published_commit_us);
        self.in_hand = false;
        self.moved_at = now;
        self.failing = None;
    }

    pub(super) fn caught_up(&mut self, read: Lsn) {
        self.read = self.read.max(read);
    }

    pub(super) fn looked(&mut self, view: Result<LogView, String>, now: Instant) {
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                self.log_error = Some(error);
                return;
            }
        };
        let sent_before = self.log.and_then(|log| log.sent);
        self.log = Some(view);
        self.log_error = None;
        let is_idle = self.has_nothing_to_do();
        // A server that reads through log of others sends nothing for a while.
        let is_read = !self.in_hand && view.sent > sent_before;
        if is_idle || is_read {
            self.moved_at = now;
        }
        if is_idle && self.state == State::Active {
            self.failing = None;
        }
    }

    /// Where there is no log to compare with: a round that ends is progress,
    /// unless it found rows and could take none.
    pub(super) fn polled(&mut self, held_up: bool, now: Instant) {
        self.held_up = Some(held_up);
        if !held_up {
            self.moved_at = now;
            self.failing = None;
        }
    }

    fn has_nothing_to_do(&self) -> bool {
        if let Some(held_up) = self.held_up {
            return !self.in_hand && !held_up;
        }
        let done = self.published.max(self.read);
        !self.in_hand && self.log.is_some_and(|log| log.end <= done)
    }

    pub(super) fn readiness(&self, now: Instant, stall_after: Duration) -> Readiness {
        let reason = self.complaint(now, stall_after);
        Readiness { ready: reason.is_none(), state: self.state.name(), reason }
    }

    /// Why it is not ready, if it is not.
    fn complaint(&self, now: Instant, stall_after: Duration) -> Option<String> {
        if self.state == State::Starting {
            return Some("the first session has not begun".to_owned());
        }
        if let Some(failing) = &self.failing {
            let is_down = self.state == State::Retrying;
            let is_fresh = now.duration_since(failing.last_at) < stall_after;
            let is_repeated = failing.sessions >= REPEATEDLY && (is_down || is_fresh);
            if is_repeated || (is_down && now.duration_since(self.state_since) >= stall_after) {
                return Some(format!(
                    "{} in a row failed without progress, the last with: {}",
                    sessions(failing.sessions),
                    failing.last_error
                ));
            }
        }
        let stood = now.duration_since(self.moved_at);
        if self.state != State::Active || stood < stall_after {
            return None;
        }
        let seconds = stood.as_secs();
        Some(match (&self.log_error, self.in_hand) {
            _ if self.held_up == Some(true) => {
                format!("the rows that wait have been locked by another session for {seconds} s")
            }
            (_, true) => format!("Kafka has not committed what is under way for {seconds} s"),
            (Some(error), false) => format!("PostgreSQL has not answered for {seconds} s: {error}"),
            (None, false) => format!(
                "nothing has been published for {seconds} s; everything up to {} is, the log ends at {}",
                self.published,
                self.log.map_or(Lsn::ZERO, |log| log.end)
            ),
        })
    }

    /// `waited` is how long ago the oldest row in hand had committed.
    pub(super) fn snapshot(
        &self,
        waited: Option<Duration>,
        now: Instant,
        stall_after: Duration,
    ) -> Snapshot {
        let is_behind = match self.state {
            // It is the others' work, or nobody knows.
            State::Starting | State::Standby => false,
            State::Active | State::Retrying => !self.has_nothing_to_do(),
        };
        // As of the last look, unless that failed.
        let log = self.log.filter(|_| self.log_error.is_none());
        let done = |log: LogView| match self.state {
            State::Active => Some(self.published.max(self.read)),
            _ => log.confirmed,
        };
        Snapshot {
            state: self.state,
            ready: self.complaint(now, stall_after).is_none(),
            published: self.published,
            published_commit_us: self.published_commit_us,
            behind: if is_behind {
                waited.unwrap_or_else(|| now.duration_since(self.moved_at))
            } else {
                Duration::ZERO
            },
            lag_bytes: log.and_then(|log| Some(log.end.bytes_since(done(log)?))),
            retained_bytes: log.and_then(|log| log.retained_bytes),
            safe_bytes: log.and_then(|log| log.safe_bytes),
        }
    }
}

fn sessions(count: u32) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn view(end: u64, sent: u64) -> Result<LogView, String> {
        Ok(LogView {
            end: Lsn(end),
            confirmed: Some(Lsn(50)),
            retained_bytes: Some(end),
            safe_bytes: None,
            sent: Some(Lsn(sent)),
        })
    }

    /// A relay that has published everything up to 100, which is the log's end.
    fn idle() -> (Standing, Instant) {
        let now = Instant::now();
        let mut standing = Standing::new(now);
        standing.started(Lsn(100), now);
        standing.looked(view(100, 100), now);
        (standing, now)
    }

    fn reason(standing: &Standing, now: Instant) -> String {
        standing.readiness(now, LIMIT).reason.unwrap_or_default()
    }

    #[test]
    fn rounds_of_polling_are_progress_unless_all_rows_are_locked() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        standing.started(Lsn::ZERO, begun);
        let now = begun + LIMIT;
        standing.polled(false, now);
        assert_eq!(reason(&standing, now), "");
        assert_eq!(standing.snapshot(None, now + secs(1), LIMIT).behind, Duration::ZERO);
        standing.polled(true, now + LIMIT);
        assert!(reason(&standing, now + LIMIT).contains("locked by another session for 30 s"));
        assert_eq!(standing.snapshot(None, now + LIMIT, LIMIT).behind, LIMIT);
        standing.polled(false, now + LIMIT);
        assert_eq!(reason(&standing, now + LIMIT), "");
        standing.began(now + LIMIT);
        assert!(reason(&standing, now + LIMIT * 2).contains("Kafka"));
    }

    #[test]
    fn a_relay_is_not_ready_before_its_first_session() {
        let now = Instant::now();
        let standing = Standing::new(now);
        assert!(!standing.readiness(now, LIMIT).ready);
        assert_eq!(standing.readiness(now, LIMIT).state, "starting");
    }

    #[test]
    fn an_idle_relay_is_ready_for_ever() {
        let (mut standing, now) = idle();
        let later = now + secs(100_000);
        standing.looked(view(100, 100), later);
        assert_eq!(reason(&standing, later + secs(5)), "");
        assert_eq!(standing.snapshot(None, later, LIMIT).behind, Duration::ZERO);
    }

    #[test]
    fn log_that_was_read_and_held_nothing_is_no_work() {
        let (mut standing, now) = idle();
        standing.caught_up(Lsn(180));
        let later = now + secs(60);
        standing.looked(view(180, 180), later);
        assert_eq!(reason(&standing, later), "");
        assert_eq!(standing.snapshot(None, later, LIMIT).lag_bytes, Some(0));
    }

    #[test]
    fn a_server_that_reads_through_log_of_others_is_progress() {
        let (mut standing, now) = idle();
        for step in 1..20 {
            let at = now + secs(10 * step);
            standing.looked(view(1 << 40, 100 + step), at);
            assert_eq!(reason(&standing, at), "");
        }
    }

    #[test]
    fn records_that_kafka_does_not_commit_are_a_stall_whatever_the_server_sends() {
        let (mut standing, now) = idle();
        let row = now + secs(1000);
        standing.looked(view(100, 100), row);
        standing.began(row);
        for step in 1..6 {
            standing.looked(view(500, 100 + step), row + secs(5 * step));
        }
        assert_eq!(reason(&standing, row + secs(29)), "");
        let stalled = reason(&standing, row + secs(30));
        assert!(stalled.contains("Kafka") && stalled.contains("30 s"), "{stalled}");
        let snapshot = standing.snapshot(Some(secs(31)), row + secs(30), LIMIT);
        assert_eq!((snapshot.behind, snapshot.ready), (secs(31), false));

        standing.published(Lsn(500), Some(7), row + secs(40));
        assert_eq!(reason(&standing, row + secs(40)), "");
        let snapshot = standing.snapshot(None, row + secs(40), LIMIT);
        assert_eq!((snapshot.behind, snapshot.published_commit_us), (Duration::ZERO, Some(7)));
    }

    #[test]
    fn log_that_nothing_comes_of_is_a_stall() {
        let (mut standing, now) = idle();
        standing.looked(view(500, 100), now + secs(5));
        standing.looked(view(500, 100), now + secs(29));
        assert_eq!(reason(&standing, now + secs(29)), "");
        let stalled = reason(&standing, now + secs(30));
        assert!(stalled.contains("0/64") && stalled.contains("0/1F4"), "{stalled}");
        assert_eq!(standing.snapshot(None, now + secs(30), LIMIT).lag_bytes, Some(400));
    }

    #[test]
    fn a_server_that_does_not_answer_is_a_stall_unless_something_is_published() {
        let (mut standing, now) = idle();
        standing.looked(Err("refused".to_owned()), now + secs(20));
        let stalled = reason(&standing, now + secs(30));
        assert!(stalled.contains("PostgreSQL") && stalled.contains("refused"), "{stalled}");
        // What is not known is not shown.
        assert_eq!(standing.snapshot(None, now + secs(30), LIMIT).lag_bytes, None);
        standing.published(Lsn(120), None, now + secs(30));
        assert_eq!(reason(&standing, now + secs(31)), "");
    }

    #[test]
    fn one_failure_passes_and_repeated_ones_do_not() {
        let (mut standing, now) = idle();
        standing.failed("broken pipe".to_owned(), now);
        assert_eq!(reason(&standing, now), "");
        assert_eq!(standing.readiness(now, LIMIT).state, "retrying");
        standing.failed("broken pipe".to_owned(), now);
        // The next session works for as long as it takes to fail again.
        standing.started(Lsn(100), now);
        standing.looked(view(200, 100), now);
        assert_eq!(reason(&standing, now), "");
        standing.failed("bent".to_owned(), now);
        let failing = reason(&standing, now);
        assert!(failing.contains("3 sessions") && failing.contains("bent"), "{failing}");
        standing.started(Lsn(100), now + secs(1));
        assert_ne!(reason(&standing, now + secs(1)), "", "not yet proved to be better");
        standing.published(Lsn(200), None, now + secs(2));
        assert_eq!(reason(&standing, now + secs(2)), "");
    }

    #[test]
    fn a_relay_without_a_session_for_long_is_not_ready_however_few_attempts_there_were() {
        let (mut standing, now) = idle();
        standing.failed("refused".to_owned(), now + secs(1));
        assert_eq!(reason(&standing, now + secs(30)), "");
        assert!(reason(&standing, now + secs(31)).contains("1 session"));
        // Idle again: there is nothing to prove it by but that nothing waits.
        standing.started(Lsn(100), now + secs(32));
        standing.looked(view(100, 100), now + secs(32));
        assert_eq!(reason(&standing, now + secs(32)), "");
    }

    #[test]
    fn a_standby_is_ready_and_not_behind() {
        let now = Instant::now();
        let mut standing = Standing::new(now);
        standing.stands_by(now);
        let later = now + secs(1000);
        standing.looked(view(900, 100), later);
        let readiness = standing.readiness(later, LIMIT);
        assert_eq!((readiness.ready, readiness.state), (true, "standby"));
        let snapshot = standing.snapshot(None, later, LIMIT);
        assert_eq!((snapshot.behind, snapshot.lag_bytes), (Duration::ZERO, Some(850)));
    }

    #[test]
    fn a_standby_that_came_of_a_relay_that_kept_failing_says_so_for_a_while() {
        let (mut standing, now) = idle();
        for _ in 0..3 {
            standing.failed("poison".to_owned(), now);
        }
        // Its own last session may still hold the slot.
        standing.stands_by(now);
        assert!(reason(&standing, now + secs(1)).contains("poison"));
        assert_eq!(reason(&standing, now + secs(30)), "");
    }
}
