//! The group: who is in it, what it has committed, and what it is about to do.

use jiff::Timestamp;
use outpour_schemas::{
    config::Config,
    kafka::setting,
    program::{Finding, named},
};

use super::{
    super::facts::{Kafka, Offsets},
    topics::keeps_for,
};
use crate::{
    plan::{Plan, PlanError},
    writer::TOKENS_TRUSTED_FOR,
};

pub(super) fn judge(facts: &Kafka, config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = members(facts, config);
    findings.extend(session(facts, config));
    match &facts.offsets {
        Ok(all) => {
            findings.extend(committed(all, config));
            findings.extend(plans(all, config, now));
        }
        Err(error) => findings.push(
            Finding::problem(
                "group",
                format!("the offsets of group `{}` may not be read: {error}", config.consumer.group),
                "The consumer cannot join the group.",
            )
            .fix(format!(
                "kafka-acls.sh --bootstrap-server … --add --allow-principal User:… --operation Read \
                 --group {}",
                config.consumer.group
            )),
        ),
    }
    findings.extend(metadata_room(facts, config));
    findings.extend(forgotten(facts));
    findings.extend(single(facts));
    findings
}

/// Whether what the group has committed, plans among it, is on one disk alone.
fn single(facts: &Kafka) -> Option<Finding> {
    (facts.offsets_replicas == Some(1) && facts.brokers > 1).then(|| {
        Finding::warning(
            "group",
            "Kafka keeps the offsets of groups in one copy (topic __consumer_offsets)",
            "With the disk of one broker they are gone: the topics are read from their beginning, \
             and what is in the tables is stored again.",
        )
        .fix("kafka-reassign-partitions.sh, with three replicas for each of its partitions")
    })
}

fn members(facts: &Kafka, config: &Config) -> Vec<Finding> {
    /// Those that every member of ours offers.
    const OURS: [&str; 2] = ["range", "roundrobin"];
    let check = "group";
    let (group, name) = (&facts.group, &config.consumer.group);
    if group.members.is_empty() {
        return vec![Finding::ok(check, format!("no consumer is running in group `{name}`"))];
    }
    let is_ours = group.protocol_type == "consumer"
        && (group.protocol.is_empty() || OURS.contains(&group.protocol.as_str()));
    if !is_ours {
        return vec![
            Finding::problem(
                check,
                format!(
                    "group `{name}` is used by `{}`, under protocol `{} {}`",
                    group.members[0].client, group.protocol_type, group.protocol
                ),
                "Kafka does not let a consumer of another protocol join, and two programs in one \
                 group take records from each other.",
            )
            .fix("consumer.group: choose a name that no other program uses"),
        ];
    }
    let members = group.members.iter().map(|member| {
        let holds = match member.partitions.as_slice() {
            [] => "stands by".to_owned(),
            partitions => format!("has {}", named(partitions)),
        };
        format!("{} at {} {holds}", member.client, member.host)
    });
    let members: Vec<_> = members.collect();
    let text = format!("`{name}` is {}: {}", group.state.to_lowercase(), members.join("; "));
    vec![Finding::ok(check, text)]
}

/// What the brokers allow for a member's silence.
fn session(facts: &Kafka, config: &Config) -> Option<Finding> {
    let limit = |name| setting::<u128>(&facts.broker, name);
    let least = limit("group.min.session.timeout.ms").unwrap_or(0);
    let most = limit("group.max.session.timeout.ms").unwrap_or(u128::MAX);
    let ms = config.consumer.session_timeout.0.as_millis();
    if (least..=most).contains(&ms) {
        return None;
    }
    Some(
        Finding::problem(
            "session-timeout",
            format!("consumer.session_timeout is {ms} ms, the brokers take {least} to {most} ms"),
            "Kafka does not let a member join with another one.",
        )
        .fix(format!("consumer.session_timeout = \"{}ms\"", ms.clamp(least, most))),
    )
}

