//! The protocol, step by step, against edges that fail as scripted.

mod fresh;
mod joint;
mod open_plan;
mod refused;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use bytes::Bytes;
use bytesize::ByteSize;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    batch::{Insert, Parked, RowOffsets},
    budget::Budget,
    dead_letter::ParkError,
    decode::{Mapping, Rejection, default_route},
    rejected::{Rejected, RouteId},
    sink::Part,
    table::{DescribedColumn, TableName, TableSchema},
};

/// What a writer did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    Planned(i64, Plan),
    Committed(i64),
    /// So many letters, together with a plan.
    Parked(usize, Plan),
    Inserted(String),
    InsertedMissing(Range<i64>, String),
    InsertedPart(Range<i64>, String),
}

/// Edges that record, and fail as often as they were told to.
#[derive(Default)]
struct Script {
    did: Mutex<Vec<Did>>,
    insert_faults: Mutex<VecDeque<u32>>,
    /// Told to stop while it tries this range.
    stops_after: Option<(Range<i64>, CancellationToken)>,
    /// Offsets of rows that are refused, whatever else goes well.
    refuses: Vec<i64>,
    /// With which code; by default that of a constraint.
    refuses_with: Option<u32>,
    /// What an insert without rows comes to, and all others before it.
    nothing_faults: Mutex<VecDeque<u32>>,
    /// Whether the table has other columns by now.
    has_changed: bool,
    /// Whether it says which row it is.
    tells_rows: bool,
    refused: Arc<Refused>,
    park_faults: Mutex<u32>,
    is_parked_in_doubt: bool,
    /// The group's offset was moved, and the tables have rows up to here.
    moved_below: Option<i64>,
    /// The highest offset that the tables have.
    there: Option<i64>,
    /// Whether they have forgotten tokens that are not old.
    forgets: bool,
    commit_faults: Mutex<u32>,
    /// Inserts of whole batches wait for a permit.
    gate: Option<Semaphore>,
}

/// In place of a code.
const NO_ANSWER: u32 = u32::MAX;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// Takes one off a count of faults to come.
fn fails(count: &Mutex<u32>) -> bool {
    let mut count = lock(count);
    let fails = *count > 0;
    *count = count.saturating_sub(1);
    fails
}

impl Script {
    fn insert(&self, did: Did) -> Result<(), SinkError> {
        // Recorded whether it fails or not: its outcome may be unknown.
        lock(&self.did).push(did);
        match lock(&self.insert_faults).pop_front() {
            Some(0) | None => Ok(()),
            Some(NO_ANSWER) => Err(SinkError { code: None, message: "scripted".into() }),
            Some(code) => Err(SinkError { code: Some(code), message: "scripted".into() }),
        }
    }
}

impl Sink for Arc<Script> {
    async fn insert(&self, _: &Insert, token: &str, _: &Attempt) -> Result<(), SinkError> {
        let outcome = Script::insert(self, Did::Inserted(token.to_owned()));
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        outcome
    }

    async fn insert_part(
        &self,
        _: &Insert,
        Part { range, token, is_asked, .. }: Part<'_>,
        _: &Attempt,
    ) -> Result<(), SinkError> {
        let refuses = self.refuses.iter().find(|offset| range.contains(offset));
        let row = refuses.map(|offset| offset - range.start + 1);
        if let Some((_, stop)) = self.stops_after.as_ref().filter(|(last, _)| *last == range) {
            stop.cancel();
        }
        let did = if is_asked { Did::InsertedMissing } else { Did::InsertedPart };
        Script::insert(self, did(range, token))?;
        let code = Some(self.refuses_with.unwrap_or(469));
        match row {
            Some(row) if self.tells_rows => {
                let message = format!("c is violated at row {row}. Expression: scripted");
                Err(SinkError { code, message })
            }
            Some(_) => Err(SinkError { code, message: "scripted".into() }),
            None => Ok(()),
        }
    }

