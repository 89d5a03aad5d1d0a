//! Letters, counted and one by one. Pure.

use std::collections::BTreeMap;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    letter::{Letter, Outcome},
    read::Letters,
};

/// What `dlq list --json` prints a list of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    pub(super) topic: String,
    /// Empty if no route took the records.
    pub(super) table: String,
    pub(super) reason: String,
    pub(super) column: String,
    pub(super) open: usize,
    pub(super) replayed: usize,
    /// Parked again: the newer letter counts by itself.
    pub(super) superseded: usize,
    /// When the first and the last of those counted were parked, RFC 3339.
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// Of the letter that was tried most often.
    pub(super) attempts: u32,
}

/// What `dlq list --letters --json` prints a list of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) table: String,
    pub(super) reason: String,
    pub(super) column: String,
    pub(super) expected: String,
    pub(super) value: String,
    pub(super) error: String,
    pub(super) attempts: u32,
    pub(super) parked_at: Option<Timestamp>,
    /// Where the record is: `<topic>/<partition>/<offset>`.
    pub(super) source: String,
    /// `open`, `replayed` or `superseded`.
    pub(super) state: &'static str,
}

pub(super) fn state(letters: &Letters, letter: &Letter) -> &'static str {
    letters.settled.get(&letter.id).map_or("open", |outcome| outcome.name())
}

/// By topic, table, reason and column. `all`: what is settled, too.
pub(super) fn groups(found: &[Letters], all: bool) -> Vec<Group> {
    let mut groups: BTreeMap<[&str; 4], Group> = BTreeMap::new();
    for letters in found {
        for letter in &letters.letters {
            let settled = letters.settled.get(&letter.id);
            if settled.is_some() && !all {
                continue;
            }
            let key: [&str; 4] = [&letter.id.topic, &letter.table, &letter.reason, &letter.column];
            let group = groups.entry(key).or_insert_with(|| Group {
                topic: key[0].to_owned(),
                table: key[1].to_owned(),
                reason: key[2].to_owned(),
                column: key[3].to_owned(),
                open: 0,
                replayed: 0,
                superseded: 0,
                first: None,
                last: None,
                attempts: 0,
            });
            match settled {
                None => group.open += 1,
                Some(Outcome::Replayed) => group.replayed += 1,
                Some(Outcome::Superseded) => group.superseded += 1,
            }
            let at = letter.parked_at;
            group.first = [group.first, at].into_iter().flatten().min();
            group.last = group.last.max(at);
            group.attempts = group.attempts.max(letter.attempts);
        }
    }
    groups.into_values().collect()
}

pub(super) fn lines(found: &[Letters], all: bool) -> Vec<Line> {
    let of = |letters: &Letters| {
        let line = |letter: &Letter| Line {
            id: letter.id.to_string(),
            table: letter.table.clone(),
            reason: letter.reason.clone(),
            column: letter.column.clone(),
            expected: letter.expected.clone(),
            value: letter.refused.clone(),
            error: letter.error.clone(),
            attempts: letter.attempts,
            parked_at: letter.parked_at,
            source: format!("{}/{}/{}", letter.id.topic, letter.partition, letter.offset),
            state: state(letters, letter),
        };
        let lines = letters.letters.iter().map(line);
        lines.filter(|line| all || line.state == "open").collect::<Vec<_>>()
    };
    found.iter().flat_map(of).collect()
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| format!("{at:.0}"))
}

pub(super) fn table_of_groups(groups: &[Group], all: bool) -> Table {
    let mut table = Table::new();
    let mut header =
        vec!["topic", "table", "reason", "column", "open", "first", "last", "attempts"];
    if all {
        header.extend(["replayed", "parked again"]);
    }
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for group in groups {
        let mut row = vec![
            group.topic.clone(),
            group.table.clone(),
            group.reason.clone(),
            group.column.clone(),
            group.open.to_string(),
            time(group.first),
            time(group.last),
            group.attempts.to_string(),
        ];
        if all {
            row.extend([group.replayed.to_string(), group.superseded.to_string()]);
        }
        table.add_row(row);
    }
    table
}

pub(super) fn table_of_lines(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["ID", "table", "reason", "column", "value", "attempts", "parked", "state"]);
    for line in lines {
        table.add_row([
            line.id.clone(),
            line.table.clone(),
            line.reason.clone(),
            line.column.clone(),
            line.value.clone(),
            line.attempts.to_string(),
            time(line.parked_at),
            line.state.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlq::letter::LetterId;

    fn letter(offset: i64, column: &str) -> Letter {
        Letter {
            id: LetterId { topic: "t".into(), partition: 0, offset },
            partition: 0,
            offset,
            timestamp_ms: None,
            table: "db.t".into(),
            column: column.into(),
            expected: String::new(),
            refused: String::new(),
            reason: "missing".into(),
            error: String::new(),
            attempts: u32::try_from(offset).unwrap(),
            parked_at: Timestamp::from_second(offset).ok(),
            key: None,
            value: None,
            value_size: 0,
            headers: Vec::new(),
        }
    }

    #[test]
    fn what_is_settled_counts_only_when_asked_for() {
        let letters: Vec<_> =
            [(1, "a"), (2, "a"), (3, "b"), (4, "a")].map(|(at, column)| letter(at, column)).into();
        let settled = [(&letters[1], Outcome::Replayed), (&letters[2], Outcome::Superseded)];
        let settled = settled.map(|(letter, outcome)| (letter.id.clone(), outcome)).into();
        let found = [Letters { letters, settled }];
        let open = groups(&found, false);
        let [a] = open.as_slice() else { panic!("{open:?}") };
        assert_eq!((a.column.as_str(), a.open, a.replayed, a.attempts), ("a", 2, 0, 4));
        assert_eq!(
            (a.first, a.last),
            (Timestamp::from_second(1).ok(), Timestamp::from_second(4).ok())
        );
        let all = groups(&found, true);
        let counts: Vec<_> = all.iter().map(|g| (g.open, g.replayed, g.superseded)).collect();
        assert_eq!(counts, [(2, 1, 0), (0, 0, 1)]);
        assert_eq!((lines(&found, false).len(), lines(&found, true).len()), (2, 4));
    }
}
