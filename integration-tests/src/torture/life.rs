//! The whole life of one event, for whoever has to find out what went wrong: where
//! it was seen, and every line of every log that is about its place.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;
use uuid::Uuid;

use super::{
    follower::{Place, Seen},
    ledger::Entry,
};

/// At most so many lines of a log, the last ones: what went wrong stands at the end.
const LINES: usize = 60;

pub(super) fn of_event(id: Uuid, entry: Option<&Entry>, seen: &Seen, logs: &[PathBuf]) -> String {
    let mut life = format!("event {id}\n  ledger {entry:?}\n");
    let mut say = |line: String| writeln!(life, "  {line}").unwrap_or_default();
    for record in seen.records.iter().filter(|record| record.id == id) {
        say(format!("published as {} at {:?}", record.position, record.place));
    }
    for letter in seen.letters.iter().filter(|letter| letter.id == id) {
        say(format!("parked {letter:?}"));
    }
    let places: Vec<_> =
        seen.records.iter().filter(|record| record.id == id).map(|record| &record.place).collect();
    for log in logs {
        let text = fs::read_to_string(log).unwrap_or_default();
        let about: Vec<_> = text.lines().filter(|line| is_about(line, id, &places)).collect();
        for line in &about[about.len().saturating_sub(LINES)..] {
            say(format!("{}: {line}", log.display()));
        }
    }
    life
}

/// Whether a line of a log names the event, or a range of its partition that has
/// its offset.
fn is_about(line: &str, id: Uuid, places: &[&Place]) -> bool {
    if line.contains(&id.to_string()) {
        return true;
    }
    let Ok(fields) = serde_json::from_str::<Value>(line) else { return false };
    places.iter().any(|place| {
        let partition = fields["partition"].as_str().unwrap_or_default();
        if !partition.contains(&*place.topic)
            || !partition.trim_end_matches(']').ends_with(&place.partition.to_string())
        {
            return false;
        }
        match (fields["start"].as_i64(), fields["end"].as_i64(), fields["offset"].as_i64()) {
            (Some(start), Some(end), _) => (start..end).contains(&place.offset),
            (_, _, Some(offset)) => offset == place.offset,
            // Whatever happened to the partition as a whole.
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn lines_about_its_place_and_its_id_are_found() {
        let id = Uuid::from_u128(7);
        let place = Place { topic: Arc::from("outbox.event.order"), partition: 2, offset: 50 };
        let about = |line: &str| is_about(line, id, &[&place]);
        assert!(about(&format!("anything with {id}")));
        assert!(about(r#"{"partition":"outbox.event.order/2","start":40,"end":51}"#));
        assert!(!about(r#"{"partition":"outbox.event.order/2","start":51,"end":60}"#));
        assert!(!about(r#"{"partition":"outbox.event.order/3","start":40,"end":51}"#));
        assert!(about(r#"{"partition":"outbox.event.order/2","error":"lost"}"#));
        assert!(!about("no JSON at all"));
    }
}
