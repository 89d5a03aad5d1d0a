//! Records that Kafka refuses for what they are, which it alone can tell: by a
//! topic's settings that could not be read, or have changed since, or by a rule of
//! its own.
//!
//! A refusal ends the session, as it aborts the transaction. The next one knows
//! from here what to do with the record when it comes again.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use outpour_schemas::{Record, wire::header};
use rdkafka::error::RDKafkaErrorCode;

/// Codes that are about what a record is. All others are about who writes, or
/// where to: they are no reason to park a record.
const OF_THE_RECORD: [RDKafkaErrorCode; 6] = [
    RDKafkaErrorCode::InvalidRecord,
    RDKafkaErrorCode::InvalidTimestamp,
    RDKafkaErrorCode::MessageSizeTooLarge,
    RDKafkaErrorCode::MessageBatchTooLarge,
    RDKafkaErrorCode::UnsupportedForMessageFormat,
    RDKafkaErrorCode::PolicyViolation,
];

/// What to do with a record that Kafka has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it alone: its batch was refused, and Kafka did not say for which of them.
    Suspect,
    /// Send it with the time of publication.
    Untimely,
    /// Park it.
    Refused(RDKafkaErrorCode),
}

/// A record that was refused, as the client reports it.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// From [`Refusals::fingerprint`].
    pub(super) fingerprint: u64,
    /// Its time, in milliseconds since the Unix epoch.
    pub(super) timestamp_ms: i64,
    /// Of key and value, in bytes.
    pub(super) size: usize,
    pub(super) code: RDKafkaErrorCode,
    /// Whether others of its batch were said to be refused for another record: then the
    /// codes of all are their own. Of a batch with one bad record the client says of each
    /// what is wrong with that one.
    pub(super) is_named: bool,
}

impl Refused {
    /// Whether `code` says that it was refused for what it is.
    pub(super) fn is_meant_by(code: RDKafkaErrorCode) -> bool {
        OF_THE_RECORD.contains(&code)
    }

    pub(super) fn is_too_large(&self) -> bool {
        use RDKafkaErrorCode::{MessageBatchTooLarge, MessageSizeTooLarge};
        matches!(self.code, MessageSizeTooLarge | MessageBatchTooLarge)
    }

    /// Whether Kafka gives this code to single records, where several of a batch are bad.
    fn is_told_apart(&self) -> bool {
        use RDKafkaErrorCode::{InvalidRecord, InvalidTimestamp};
        matches!(self.code, InvalidRecord | InvalidTimestamp)
    }

    /// Whether its time may be the reason. Of several in a batch the client does
    /// not say which of the reasons it was.
    fn may_be_untimely(&self, now_ms: i64) -> bool {
        const NEAR_MS: u64 = 60_000;
        match self.code {
            RDKafkaErrorCode::InvalidTimestamp => true,
            RDKafkaErrorCode::InvalidRecord => self.timestamp_ms.abs_diff(now_ms) > NEAR_MS,
            _ => false,
        }
    }
}

/// Records are known by a hash, with a key that nobody outside knows.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    hasher: RandomState,
    /// Whether a session ends with the first batch of a partition that is refused.
    is_transactional: bool,
    known: Mutex<HashMap<u64, Known>>,
    /// The number of the next batch that was refused whole.
    batches: AtomicUsize,
    /// How many there are, so that it costs nothing while there are none.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Known {
    verdict: Verdict,
    /// What it comes to if it was refused for itself.
    otherwise: Verdict,
    /// The batch that it was refused with, as long as that is all that is known.
    batch: Option<usize>,
    /// Whether another one of that batch was refused alone.
    has_bad_sibling: bool,
    /// Whether it was asked for since the last commit.
    is_used: bool,
}

impl Refusals {
    pub(super) fn new(is_transactional: bool) -> Self {
        Refusals { is_transactional, ..Refusals::default() }
    }

    /// What a record is known by: everything that does not depend on when and from
    /// where it was read.
    pub(super) fn fingerprint(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        id: Option<&[u8]>,
    ) -> u64 {
        self.hasher.hash_one((topic, key, value, id))
    }

