//! The one configuration file that both programs read.

use crate::stack::Stack;

/// Kafka partitions of every topic.
pub(super) const PARTITIONS: u32 = 6;
/// The consumers' group.
pub(super) const GROUP: &str = "outpour";

/// Besides the addresses, only what is not as by default.
pub(super) fn toml(stack: &Stack) -> String {
    toml_for(stack.postgres.url(), stack.kafka.url(), stack.clickhouse.url())
}

fn toml_for(postgres: &str, kafka: &str, clickhouse: &str) -> String {
    format!(
        r#"[postgres]
url = "{postgres}"

[kafka]
brokers = "{kafka}"

[clickhouse]
url = "{clickhouse}"

[relay]
http_listen = "127.0.0.1:0"
topic_partitions = {PARTITIONS}
topic_replication_factor = 1

[consumer]
group = "{GROUP}"
http_listen = "127.0.0.1:0"

[batch]
max_delay = "200ms"

# Every event, whatever it is.
[[routes]]
topic = '^outbox\.event\..*'
table = "event_log"

[routes.columns]
event_id = "$id"
event_type = "$type"
event_date_time = "$occurred_at"
environment = "$environment"
event_context = "$payload"
metadata_version = "$schema_version"
aggregate_type = "$aggregate_type"
aggregate_id = "$key"

# Fields of the payload become columns of the same name.
[[routes]]
topic = "outbox.event.flight"
table = "flights"
columns = {{ event_id = "$id", committed_at = "$timestamp" }}

[[routes]]
topic = "outbox.event.order"
table = "orders"
columns = {{ event_id = "$id", committed_at = "$timestamp" }}
"#
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use outpour_schemas::config;

    #[test]
    fn both_programs_can_read_it() {
        let file = std::env::temp_dir().join(format!("outpour-run-{}.toml", std::process::id()));
        let text = super::toml_for("postgres://a@127.0.0.1/b", "127.0.0.1:1", "http://127.0.0.1:2");
        std::fs::write(&file, text).unwrap();
        let config = config::load(Some(&file)).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.relay.topic_partitions, Some(super::PARTITIONS));
        let tables: Vec<_> = config.routes.iter().map(|route| route.table.as_str()).collect();
        assert_eq!(tables, ["event_log", "flights", "orders"]);
    }
}
