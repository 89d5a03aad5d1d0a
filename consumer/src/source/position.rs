//! A place in a topic, as commands take it: `--from`, `--to`, `--since`. Pure.

use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// A place in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Beginning,
    Now,
    Offset(i64),
    At(Timestamp),
    /// So long before the command began.
    Before(SignedDuration),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Position::Beginning),
            "now" => return Ok(Position::Now),
            _ => {}
        }
        if text.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(offset) = text.parse()
        {
            return Ok(Position::Offset(offset));
        }
        let ago = text.strip_prefix('-').and_then(|ago| ago.parse::<Span>().ok());
        let ago = ago.and_then(|ago| ago.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        if let Some(ago) = ago.filter(|ago| !ago.is_negative()) {
            return Ok(Position::Before(ago));
        }
        text.parse().map(Position::At).map_err(|_| {
            "neither beginning, now, an offset, a time such as 2026-01-31T22:00:00Z nor one \
             before now such as -6h or -2d"
                .to_owned()
        })
    }
}

impl Position {
    /// The time that it names.
    ///
    /// # Errors
    /// When it lies after `now`.
    pub(crate) fn time(self, now: Timestamp) -> Result<Option<Timestamp>, String> {
        let at = match self {
            Position::At(at) => at,
            Position::Before(ago) => {
                now.checked_sub(ago).map_err(|_| "lies before all time".to_owned())?
            }
            Position::Beginning | Position::Now | Position::Offset(_) => return Ok(None),
        };
        if at > now {
            return Err(format!("{at} is in the future; it is {now:.0}"));
        }
        Ok(Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_place() {
        let at = |text: &str| text.parse::<Position>();
        assert_eq!(at("beginning"), Ok(Position::Beginning));
        assert_eq!(at("now"), Ok(Position::Now));
        assert_eq!(at("42"), Ok(Position::Offset(42)));
        assert_eq!(at("-6h"), Ok(Position::Before(SignedDuration::from_hours(6))));
        assert_eq!(at("-2d"), Ok(Position::Before(SignedDuration::from_hours(48))));
        assert_eq!(at("-90m"), Ok(Position::Before(SignedDuration::from_mins(90))));
        let time = "2026-01-31T22:00:00Z";
        assert_eq!(at(time), Ok(Position::At(time.parse().unwrap())));
        assert_eq!(at("2026-01-31T23:00:00+01:00"), at(time));
        for text in
            ["", "-5", "yesterday", "6h", "--6h", "2026-01-31", "1.5", "99999999999999999999"]
        {
            assert!(at(text).is_err(), "{text}: {:?}", at(text));
        }
    }

    #[test]
    fn a_time_is_told_and_the_future_refused() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let day_before: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let time = |text: &str| text.parse::<Position>().unwrap().time(now);
        assert_eq!(time("-1d"), Ok(Some(day_before)));
        assert_eq!(time("2026-01-01T00:00:00Z"), Ok(Some(day_before)));
        assert_eq!(time("beginning"), Ok(None));
        assert!(time("2026-01-03T00:00:00Z").unwrap_err().contains("in the future"));
    }
}
