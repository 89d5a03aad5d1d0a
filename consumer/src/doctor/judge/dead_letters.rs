//! The topics that keep what fits no table.

use outpour_schemas::{
    config::Config,
    kafka::{alter_to_keep_all, alter_topic, is_unclean, removes, setting},
    program::{Finding, named},
};

use super::{
    super::facts::{DeadLetters, Kafka, Topic},
    topics,
};
use crate::dead_letter::LETTER_HEADERS;

const CHECK: &str = "dead-letters";

const BLOCKED: &str =
    "A record that fits no table cannot be parked, and its partition waits for that.";

const CRAMPED: &str = "A letter has headers of its own: one of the largest records cannot be \
                       parked if it fits no table, and its partition waits for that.";

pub(super) fn judge(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> =
        facts.dead_letters.iter().filter_map(|letters| one(facts, letters)).collect();
    let key = "consumer.dead_letter_replication_factor";
    let (replicas, set_by) = match config.consumer.dead_letter_replication_factor {
        Some(replicas) => (Some(usize::from(replicas)), key),
        None => {
            let default = "default.replication.factor";
            (setting(&facts.broker, default), "the brokers' default.replication.factor")
        }
    };
    let advised = format!("{key} = {}", facts.brokers.min(3));
    if let Some(replicas) = replicas.filter(|replicas| *replicas > facts.brokers) {
        findings.push(
            Finding::problem(
                CHECK,
                format!("{set_by} is {replicas}, the cluster has {} brokers", facts.brokers),
                BLOCKED,
            )
            .fix(advised),
        );
    } else if replicas == Some(1) && facts.brokers > 1 {
        findings.push(
            Finding::warning(
                CHECK,
                format!("{set_by} is 1: topics that are created have one copy"),
                "With the disk of one broker the only copy is gone of what fits no table.",
            )
            .fix(advised),
        );
    }
    let existing = || facts.dead_letters.iter().filter_map(|letters| letters.topic.as_ref());
    let single = topics::names(existing(), |topic| topic.replicas == 1 && facts.brokers > 1);
    if !single.is_empty() {
        findings.push(
            Finding::warning(
                CHECK,
                format!("one replica: {}", named(&single)),
                "While one broker is down, partitions wait that have something to park.",
            )
            .fix("kafka-reassign-partitions.sh, with three replicas for each partition"),
        );
    }
    let unclean =
        topics::names(existing(), |topic| topic.replicas > 1 && is_unclean(&topic.settings));
    if let Some(name) = unclean.first() {
        findings.push(
            Finding::warning(
                CHECK,
                format!("unclean.leader.election.enable: {}", named(&unclean)),
                "A broker that lacks the last letters may come to lead, and they are gone, though \
                 Kafka acknowledged them.",
            )
            .fix(alter_topic(name, "unclean.leader.election.enable=false")),
        );
    }
    findings.extend(topics::compacted(
        CHECK,
        existing(),
        "Of what was parked of one key Kafka keeps the last.",
    ));
    let brief = topics::names(existing(), |topic| removes(&topic.settings));
    if let Some(name) = brief.first() {
        findings.push(
            Finding::warning(
                CHECK,
                format!(
                    "removed by time or size (retention.ms, retention.bytes): {}",
                    named(&brief)
                ),
                "What was parked is gone then, and its record counts as missing.",
            )
            .fix(alter_to_keep_all(name)),
        );
    }
    if findings.is_empty() && !facts.dead_letters.is_empty() {
        let there = facts.dead_letters.iter().filter(|letters| letters.topic.is_some()).count();
        let absent = facts.dead_letters.len() - there;
        findings.push(Finding::ok(
            CHECK,
            format!("{there} topics there, {absent} more created when something is parked"),
        ));
    }
    findings
}

fn one(facts: &Kafka, letters: &DeadLetters) -> Option<Finding> {
    let name = &letters.name;
    // Reported once for all of them.
    let too_many_replicas = |refusal: &str| refusal.contains("InvalidReplicationFactor");
    if let Some(refusal) = letters.refusal.as_ref().filter(|refusal| !too_many_replicas(refusal)) {
        return Some(
            Finding::problem(
                CHECK,
                format!("topic `{name}` is not there, and Kafka would not create it: {refusal}"),
                BLOCKED,
            )
            .fix(format!("kafka-topics.sh --bootstrap-server … --create --topic {name}")),
        );
    }
    // One that is created takes what its source does.
    let topic = letters.topic.as_ref()?;
    let size = |topic: &Topic| setting::<u64>(&topic.settings, "max.message.bytes");
    let source = facts.topics.iter().find(|topic| topic.name == letters.source)?;
    let (wanted, taken) = (size(source)?, size(topic)?);
    let enough = wanted.saturating_add(LETTER_HEADERS);
    let told = format!(
        "`{name}` takes {taken} bytes in a record (max.message.bytes), `{}` {wanted}",
        letters.source
    );
    let finding = if taken < wanted {
        Finding::problem(CHECK, told, BLOCKED)
    } else if taken < enough {
        Finding::warning(CHECK, told, CRAMPED)
    } else {
        return None;
    };
    Some(finding.fix(alter_topic(name, &format!("max.message.bytes={enough}"))))
}

