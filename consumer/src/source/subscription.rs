//! Which topics the group reads.

use regex::Regex;

/// Topics by name, and by regular expression.
#[derive(Debug)]
pub(crate) struct Subscription {
    names: Vec<String>,
    patterns: Vec<Regex>,
}

impl Subscription {
    /// Of `consumer.topics`, which has been checked.
    pub(crate) fn of(topics: &[String]) -> Self {
        let (patterns, names): (Vec<_>, Vec<_>) =
            topics.iter().partition(|topic| topic.starts_with('^'));
        Subscription {
            names: names.into_iter().cloned().collect(),
            patterns: patterns.into_iter().filter_map(|topic| Regex::new(topic).ok()).collect(),
        }
    }

    pub(crate) fn takes(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic)
            || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }

    /// Those that are to be there.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}
