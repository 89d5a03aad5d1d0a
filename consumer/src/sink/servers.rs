//! Which of several servers is spoken to: one, for as long as it works. Pure.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Servers in the order in which they are tried, one of which is current.
#[derive(Debug)]
pub(super) struct Servers<T> {
    all: Vec<T>,
    current: AtomicUsize,
}

impl<T> Servers<T> {
    /// The first one is current.
    pub(super) fn new(all: Vec<T>) -> Self {
        debug_assert!(!all.is_empty(), "clickhouse.url names one at least");
        Servers { all, current: AtomicUsize::new(0) }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter()
    }

    /// The one to speak to, and its place, by which it may be given up.
    pub(super) fn current(&self) -> (usize, &T) {
        let place = self.current.load(Ordering::Relaxed);
        (place, &self.all[place])
    }

    /// Gives up the server at `place` for the one after it. `None` if there is no
    /// other, or if somebody has given it up before: of many requests that fail
    /// together, one moves on, or they would move past a server that works.
    pub(super) fn give_up(&self, place: usize) -> Option<&T> {
        let next = (place + 1) % self.all.len();
        if next == place {
            return None;
        }
        self.current
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| &self.all[next])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::SinkError;

    /// What each of `outcomes` was asked of, if a failure of the server's moves on
    /// to the next; 0 is an answer, any other number an error code.
    fn asked(servers: &Servers<char>, outcomes: &[u32]) -> String {
        let one = |code: &u32| {
            let (place, name) = servers.current();
            let error = SinkError { code: Some(*code), message: String::new() };
            if *code != 0 && error.is_of_the_server() {
                servers.give_up(place);
            }
            *name
        };
        outcomes.iter().map(one).collect()
    }

    #[test]
    fn the_one_that_works_is_kept() {
        let servers = Servers::new(vec!['a', 'b', 'c']);
        // Read-only, and away: on to the next. It works: no way back.
        assert_eq!(asked(&servers, &[0, 242, 210, 0, 0]), "aabcc");
        // And around.
        assert_eq!(asked(&servers, &[999, 0]), "ca");
    }

    #[test]
    fn what_another_server_would_say_as_well_is_no_reason_to_go_there() {
        let servers = Servers::new(vec!['a', 'b']);
        // Too many parts, memory of the insert, a table that is missing, bad data.
        assert_eq!(asked(&servers, &[252, 241, 60, 117, 0]), "aaaaa");
    }

    #[test]
    fn of_requests_that_fail_together_one_moves_on() {
        let servers = Servers::new(vec!['a', 'b', 'c']);
        let (place, _) = servers.current();
        assert_eq!(servers.give_up(place), Some(&'b'));
        assert_eq!(servers.give_up(place), None);
        assert_eq!(servers.current().1, &'b');
    }

    #[test]
    fn a_single_server_is_stayed_with() {
        let servers = Servers::new(vec!['a']);
        assert_eq!(servers.give_up(0), None);
        assert_eq!(asked(&servers, &[210, 242, 0]), "aaa");
    }
}
