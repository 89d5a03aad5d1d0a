//! What `/metrics` tells of the consumer. Everything is counted once a batch or
//! an insert, or set once a scrape.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use outpour_schemas::{
    config::{Config, Delivery},
    program::State,
};

use crate::{
    batch::Sealed, error::ConsumerError, health::Snapshot, sink::Class, source::TopicPartition,
};

const BUILD: &str = "outpour_build_info";
const INFO: &str = "outpour_consumer_info";
const STATE: &str = "outpour_consumer_state";
const READY: &str = "outpour_consumer_ready";
const RECORDS: &str = "outpour_consumer_records_total";
const BATCHES: &str = "outpour_consumer_batches_total";
const BATCH_SECONDS: &str = "outpour_consumer_batch_age_seconds";
const ROWS: &str = "outpour_consumer_rows_total";
const INSERT_BYTES: &str = "outpour_consumer_insert_bytes_total";
const INSERT_SECONDS: &str = "outpour_consumer_insert_seconds";
const FAILED_INSERTS: &str = "outpour_consumer_failed_inserts_total";
const DEAD_LETTERS: &str = "outpour_consumer_dead_letters_total";
const PROVENANCE: &str = "outpour_consumer_provenance_recoveries_total";
const SESSIONS: &str = "outpour_consumer_sessions_total";
const FAILURES: &str = "outpour_consumer_session_failures_total";
const STARTED_OVER: &str = "outpour_consumer_partitions_started_over_total";
const PARTITIONS: &str = "outpour_consumer_partitions";
const LAG: &str = "outpour_consumer_lag_records";
const PLAN_AGE: &str = "outpour_consumer_plan_age_seconds";
const HELD: &str = "outpour_consumer_batch_bytes";
const MEMORY: &str = "outpour_consumer_memory_limit_bytes";

/// Says what the metrics are, and sets those that never change.
#[expect(clippy::cast_precision_loss, reason = "every metric is a float")]
pub(crate) fn describe(config: &Config) {
    describe_gauge!(BUILD, "1, with the version as a label.");
    describe_gauge!(INFO, "1, with what the consumer is configured to be as labels.");
    describe_gauge!(STATE, "1 for the state that the consumer is in, 0 for the others.");
    describe_gauge!(READY, "1 where /readyz answers 200, else 0.");
    describe_counter!(RECORDS, "Records stored or parked.");
    describe_counter!(BATCHES, "Batches stored.");
    describe_histogram!(
        BATCH_SECONDS,
        Unit::Seconds,
        "From the first record of a batch to its being stored."
    );
    describe_counter!(ROWS, "Rows inserted, by table.");
    describe_counter!(INSERT_BYTES, Unit::Bytes, "Bytes of them, before compression.");
    describe_histogram!(INSERT_SECONDS, Unit::Seconds, "What an insert took that succeeded.");
    describe_counter!(FAILED_INSERTS, "Inserts that failed and were tried again, by class.");
    describe_counter!(DEAD_LETTERS, "Records parked in dead-letter topics, by reason.");
    describe_counter!(
        PROVENANCE,
        "Batches of which the tables were asked what they have, since a token could not tell."
    );
    describe_counter!(SESSIONS, "Sessions in the group begun.");
    describe_counter!(FAILURES, "Sessions, and attempts at one, that failed.");
    describe_counter!(
        STARTED_OVER,
        "Partitions read again from their plan, to park rows that ClickHouse refused."
    );
    describe_gauge!(PARTITIONS, "Partitions that this consumer owns.");
    describe_gauge!(LAG, "Records that can be read and are not stored, by partition.");
    describe_gauge!(PLAN_AGE, Unit::Seconds, "For how long the oldest plan is open; 0 if none.");
    describe_gauge!(HELD, Unit::Bytes, "Batches held in memory, open or waiting.");
    describe_gauge!(MEMORY, Unit::Bytes, "consumer.memory.");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let delivery = match config.consumer.delivery {
        Delivery::ExactlyOnce => "exactly-once",
        Delivery::AtLeastOnce => "at-least-once",
    };
    gauge!(INFO, "group" => config.consumer.group.clone(), "delivery" => delivery).set(1.0);
    gauge!(MEMORY).set(config.consumer.memory.as_u64() as f64);
    // A counter that is not there yet looks like one that is not known.
    for name in [RECORDS, BATCHES, PROVENANCE, SESSIONS, STARTED_OVER] {
        counter!(name).absolute(0);
    }
}

/// A session is about to join the group.
pub(crate) fn session_started() {
    counter!(SESSIONS).increment(1);
}

/// A partition is read again from its plan.
pub(crate) fn partition_started_over() {
    counter!(STARTED_OVER).increment(1);
}

/// A session, or the attempt at one, failed.
pub(crate) fn session_failed(error: &ConsumerError) {
    counter!(FAILURES, "reason" => error.reason()).increment(1);
}

/// An insert into `table` succeeded.
pub(crate) fn inserted(table: &str, rows: usize, bytes: usize, took: Duration) {
    let table = || table.to_owned();
    counter!(ROWS, "table" => table()).increment(rows as u64);
    counter!(INSERT_BYTES, "table" => table()).increment(bytes as u64);
    histogram!(INSERT_SECONDS, "table" => table()).record(took);
}

/// An insert failed, or the question before its repetition, and will be tried again.
pub(crate) fn insert_failed(table: &str, class: Class) {
    counter!(FAILED_INSERTS, "table" => table.to_owned(), "class" => class.as_str()).increment(1);
}

/// The tables are asked what they have of a batch.
pub(crate) fn asked_for_provenance() {
    counter!(PROVENANCE).increment(1);
}

/// All of a batch is stored or parked.
pub(crate) fn batch_stored(batch: &Sealed) {
    counter!(BATCHES).increment(1);
    counter!(RECORDS).increment(batch.records as u64);
    histogram!(BATCH_SECONDS).record(batch.opened_at.elapsed());
    for letter in &batch.parked {
        counter!(DEAD_LETTERS, "reason" => letter.rejection.reason).increment(1);
    }
}

/// What is shown as it is at this moment.
#[expect(clippy::cast_precision_loss, reason = "every metric is a float")]
pub(crate) fn show(snapshot: &Snapshot, held_bytes: usize) {
    for state in State::ALL {
        let is_it = f64::from(u8::from(state == snapshot.state));
        gauge!(STATE, "state" => state.name()).set(is_it);
    }
    gauge!(READY).set(f64::from(u8::from(snapshot.ready)));
    gauge!(PARTITIONS).set(snapshot.lags.len() as f64);
    gauge!(PLAN_AGE).set(snapshot.plan_age.as_secs_f64());
    gauge!(HELD).set(held_bytes as f64);
    for (partition, lag) in &snapshot.lags {
        set_lag(partition, lag.map_or(f64::NAN, |lag| lag as f64));
    }
}

/// Nothing at all is better than a number of long ago.
pub(crate) fn forget_lags(partitions: &[TopicPartition]) {
    for partition in partitions {
        set_lag(partition, f64::NAN);
    }
}

fn set_lag(partition: &TopicPartition, lag: f64) {
    let (topic, number) = (partition.topic.to_string(), partition.partition.to_string());
    gauge!(LAG, "topic" => topic, "partition" => number).set(lag);
}
