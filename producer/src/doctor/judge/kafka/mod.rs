//! The brokers, the topics that the relay writes to, and transactions.

#[cfg(test)]
mod tests;

use outpour_schemas::{
    config::{Config, Mode},
    kafka::{alter_to_keep_all, alter_topic, is_unclean, removes, setting},
    program::{Finding, named},
    wire,
};

use super::{
    super::facts::{Kafka, Role, Topic},
    bytes,
};

pub(super) fn judge(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("brokers", format!("{} in the cluster", facts.brokers))];
    findings.extend(new_topics(facts, config));
    if config.relay.mode == Mode::Wal {
        findings.push(checkpoints(facts));
    }
    findings.push(event_topics(facts));
    findings.extend(replicas(facts));
    findings.extend(record_size(facts, config));
    findings.extend(retention(facts));
    findings.extend(transactions(facts));
    findings
}

/// Names of the topics of which `is_so` holds.
fn of(facts: &Kafka, is_so: impl Fn(&Topic) -> bool) -> Vec<&str> {
    facts.topics.iter().filter(|topic| is_so(topic)).map(|topic| topic.name.as_str()).collect()
}

/// What becomes of a topic that the relay creates.
fn new_topics(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let check = "new-topics";
    let key = "relay.topic_replication_factor";
    let (replicas, set_by) = match config.relay.topic_replication_factor {
        Some(replicas) => (Some(usize::from(replicas)), key),
        None => {
            let default = "default.replication.factor";
            (setting(&facts.broker, default), "the brokers' default.replication.factor")
        }
    };
    let advised = format!("{key} = {}", facts.brokers.min(3));
    let mut findings = Vec::new();
    if replicas.is_some_and(|replicas| replicas > facts.brokers) {
        findings.push(
            Finding::problem(
                check,
                format!(
                    "{set_by} is {}, the cluster has {} brokers",
                    counted(replicas),
                    facts.brokers
                ),
                "Kafka refuses to create the topic of a new aggregate type, and publishing stops there.",
            )
            .fix(advised),
        );
    } else if replicas == Some(1) && facts.brokers > 1 {
        findings.push(
            Finding::warning(
                check,
                format!("{set_by} is 1: topics that the relay creates have one copy"),
                "With the disk of one broker its events are gone, which were confirmed to PostgreSQL.",
            )
            .fix(advised),
        );
    } else if replicas.is_some_and(|replicas| replicas > 2)
        && setting(&facts.broker, "min.insync.replicas") == Some(1)
    {
        findings.push(
            Finding::warning(
                check,
                "the brokers' min.insync.replicas is 1, and a topic that the relay creates has it",
                "Kafka acknowledges a record that one broker alone has.",
            )
            .fix("min.insync.replicas=2 in the brokers' server.properties"),
        );
    }
    let limit = setting::<u64>(&facts.broker, "message.max.bytes");
    let wanted = config.relay.max_record_size.as_u64();
    if let Some(limit) = limit.filter(|&limit| limit < wanted) {
        findings.push(
            Finding::warning(
                check,
                format!("brokers take {} in a record by default (message.max.bytes), relay.max_record_size is {}", bytes(limit), bytes(wanted)),
                "A record in between is parked in the dead-letter topic.",
            )
            .fix(format!("relay.max_record_size = \"{limit} B\"")),
        );
    }
    if findings.is_empty() {
        let partitions = config.relay.topic_partitions;
        let partitions = partitions.or_else(|| setting(&facts.broker, "num.partitions"));
        findings.push(Finding::ok(
            check,
            format!(
                "created with {} partitions and {} replicas",
                counted(partitions),
                counted(replicas)
            ),
        ));
    }
    findings
}

fn counted(count: Option<impl ToString>) -> String {
    count.map_or_else(|| "the brokers' number of".to_owned(), |count| count.to_string())
}

