//! Where the comparison begins. Pure.

use std::fmt;

use jiff::Timestamp;

use crate::source::Position;

/// The beginning of what is compared, if it is not where Kafka begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// In every partition.
    Offset(i64),
    /// The first record of that time or later.
    Time(Timestamp),
}

impl Since {
    /// # Errors
    /// When it is a time after `now`.
    pub(super) fn of(position: Position, now: Timestamp) -> Result<Option<Self>, String> {
        Ok(match position {
            Position::Beginning => None,
            Position::Now => Some(Since::Time(now)),
            Position::Offset(offset) => Some(Since::Offset(offset)),
            Position::At(_) | Position::Before(_) => position.time(now)?.map(Since::Time),
        })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Since::Offset(offset) => write!(f, "offset {offset}"),
            Since::Time(time) => time.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_a_beginning_but_one_in_the_future() {
        let now: Timestamp = "2026-05-04T12:00:00Z".parse().unwrap();
        let since = |text: &str| Since::of(text.parse().unwrap(), now);
        assert_eq!(since("beginning"), Ok(None));
        assert_eq!(since("12000"), Ok(Some(Since::Offset(12_000))));
        assert_eq!(since("now"), Ok(Some(Since::Time(now))));
        let before = "2026-05-04T06:00:00Z".parse().unwrap();
        assert_eq!(since("-6h"), Ok(Some(Since::Time(before))));
        assert_eq!(since("2026-05-04T08:00:00+02:00"), Ok(Some(Since::Time(before))));
        assert!(since("2026-05-04T12:00:01Z").unwrap_err().contains("in the future"));
    }
}
