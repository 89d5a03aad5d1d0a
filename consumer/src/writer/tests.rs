//! The protocol, step by step, against edges that fail as scripted.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use bytes::Bytes;
use bytesize::ByteSize;
use rdkafka::error::RDKafkaErrorCode;

use super::*;
use crate::{
    batch::{Insert, Parked},
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
    refused: Arc<Refused>,
    park_faults: Mutex<u32>,
    is_parked_in_doubt: bool,
    last_offset: Option<i64>,
    commit_faults: Mutex<u32>,
}

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
            Some(code) => Err(SinkError { code: Some(code), message: "scripted".into() }),
        }
    }
}

impl Sink for Arc<Script> {
    async fn insert(&self, _: &Insert, token: &str, _: &Attempt) -> Result<(), SinkError> {
        Script::insert(self, Did::Inserted(token.to_owned()))
    }

    async fn insert_part(
        &self,
        _: &Insert,
        Part { range, token, is_asked, .. }: Part<'_>,
        _: &Attempt,
    ) -> Result<(), SinkError> {
        let refuses = self.refuses.iter().any(|offset| range.contains(offset));
        if let Some((_, stop)) = self.stops_after.as_ref().filter(|(last, _)| *last == range) {
            stop.cancel();
        }
        let did = if is_asked { Did::InsertedMissing } else { Did::InsertedPart };
        Script::insert(self, did(range, token))?;
        if refuses {
            Err(SinkError { code: Some(469), message: "scripted".into() })
        } else {
            Ok(())
        }
    }

    async fn last_offset(&self, _: &Mapping, _: &TopicPartition) -> Result<Option<i64>, SinkError> {
        Ok(self.last_offset)
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
    async fn commit(
        &self,
        _: &TopicPartition,
        offset: i64,
        metadata: String,
    ) -> Result<(), KafkaError> {
        if fails(&self.commit_faults) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress));
        }
        lock(&self.did).push(match Plan::parse(&metadata).unwrap() {
            Some(plan) => Did::Planned(offset, plan),
            None => Did::Committed(offset),
        });
        Ok(())
    }
}

fn mapping() -> Arc<Mapping> {
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
    let name = TableName::parse("event_log", "db");
    let schema = TableSchema::of(name, &columns.collect::<Vec<_>>()).unwrap();
    Arc::new(Mapping::new(0, &default_route(), &schema).unwrap())
}

fn batch(range: Range<i64>) -> Sealed {
    let records = usize::try_from(range.end - range.start).unwrap();
    let insert =
        Insert { mapping: mapping(), rows: records, body: vec![Bytes::from_static(b"rows")] };
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
        was_moved: false,
        search: None,
        planned_at_ms: Timestamp::now().as_millisecond() - minutes_ago * 60_000,
        frame: None,
    }
}

/// 0 to 5 is sent under the first token, and what the table does not have even then.
const AGAIN: [&str; 4] = ["plan 0: 0-5", "insert", "insert missing 0..5", "commit 5"];

/// What the table has of 0 to 5 is asked, and asked again.
const ASKED: [&str; 4] = ["plan 0: 0-5", "insert missing 0..5", "insert missing 0..5", "commit 5"];

