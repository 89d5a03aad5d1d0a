//! How the group stands: what each partition has read, and what lies before it.

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use outpour_schemas::{
    config::Config,
    kafka::{Watched, client_config, reach_consumer},
};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::Serialize;

use crate::{
    error::ConsumerError,
    plan::Plan,
    source::{Subscription, kafka::REQUEST_TIMEOUT},
};

/// What `status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    group: String,
    /// Records that wait, over all partitions.
    lag: i64,
    partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Serialize)]
struct PartitionStatus {
    topic: String,
    partition: i32,
    /// Everything before it is stored or parked; absent if nothing was read yet.
    committed: Option<i64>,
    /// One past the last record.
    end: i64,
    /// Offsets from `committed` to `end`. Markers of transactions count, too.
    lag: i64,
    /// The batch under way.
    plan: Option<Plan>,
}

/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn status(config: &Config) -> Result<Status, ConsumerError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || ask(&config)).await.map_err(ConsumerError::Worker)?
}

fn ask(config: &Config) -> Result<Status, ConsumerError> {
    let failed = |source| ConsumerError::Kafka {
        doing: "asking for offsets",
        brokers: config.kafka.brokers.clone(),
        source,
    };
    // A member of no group: it asks and does not subscribe.
    let client: BaseConsumer<Watched> = client_config(&config.kafka)?
        .set("group.id", &config.consumer.group)
        .set("enable.auto.commit", "false")
        .create_with_context(Watched::default())
        .map_err(failed)?;
    let metadata = reach_consumer(&config.kafka, &client, REQUEST_TIMEOUT, |client, wait| {
        client.fetch_metadata(None, wait)
    })?;
    let subscription = Subscription::of(&config.consumer.topics);
    let mut asked = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| subscription.takes(topic.name())) {
        for partition in topic.partitions() {
            asked.add_partition(topic.name(), partition.id());
        }
    }
    let mut partitions = Vec::new();
    if asked.count() > 0 {
        let committed = client.committed_offsets(asked, REQUEST_TIMEOUT).map_err(failed)?;
        for element in committed.elements() {
            element.error().map_err(failed)?;
            let (start, end) = client
                .fetch_watermarks(element.topic(), element.partition(), REQUEST_TIMEOUT)
                .map_err(failed)?;
            let committed = element.offset().to_raw().filter(|offset| *offset >= 0);
            partitions.push(PartitionStatus {
                topic: element.topic().to_owned(),
                partition: element.partition(),
                committed,
                end,
                lag: (end - committed.unwrap_or(start)).max(0),
                plan: Plan::parse(element.metadata()).ok().flatten(),
            });
        }
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let lag = partitions.iter().map(|partition| partition.lag).sum();
    Ok(Status { group: config.consumer.group.clone(), lag, partitions })
}

impl Status {
    /// As a person reads it.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header([
            "topic",
            "partition",
            "committed",
            "end",
            "lag",
            "batch under way",
        ]);
        for partition in &self.partitions {
            let plan = partition.plan.as_ref().map_or_else(String::new, |plan| {
                format!("{}–{}, {} rows, by {}", plan.start, plan.end, plan.rows, plan.owner)
            });
            table.add_row([
                partition.topic.clone(),
                partition.partition.to_string(),
                partition.committed.map_or("nothing yet".to_owned(), |offset| offset.to_string()),
                partition.end.to_string(),
                partition.lag.to_string(),
                plan,
            ]);
        }
        table.add_row([
            "all".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            self.lag.to_string(),
        ]);
        table
    }
}
