//! The history of a server's timelines. Pure.
//!
//! Every promotion and every recovery to a point in time begins a new timeline.
//! The history file of a timeline says where each of its ancestors was left.
//! Source: `readTimeLineHistory` in PostgreSQL's `timeline.c`.

use outpour_schemas::Lsn;

/// An ancestor, and where the server left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    pub timeline: u32,
    pub left_at: Lsn,
}

/// A history that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timeline history: `{0}` is not a timeline and a position")]
pub struct HistoryError(String);

/// Reads a history file: a line for each ancestor, oldest first, with its
/// number, the position of the switch and a remark.
///
/// # Errors
/// Quotes the line that is something else.
pub fn history(text: &str) -> Result<Vec<Switch>, HistoryError> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split_whitespace();
            let timeline = fields.next().and_then(|field| field.parse().ok());
            let left_at = fields.next().and_then(|field| field.parse().ok());
            match (timeline, left_at) {
                (Some(timeline), Some(left_at)) => Ok(Switch { timeline, left_at }),
                _ => Err(HistoryError(line.to_owned())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ancestor_has_a_line() {
        let text =
            "1\t0/3000110\tno recovery target specified\n\n# a remark\n2\t1/A0\tbefore 2026\n";
        let expected = [
            Switch { timeline: 1, left_at: Lsn(0x300_0110) },
            Switch { timeline: 2, left_at: Lsn(0x1_0000_00A0) },
        ];
        assert_eq!(history(text).unwrap(), expected);
        assert_eq!(history("").unwrap(), []);
    }

    #[test]
    fn a_line_that_is_something_else_is_quoted() {
        assert_eq!(history("1 nowhere"), Err(HistoryError("1 nowhere".to_owned())));
    }
}
