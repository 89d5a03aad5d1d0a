//! What `/metrics` tells of the relay. Everything is counted once a Kafka
//! transaction, after its commit, so that what was aborted does not count.
//!
//! There is no label for the topic: topics come out of the data, so that their
//! number is not ours to bound. Kafka itself counts by topic.

use std::time::{Duration, Instant};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use outpour_schemas::{
    Record,
    config::{Config, Delivery},
    program::State,
    wire,
};

use crate::{error::RelayError, health::Snapshot};

const BUILD: &str = "outpour_build_info";
const INFO: &str = "outpour_relay_info";
const STATE: &str = "outpour_relay_state";
const READY: &str = "outpour_relay_ready";
const RECORDS: &str = "outpour_relay_records_total";
const RECORD_BYTES: &str = "outpour_relay_record_bytes_total";
const TRANSACTIONS: &str = "outpour_relay_kafka_transactions_total";
const TRANSACTION_SECONDS: &str = "outpour_relay_kafka_transaction_seconds";
const DELAY_SECONDS: &str = "outpour_relay_publish_delay_seconds";
const DEAD_LETTERS: &str = "outpour_relay_dead_letters_total";
const SESSIONS: &str = "outpour_relay_sessions_total";
const FAILURES: &str = "outpour_relay_session_failures_total";
const LAG: &str = "outpour_relay_lag_bytes";
const BEHIND: &str = "outpour_relay_behind_seconds";
const RETAINED: &str = "outpour_relay_slot_retained_bytes";
const SAFE: &str = "outpour_relay_slot_safe_bytes";
const PUBLISHED_LSN: &str = "outpour_relay_published_lsn";
const PUBLISHED_AT: &str = "outpour_relay_last_published_commit_timestamp_seconds";

/// Says what the metrics are, and sets those that never change.
pub(crate) fn describe(config: &Config) {
    describe_gauge!(BUILD, "1, with the version as a label.");
    describe_gauge!(INFO, "1, with what the relay is configured to be as labels.");
    describe_gauge!(STATE, "1 for the state that the relay is in, 0 for the others.");
    describe_gauge!(READY, "1 where /readyz answers 200, else 0.");
    describe_counter!(RECORDS, "Records published, dead letters included.");
    describe_counter!(RECORD_BYTES, Unit::Bytes, "Bytes of their keys and values.");
    describe_counter!(TRANSACTIONS, "Commits in Kafka, those of a checkpoint alone included.");
    describe_histogram!(
        TRANSACTION_SECONDS,
        Unit::Seconds,
        "From the first record of a Kafka transaction to its commit."
    );
    describe_histogram!(
        DELAY_SECONDS,
        Unit::Seconds,
        "From the commit in PostgreSQL to the one in Kafka, for the oldest row of a Kafka transaction."
    );
    describe_counter!(DEAD_LETTERS, "Rows parked in the dead-letter topic, by reason.");
    describe_counter!(SESSIONS, "Replication sessions begun.");
    describe_counter!(FAILURES, "Replication sessions, and attempts at one, that failed.");
    describe_gauge!(LAG, Unit::Bytes, "Log of PostgreSQL that is not known to be published.");
    describe_gauge!(BEHIND, Unit::Seconds, "For how long the oldest event has waited; 0 if none.");
    describe_gauge!(RETAINED, Unit::Bytes, "Log that the slot keeps on PostgreSQL's disk.");
    describe_gauge!(
        SAFE,
        Unit::Bytes,
        "Log that may still be written before the slot is lost; absent without a limit."
    );
    describe_gauge!(PUBLISHED_LSN, Unit::Bytes, "Position in the log up to which Kafka has it.");
    describe_gauge!(
        PUBLISHED_AT,
        Unit::Seconds,
        "When the last published transaction committed, in seconds since 1970."
    );
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let delivery = match config.relay.effective_delivery() {
        Delivery::ExactlyOnce => "exactly-once",
        Delivery::AtLeastOnce => "at-least-once",
    };
    gauge!(INFO, "slot" => config.relay.slot.clone(), "delivery" => delivery).set(1.0);
    // A counter that is not there yet looks like one that is not known.
    for name in [RECORDS, RECORD_BYTES, TRANSACTIONS, SESSIONS] {
        counter!(name).absolute(0);
    }
}

/// A session began to publish.
pub(crate) fn session_started() {
    counter!(SESSIONS).increment(1);
}

/// A session, or the attempt at one, failed.
pub(crate) fn session_failed(error: &RelayError) {
    counter!(FAILURES, "reason" => error.reason()).increment(1);
}

/// What is shown as it is at this moment.
#[expect(clippy::cast_precision_loss, reason = "every metric is a float")]
pub(crate) fn show(snapshot: &Snapshot) {
    for state in State::ALL {
        let is_it = f64::from(u8::from(state == snapshot.state));
        gauge!(STATE, "state" => state.name()).set(is_it);
    }
    gauge!(READY).set(f64::from(u8::from(snapshot.ready)));
    gauge!(BEHIND).set(snapshot.behind.as_secs_f64());
    gauge!(PUBLISHED_LSN).set(snapshot.published.0 as f64);
    if let Some(at_us) = snapshot.published_commit_us {
        gauge!(PUBLISHED_AT).set(at_us as f64 / 1e6);
    }
    // Nothing at all is better than a number of long ago.
    let unknown = || f64::NAN;
    gauge!(LAG).set(snapshot.lag_bytes.map_or_else(unknown, |bytes| bytes as f64));
    gauge!(RETAINED).set(snapshot.retained_bytes.map_or_else(unknown, |bytes| bytes as f64));
    if let Some(bytes) = snapshot.safe_bytes {
        gauge!(SAFE).set(bytes as f64);
    }
}

/// What the open Kafka transaction holds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    records: u64,
    bytes: u64,
    began: Option<Instant>,
    /// Reasons of the dead letters among the records.
    parked: Vec<String>,
}

impl Tally {
    /// A record is on its way, perhaps as a dead letter. Whether it is the first.
    pub(crate) fn add(&mut self, record: &Record, is_letter: bool) -> bool {
        self.records += 1;
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len) as u64;
        self.bytes += length(&record.key) + length(&record.value);
        if is_letter {
            self.parked.extend(reason(record));
        }
        let is_first = self.began.is_none();
        if is_first {
            self.began = Some(Instant::now());
        }
        is_first
    }

    /// Kafka has committed it. `delay` is how long the oldest row waited for it.
    pub(crate) fn committed(&mut self, delay: Option<Duration>) {
        let Tally { records, bytes, began, parked } = std::mem::take(self);
        counter!(TRANSACTIONS).increment(1);
        // A checkpoint alone says nothing about publishing.
        let Some(began) = began else { return };
        counter!(RECORDS).increment(records);
        counter!(RECORD_BYTES).increment(bytes);
        histogram!(TRANSACTION_SECONDS).record(began.elapsed());
        if let Some(delay) = delay {
            histogram!(DELAY_SECONDS).record(delay);
        }
        for reason in parked {
            counter!(DEAD_LETTERS, "reason" => reason).increment(1);
        }
    }
}

fn reason(record: &Record) -> Option<String> {
    let (_, value) = record.headers.iter().find(|(name, _)| name == wire::dead_letter::REASON)?;
    Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
}
