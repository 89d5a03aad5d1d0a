//! How topics and brokers are set up.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use rdkafka::{
    ClientContext,
    admin::{
        AdminClient, AdminOptions, ConfigEntry, ConfigResource, OwnedResourceSpecifier,
        ResourceSpecifier,
    },
    metadata::{Metadata, MetadataBroker},
};

/// Settings by name; absent where they may not be read.
pub type Settings = Option<BTreeMap<String, String>>;

/// What could be read of the settings that were asked for.
#[derive(Debug, Default)]
pub struct Described {
    /// By topic.
    pub topics: BTreeMap<String, BTreeMap<String, String>>,
    /// Those of one broker.
    pub broker: Settings,
}

/// The settings of `topics`, and of the first broker that `metadata` names.
/// Whoever may not read settings still gets everything else.
pub async fn describe<C: ClientContext>(
    admin: &AdminClient<C>,
    metadata: &Metadata,
    topics: &[String],
    patience: Duration,
) -> Described {
    let mut asked: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let broker = metadata.brokers().first().map(MetadataBroker::id);
    asked.extend(broker.map(ResourceSpecifier::Broker));
    let options = AdminOptions::new().request_timeout(Some(patience));
    let answers = admin.describe_configs(&asked, &options).await.unwrap_or_default();
    let mut described = Described::default();
    for ConfigResource { specifier, entries } in answers.into_iter().flatten() {
        match specifier {
            OwnedResourceSpecifier::Topic(name) => {
                described.topics.insert(name, settings(entries));
            }
            OwnedResourceSpecifier::Broker(_) => described.broker = Some(settings(entries)),
            OwnedResourceSpecifier::Group(_) => {}
        }
    }
    described
}

/// What Kafka answered about one topic or broker, by name, without secrets.
#[must_use]
pub fn settings(entries: Vec<ConfigEntry>) -> BTreeMap<String, String> {
    let entries = entries.into_iter().filter(|entry| !entry.is_sensitive);
    entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// A number among settings, if it is there and can be read.
#[must_use]
pub fn setting<T: FromStr>(settings: &Settings, name: &str) -> Option<T> {
    settings.as_ref()?.get(name)?.parse().ok()
}

/// With these a topic keeps its records until somebody removes them. For what was
/// parked: it waits for a person, who may be away for longer than events are kept.
pub const KEEPS_ALL: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Whether time or size make Kafka remove records, as far as the settings can be read.
#[must_use]
pub fn removes(settings: &Settings) -> bool {
    let limit = |name| setting(settings, name).is_some_and(|limit: i64| limit >= 0);
    let deletes =
        setting(settings, "cleanup.policy").is_none_or(|policy: String| policy.contains("delete"));
    deletes && KEEPS_ALL.iter().any(|(name, _)| limit(name))
}

/// Whether a replica that lacks the last records may become the leader, as far as the
/// settings can be read.
#[must_use]
pub fn is_unclean(settings: &Settings) -> bool {
    setting(settings, "unclean.leader.election.enable").unwrap_or(false)
}

/// The command of Kafka's own tools that changes a topic's setting.
#[must_use]
pub fn alter_topic(topic: &str, setting: &str) -> String {
    format!("kafka-configs.sh --bootstrap-server … --alter --topic {topic} --add-config {setting}")
}

/// The same for a topic that is to keep its records.
#[must_use]
pub fn alter_to_keep_all(topic: &str) -> String {
    alter_topic(topic, &KEEPS_ALL.map(|(name, value)| format!("{name}={value}")).join(","))
}
