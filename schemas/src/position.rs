//! Where an event stands in the database's log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A log sequence number of PostgreSQL: a byte position in its write-ahead log.
/// Written as PostgreSQL writes it, two hexadecimal halves: `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes of log from `earlier` to `self`; 0 when `earlier` is not earlier.
    #[must_use]
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log position: expected {1}")]
pub struct PositionError(String, &'static str);

impl FromStr for Lsn {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            // from_str_radix would take a sign, PostgreSQL does not.
            (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        };
        text.split_once('/')
            .filter(|(high, low)| half(high) && half(low))
            .and_then(|(high, low)| {
                let high = u64::from_str_radix(high, 16).ok()?;
                let low = u64::from_str_radix(low, 16).ok()?;
                Some(Lsn(high << 32 | low))
            })
            .ok_or_else(|| PositionError(text.to_owned(), "two hexadecimal numbers, `16/B374D848`"))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// One event's place: the commit LSN of its transaction and its ordinal, from
/// 0, within it. Strictly increasing over what one relay publishes, which lets
/// a reader prove that nothing is missing or there twice.
///
/// Commit LSNs order transactions as they committed; the LSNs of single rows do
/// not, since transactions interleave in the log. Hence the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub commit_lsn: Lsn,
    pub ordinal: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.commit_lsn, self.ordinal)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PositionError(text.to_owned(), "an LSN and an ordinal, `16/B374D848/0`");
        let (lsn, ordinal) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Position {
            commit_lsn: lsn.parse().map_err(|_| wrong())?,
            ordinal: ordinal.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_survives_its_text(lsn: u64, ordinal: u32) {
            let position = Position { commit_lsn: Lsn(lsn), ordinal };
            prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text: String) {
            prop_assert!(text.parse::<Lsn>().is_err() || text.contains('/'));
        }
    }

    #[test]
    fn positions_order_by_commit_then_ordinal() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        assert!(at("0/FF/7") < at("1/0/0"));
        assert!(at("1/0/9") < at("1/0/10"));
    }

    #[test]
    fn what_postgres_would_not_write_is_refused() {
        for text in ["", "/", "1/", "+1/2", "1/2/3", "123456789/0", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
