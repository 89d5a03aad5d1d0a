//! Which fault comes when: a pure function of the seed.

use std::{ops::Range, time::Duration};

use fastrand::Rng;
use serde::Serialize;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is done to a process, a connection or a table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub(super) enum Fault {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Fault {
            pub(super) const ALL: &[Fault] = &[$(Fault::$variant),*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }
        }
    };
}

faults! {
    /// `kill -9`, started again at once.
    RelayKill = "relay-kill",
    /// The same while Kafka gets nothing from it: with records sent and not committed.
    RelayKillInCommit = "relay-kill-in-commit",
    /// SIGSTOP for longer than its transaction may be open, then SIGCONT.
    RelayPause = "relay-pause",
    /// SIGTERM: the other one takes over.
    RelayStop = "relay-stop",
    /// SIGSTOP amid a Kafka transaction, while its session in Postgres is ended: when
    /// it wakes, the other one has taken over.
    RelayUsurped = "relay-usurped",
    ConsumerKill = "consumer-kill",
    /// SIGSTOP past the session time-out: its partitions are another's when it
    /// wakes.
    ConsumerPause = "consumer-pause",
    /// SIGTERM, away for a while.
    ConsumerLeave = "consumer-leave",
    /// A fourth one, for a while.
    ConsumerJoin = "consumer-join",
    /// All of them at once.
    ConsumersKill = "consumers-kill",
    /// The same while Kafka does not answer: what they asked for last is done unheard …
    ConsumersKillAnswersLost = "consumers-kill-answers-lost",
    /// … or never arrives.
    ConsumersKillRequestsLost = "consumers-kill-requests-lost",
    PostgresKill = "postgres-kill",
    PostgresRestart = "postgres-restart",
    PostgresPause = "postgres-pause",
    /// Whichever relay streams loses its session.
    StreamEnded = "stream-ended",
    KafkaKill = "kafka-kill",
    KafkaRestart = "kafka-restart",
    KafkaPause = "kafka-pause",
    ClickHouseKill = "clickhouse-kill",
    ClickHouseRestart = "clickhouse-restart",
    ClickHousePause = "clickhouse-pause",
    /// All connections break at once.
    PostgresCut = "postgres-cut",
    KafkaCut = "kafka-cut",
    ClickHouseCut = "clickhouse-cut",
    /// Every chunk is late.
    PostgresSlow = "postgres-slow",
    KafkaSlow = "kafka-slow",
    ClickHouseSlow = "clickhouse-slow",
    /// What was asked for is done, and nobody hears of it.
    PostgresAnswersLost = "postgres-answers-lost",
    KafkaAnswersLost = "kafka-answers-lost",
    ClickHouseAnswersLost = "clickhouse-answers-lost",
    /// What is asked for never arrives.
    KafkaRequestsLost = "kafka-requests-lost",
    /// It arrives after whoever asked has given up.
    ClickHouseRequestsLate = "clickhouse-requests-late",
    /// ClickHouse refuses inserts: TOO_MANY_PARTS.
    TooManyParts = "too-many-parts",
    /// … TABLE_IS_PERMANENTLY_READ_ONLY.
    ReadOnly = "read-only",
    /// … MEMORY_LIMIT_EXCEEDED.
    MemoryLimit = "memory-limit",
    AddColumn = "add-column",
    /// Inserts land unheard, all consumers die, and when they come back the
    /// tables have another column.
    AlteredCrash = "altered-crash",
    /// An insert arrives after its sender was taken for dead, the table has got
    /// another column, and somebody else has stored the rows.
    LateInsert = "late-insert",
    /// A topic that takes only small records.
    TinyRecords = "tiny-records",
    /// No events for a while, though the database has other work.
    Idle = "idle",
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Since the beginning of the run.
    pub(super) at: Duration,
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
    /// Which of several it meets, modulo their number.
    pub(super) whom: usize,
}

/// Between the beginnings of two faults, in milliseconds.
fn gap_ms(kinds: &[Fault]) -> Range<u64> {
    match kinds {
        // The other one takes over at once.
        [Fault::RelayKill] => 500..2500,
        // Starting takes a while where Kafka is slow.
        [Fault::StreamEnded] => 5000..8000,
        // Nothing happens until the group has forgotten the dead.
        [Fault::ConsumersKill] => 7000..12_000,
        // … and until there is something that could be lost.
        [Fault::ConsumersKillAnswersLost | Fault::ConsumersKillRequestsLost] => 10_000..14_000,
        _ => 1500..5500,
    }
}

/// The faults of a run of this length, in their order. Those of `kinds` are dealt
/// like cards, so that each comes about equally often.
pub(super) fn schedule(seed: u64, duration: Duration, kinds: &[Fault]) -> Vec<Entry> {
    let gap_ms = gap_ms(kinds);
    let mut random = Rng::with_seed(seed);
    let mut deck: Vec<Fault> = Vec::new();
    let mut entries = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(random.u64(gap_ms.clone()));
        if at >= duration {
            return entries;
        }
        if deck.is_empty() {
            deck.extend(kinds);
            random.shuffle(&mut deck);
        }
        // It has just been filled, unless there are none.
        let Some(fault) = deck.pop() else { return entries };
        let lasts = Duration::from_millis(random.u64(lasts_ms(fault)));
        entries.push(Entry { at, fault, lasts, whom: random.usize(0..12) });
    }
}

/// How long a fault of a kind lasts, in milliseconds.
fn lasts_ms(fault: Fault) -> Range<u64> {
    match fault {
        // A relay's transaction times out after 10 s.
        Fault::RelayPause | Fault::KafkaPause => 500..14_000,
        // Its transaction is to be open still: nothing but the other one ends it.
        Fault::RelayUsurped => 1000..8000,
        // A batch is closed after 0.3 s.
        Fault::ConsumersKillAnswersLost | Fault::ConsumersKillRequestsLost => 500..1500,
        // It tells Postgres every second how far it is.
        Fault::RelayKillInCommit => 500..3000,
        // The session times out after 6 s.
        Fault::ConsumerPause => 500..12_000,
        // A request is given up after 4 s.
        Fault::ClickHouseRequestsLate | Fault::ClickHouseAnswersLost => 200..7000,
        // The session of its sender has to time out first.
        Fault::LateInsert => 7000..9000,
        Fault::ConsumerJoin | Fault::Idle | Fault::ConsumerLeave | Fault::TinyRecords => {
            2000..10_000
        }
        _ => 200..5000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_seed_decides() {
        assert_eq!(schedule(7, HOUR, Fault::ALL), schedule(7, HOUR, Fault::ALL));
        assert_ne!(schedule(7, HOUR, Fault::ALL), schedule(8, HOUR, Fault::ALL));
    }

    #[test]
    fn every_kind_comes_about_equally_often() {
        let entries = schedule(1, HOUR, Fault::ALL);
        let count = |fault| entries.iter().filter(|entry| entry.fault == fault).count();
        let counts: Vec<_> = Fault::ALL.iter().map(|fault| count(*fault)).collect();
        assert!(counts.iter().max() <= counts.iter().min().map(|least| least + 1).as_ref());
        assert!(counts[0] > 20);
        assert!(entries.is_sorted_by_key(|entry| entry.at));
        assert!(entries.iter().all(|entry| entry.at < HOUR));
        assert!(schedule(1, HOUR, &[]).is_empty());
    }
}