fn committed(all: &[Offsets], config: &Config) -> Vec<Finding> {
    let check = "offsets";
    let group = &config.consumer.group;
    let reset = |partition: &Offsets| {
        format!(
            "kafka-consumer-groups.sh --bootstrap-server … --group {group} --topic {}:{} \
             --reset-offsets --to-earliest --execute  -- while no consumer runs",
            partition.topic, partition.number
        )
    };
    let mut findings = Vec::new();
    let (mut lag, mut unread) = (0, 0);
    let mut late = Vec::new();
    for partition in all {
        let Some(log) = &partition.log else { continue };
        let Some(offset) = partition.committed else {
            unread += 1;
            lag += log.end - log.start;
            if log.start > 0 {
                late.push(partition.partition.as_str());
            }
            continue;
        };
        let name = &partition.partition;
        lag += (log.end - offset.max(log.start)).max(0);
        if offset < log.start {
            findings.push(
                Finding::problem(
                    check,
                    format!(
                        "group `{group}` stands at offset {offset} of {name}, which begins at {}",
                        log.start
                    ),
                    "The records in between were removed before they were read, and the consumer \
                     does not pass over them by itself.",
                )
                .fix("outpour-consumer run --accept-gap  -- once, while no other consumer runs"),
            );
        } else if offset > log.end {
            findings.push(
                Finding::problem(
                    check,
                    format!(
                        "group `{group}` stands at offset {offset} of {name}, which ends at {}",
                        log.end
                    ),
                    "The topic was deleted and made anew, or lost its end: its records are not those \
                     that the group has read.",
                )
                .fix(reset(partition)),
            );
        }
    }
    if !late.is_empty() {
        findings.push(
            Finding::warning(
                check,
                format!(
                    "group `{group}` has read nothing yet of partitions that begin behind offset 0: {}",
                    named(&late)
                ),
                "Kafka removed their first records before the group came: it begins behind these, \
                 and ClickHouse does not get them.",
            )
            .fix(
                "where they are wanted and still in the outbox: publish them anew, as in \
                 docs/operations.md, \"Kafka retention overran\"",
            ),
        );
    }
    if findings.is_empty() && !all.is_empty() {
        let unread = match unread {
            0 => String::new(),
            n => format!("; nothing is read yet of {n}"),
        };
        let text = format!("{} partitions, {lag} offsets behind{unread}", all.len());
        findings.push(Finding::ok(check, text));
    }
    findings
}

/// Batches whose outcome is open.
fn plans(all: &[Offsets], config: &Config, now: Timestamp) -> Vec<Finding> {
    let check = "plans";
    let mut findings = Vec::new();
    let (mut open, mut oldest_ms) = (0, 0);
    for partition in all {
        match &partition.plan {
            Ok(None) => {}
            Ok(Some(plan)) => {
                open += 1;
                oldest_ms = oldest_ms.max(age_ms(plan, now));
            }
            Err(error @ PlanError::Version(_)) => findings.push(
                Finding::problem(
                    check,
                    format!("the batch under way in {}: {error}", partition.partition),
                    "This program would insert its rows without knowing that they may be there.",
                )
                .fix("use the newer version for every consumer of the group"),
            ),
            Err(error) => findings.push(
                Finding::warning(
                    check,
                    format!("{}: {error}", partition.partition),
                    "Another program has committed for this group. What it read is taken for stored.",
                )
                .fix("consumer.group: choose a name that no other program uses"),
            ),
        }
    }
    if u128::from(oldest_ms) > TOKENS_TRUSTED_FOR.as_millis() {
        let minutes = oldest_ms / 60_000;
        findings.push(
            Finding::warning(
                check,
                format!("of {open} batches under way the oldest is {minutes} minutes old"),
                "It does not get on. Its token may be forgotten by now, and ClickHouse will be asked \
                 what it has of it.",
            )
            .fix(format!(
                "start the consumer, or look why it waits: outpour-consumer status, /readyz; group `{}`",
                config.consumer.group
            )),
        );
    } else if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{open} batches under way")));
    }
    findings
}

fn age_ms(plan: &Plan, now: Timestamp) -> u64 {
    now.as_millisecond().saturating_sub(plan.planned_at_ms).max(0).unsigned_abs()
}

/// Whether a plan fits into what the brokers keep beside an offset.
fn metadata_room(facts: &Kafka, config: &Config) -> Option<Finding> {
    let check = "offset-metadata";
    let room: usize = setting(&facts.broker, "offset.metadata.max.bytes")?;
    // The longest id that a process can have.
    let owner = format!("{}/{}", config.consumer.client_id, u32::MAX);
    let needed = Plan::longest(&owner);
    Some(if room >= needed {
        Finding::ok(check, format!("{room} bytes, plans take up to {needed}"))
    } else {
        Finding::problem(
            check,
            format!("offset.metadata.max.bytes is {room}, plans take up to {needed}"),
            "Kafka refuses to commit a plan, and nothing is stored.",
        )
        .fix("offset.metadata.max.bytes=4096 in the brokers' server.properties, then restart them")
    })
}

/// Whether offsets are remembered for as long as the records are there.
fn forgotten(facts: &Kafka) -> Option<Finding> {
    const MINUTE_MS: u128 = 60_000;
    let check = "offsets-retention";
    let minutes: u128 = setting(&facts.broker, "offsets.retention.minutes")?;
    let is_longer = |ms: Option<u128>| ms.is_none_or(|ms| ms > minutes * MINUTE_MS);
    let longer: Vec<_> = facts
        .topics
        .iter()
        .filter(|topic| topic.settings.is_some() && is_longer(keeps_for(topic)))
        .map(|topic| topic.name.as_str())
        .collect();
    Some(if longer.is_empty() {
        Finding::ok(check, format!("{minutes} minutes"))
    } else {
        Finding::warning(
            check,
            format!(
                "offsets.retention.minutes is {minutes}, and records are kept for longer: {}",
                named(&longer)
            ),
            "Once no consumer has run for so long, Kafka forgets how far the group is, and the topic \
             is read from its beginning: what is in the tables is stored again.",
        )
        .fix("offsets.retention.minutes, in the brokers' server.properties, longer than every retention.ms")
    })
}

