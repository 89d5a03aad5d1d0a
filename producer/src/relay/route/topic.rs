//! The topic, by the rules of `java.util.regex`, since that is what Debezium's
//! `route.topic.regex` and `route.topic.replacement` are written for.

use std::{cell::RefCell, collections::HashMap};

use outpour_schemas::{
    config::{ConfigError, Relay},
    wire::{TopicError, check_event_topic},
};
use regex::{Captures, Regex};

/// For so many values the topic is remembered.
const REMEMBERED: usize = 1000;

pub(super) struct TopicRule {
    /// Tells whether the whole value matches …
    whole: Regex,
    /// … and the first match in it is replaced, which need not be all of it.
    first: Regex,
    replacement: Vec<Part>,
    /// The topics of the values so far: there are few, each in many rows.
    known: RefCell<HashMap<String, String>>,
}

/// A piece of the replacement.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl TopicRule {
    pub(super) fn of(relay: &Relay) -> Result<Self, ConfigError> {
        const PATTERN: &str = "relay.route_topic_regex";
        const REPLACEMENT: &str = "relay.route_topic_replacement";
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|error| {
                // The library draws the place over several lines; the last one says why.
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                ConfigError::invalid(PATTERN, format!("`{}`: {reason}", relay.route_topic_regex))
            })
        };
        let first = compile(&relay.route_topic_regex)?;
        let whole = compile(&format!("^(?:{})$", relay.route_topic_regex))?;
        let replacement = parse(&relay.route_topic_replacement, &first).map_err(|reason| {
            let written = &relay.route_topic_replacement;
            ConfigError::invalid(REPLACEMENT, format!("`{written}`: {reason}"))
        })?;
        Ok(TopicRule { whole, first, replacement, known: RefCell::default() })
    }

    /// The topic for `value`.
    ///
    /// # Errors
    /// Kafka takes no topic of that name.
    pub(super) fn topic(&self, value: &str) -> Result<String, TopicError> {
        let mut known = self.known.borrow_mut();
        if let Some(topic) = known.get(value) {
            return Ok(topic.clone());
        }
        let topic = self.replaced(value);
        check_event_topic(&topic)?;
        if known.len() == REMEMBERED {
            known.clear();
        }
        known.insert(value.to_owned(), topic.clone());
        Ok(topic)
    }

    /// Itself, without a prefix, if it does not match.
    fn replaced(&self, value: &str) -> String {
        let groups = match self.first.captures(value) {
            Some(groups) if self.whole.is_match(value) => groups,
            _ => return value.to_owned(),
        };
        let matched = groups.get(0).map_or(0..0, |matched| matched.range());
        let mut topic = value[..matched.start].to_owned();
        self.expand(&groups, &mut topic);
        topic.push_str(&value[matched.end..]);
        topic
    }

    fn expand(&self, groups: &Captures<'_>, topic: &mut String) {
        for part in &self.replacement {
            topic.push_str(match part {
                Part::Text(text) => text,
                // A group that took no part in the match stands for nothing.
                Part::Group(group) => groups.get(*group).map_or("", |group| group.as_str()),
            });
        }
    }
}

/// Reads a replacement as `Matcher.appendReplacement` does: `$1` takes as many
/// digits as make a group, `${name}` is a named one, and a backslash takes the
/// meaning from what follows it.
fn parse(replacement: &str, pattern: &Regex) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(next) = rest.next() {
        let group = match next {
            '\\' => {
                text.push(rest.next().ok_or("a backslash at the end escapes nothing")?);
                continue;
            }
            '$' if rest.next_if_eq(&'{').is_some() => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some(letter) => name.push(letter),
                        None => return Err(format!("`${{{name}` lacks its `}}`")),
                    }
                }
                pattern
                    .capture_names()
                    .position(|group| group == Some(&name))
                    .ok_or_else(|| format!("relay.route_topic_regex has no group `{name}`"))?
            }
            '$' => {
                let mut digit = || rest.next_if(char::is_ascii_digit)?.to_digit(10);
                let first = digit().ok_or("`$` needs a group: $1 or ${name}; \\$ is the sign")?;
                let mut group = first as usize;
                if group >= pattern.captures_len() {
                    return Err(format!("relay.route_topic_regex has no group {group}"));
                }
                while let Some(more) = rest.peek().and_then(|next| next.to_digit(10)) {
                    let longer = group * 10 + more as usize;
                    if longer >= pattern.captures_len() {
                        break;
                    }
                    group = longer;
                    rest.next();
                }
                group
            }
            other => {
                text.push(other);
                continue;
            }
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Group(group));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, replacement: &str) -> Result<TopicRule, String> {
        let relay = Relay {
            route_topic_regex: pattern.to_owned(),
            route_topic_replacement: replacement.to_owned(),
            ..Relay::default()
        };
        TopicRule::of(&relay).map_err(|error| error.to_string())
    }

    fn topic(pattern: &str, replacement: &str, value: &str) -> String {
        rule(pattern, replacement).unwrap().replaced(value)
    }

    #[test]
    fn the_pattern_must_match_the_whole_value() {
        assert_eq!(topic("(shop|store)_(.*)", "events.$2_v1", "shop_order"), "events.order_v1");
        assert_eq!(topic("(shop|store)_(.*)", "events.$2_v1", "my_shop_order"), "my_shop_order");
        assert_eq!(topic(".*", "x", "two\nlines"), "two\nlines", "a dot is no line feed");
    }

    #[test]
    fn what_is_replaced_is_the_first_match_as_in_java() {
        assert_eq!(topic("a|ab", "x", "ab"), "xb");
        assert_eq!(topic("(.*?)", "p.$1", "order"), "p.order");
    }

    #[test]
    fn groups_and_escapes_are_read_as_in_java() {
        assert_eq!(topic("(?<a>.)(.*)", "${a}-$2-$12", "xyz"), "x-yz-x2");
        assert_eq!(topic("(.*)", r"\$1\\$1", "o"), r"$1\o");
        assert_eq!(topic("(x)?(.*)", "[$1]$2", "o"), "[]o");
        assert_eq!(topic("(.*)", "$0", "o"), "o");
    }

    #[test]
    fn each_of_many_values_has_its_own_topic_again_and_again() {
        let rule = rule("(.*)", "events.$1").unwrap();
        for number in (0..REMEMBERED * 2).chain(0..10) {
            for _ in 0..2 {
                assert_eq!(rule.topic(&number.to_string()).unwrap(), format!("events.{number}"));
            }
        }
        assert!(rule.known.borrow().len() <= REMEMBERED);
    }

    #[test]
    fn what_is_no_topic_is_refused_each_time() {
        let rule = rule("(.*)", "events.$1").unwrap();
        for _ in 0..2 {
            assert_eq!(rule.topic("a b"), Err(TopicError::Character("events.a b".into(), ' ')));
        }
    }

    #[test]
    fn mistakes_are_one_line_with_their_key() {
        let cases = [
            ("(", "x", "relay.route_topic_regex: `(`"),
            ("(?=a)", "x", "relay.route_topic_regex"),
            ("(.*)", "$2", "relay.route_topic_replacement: `$2`"),
            ("(.*)", "${routedByValue}", "no group `routedByValue`"),
            ("(.*)", "${a", "lacks its `}`"),
            ("(.*)", "$x", "needs a group"),
            ("(.*)", r"x\", "escapes nothing"),
        ];
        for (pattern, replacement, part) in cases {
            let Err(error) = rule(pattern, replacement) else { panic!("{replacement} is taken") };
            assert!(error.contains(part), "`{error}` should say {part}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
