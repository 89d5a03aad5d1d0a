//! Durations with their unit written out.

use std::{borrow::Cow, fmt, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written with its unit: `250ms`, `1s`, `1m 30s`.
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
        text.parse::<SignedDuration>()
            .ok()
            .and_then(|signed| Duration::try_from(signed).ok())
            .map(Span)
            .ok_or_else(|| {
                de::Error::custom(format_args!(
                    "`{text}` is not a duration such as `250ms` or `1m 30s`"
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
        for wrong in ["250", "", "-1s", "soon"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("250ms"), "{wrong}");
        }
    }
}
