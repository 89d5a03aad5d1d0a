//! What the group reads: `consumer.topics`, and which topics that comes to. Pure.

use std::collections::BTreeSet;

use outpour_schemas::{
    config::TopicPattern,
    wire::{CHECKPOINT_TOPIC, DEAD_LETTER_PREFIX, RELAY_DEAD_LETTER_TOPIC},
};

/// Topics by name, and by regular expression.
#[derive(Debug)]
pub(crate) struct Subscription(Vec<TopicPattern>);

/// What a look at all topics of a cluster came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topics {
    /// They exist and are read.
    pub(crate) found: BTreeSet<String>,
    /// They are named and do not exist, or may not be seen.
    pub(crate) missing: BTreeSet<String>,
    /// A partition of theirs that no member of the group has, as [`TopicList::follow`] finds.
    ///
    /// [`TopicList::follow`]: super::topics::TopicList::follow
    pub(crate) left_to_nobody: Option<String>,
}

impl Topics {
    /// What is said of a topic that is named and not there.
    pub(crate) fn missing_line(topic: &str) -> String {
        format!("topic `{topic}` (consumer.topics) does not exist, or may not be seen")
    }
}

impl Subscription {
    /// Of `consumer.topics`, which has been checked.
    pub(crate) fn of(topics: &[String]) -> Self {
        Subscription(topics.iter().filter_map(|topic| topic.parse().ok()).collect())
    }

    pub(crate) fn takes(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.takes(topic))
    }

    /// Those that are to be there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(TopicPattern::name)
    }

    /// What it takes of `topics`, all that there are. What Outpour writes beside events is
    /// taken by its name alone: an expression that reads dead letters would have letters
    /// made of letters.
    pub(crate) fn among<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Topics {
        let is_meant = |topic: &&str| !is_of_outpour(topic) || self.names().any(|n| n == *topic);
        let taken = topics.into_iter().filter(|topic| self.takes(topic)).filter(is_meant);
        let found: BTreeSet<_> = taken.map(str::to_owned).collect();
        let missing = self.names().filter(|name| !found.contains(*name)).map(str::to_owned);
        Topics { missing: missing.collect(), found, left_to_nobody: None }
    }
}

fn is_of_outpour(topic: &str) -> bool {
    topic.starts_with(DEAD_LETTER_PREFIX)
        || [CHECKPOINT_TOPIC, RELAY_DEAD_LETTER_TOPIC].contains(&topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_takes_names_and_expressions_and_misses_names_alone() {
        let topics = [r"^rx\.\d+$".to_owned(), "orders".to_owned(), "gone".to_owned()];
        let subscription = Subscription::of(&topics);
        let Topics { found, missing, .. } =
            subscription.among(["orders", "orders2", "rx.1", "rx.x"]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["orders", "rx.1"]);
        assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["gone"]);
    }

    #[test]
    fn subscription_takes_dead_letters_by_their_name_alone() {
        let all = ["^.*".to_owned(), "outpour.dead-letter.b".to_owned()];
        let there = [
            "a",
            "outpour.dead-letter.a",
            "outpour.dead-letter.b",
            "outpour.relay.checkpoints",
            "outbox.dead-letter",
        ];
        let found = Subscription::of(&all).among(there).found;
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "outpour.dead-letter.b"]);
    }
}
