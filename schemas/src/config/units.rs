//! Durations with their unit written out.

use std::{borrow::Cow, fmt, time::Duration};

use jiff::{SignedDuration, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written with its unit: `250ms`, `1s`, `1m 30s`, `7d`. A day
/// has 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub(super) const fn millis(millis: u64) -> Self {
        Span(Duration::from_millis(millis))
    }

    pub(super) const fn secs(secs: u64) -> Self {
        Span(Duration::from_secs(secs))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(duration) => write!(f, "{duration:#}"),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let duration =
            |span: jiff::Span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
        text.parse::<jiff::Span>()
            .ok()
            .and_then(duration)
            .and_then(|signed| Duration::try_from(signed).ok())
            .map(Span)
            .ok_or_else(|| {
                de::Error::custom(format_args!(
                    "`{text}` is not a duration such as `250ms`, `1m 30s` or `7d`"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        let parse = |text: &str| serde_json::from_str::<Span>(&format!("\"{text}\""));
        assert_eq!(parse("250ms").unwrap().0, Duration::from_millis(250));
        assert_eq!(parse("1m 30s").unwrap().0, Duration::from_secs(90));
        assert_eq!(parse("7d").unwrap().0, Duration::from_secs(7 * 86_400));
        assert_eq!(parse("1d 12h").unwrap().0, Duration::from_secs(36 * 3600));
        for wrong in ["250", "", "-1s", "soon", "1mo"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("250ms"), "{wrong}");
        }
    }
}