#[cfg(test)]
mod tests {
    use outpour_schemas::{config::Span, program::Level};

    use super::{
        super::super::tests::{assert_one, config, kafka, plan},
        *,
    };

    const NOW_MS: i64 = 1_800_000_000_000;

    fn found_with(change: impl FnOnce(&mut Kafka, &mut Config)) -> Vec<Finding> {
        let (mut facts, mut config) = (kafka(), config());
        change(&mut facts, &mut config);
        let now = Timestamp::from_millisecond(NOW_MS).unwrap();
        let mut findings = judge(&facts, &config, now);
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn found(change: impl FnOnce(&mut Kafka)) -> Vec<Finding> {
        found_with(|facts, _| change(facts))
    }

    fn partition(change: impl FnOnce(&mut Offsets)) -> Vec<Finding> {
        found(|facts| change(&mut facts.offsets.as_mut().unwrap()[1]))
    }

    fn broker(name: &'static str, value: &'static str) -> Vec<Finding> {
        found(|facts| {
            facts.broker.as_mut().unwrap().insert(name.into(), value.into());
        })
    }

    #[test]
    fn a_good_group_has_no_finding_at_work_or_not() {
        assert_eq!(found(|_| {}), []);
        assert_eq!(found(|facts| facts.group.members.clear()), []);
        assert_eq!(partition(|offsets| offsets.committed = None), []);
        assert_eq!(found(|facts| facts.broker = None), []);
    }

    #[test]
    fn another_program_in_the_group_is_a_problem() {
        let other = found(|facts| facts.group.protocol = "cooperative-sticky".into());
        assert_one(&other, Level::Problem, "group", "cooperative-sticky");
        let connect = found(|facts| facts.group.protocol_type = "connect".into());
        assert_one(&connect, Level::Problem, "group", "connect");
        let notes = partition(|offsets| offsets.plan = Plan::parse("a note"));
        assert_one(&notes, Level::Warning, "plans", "not a plan");
        let denied = found(|facts| facts.offsets = Err("no".into()));
        assert_one(&denied, Level::Problem, "group", "may not be read");
    }

    #[test]
    fn offsets_outside_the_log_are_a_problem() {
        let gone = partition(|offsets| offsets.log = Some(200..300));
        assert_one(
            &gone,
            Level::Problem,
            "offsets",
            "stands at offset 100 of outbox.event.order/1",
        );
        assert!(gone[0].fix.as_ref().unwrap().contains("run --accept-gap"));
        let anew = partition(|offsets| offsets.log = Some(0..5));
        assert_one(&anew, Level::Problem, "offsets", "which ends at 5");
        assert!(anew[0].fix.as_ref().unwrap().contains("--topic outbox.event.order:1 "));
    }

    #[test]
    fn a_partition_that_lost_records_before_its_first_reading_is_a_warning() {
        let late = partition(|offsets| (offsets.committed, offsets.log) = (None, Some(1..5)));
        assert_one(&late, Level::Warning, "offsets", "behind offset 0: `outbox.event.order/1`");
    }

    #[test]
    fn an_old_plan_is_a_warning_and_one_of_a_newer_version_a_problem() {
        let aged = |minutes: i64| {
            partition(|offsets| offsets.plan = Ok(Some(plan(NOW_MS - minutes * 60_000))))
        };
        assert_eq!(aged(29), []);
        assert_one(&aged(31), Level::Warning, "plans", "31 minutes");
        let newer = partition(|offsets| offsets.plan = Err(PlanError::Version(9)));
        assert_one(&newer, Level::Problem, "plans", "version 9");
    }

    #[test]
    fn what_brokers_do_not_allow_is_a_problem() {
        let small = broker("offset.metadata.max.bytes", "100");
        assert_one(&small, Level::Problem, "offset-metadata", "is 100");
        assert_eq!(broker("offset.metadata.max.bytes", "3600"), []);
        let session = found_with(|_, config| {
            config.consumer.session_timeout = Span(std::time::Duration::from_secs(1));
        });
        assert_one(&session, Level::Problem, "session-timeout", "1000 ms");
    }

    #[test]
    fn offsets_in_one_copy_are_a_warning_where_there_could_be_more() {
        let single = found(|facts| facts.offsets_replicas = Some(1));
        assert_one(&single, Level::Warning, "group", "__consumer_offsets");
        let alone = found(|facts| (facts.offsets_replicas, facts.brokers) = (Some(1), 1));
        assert_eq!(alone, []);
    }

    #[test]
    fn offsets_that_are_forgotten_before_the_records_are_a_warning() {
        let brief = broker("offsets.retention.minutes", "60");
        assert_one(&brief, Level::Warning, "offsets-retention", "`outbox.event.order`");
        let for_ever = found(|facts| {
            let settings = facts.topics[0].settings.as_mut().unwrap();
            settings.insert("retention.ms".into(), "-1".into());
        });
        assert_one(&for_ever, Level::Warning, "offsets-retention", "10080");
    }
}