fn checkpoints(facts: &Kafka) -> Finding {
    let (check, name) = ("checkpoint-topic", wire::CHECKPOINT_TOPIC);
    let Some(topic) = facts.topics.iter().find(|topic| topic.role == Role::Checkpoints) else {
        return Finding::ok(check, format!("{name} is not there yet; the relay creates it"));
    };
    if topic.partitions != 1 {
        return Finding::problem(
            check,
            format!("{name} has {} partitions", topic.partitions),
            "The relay reads its first partition alone, and a checkpoint in another is not found.",
        )
        .fix("delete the topic while no relay runs; the next one creates it, and asks for --accept-gap only if the slot was moved");
    }
    let policy = topic.settings.as_ref().and_then(|settings| settings.get("cleanup.policy"));
    match policy {
        Some(policy) if policy != "compact" => Finding::problem(
            check,
            format!("{name} has cleanup.policy={policy}"),
            "Kafka removes the checkpoint after a while, and with it the proof that nothing is \
             lost or published twice.",
        )
        .fix(alter_topic(name, "cleanup.policy=compact")),
        Some(_) => Finding::ok(check, format!("{name} is compacted")),
        None => unreadable(check, name),
    }
}

fn unreadable(check: &'static str, topic: &str) -> Finding {
    Finding::warning(
        check,
        format!("the settings of {topic} may not be read"),
        "What they are worth is not known.",
    )
    .fix(format!("kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation DescribeConfigs --topic {topic}"))
}

fn event_topics(facts: &Kafka) -> Finding {
    let check = "event-topics";
    if !facts.knows_event_topics {
        return Finding::ok(
            check,
            "not checked: relay.route_topic_replacement gives names that tell nothing",
        );
    }
    let names = of(facts, |topic| topic.role == Role::Events);
    let secret = of(facts, |topic| topic.role == Role::Events && topic.settings.is_none());
    if let Some(name) = secret.first() {
        return unreadable(check, name);
    }
    if names.is_empty() {
        return Finding::ok(check, "none is there yet; the relay creates them");
    }
    Finding::ok(check, format!("{} there: {}", names.len(), named(&names)))
}

fn replicas(facts: &Kafka) -> Vec<Finding> {
    let check = "replicas";
    let least = |topic: &Topic| {
        let least = setting(&topic.settings, "min.insync.replicas");
        least.unwrap_or(1_usize)
    };
    let mut findings = Vec::new();
    // Kafka asks for no more than there are.
    let short = of(facts, |topic| topic.in_sync < least(topic).min(topic.replicas));
    if !short.is_empty() {
        findings.push(
            Finding::problem(
                check,
                format!("fewer replicas in sync than min.insync.replicas: {}", named(&short)),
                "Kafka takes no record of theirs until a broker is back.",
            )
            .fix("bring the brokers back that hold their replicas"),
        );
    }
    let fewer = of(facts, |topic| topic.replicas > 1 && topic.replicas <= least(topic));
    if !fewer.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!("no more replicas than min.insync.replicas: {}", named(&fewer)),
                "One broker that is down, for maintenance say, stops publishing.",
            )
            .fix(alter_topic(fewer[0], "min.insync.replicas=<replicas - 1>")),
        );
    }
    let single = of(facts, |topic| topic.replicas == 1);
    if !single.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!("one replica: {}", named(&single)),
                "With the disk of one broker their records are gone, which were confirmed to \
                 PostgreSQL; while it is down, publishing stops.",
            )
            .fix("kafka-reassign-partitions.sh, with three replicas for each partition"),
        );
    }
    let unguarded =
        of(facts, |topic| topic.settings.is_some() && topic.replicas > 2 && least(topic) == 1);
    if !unguarded.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!("min.insync.replicas is 1: {}", named(&unguarded)),
                "Kafka acknowledges a record that one broker alone has.",
            )
            .fix(alter_topic(unguarded[0], "min.insync.replicas=2")),
        );
    }
    let unclean = of(facts, |topic| topic.replicas > 1 && is_unclean(&topic.settings));
    if !unclean.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!("unclean.leader.election.enable: {}", named(&unclean)),
                "A broker that lacks the last records may come to lead: they are gone, though Kafka \
                 acknowledged them, and PostgreSQL has forgotten them.",
            )
            .fix(alter_topic(unclean[0], "unclean.leader.election.enable=false")),
        );
    }
    if findings.is_empty() && !facts.topics.is_empty() {
        findings.push(Finding::ok(check, "enough, and in sync"));
    }
    findings
}

