//! How a member of the group is set up.

use std::time::Duration;

use outpour_schemas::{
    config::{Config, GroupProtocol},
    mutants::{self, Mutant},
};
use rdkafka::ClientConfig;

/// Longest that a rebalance of the group takes.
const REBALANCE: Duration = Duration::from_secs(60);

/// How often a member shows that it lives, and hears that others come or go. The
/// client library does so in a thread of its own, whatever the poll is at.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What `client` needs to be a member, unless an operator has set it otherwise.
pub(super) fn group_settings(
    config: &Config,
    client: &ClientConfig,
    name: Option<&str>,
) -> ClientConfig {
    let consumer = &config.consumer;
    let session_timeout = consumer.session_timeout.0;
    let mut settings = client.clone();
    settings
        .set("client.id", &consumer.client_id)
        .set("group.id", &consumer.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        // An offset that the log no longer has is a loss to be told, not a
        // reason to jump. Partitions without an offset start at 0 explicitly.
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false");
    match consumer.group_protocol {
        GroupProtocol::Classic => settings
            .set("session.timeout.ms", session_timeout.as_millis().to_string())
            .set("partition.assignment.strategy", "range,roundrobin"),
        // The brokers assign, and have times of their own.
        GroupProtocol::Consumer => settings.set("group.protocol", "consumer"),
    };
    if let Some(name) = name {
        settings.set("group.instance.id", name);
    }
    // The client counts what records say, about half of what they take, and a
    // fetch that is under way comes on top.
    let queued_kib = (consumer.memory.as_u64() / 8 / 1024).max(1024);
    let heartbeat = HEARTBEAT.min(session_timeout / 3).as_millis().to_string();
    let heartbeat = ("heartbeat.interval.ms", heartbeat);
    let heartbeat = (consumer.group_protocol == GroupProtocol::Classic).then_some(heartbeat);
    let defaults = [
        // As long as this a rebalance waits for a member that does not join it, one
        // that never will among them: a broker that reads its groups twice as it starts
        // (seen with Kafka 4.1.1) does not expire the members from before. Giving up
        // partitions takes a third of it at most.
        ("max.poll.interval.ms", REBALANCE.max(session_timeout * 2).as_millis().to_string()),
        // New partitions, and a topic that is made anew, are taken up within twice this time.
        ("topic.metadata.refresh.interval.ms", "4000".to_owned()),
        // How often the client tells where partitions end.
        ("statistics.interval.ms", "5000".to_owned()),
        ("queued.max.messages.kbytes", queued_kib.to_string()),
        // When the queue is full, how long no more is fetched. By default a
        // second, in which the queue runs empty many times over.
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("fetch.wait.max.ms", "50".to_owned()),
        ("check.crcs", "true".to_owned()),
    ];
    for (key, value) in defaults.into_iter().chain(heartbeat) {
        if !config.kafka.properties.contains_key(key) {
            settings.set(key, value);
        }
    }
    if mutants::active(Mutant::ReadUncommitted) {
        settings.set("isolation.level", "read_uncommitted");
    }
    settings
}

#[cfg(test)]
mod tests {
    use outpour_schemas::config::Span;

    use super::*;

    fn rebalance_ms(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let settings = group_settings(&config, &ClientConfig::new(), None);
        settings.get("max.poll.interval.ms").unwrap_or_default().to_owned()
    }

    /// Every member has these settings, and the group waits for the longest.
    #[test]
    fn a_rebalance_waits_a_minute_for_a_member_that_does_not_join_it() {
        assert_eq!(rebalance_ms(|_| {}), "60000");
        let slow =
            rebalance_ms(|config| config.consumer.session_timeout = Span(Duration::from_secs(45)));
        assert_eq!(slow, "90000", "the client refuses less than the session time-out");
        let name = "max.poll.interval.ms".to_owned();
        let chosen = |config: &mut Config| {
            config.kafka.properties.insert(name, "300000".to_owned().into());
        };
        assert_eq!(rebalance_ms(chosen), "", "the operator's stands in the client's settings");
    }
}
