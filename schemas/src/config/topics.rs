//! Which topics a key names: one, or all that match a regular expression.
//!
//! There is one language of expressions, that of the crate `regex`, and only this
//! module compiles it. What is matched are names that Kafka has told: no expression
//! is ever handed to the Kafka client or to a broker, which read other languages.

use std::{fmt, str::FromStr};

use regex::Regex;

/// A topic by its name, or topics by a regular expression: text that starts with `^`.
#[derive(Clone, Debug)]
pub enum TopicPattern {
    Name(String),
    Regex(Regex),
}

/// Text that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopicPatternError(String);

impl TopicPattern {
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        match self {
            TopicPattern::Name(name) => name == topic,
            TopicPattern::Regex(regex) => regex.is_match(topic),
        }
    }

    /// The one topic that it names.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            TopicPattern::Name(name) => Some(name),
            TopicPattern::Regex(_) => None,
        }
    }
}

impl FromStr for TopicPattern {
    type Err = TopicPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('^') {
            return Regex::new(text).map(TopicPattern::Regex).map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                TopicPatternError(format!("`{text}`: {}", reason.trim_start_matches("error: ")))
            });
        }
        match crate::wire::check_topic(text) {
            Ok(()) => Ok(TopicPattern::Name(text.to_owned())),
            Err(error) => {
                Err(TopicPatternError(format!("{error}; a regular expression starts with ^")))
            }
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicPattern::Name(name) => name,
            TopicPattern::Regex(regex) => regex.as_str(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TopicPattern {
        text.parse().unwrap()
    }

    #[test]
    fn topic_pattern_reads_the_syntax_of_regex() {
        for (pattern, taken, left) in [
            (r"^rx\.\d+$", "rx.12", "rx.1x"),
            (r"^(?i)orders\.", "ORDERS.eu", "order.eu"),
            (r"^a\w{2}(?:b|c)\b", "axyc", "axb"),
            (r"^events\.[[:alpha:]]+$", "events.eu", "events.1"),
            (r"^x\.(?P<region>eu|us)$", "x.us", "x.as"),
        ] {
            assert!(parse(pattern).takes(taken), "{pattern} {taken}");
            assert!(!parse(pattern).takes(left), "{pattern} {left}");
            assert_eq!((parse(pattern).name(), parse(pattern).to_string()), (None, pattern.into()));
        }
    }

    #[test]
    fn topic_pattern_without_an_anchor_is_a_name() {
        let name = parse("orders.v1");
        assert!(name.takes("orders.v1") && !name.takes("orders-v1"));
        assert_eq!(name.name(), Some("orders.v1"));
    }

    #[test]
    fn topic_pattern_that_is_neither_says_what_is_wrong() {
        let refused = |text: &str| text.parse::<TopicPattern>().unwrap_err().to_string();
        assert!(refused("(?i)orders").contains("starts with ^"), "{}", refused("(?i)orders"));
        assert_eq!(refused("^("), "`^(`: unclosed group");
        // What other languages have and this one refuses by name.
        assert!(refused(r"^(a)\1").contains("backreferences"), "{}", refused(r"^(a)\1"));
        assert!(refused("^(?!outbox)").contains("look-around"), "{}", refused("^(?!outbox)"));
    }
}