fn record_size(facts: &Kafka, config: &Config) -> Vec<Finding> {
    let check = "record-size";
    let wanted = config.relay.max_record_size.as_u64();
    let is_smaller = |topic: &Topic| {
        setting(&topic.settings, "max.message.bytes").is_some_and(|n: u64| n < wanted)
    };
    let small = of(facts, is_smaller);
    if small.is_empty() {
        return vec![Finding::ok(check, format!("every topic takes {}", bytes(wanted)))];
    }
    vec![
        Finding::warning(
            check,
            format!(
                "max.message.bytes is less than relay.max_record_size = {}: {}",
                bytes(wanted),
                named(&small)
            ),
            "A record in between is parked in the dead-letter topic, and the smallest of them limits \
             the batches that the relay writes to any topic.",
        )
        .fix(alter_topic(small[0], &format!("max.message.bytes={wanted}"))),
    ]
}

/// Whether Kafka keeps every event until it is old, and every letter.
fn retention(facts: &Kafka) -> Vec<Finding> {
    let check = "retention";
    let mut findings = Vec::new();
    let compacted = of(facts, |topic| {
        topic.role != Role::Checkpoints
            && setting(&topic.settings, "cleanup.policy")
                .is_some_and(|policy: String| policy.contains("compact"))
    });
    if let Some(name) = compacted.first() {
        findings.push(
            Finding::warning(
                check,
                format!("compacted: {}", named(&compacted)),
                "Of the events of one key Kafka keeps the last; a reader that is late never sees \
                 the others.",
            )
            .fix(alter_topic(name, "cleanup.policy=delete")),
        );
    }
    let brief = of(facts, |topic| topic.role == Role::DeadLetters && removes(&topic.settings));
    if let Some(name) = brief.first() {
        findings.push(
            Finding::warning(
                check,
                format!(
                    "removed by time or size (retention.ms, retention.bytes): {}",
                    named(&brief)
                ),
                "What was parked is gone then, if it is not in the outbox any more.",
            )
            .fix(alter_to_keep_all(name)),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, "events are not compacted, and letters are kept"));
    }
    findings
}

fn transactions(facts: &Kafka) -> Option<Finding> {
    let check = "transactions";
    let refused = match facts.transactions.as_ref()? {
        Ok(()) => {
            return Some(Finding::ok(
                check,
                "Kafka takes them from an id that begins as the relay's",
            ));
        }
        Err(refused) => refused,
    };
    let what = format!("Kafka refuses transactions of id `{}`: {}", refused.id, refused.error);
    let own = refused.id.trim_end_matches("-doctor");
    Some(if refused.is_unauthorized {
        // Rights for exactly the relay's id cannot be proved without taking it.
        Finding::warning(
            check,
            what,
            "The relay's own id begins the same. If the right to it is by this prefix, the relay \
             cannot start either; if it is for its id alone, all is well.",
        )
        .fix(format!(
            "kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation Write \
             --operation Describe --transactional-id {own} --resource-pattern-type prefixed"
        ))
    } else {
        Finding::problem(check, what, "The relay cannot start without them.").fix(
            "look at the brokers' transaction.state.log.* and transaction.max.timeout.ms settings; \
             relay.delivery = \"at-least-once\" does without transactions",
        )
    })
}
