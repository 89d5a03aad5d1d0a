//! From what happened to whether that is good enough. Pure; time is passed in.

use std::time::{Duration, Instant};

use outpour_schemas::{
    Lsn,
    program::{Readiness, State},
};

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

/// What has events published that the log does not have.
pub(super) const REMEDY: &str = "`outpour-consumer reconcile --outbox --fix` has them published";

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
    /// Why PostgreSQL does not send the outbox's rows.
    unpublished: Option<String>,
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
            unpublished: None,
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

    pub(super) fn unpublished(&mut self, reason: Option<String>) {
        self.unpublished = reason;
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
            let is_repeated = failing.sessions >= State::REPEATEDLY && (is_down || is_fresh);
            if is_repeated || (is_down && now.duration_since(self.state_since) >= stall_after) {
                return Some(format!(
                    "{} in a row failed without progress, the last with: {}",
                    sessions(failing.sessions),
                    failing.last_error
                ));
            }
        }
        // A standby has a relay before it that says so.
        if let (Some(reason), State::Active) = (&self.unpublished, self.state) {
            return Some(format!(
                "{reason}; what is written until then is not in the log: afterwards {REMEDY}"
            ));
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
mod tests;
