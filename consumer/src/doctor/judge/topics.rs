//! The brokers, and the topics that the group reads.

use std::time::Duration;

use outpour_schemas::{
    config::Config,
    kafka::{alter_topic, setting},
    program::{Finding, named},
    wire::{CHECKPOINT_TOPIC, DEAD_LETTER_PREFIX},
};

use super::super::facts::{Kafka, Topic};
use crate::source::{Subscription, Topics};

/// Topics that keep records for less are emptied by an outage that lasts for a
/// night and is not noticed.
const SHORT: Duration = Duration::from_secs(24 * 60 * 60);

/// Of each partition: what a busy topic may write within an hour.
const SMALL_BYTES: i64 = 1 << 30;

pub(super) fn judge(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let brokers = format!("{} in cluster {}", facts.brokers, facts.cluster);
    let mut findings = vec![Finding::ok("brokers", brokers)];
    findings.extend(there(facts, config));
    findings.extend(letters(facts, config));
    findings.extend(leaders(facts));
    findings.extend(kept(facts));
    findings
}

/// Names of the topics of which `is_so` holds.
pub(super) fn names<'a>(
    topics: impl IntoIterator<Item = &'a Topic>,
    is_so: impl Fn(&Topic) -> bool,
) -> Vec<&'a str> {
    let found = topics.into_iter().filter(|topic| is_so(topic));
    found.map(|topic| topic.name.as_str()).collect()
}

fn of(facts: &Kafka, is_so: impl Fn(&Topic) -> bool) -> Vec<&str> {
    names(&facts.topics, is_so)
}

/// Topics of whose records of one key Kafka keeps the last alone.
pub(super) fn compacted<'a>(
    check: &'static str,
    topics: impl IntoIterator<Item = &'a Topic>,
    why: &str,
) -> Option<Finding> {
    let is_compacted =
        |topic: &Topic| policy(topic).is_some_and(|policy| policy.contains("compact"));
    let found = names(topics, is_compacted);
    let fix = alter_topic(found.first()?, "cleanup.policy=delete");
    Some(Finding::warning(check, format!("compacted: {}", named(&found)), why).fix(fix))
}

fn there(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let check = "topics";
    let subscription = Subscription::of(&config.consumer.topics);
    let found = of(facts, |_| true);
    let mut findings = Vec::new();
    for name in subscription.among(found.iter().copied()).missing {
        findings.push(
            Finding::problem(
                check,
                Topics::missing_line(&name),
                "The consumer does not start without a topic that is named.",
            )
            .fix(format!("kafka-topics.sh --bootstrap-server … --create --topic {name}")),
        );
    }
    for pattern in config.consumer.topics.iter().filter(|topic| topic.starts_with('^')) {
        let one = Subscription::of(std::slice::from_ref(pattern));
        let matching = of(facts, |topic| one.takes(&topic.name));
        findings.push(if matching.is_empty() {
            Finding::warning(
                check,
                format!("no topic matches `{pattern}` (consumer.topics)"),
                "There is nothing to read. A topic that appears later is taken up within seconds.",
            )
            .fix("nothing, if the first event is still to come; else consumer.topics")
        } else {
            Finding::ok(
                check,
                format!("{} match `{pattern}`: {}", matching.len(), named(&matching)),
            )
        });
    }
    let partitions: usize = facts.topics.iter().map(|topic| topic.partitions).sum();
    if findings.is_empty() {
        let text = format!("{} with {partitions} partitions: {}", found.len(), named(&found));
        findings.push(Finding::ok(check, text));
    }
    findings
}

/// Topics that hold no events, and that a wide pattern takes all the same.
fn letters(facts: &Kafka, config: &Config) -> Option<Finding> {
    let relays = &config.relay.dead_letter_topic;
    let taken = of(facts, |topic| {
        topic.name.starts_with(DEAD_LETTER_PREFIX)
            || topic.name == *relays
            || topic.name == CHECKPOINT_TOPIC
    });
    if taken.is_empty() {
        return None;
    }
    Some(
        Finding::problem(
            "topics",
            format!("consumer.topics takes topics that hold no events: {}", named(&taken)),
            "What is parked is read again and parked again, in one topic after the other.",
        )
        .fix(r"consumer.topics: a narrower pattern, such as '^outbox\.event\..*'"),
    )
}

fn leaders(facts: &Kafka) -> Option<Finding> {
    let leaderless = of(facts, |topic| topic.leaderless > 0);
    if leaderless.is_empty() {
        return None;
    }
    Some(
        Finding::problem(
            "topics",
            format!("partitions without a leader: {}", named(&leaderless)),
            "Nobody can read them until a broker is back that holds them.",
        )
        .fix("bring the brokers back that hold their replicas"),
    )
}