    async fn insert_nothing(&self, _: &Mapping, _: &Attempt) -> Result<(), SinkError> {
        match lock(&self.nothing_faults).pop_front() {
            Some(0) | None => Ok(()),
            Some(code) => Err(SinkError { code: Some(code), message: "scripted".into() }),
        }
    }

    async fn has_changed(&self, _: &Mapping) -> Result<bool, SinkError> {
        Ok(self.has_changed)
    }

    async fn remembers(&self, _: &Mapping, _: Timestamp) -> Result<bool, SinkError> {
        Ok(!self.forgets)
    }

    async fn last_offset(&self, _: &Mapping, _: &TopicPartition) -> Result<Option<i64>, SinkError> {
        Ok(self.moved_below.or(self.there))
    }
}

impl DeadLetters for Arc<Script> {
    async fn park(
        &self,
        _: &TopicPartition,
        letters: &[Parked],
        _: i64,
        plan: &str,
    ) -> Result<(), ParkError> {
        let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        if fails(&self.park_faults) {
            return Err(ParkError::NotWritten(error));
        }
        if self.is_parked_in_doubt {
            return Err(ParkError::InDoubt(error));
        }
        let plan = Plan::parse(plan).unwrap().unwrap();
        lock(&self.did).push(Did::Parked(letters.len(), plan));
        Ok(())
    }
}

impl Offsets for Arc<Script> {
    async fn commit(&self, commits: Vec<Commit>) -> Result<(), KafkaError> {
        if fails(&self.commit_faults) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress));
        }
        let did = commits.into_iter().map(|Commit { offset, metadata, .. }| {
            match Plan::parse(&metadata).unwrap() {
                Some(plan) => Did::Planned(offset, plan),
                None => Did::Committed(offset),
            }
        });
        lock(&self.did).extend(did);
        Ok(())
    }
}

fn mapping() -> Arc<Mapping> {
    mapping_to("event_log")
}

fn mapping_to(table: &str) -> Arc<Mapping> {
    let columns = ["event_id UUID", "event_type String", "event_date_time DateTime64(6)"]
        .into_iter()
        .chain(["environment String", "event_context String", "metadata_version UInt64"])
        .chain(["aggregate_type String", "aggregate_id String"])
        .chain(["_topic String", "_partition UInt32", "_offset UInt64"])
        .map(|column| {
            let (name, type_name) = column.split_once(' ').unwrap();
            DescribedColumn {
                name: name.into(),
                type_name: type_name.into(),
                default_kind: String::new(),
            }
        });
    let name = TableName::parse(table, "db");
    let schema = TableSchema::of(name, &columns.collect::<Vec<_>>()).unwrap();
    Arc::new(Mapping::new(0, &default_route(), &schema).unwrap())
}

fn batch(range: Range<i64>) -> Sealed {
    let mut offsets = RowOffsets::default();
    range.clone().for_each(|offset| offsets.add(offset));
    let records = usize::try_from(range.end - range.start).unwrap();
    let insert = Insert {
        mapping: mapping(),
        rows: records,
        body: vec![Bytes::from_static(b"rows")],
        offsets,
    };
    Sealed {
        start: range.start,
        end: range.end,
        opened_at: Instant::now(),
        records,
        inserts: vec![insert],
        parked: Vec::new(),
        rejected: Rejected::default(),
        content: format!("content of {range:?}"),
        trace: None,
    }
}

fn with_a_letter(mut batch: Sealed) -> Sealed {
    batch.rejected.add(RouteId::NONE, batch.start);
    batch.parked.push(Parked {
        offset: batch.start,
        timestamp_ms: None,
        key: None,
        value: None,
        headers: Vec::new(),
        route: None,
        rejection: Rejection::no_route(),
    });
    batch
}