/// Runs a writer over `batches` and returns what it did. The channel closes
/// behind the last batch, as it does when a partition is given up.
async fn run(
    script: &Arc<Script>,
    open: Option<Plan>,
    stop: CancellationToken,
    batches: Vec<Sealed>,
) -> (Result<(), WriteError>, Vec<Did>) {
    let edges = Edges {
        sink: Arc::clone(script),
        dead_letters: Arc::clone(script),
        offsets: Arc::clone(script),
        monitor: Arc::new(Monitor::new(Duration::from_secs(60))),
        refused: Arc::clone(&script.refused),
        cluster: "cluster".into(),
        owner: "me".into(),
    };
    let partition = TopicPartition { topic: "t".into(), partition: 3 };
    let was_moved = script.last_offset.is_some();
    let writer = Writer {
        edges: Arc::new(edges),
        partition,
        open,
        was_moved,
        frame: None,
        targets: vec![mapping()],
        there_until: None,
        settled: batches.first().map_or(0, |batch| batch.start),
        stop,
    };
    let (sender, receiver) = mpsc::channel(batches.len().max(1));
    for batch in batches {
        sender.try_send(Work::Write(batch, Budget::of(ByteSize::mib(1)).hold(0))).unwrap();
    }
    drop(sender);
    let outcome = writer.run(receiver).await;
    let did = std::mem::take(&mut *lock(&script.did));
    (outcome, did)
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

#[tokio::test(start_paused = true)]
async fn a_batch_is_planned_with_its_letters_and_inserted_with_one_commit_each() {
    let script = Arc::default();
    let batches = vec![with_a_letter(batch(0..5)), batch(5..9)];
    let did = undisturbed(&script, None, batches).await;
    let expected = ["park 1 and plan 0-5", "insert", "plan 5: 5-9", "insert", "commit 9"];
    assert_eq!(steps(&did), expected);
}

#[tokio::test(start_paused = true)]
async fn a_transient_fault_is_retried_with_the_same_token_and_no_offset_moves_meanwhile() {
    let script: Arc<Script> = Arc::default();
    // Too many parts, memory limit, read-only: again and again.
    *lock(&script.insert_faults) = [252, 241, 242].repeat(10).into();
    let did = undisturbed(&script, None, vec![batch(0..5)]).await;
    let tokens = tokens(&did);
    assert_eq!(tokens.len(), 31);
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(steps(&did).first().unwrap(), "plan 0: 0-5");
    assert_eq!(steps(&did).last().unwrap(), "commit 5");
    assert_eq!(did.len(), 33, "nothing but the plan, the inserts and the end");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_be_forgotten_by_now_gives_way_to_what_the_table_has() {
    let script: Arc<Script> = Arc::default();
    // Half an hour, in steps of ten seconds at most.
    *lock(&script.insert_faults) = [210].repeat(400).into();
    let did = undisturbed(&script, None, vec![batch(0..5)]).await;
    let steps = steps(&did);
    let replanned = steps.iter().rposition(|step| step == "plan 0: 0-5").unwrap();
    assert!(replanned > 100, "{steps:?}");
    assert!(steps[1..replanned].iter().all(|step| step == "insert"), "{steps:?}");
    assert!(matches!(&did[replanned], Did::Planned(0, plan) if plan.by_provenance));
    let (last, after) = steps[replanned + 1..].split_last().unwrap();
    assert!(after.iter().all(|step| step == "insert missing 0..5"), "{steps:?}");
    assert_eq!(last, "commit 5");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_needs_somebody_is_waited_out_and_drops_nothing() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![60, 497, 60].into();
    let did = undisturbed(&script, None, vec![batch(0..5)]).await;
    assert_eq!(steps(&did), ["plan 0: 0-5", "insert", "insert", "insert", "insert", "commit 5"]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_cannot_be_written_hold_the_insert_back() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.park_faults) = 20;
    let did = undisturbed(&script, None, vec![with_a_letter(batch(0..5))]).await;
    assert_eq!(steps(&did), ["park 1 and plan 0-5", "insert", "commit 5"]);
}

#[tokio::test(start_paused = true)]
async fn letters_of_which_nobody_knows_are_neither_written_again_nor_passed_over() {
    let script = Arc::new(Script { is_parked_in_doubt: true, ..Script::default() });
    let batches = vec![with_a_letter(batch(0..5))];
    let (outcome, did) = run(&script, None, CancellationToken::new(), batches).await;
    assert!(matches!(outcome, Err(WriteError::Commit { offset: 0, .. })), "{outcome:?}");
    assert_eq!(did, []);
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_is_believed_about_its_letters() {
    let script: Arc<Script> = Arc::default();
    let mut again = with_a_letter(batch(0..5));
    let plan = found(&again, 1);
    again.parked.clear();
    let did = undisturbed(&script, Some(plan.clone()), vec![again.clone()]).await;
    assert_eq!(steps(&did), ["insert", "commit 5"]);

    // Other content: planned anew, and the next owner still knows of them.
    again.content = "as it is after the table changed".into();
    let did = undisturbed(&script, Some(plan), vec![again]).await;
    assert_eq!(steps(&did), AGAIN);
    let Did::Planned(_, replanned) = &did[0] else { panic!("{did:?}") };
    assert!(replanned.rejected.contains(RouteId::NONE, 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_changed_ends_the_writer_with_the_plan_standing() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![16].into();
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..5)]).await;
    assert!(matches!(outcome, Err(WriteError::SchemaDrift { .. })));
    assert_eq!(steps(&did), ["plan 0: 0-5", "insert"]);
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_refused_are_found_one_by_one_and_the_others_stored() {
    let mut script = Script { refuses: vec![1, 4], ..Script::default() };
    script.insert_faults = Mutex::new(vec![469].into());
    let script = Arc::new(script);
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..6)]).await;
    assert!(matches!(outcome, Err(WriteError::Refused { rows: 2, .. })), "{outcome:?}");
    let parts = [0..3, 0..1, 1..3, 1..2, 2..3, 3..5, 3..4, 4..6, 4..5, 5..6];
    let planned = parts.clone().map(|part| ["plan 0: 0-6".into(), format!("insert part {part:?}")]);
    let expected = [&["plan 0: 0-6".into(), "insert".into()], planned.as_flattened()].concat();
    assert_eq!(steps(&did), expected);
    let searched = did[2..].iter().filter_map(|did| match did {
        Did::Planned(_, plan) => plan.search.filter(|_| plan.by_provenance),
        _ => None,
    });
    let searched: Vec<_> = searched.map(|search| search.from..search.to).collect();
    assert_eq!(searched, parts, "the next owner knows what is under way");
    let partition = TopicPartition { topic: "t".into(), partition: 3 };
    let mut offsets: Vec<_> = script.refused.of(&partition).into_keys().collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 1), (0, 4)]);
}

