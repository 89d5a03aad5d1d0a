//! How the group stands: what each partition has read, and what lies before it.

use std::{collections::BTreeSet, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use outpour_schemas::{
    config::Config,
    kafka::{Watched, client_config, reach_consumer},
    program::{Standing, per_second},
};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::Serialize;

use crate::{
    error::ConsumerError,
    plan::Plan,
    source::{Subscription, Topics, kafka::REQUEST_TIMEOUT},
};

/// What `status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    group: String,
    /// Records that wait, over all partitions.
    lag: i64,
    /// How fast the group gets on, markers included; absent at the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    offsets_per_s: Option<f64>,
    /// Topics that `consumer.topics` names and that do not exist, or may not be seen.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    missing_topics: BTreeSet<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    offsets_per_s: Option<f64>,
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
    let there: Vec<_> =
        metadata.topics().iter().filter(|topic| !topic.partitions().is_empty()).collect();
    let Topics { found, missing, .. } = subscription.among(there.iter().map(|topic| topic.name()));
    let mut asked = TopicPartitionList::new();
    for topic in there.iter().filter(|topic| found.contains(topic.name())) {
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
                offsets_per_s: None,
                plan: Plan::parse(element.metadata()).ok().flatten(),
            });
        }
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let lag = partitions.iter().map(|partition| partition.lag).sum();
    Ok(Status {
        group: config.consumer.group.clone(),
        lag,
        offsets_per_s: None,
        missing_topics: missing,
        partitions,
    })
}

impl Standing for Status {
    fn compare(&mut self, before: &Self, elapsed: Duration) {
        for partition in &mut self.partitions {
            let same = |other: &&PartitionStatus| {
                (&other.topic, other.partition) == (&partition.topic, partition.partition)
            };
            let earlier = before.partitions.iter().find(same).and_then(|other| other.committed);
            partition.offsets_per_s = earlier.zip(partition.committed).and_then(|(before, now)| {
                per_second(before.cast_unsigned(), now.cast_unsigned(), elapsed)
            });
        }
        let rates = self.partitions.iter().filter_map(|partition| partition.offsets_per_s);
        self.offsets_per_s = Some(rates.sum());
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        let has_rates = self.offsets_per_s.is_some();
        let mut header = vec!["topic", "partition", "committed", "end", "lag"];
        header.extend(has_rates.then_some("offsets/s"));
        header.push("batch under way");
        let numbers = 1..header.len() - 1;
        table.load_style(UTF8_BORDERS_ONLY).set_header(header);
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        for partition in &self.partitions {
            let plan = partition.plan.as_ref().map_or_else(String::new, |plan| {
                format!("{}–{}, {} rows, by {}", plan.start, plan.end, plan.rows, plan.owner)
            });
            let mut row = vec![
                partition.topic.clone(),
                partition.partition.to_string(),
                partition.committed.map_or("nothing yet".to_owned(), |offset| offset.to_string()),
                partition.end.to_string(),
                partition.lag.to_string(),
            ];
            row.extend(has_rates.then(|| rate(partition.offsets_per_s)));
            row.push(plan);
            table.add_row(row);
        }
        let mut all = vec!["all".to_owned(), String::new(), String::new(), String::new()];
        all.push(self.lag.to_string());
        all.extend(has_rates.then(|| rate(self.offsets_per_s)));
        table.add_row(all);
        for index in numbers {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("{table}\n");
        for topic in &self.missing_topics {
            text.push_str(&format!("{}\n", Topics::missing_line(topic)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(committed: [Option<i64>; 2]) -> Status {
        let partition = |(number, committed): (usize, Option<i64>)| PartitionStatus {
            topic: "t".to_owned(),
            partition: i32::try_from(number).unwrap(),
            committed,
            end: 100,
            lag: 100 - committed.unwrap_or(0),
            offsets_per_s: None,
            plan: None,
        };
        let partitions = committed.into_iter().enumerate().map(partition).collect();
        Status {
            group: "g".to_owned(),
            lag: 0,
            offsets_per_s: None,
            missing_topics: BTreeSet::new(),
            partitions,
        }
    }

    #[test]
    fn two_looks_tell_how_fast_the_group_is() {
        let first = status([Some(10), None]);
        assert!(!first.text().contains("offsets/s"), "{}", first.text());
        let mut second = status([Some(40), Some(5)]);
        second.compare(&first, Duration::from_secs(2));
        assert_eq!(second.partitions[0].offsets_per_s, Some(15.0));
        assert_eq!(second.partitions[1].offsets_per_s, None);
        assert_eq!(second.offsets_per_s, Some(15.0));
        assert!(second.text().contains("offsets/s") && second.text().contains("15.0"));
    }
}
