//! Where to begin: an offset, a time, or so long ago. Pure.

use std::fmt;

use jiff::{SpanRelativeTo, Timestamp};

/// The beginning of what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// In every partition.
    Offset(i64),
    /// The first record of that time or later.
    Time(Timestamp),
}

/// Text that is no beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SinceError {
    #[error(
        "neither an offset, nor a time such as 2026-01-02T03:04:05Z, nor a time ago such as -6h"
    )]
    Malformed,
    #[error("{0} lies in the future")]
    Future(Timestamp),
}

impl Since {
    /// # Errors
    /// When it is none of the three, or a time after `now`.
    pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Self, SinceError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Since::Offset).map_err(|_| SinceError::Malformed);
        }
        let time = match text.strip_prefix('-') {
            Some(ago) => {
                let is_length = ago.starts_with(|c: char| c.is_ascii_digit());
                let ago = ago.parse::<jiff::Span>().ok().filter(|_| is_length);
                let ago =
                    ago.and_then(|ago| ago.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
                ago.and_then(|ago| now.checked_sub(ago).ok())
            }
            None => text.parse().ok(),
        };
        match time.ok_or(SinceError::Malformed)? {
            time if time > now => Err(SinceError::Future(time)),
            time => Ok(Since::Time(time)),
        }
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
    fn offsets_times_and_times_ago_are_told_apart() {
        let now: Timestamp = "2026-05-04T12:00:00Z".parse().unwrap();
        let parse = |text| Since::parse(text, now);
        let time = |text: &str| Ok(Since::Time(text.parse().unwrap()));
        assert_eq!(parse("12000"), Ok(Since::Offset(12_000)));
        assert_eq!(parse("2026-05-04T08:00:00+02:00"), time("2026-05-04T06:00:00Z"));
        assert_eq!(parse("-6h"), time("2026-05-04T06:00:00Z"));
        assert_eq!(parse("-2d"), time("2026-05-02T12:00:00Z"));
        for wrong in ["", "-", "6h", "soon", "--6h", "-6", "99999999999999999999", "2026-05-04"] {
            assert_eq!(parse(wrong), Err(SinceError::Malformed), "{wrong}");
        }
        assert!(matches!(parse("2026-05-04T12:00:01Z"), Err(SinceError::Future(_))));
    }
}