#[tokio::test(start_paused = true)]
async fn what_has_been_found_of_refused_rows_outlives_an_interruption() {
    let stop = CancellationToken::new();
    let stops_after = Some((1..2, stop.clone()));
    let mut script = Script { refuses: vec![1, 4], stops_after, ..Script::default() };
    script.insert_faults = Mutex::new(vec![469].into());
    let script = Arc::new(script);
    let (outcome, did) = run(&script, None, stop, vec![batch(0..6)]).await;
    outcome.unwrap();
    assert_eq!(steps(&did).last().unwrap(), "insert part 1..2", "nothing more is tried");
    let partition = TopicPartition { topic: "t".into(), partition: 3 };
    assert_eq!(script.refused.of(&partition).into_keys().collect::<Vec<_>>(), [(0, 1)]);
}

/// A view that has missed a part, since the server died between the two, gets it by
/// being sent just that part.
#[tokio::test(start_paused = true)]
async fn whoever_goes_on_with_a_search_sends_the_part_under_way_again() {
    let mut script = Script { refuses: vec![5], ..Script::default() };
    script.insert_faults = Mutex::new(vec![469, 469, 0, 210].into());
    let script = Arc::new(script);
    let stop = CancellationToken::new();
    let (stopping, watched) = (stop.clone(), Arc::clone(&script));
    let stopper = async move {
        while lock(&watched.insert_faults).len() > 0 {
            tokio::task::yield_now().await;
        }
        stopping.cancel();
    };
    let running = run(&script, None, stop, vec![batch(0..8)]);
    let ((outcome, did), ()) = tokio::join!(running, stopper);
    outcome.unwrap();
    let (last, before) = did.split_last().unwrap();
    let Did::InsertedPart(part, token) = last else { panic!("{did:?}") };
    let planned = before.iter().rev().find_map(|did| match did {
        Did::Planned(_, plan) => Some(plan.clone()),
        _ => None,
    });
    assert_eq!(*part, 2..6);

    let refused_by_now = Sealed { content: "without 5".into(), ..batch(0..8) };
    let again = Arc::new(Script::default());
    let did = undisturbed(&again, planned, vec![refused_by_now]).await;
    let expected = [
        "plan 0: 0-8",
        "insert missing 0..2",
        "insert part 2..6",
        "plan 0: 0-8",
        "insert part 6..8",
        "insert missing 0..8",
        "commit 8",
    ];
    assert_eq!(steps(&did), expected);
    assert_eq!(tokens(&did)[1], token, "ClickHouse has to know it again");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_the_coordinator_refuses_is_never_inserted() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.commit_faults) = 1;
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..5)]).await;
    assert!(matches!(outcome, Err(WriteError::Commit { offset: 0, .. })));
    assert_eq!(did, []);
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_with_the_same_content_is_inserted_under_its_own_token() {
    let script = Arc::default();
    let first = undisturbed(&script, None, vec![batch(0..5)]).await;
    let plan = found(&batch(0..5), 1);
    let again = undisturbed(&script, Some(plan), vec![batch(0..5), batch(5..6)]).await;
    assert_eq!(steps(&again), ["insert", "plan 5: 5-6", "insert", "commit 6"]);
    assert_eq!(tokens(&again)[0], tokens(&first)[0], "ClickHouse has to know it again");
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_with_other_content_is_sent_again_and_the_tables_are_asked_for_the_rest() {
    let script = Arc::default();
    let mut plan = found(&batch(0..5), 1);
    plan.content = "as it was before the table changed".into();
    let did = undisturbed(&script, Some(plan), vec![batch(0..5), batch(5..6)]).await;
    let asked = ["plan 0: 0-5", "insert", "insert missing 0..5"];
    assert_eq!(steps(&did), [&asked[..], &["plan 5: 5-6", "insert", "commit 6"]].concat());
    let Did::Planned(_, replanned) = &did[0] else { panic!("{did:?}") };
    assert!(replanned.by_provenance, "the next owner must not trust the token either");
}

/// ClickHouse may still be at work on what the first plan was for.
#[tokio::test(start_paused = true)]
async fn a_range_planned_anew_goes_under_the_token_of_its_first_plan_and_the_rest_under_its_own() {
    let script = Arc::default();
    let as_it_was = Sealed { content: "before the table changed".into(), ..batch(0..5) };
    let first = undisturbed(&script, None, vec![as_it_was.clone()]).await;
    let first = tokens(&first)[0].to_owned();
    let did = undisturbed(&script, Some(found(&as_it_was, 1)), vec![batch(0..5)]).await;
    let [again, rest] = tokens(&did)[..] else { panic!("{did:?}") };
    assert_eq!(again, first, "ClickHouse has to know it again");
    assert!(rest != first && rest.contains("content of 0..5"), "{rest}");

    // Its owner dies and the table changes again: still that token.
    let Did::Planned(_, second) = &did[0] else { panic!("{did:?}") };
    let changed_again = Sealed { content: "after another change".into(), ..batch(0..5) };
    let did = undisturbed(&script, Some(second.clone()), vec![changed_again]).await;
    assert_eq!(steps(&did), AGAIN);
    assert_eq!(tokens(&did)[0], first);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_question_is_lost_and_what_is_asked_again_is_known() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![210, 210].into();
    let plan = Plan { content: "before the table changed".into(), ..found(&batch(0..5), 1) };
    let did = undisturbed(&script, Some(plan), vec![batch(0..5)]).await;
    let tokens = tokens(&did);
    assert_eq!(tokens.len(), 4);
    assert!(tokens[..3].iter().all(|token| *token == tokens[0]) && tokens[3] != tokens[0]);
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_older_than_tokens_are_remembered_asks_the_tables_too() {
    let script = Arc::default();
    let plan = found(&batch(0..5), 45);
    let did = undisturbed(&script, Some(plan), vec![batch(0..5)]).await;
    assert_eq!(steps(&did), ASKED);
}

#[tokio::test(start_paused = true)]
async fn where_somebody_moved_the_offset_only_what_is_missing_is_inserted() {
    let script = Arc::new(Script { last_offset: Some(6), ..Script::default() });
    let did = undisturbed(&script, None, vec![batch(0..5), batch(5..9), batch(9..12)]).await;
    let expected = [
        "plan 0: 0-5",
        "insert missing 0..5",
        "plan 5: 5-9",
        "insert missing 5..9",
        "plan 9: 9-12",
        "insert",
        "commit 12",
    ];
    assert_eq!(steps(&did), expected);
    let plans: Vec<_> = did
        .iter()
        .filter_map(|did| match did {
            Did::Planned(_, plan) => Some((plan.by_provenance, plan.was_moved)),
            _ => None,
        })
        .collect();
    assert_eq!(plans, [(true, true), (true, true), (false, false)], "what the next owner knows");
    let own = found(&batch(0..5), 0).token(
        "cluster",
        &TopicPartition { topic: "t".into(), partition: 3 },
        &mapping().target(),
    );
    assert_ne!(tokens(&did)[0], own, "what was deleted since would be taken for stored");
}

#[tokio::test(start_paused = true)]
async fn what_was_planned_anew_and_interrupted_is_planned_anew_again() {
    let script = Arc::default();
    let plan = Plan { by_provenance: true, ..found(&batch(0..5), 0) };
    let did = undisturbed(&script, Some(plan), vec![batch(0..5)]).await;
    assert_eq!(steps(&did), AGAIN);
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_while_clickhouse_is_away_it_leaves_the_plan() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = [241].repeat(1000).into();
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let stopper = async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        stopping.cancel();
    };
    let ((outcome, did), ()) = tokio::join!(run(&script, None, stop, vec![batch(0..5)]), stopper);
    outcome.unwrap();
    let steps = steps(&did);
    assert_eq!(steps[0], "plan 0: 0-5");
    assert!(steps.len() > 5 && steps[1..].iter().all(|step| step == "insert"), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_before_a_batch_it_does_not_begin_it() {
    let script: Arc<Script> = Arc::default();
    let stop = CancellationToken::new();
    stop.cancel();
    let did = run(&script, None, stop, vec![batch(0..5)]).await.1;
    assert_eq!(steps(&did), Vec::<String>::new());
}
