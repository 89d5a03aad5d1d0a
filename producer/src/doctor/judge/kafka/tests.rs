use outpour_schemas::{config::Config, program::Level};

use super::{
    super::super::{facts::TransactionsRefused, tests::kafka},
    *,
};

fn found(change: impl FnOnce(&mut Kafka)) -> Vec<Finding> {
    found_with(Some(3), change)
}

fn found_with(replicas: Option<u16>, change: impl FnOnce(&mut Kafka)) -> Vec<Finding> {
    let mut facts = kafka();
    change(&mut facts);
    let mut config = Config::default();
    config.relay.topic_replication_factor = replicas;
    let mut findings = judge(&facts, &config);
    findings.retain(|finding| finding.level != Level::Ok);
    findings
}

fn set(topic: usize, name: &'static str, value: &'static str) -> Vec<Finding> {
    found(|facts| {
        let settings = facts.topics[topic].settings.as_mut().unwrap();
        settings.insert(name.to_owned(), value.to_owned());
    })
}

fn assert_one(findings: &[Finding], level: Level, check: &str, what: &str) {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].level, findings[0].check), (level, check), "{findings:?}");
    assert!(findings[0].what.contains(what), "{findings:?}");
    assert!(findings[0].why.is_some() && findings[0].fix.is_some(), "{findings:?}");
}

#[test]
fn a_good_cluster_has_no_finding_with_topics_and_without() {
    assert_eq!(found(|_| {}), []);
    assert_eq!(found(|facts| facts.topics.clear()), []);
}

#[test]
fn replicas_are_counted_against_what_kafka_asks_for() {
    let single = found(|facts| {
        (facts.topics[1].replicas, facts.topics[1].in_sync) = (1, 1);
    });
    assert_one(&single, Level::Warning, "replicas", "one replica: `outbox.event.order`");
    let fewer = set(1, "min.insync.replicas", "3");
    assert_one(&fewer, Level::Warning, "replicas", "no more replicas");
    let short = found(|facts| facts.topics[1].in_sync = 1);
    assert_one(&short, Level::Problem, "replicas", "in sync");
    let unguarded = set(1, "min.insync.replicas", "1");
    assert_one(&unguarded, Level::Warning, "replicas", "min.insync.replicas is 1");
    let brokers = found(|facts| facts.brokers = 2);
    assert_one(&brokers, Level::Problem, "new-topics", "2 brokers");
    let unclean = set(1, "unclean.leader.election.enable", "true");
    assert_one(&unclean, Level::Warning, "replicas", "unclean.leader.election.enable: `outbox");
}

/// What a topic gets for which nothing is said.
#[test]
fn the_brokers_defaults_are_judged_where_nothing_else_is_asked_for() {
    let broker = |settings: &'static [(&str, &str)]| {
        found_with(None, |facts| {
            let own =
                settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            facts.broker.as_mut().unwrap().extend(own);
        })
    };
    assert_eq!(broker(&[]), []);
    assert_eq!(broker(&[("default.replication.factor", "3"), ("min.insync.replicas", "2")]), []);
    let single = broker(&[("default.replication.factor", "1")]);
    assert_one(&single, Level::Warning, "new-topics", "default.replication.factor is 1");
    let many = broker(&[("default.replication.factor", "5")]);
    assert_one(&many, Level::Problem, "new-topics", "default.replication.factor is 5");
    let unguarded = broker(&[("default.replication.factor", "3"), ("min.insync.replicas", "1")]);
    assert_one(&unguarded, Level::Warning, "new-topics", "min.insync.replicas is 1");
}

#[test]
fn a_topic_that_takes_less_than_the_relay_sends_is_worth_a_warning() {
    let small = set(1, "max.message.bytes", "1000");
    assert_one(&small, Level::Warning, "record-size", "`outbox.event.order`");
    let broker = found(|facts| {
        facts.broker = Some([("message.max.bytes".to_owned(), "1000".to_owned())].into());
    });
    assert_one(&broker, Level::Warning, "new-topics", "message.max.bytes");
}

#[test]
fn a_checkpoint_that_kafka_may_remove_is_a_problem() {
    for policy in ["delete", "compact,delete"] {
        let findings = set(0, "cleanup.policy", policy);
        assert_one(&findings, Level::Problem, "checkpoint-topic", policy);
    }
    let wide = found(|facts| facts.topics[0].partitions = 2);
    assert_one(&wide, Level::Problem, "checkpoint-topic", "2 partitions");
}

#[test]
fn events_that_kafka_removes_for_later_ones_are_a_warning() {
    assert_one(&set(1, "cleanup.policy", "compact"), Level::Warning, "retention", "compacted");
}

#[test]
fn letters_that_kafka_removes_are_a_warning() {
    let with_letters = |name: &'static str, value: &'static str| {
        found(|facts| {
            let mut topic = facts.topics[1].clone();
            (topic.name, topic.role) = ("outbox.dead-letter".to_owned(), Role::DeadLetters);
            let settings = topic.settings.as_mut().unwrap();
            settings.insert(name.to_owned(), value.to_owned());
            facts.topics.push(topic);
        })
    };
    assert_eq!(with_letters("retention.ms", "-1"), []);
    let brief = with_letters("retention.ms", "604800000");
    assert_one(&brief, Level::Warning, "retention", "`outbox.dead-letter`");
    let small = with_letters("retention.bytes", "1000000");
    assert_one(&small, Level::Warning, "retention", "`outbox.dead-letter`");
}

#[test]
fn settings_that_may_not_be_read_are_said_to_be_unknown() {
    let findings = found(|facts| facts.topics[1].settings = None);
    assert_one(&findings, Level::Warning, "event-topics", "may not be read");
}

#[test]
fn refused_transactions_are_a_problem_unless_the_id_may_be_the_reason() {
    let refuse = |is_unauthorized| {
        let (id, error) = ("outpour-relay-outpour-doctor".to_owned(), "no".to_owned());
        let refused = TransactionsRefused { id, error, is_unauthorized };
        found(|facts| facts.transactions = Some(Err(refused)))
    };
    assert_one(&refuse(false), Level::Problem, "transactions", "no");
    let unauthorized = refuse(true);
    assert_one(&unauthorized, Level::Warning, "transactions", "no");
    let fix = unauthorized[0].fix.as_ref().unwrap();
    assert!(fix.contains("--transactional-id outpour-relay-outpour "), "{fix}");
}
