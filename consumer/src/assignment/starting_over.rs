//! What starts over: a partition whose writer has found something, those that write to a
//! table that has changed, or all of them.

use std::{collections::HashSet, sync::Arc};

use outpour_schemas::program::error_line;

use super::{Assignment, Broken};
use crate::{
    dead_letter::DeadLetters,
    error::ConsumerError,
    metrics,
    sink::{Class, Sink},
    source::TopicPartition,
    table::TableName,
    tables::Routes,
    writer::{Offsets, StartsOver},
};

impl<S: Sink, D: DeadLetters, O: Offsets> Assignment<S, D, O> {
    /// What cannot go on as it is, if anything cannot. Each is told once.
    pub(crate) fn broken(&self) -> Option<Broken> {
        let mut owned = self.owned();
        if let Some(failure) = owned.failure.take() {
            return Some(Broken::Session(failure));
        }
        for (topic, number, partition) in owned.each() {
            let name = TopicPartition { topic: Arc::clone(topic), partition: number };
            // Finished already, so that this does not wait.
            let ended = partition.finished_writer().map(|ended| self.runtime.block_on(ended));
            let is_told_to = partition.starts_over();
            let reason = match ended {
                None if is_told_to => return Some(Broken::Partition(name)),
                None => continue,
                Some(Ok(Ok(()))) if is_told_to => return Some(Broken::Partition(name)),
                Some(Ok(Ok(()))) => "a writer ended early".to_owned(),
                Some(Ok(Err(error))) => match error.starts_over() {
                    StartsOver::Partition => {
                        tracing::info!(
                            error = error_line(&error),
                            "partition starts over from its plan"
                        );
                        return Some(Broken::Partition(name));
                    }
                    // They have been read since.
                    StartsOver::Table if is_told_to => return Some(Broken::Partition(name)),
                    StartsOver::Table => {
                        tracing::info!(
                            partition = %name, error = error_line(&error),
                            "partition waits until its tables are read again"
                        );
                        partition.await_tables();
                        self.in_doubt.notify_one();
                        continue;
                    }
                    StartsOver::Session => error_line(&error),
                },
                Some(Err(error)) => format!("a writer panicked: {error}"),
            };
            return Some(Broken::Session(ConsumerError::Interrupted(reason)));
        }
        None
    }

    /// Returns once a table may not be what it was.
    pub(crate) async fn table_is_in_doubt(&self) {
        self.in_doubt.notified().await;
    }

    /// The tables were looked at: `changed` ones have the partitions start over that
    /// write to them, with the new `routes`. So do those that have waited for it.
    pub(crate) fn tables_were_read(&self, routes: Option<Routes>, changed: &HashSet<TableName>) {
        let mut owned = self.owned();
        let before = Arc::clone(&owned.routes);
        if let Some(routes) = routes {
            owned.routes = Arc::new(routes);
        }
        let now = Arc::clone(&owned.routes);
        let mut names = Vec::new();
        for (topic, number, partition) in owned.each() {
            let mut tables = before.tables_of(topic).chain(now.tables_of(topic));
            if partition.awaits_tables() || tables.any(|table| changed.contains(table)) {
                partition.start_over();
                names.push(format!("{topic}/{number}"));
            }
        }
        if !changed.is_empty() {
            let changed: Vec<_> = changed.iter().map(ToString::to_string).collect();
            tracing::info!(
                tables = changed.join(", "),
                partitions = names.join(", "),
                "tables have changed; what writes to them starts over from its plan"
            );
        }
    }

    /// Raises the alarm for tables that cannot be written to, if any partition waits.
    pub(crate) fn tell_of_held_back_tables(&self) {
        let mut owned = self.owned();
        let routes = Arc::clone(&owned.routes);
        let topics: HashSet<_> = owned.each().map(|(topic, _, _)| Arc::clone(topic)).collect();
        for held in &routes.held_back {
            let topics: Vec<_> = topics
                .iter()
                .filter(|topic| held.takes_topic(topic))
                .map(|topic| &**topic)
                .collect();
            if topics.is_empty() {
                continue;
            }
            let table = held.table.to_string();
            metrics::insert_failed(&table, Class::Configuration);
            tracing::error!(
                table,
                topics = topics.join(", "),
                error = error_line(&held.error),
                "table held back; somebody has to act"
            );
        }
    }
}