fn found(batch: &Sealed, minutes_ago: i64) -> Plan {
    Plan {
        version: plan::VERSION,
        owner: "another".into(),
        start: batch.start,
        end: batch.end,
        rows: batch.rows(),
        rejected: batch.rejected.clone(),
        content: batch.content.clone(),
        by_provenance: false,
        first: None,
        is_forgotten: false,
        was_moved: false,
        search: None,
        planned_at_ms: Timestamp::now().as_millisecond() - minutes_ago * 60_000,
        frame: None,
    }
}

/// Runs a writer over `batches` and returns what it did. The channel closes
/// behind the last batch, as it does when a partition is given up.
async fn run(
    script: &Arc<Script>,
    open: Option<Plan>,
    stop: CancellationToken,
    batches: Vec<Sealed>,
) -> (Result<(), WriteError>, Vec<Did>) {
    let start = batches.first().map_or(0, |batch| batch.start);
    let writer = Writer { open, stop, ..writer(&edges(script), 3, start) };
    let work = batches.into_iter().map(|batch| Work::Write(batch, held(), None)).collect();
    let outcome = writer.run(queue(work)).await;
    let did = std::mem::take(&mut *lock(&script.did));
    (outcome, did)
}

type Scripted = Arc<Script>;

fn edges(script: &Arc<Script>) -> Arc<Edges<Scripted, Scripted, Scripted>> {
    Arc::new(Edges {
        sink: Arc::clone(script),
        dead_letters: Arc::clone(script),
        offsets: Arc::clone(script),
        monitor: Arc::new(Monitor::new(Duration::from_secs(60))),
        refused: Arc::clone(&script.refused),
        asking: Semaphore::new(ASKING),
        cluster: "cluster".into(),
        owner: "me".into(),
    })
}

/// That of a partition whose records before `start` are stored.
fn writer(
    edges: &Arc<Edges<Scripted, Scripted, Scripted>>,
    partition: i32,
    start: i64,
) -> Writer<Scripted, Scripted, Scripted> {
    Writer {
        edges: Arc::clone(edges),
        partition: TopicPartition { topic: "t".into(), partition },
        open: None,
        was_moved: edges.sink.moved_below.is_some(),
        frame: None,
        targets: vec![mapping()],
        there_until: None,
        settled: start,
        stop: CancellationToken::new(),
    }
}

fn held() -> Arc<Held> {
    Arc::new(Budget::of(ByteSize::mib(1)).hold(0))
}

/// A channel that has this work and gets no more.
fn queue(work: Vec<Work>) -> mpsc::Receiver<Work> {
    let (sender, receiver) = mpsc::channel(work.len().max(1));
    work.into_iter().for_each(|work| sender.try_send(work).unwrap());
    receiver
}

async fn undisturbed(script: &Arc<Script>, open: Option<Plan>, batches: Vec<Sealed>) -> Vec<Did> {
    let (outcome, did) = run(script, open, CancellationToken::new(), batches).await;
    outcome.unwrap();
    did
}

/// The steps without the details of plans and tokens.
fn steps(did: &[Did]) -> Vec<String> {
    did.iter()
        .map(|did| match did {
            Did::Planned(offset, plan) => format!("plan {offset}: {}-{}", plan.start, plan.end),
            Did::Committed(offset) => format!("commit {offset}"),
            Did::Parked(letters, plan) => {
                format!("park {letters} and plan {}-{}", plan.start, plan.end)
            }
            Did::Inserted(_) => "insert".to_owned(),
            Did::InsertedMissing(range, _) => format!("insert missing {range:?}"),
            Did::InsertedPart(range, _) => format!("insert part {range:?}"),
        })
        .collect()
}

fn tokens(did: &[Did]) -> Vec<&str> {
    did.iter()
        .filter_map(|did| match did {
            Did::Inserted(token) | Did::InsertedMissing(_, token) | Did::InsertedPart(_, token) => {
                Some(token.as_str())
            }
            _ => None,
        })
        .collect()
}