    /// What is known of the record, if it was refused before.
    pub(super) fn verdict(&self, record: &Record) -> Option<Verdict> {
        if self.is_empty() {
            return None;
        }
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let fingerprint = self.fingerprint(&record.topic, key, value, record.header(header::ID));
        let mut known = self.known();
        let known = known.get_mut(&fingerprint)?;
        known.is_used = true;
        Some(known.verdict)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Takes in what a session was refused.
    pub(super) fn learn(&self, refused: &[Refused], now_ms: i64) {
        let mut known = self.known();
        let mut refusals: HashMap<(&str, i32), usize> = HashMap::new();
        for one in refused {
            *refusals.entry((&one.topic, one.partition)).or_default() += 1;
        }
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let mut alone = None;
        for one in refused {
            let is_alone = refusals[&(one.topic.as_str(), one.partition)] == 1;
            let before = known.get(&one.fingerprint);
            let was_untimely = before.is_some_and(|known| known.verdict == Verdict::Untimely);
            let otherwise = match !was_untimely && one.may_be_untimely(now_ms) {
                true => Verdict::Untimely,
                false => Verdict::Refused(one.code),
            };
            let is_suspect = !is_alone && !one.is_named;
            let verdict = if is_suspect { Verdict::Suspect } else { otherwise };
            if !is_suspect && let Some(before) = before.filter(|known| known.batch.is_some()) {
                alone = Some((before.batch, before.has_bad_sibling));
            }
            let is_told_apart = self.is_transactional && one.is_told_apart();
            let batch = (is_suspect && is_told_apart).then_some(batch);
            let (is_used, has_bad_sibling) = (false, false);
            let one_known = Known { verdict, otherwise, batch, has_bad_sibling, is_used };
            known.insert(one.fingerprint, one_known);
        }
        if let Some((batch, is_second)) = alone {
            for known in known.values_mut().filter(|known| known.batch == batch) {
                known.has_bad_sibling = true;
                if is_second {
                    // The client has a word for each bad one of several, and for no other.
                    (known.verdict, known.batch) = (known.otherwise, None);
                }
            }
        }
        self.count.store(known.len(), Ordering::Relaxed);
    }

    /// What was asked for since the last commit is in Kafka now.
    pub(super) fn committed(&self) {
        if !self.is_empty() {
            let mut known = self.known();
            known.retain(|_, known| !known.is_used);
            self.count.store(known.len(), Ordering::Relaxed);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Refused {
    fn of(fingerprint: u64, code: RDKafkaErrorCode) -> Self {
        let topic = "t".to_owned();
        let is_named = false;
        Refused { topic, partition: 0, fingerprint, timestamp_ms: 0, size: 1, code, is_named }
    }

    pub(super) fn too_large(fingerprint: u64, size: usize) -> Self {
        Refused { size, ..Refused::of(fingerprint, RDKafkaErrorCode::MessageSizeTooLarge) }
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode::{InvalidRecord, InvalidTimestamp, PolicyViolation};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn record(value: &str) -> Record {
        Record {
            topic: "t".to_owned(),
            partition: None,
            key: Some(b"k".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: 0,
            headers: vec![(header::ID.to_owned(), Some(b"1".to_vec()))],
        }
    }

    fn refused(refusals: &Refusals, value: &str, code: RDKafkaErrorCode) -> Refused {
        let (key, id) = (Some(b"k".as_slice()), Some(b"1".as_slice()));
        Refused::of(refusals.fingerprint("t", key, Some(value.as_bytes()), id), code)
    }

    #[test]
    fn what_kafka_names_is_parked_and_nothing_else() {
        let refusals = Refusals::default();
        assert_eq!(refusals.verdict(&record("a")), None);
        let named = ["a", "b"]
            .map(|value| Refused { is_named: true, ..refused(&refusals, value, InvalidRecord) });
        refusals.learn(&named, 0);
        for value in ["a", "b"] {
            assert_eq!(refusals.verdict(&record(value)), Some(Verdict::Refused(InvalidRecord)));
        }
        assert_eq!(refusals.verdict(&record("c")), None);
        // Once they are parked nobody asks again.
        refusals.committed();
        assert!(refusals.is_empty());
    }

    #[test]
    fn of_a_batch_that_names_none_each_is_tried_alone() {
        let refusals = Refusals::default();
        for code in [PolicyViolation, InvalidRecord] {
            let batch = ["a", "b"].map(|value| refused(&refusals, value, code));
            refusals.learn(&batch, 0);
            assert_eq!(refusals.verdict(&record("a")), Some(Verdict::Suspect));
            assert_eq!(refusals.verdict(&record("b")), Some(Verdict::Suspect));
            refusals.learn(&batch[..1], 0);
            assert_eq!(refusals.verdict(&record("a")), Some(Verdict::Refused(code)));
            assert_eq!(refusals.verdict(&record("b")), Some(Verdict::Suspect));
        }
    }

    #[test]
    fn once_two_of_a_batch_were_refused_alone_all_that_are_left_are_bad() {
        let values = ["a", "b", "c", "d"];
        for (is_transactional, left) in
            [(true, Verdict::Refused(InvalidRecord)), (false, Verdict::Suspect)]
        {
            let refusals = Refusals::new(is_transactional);
            let batch = values.map(|value| refused(&refusals, value, InvalidRecord));
            refusals.learn(&batch, 0);
            refusals.learn(&batch[..1], 0);
            assert_eq!(refusals.verdict(&record("b")), Some(Verdict::Suspect));
            refusals.learn(&batch[1..2], 0);
            assert_eq!(refusals.verdict(&record("b")), Some(Verdict::Refused(InvalidRecord)));
            for value in ["c", "d"] {
                assert_eq!(refusals.verdict(&record(value)), Some(left));
            }
        }
    }

    #[test]
    fn a_time_that_is_refused_gives_way_before_the_record_does() {
        for code in [InvalidTimestamp, InvalidRecord] {
            let refusals = Refusals::default();
            let old = [refused(&refusals, "old", code)];
            refusals.learn(&old, HOUR_MS);
            assert_eq!(refusals.verdict(&record("old")), Some(Verdict::Untimely));
            refusals.learn(&old, HOUR_MS);
            assert_eq!(refusals.verdict(&record("old")), Some(Verdict::Refused(code)));
        }
    }
}