#[cfg(test)]
mod tests {
    use outpour_schemas::program::Level;

    use super::{
        super::super::tests::{assert_one, config, kafka},
        *,
    };

    fn found_with(change: impl FnOnce(&mut Kafka, &mut Config)) -> Vec<Finding> {
        let (mut facts, mut config) = (kafka(), config());
        change(&mut facts, &mut config);
        let mut findings = judge(&facts, &config);
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn found(change: impl FnOnce(&mut Kafka)) -> Vec<Finding> {
        found_with(|facts, _| change(facts))
    }

    fn set(topic: &mut Topic, name: &str, value: &str) {
        topic.settings.as_mut().unwrap().insert(name.into(), value.into());
    }

    #[test]
    fn topics_that_are_there_or_can_be_made_have_no_finding() {
        assert_eq!(found(|_| {}), []);
        assert_eq!(found(|facts| facts.dead_letters[0].topic = None), []);
    }

    #[test]
    fn letters_that_kafka_removes_are_a_warning() {
        for (name, value) in [("retention.ms", "604800000"), ("retention.bytes", "1000000")] {
            let brief = found(|facts| {
                set(facts.dead_letters[0].topic.as_mut().unwrap(), name, value);
            });
            assert_one(&brief, Level::Warning, CHECK, "removed by time or size");
        }
    }

    #[test]
    fn a_topic_that_cannot_be_made_is_a_problem() {
        let findings = found(|facts| {
            facts.dead_letters[0].topic = None;
            facts.dead_letters[0].refusal = Some("TopicAuthorizationFailed".into());
        });
        assert_one(&findings, Level::Problem, CHECK, "TopicAuthorizationFailed");
    }

    #[test]
    fn replicas_are_held_against_the_brokers_once() {
        let findings = found_with(|facts, config| {
            config.consumer.dead_letter_replication_factor = Some(5);
            facts.dead_letters[0].topic = None;
            facts.dead_letters[0].refusal = Some("InvalidReplicationFactor".into());
        });
        assert_one(&findings, Level::Problem, CHECK, "3 brokers");
        let single = found_with(|_, config| {
            config.consumer.dead_letter_replication_factor = Some(1);
        });
        assert_one(&single, Level::Warning, CHECK, "one copy");
        let by_default = found_with(|facts, config| {
            config.consumer.dead_letter_replication_factor = None;
            let one = ("default.replication.factor".to_owned(), "1".to_owned());
            facts.broker.as_mut().unwrap().extend([one]);
        });
        assert_one(&by_default, Level::Warning, CHECK, "default.replication.factor is 1");
        let unclean = found(|facts| {
            let there = facts.dead_letters[0].topic.as_mut().unwrap();
            let yes = ("unclean.leader.election.enable".to_owned(), "true".to_owned());
            there.settings.as_mut().unwrap().extend([yes]);
        });
        assert_one(&unclean, Level::Warning, CHECK, "unclean.leader.election.enable");
        let alone = found_with(|facts, config| {
            facts.brokers = 1;
            config.consumer.dead_letter_replication_factor = Some(1);
        });
        assert_eq!(alone, []);
        let there = found(|facts| facts.dead_letters[0].topic.as_mut().unwrap().replicas = 1);
        assert_one(&there, Level::Warning, CHECK, "one replica");
    }

    #[test]
    fn a_letter_has_to_fit_where_its_record_did_with_its_headers() {
        let takes = |bytes: &str| {
            found(|facts| {
                set(facts.dead_letters[0].topic.as_mut().unwrap(), "max.message.bytes", bytes);
            })
        };
        for (bytes, level) in
            [("1000", Level::Problem), ("1048588", Level::Warning), ("1114123", Level::Warning)]
        {
            let findings = takes(bytes);
            assert_one(&findings, level, CHECK, &format!("takes {bytes} bytes"));
            let fix = findings[0].fix.as_ref().unwrap();
            assert!(fix.contains("--add-config max.message.bytes=1114124"), "{fix}");
        }
        assert_eq!(takes("1114124"), []);
        let to_be_made = found(|facts| {
            facts.dead_letters[0].topic = None;
            set(&mut facts.topics[0], "max.message.bytes", "5000000");
        });
        assert_eq!(to_be_made, [], "it takes what its source does");
    }

    #[test]
    fn letters_that_vanish_are_a_warning() {
        let findings = found(|facts| {
            set(facts.dead_letters[0].topic.as_mut().unwrap(), "cleanup.policy", "compact");
        });
        assert_one(&findings, Level::Warning, CHECK, "compacted");
    }
}
