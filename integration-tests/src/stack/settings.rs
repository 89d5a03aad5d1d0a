//! What the services are told, the same whoever runs them.

/// The role, its password and its database in PostgreSQL. The role is a
/// superuser, as the Docker image makes it.
pub(super) const USER: &str = "outpour";
pub(super) const PASSWORD: &str = "outpour";
pub(super) const DATABASE: &str = "outpour";

pub(super) const POSTGRES: [(&str, &str); 4] = [
    ("wal_level", "logical"),
    ("max_replication_slots", "256"),
    ("max_wal_senders", "64"),
    ("max_connections", "200"),
];

pub(super) const KAFKA: [(&str, &str); 21] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("auto.create.topics.enable", "false"),
    ("min.insync.replicas", "1"),
    // One node, so one replica; few partitions, so a quick start.
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    // What a killed relay leaves open hides the checkpoints of others.
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    // Fault tests should not wait for groups longer than they must.
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
    // A broker that was killed may not register again before its old session
    // has expired: that is what a restart after a kill takes.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
];

/// Users beside the default one.
pub(super) const CLICKHOUSE_USERS: &str = include_str!("clickhouse-users.xml");