/// Settings by which records are gone before they are read.
fn kept(facts: &Kafka) -> Vec<Finding> {
    let check = "retention";
    let deletes = |topic: &Topic| policy(topic).is_none_or(|policy| policy.contains("delete"));
    let mut findings = Vec::new();
    let unknown = of(facts, |topic| topic.settings.is_none());
    if let Some(name) = unknown.first() {
        findings.push(
            Finding::warning(
                check,
                format!("the settings may not be read: {}", named(&unknown)),
                "For how long they keep records is not known.",
            )
            .fix(format!("kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation DescribeConfigs --topic {name}")),
        );
    }
    findings.extend(compacted(
        check,
        &facts.topics,
        "Of the events of one key Kafka keeps the last; what is not read soon is never stored.",
    ));
    let short = of(facts, |topic| {
        deletes(topic) && keeps_for(topic).is_some_and(|ms| ms < SHORT.as_millis())
    });
    if let Some(name) = short.first() {
        findings.push(
            Finding::warning(
                check,
                format!("retention.ms is less than 24 h: {}", named(&short)),
                "While ClickHouse is down, or the consumer is, records wait in Kafka. After this long \
                 they are gone.",
            )
            .fix(alter_topic(name, "retention.ms=604800000")),
        );
    }
    let small = of(facts, |topic| {
        let bytes = setting(&topic.settings, "retention.bytes");
        deletes(topic) && bytes.is_some_and(|bytes: i64| (0..SMALL_BYTES).contains(&bytes))
    });
    if let Some(name) = small.first() {
        findings.push(
            Finding::warning(
                check,
                format!("retention.bytes is less than 1 GiB a partition: {}", named(&small)),
                "However young they are, records are gone when more were written after them.",
            )
            .fix(alter_topic(name, "retention.bytes=-1")),
        );
    }
    if findings.is_empty() && !facts.topics.is_empty() {
        findings.push(Finding::ok(check, "records are there for a day at least"));
    }
    findings
}

fn policy(topic: &Topic) -> Option<String> {
    setting(&topic.settings, "cleanup.policy")
}

/// Milliseconds; none where it is for ever, or not known.
pub(super) fn keeps_for(topic: &Topic) -> Option<u128> {
    let ms: i64 = setting(&topic.settings, "retention.ms")?;
    u128::try_from(ms).ok()
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, config, kafka, topic},
        *,
    };

    fn found_with(change: impl FnOnce(&mut Kafka, &mut Config)) -> Vec<Finding> {
        let (mut facts, mut config) = (kafka(), config());
        change(&mut facts, &mut config);
        let mut findings = judge(&facts, &config);
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn found(change: impl FnOnce(&mut Topic)) -> Vec<Finding> {
        found_with(|facts, _| change(&mut facts.topics[0]))
    }

    fn set(name: &'static str, value: &'static str) -> Vec<Finding> {
        found(|topic| {
            topic.settings.as_mut().unwrap().insert(name.into(), value.into());
        })
    }

    #[test]
    fn good_topics_have_no_finding() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn a_named_topic_that_is_missing_is_a_problem_and_a_pattern_without_any_a_warning() {
        let named = found_with(|_, config| config.consumer.topics = vec!["absent".into()]);
        assert_one(&named, Level::Problem, "topics", "`absent`");
        let pattern = found_with(|facts, _| facts.topics.clear());
        assert_one(&pattern, Level::Warning, "topics", "no topic matches");
    }

    #[test]
    fn a_pattern_that_takes_dead_letters_is_a_problem() {
        for name in ["outpour.dead-letter.x", "outbox.dead-letter", "outpour.relay.checkpoints"] {
            let findings = found_with(|facts, config| {
                config.consumer.topics = vec!["^.*".into()];
                facts.topics.push(topic(name));
            });
            assert_one(&findings, Level::Problem, "topics", name);
        }
    }

    #[test]
    fn partitions_that_nobody_leads_are_a_problem() {
        let findings = found(|topic| topic.leaderless = 1);
        assert_one(&findings, Level::Problem, "topics", "without a leader");
    }

    #[test]
    fn records_that_go_before_they_are_read_are_a_warning() {
        let check = "retention";
        assert_one(&set("cleanup.policy", "compact"), Level::Warning, check, "compacted");
        assert_one(&set("retention.ms", "3600000"), Level::Warning, check, "24 h");
        assert_one(&set("retention.bytes", "1000"), Level::Warning, check, "1 GiB");
        assert_eq!(set("retention.ms", "-1"), [], "for ever");
        let unknown = found(|topic| topic.settings = None);
        assert_one(&unknown, Level::Warning, check, "may not be read");
    }
}
