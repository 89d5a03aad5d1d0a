//! One insert for batches of two partitions.

use tokio::runtime::Handle;

use super::*;
use crate::block::{Block, Cell};

const ONE: Range<i64> = 0..5;
const OTHER: Range<i64> = 10..12;

/// One with rows that can be put together with others.
fn with_rows(range: Range<i64>) -> Sealed {
    let mut batch = batch(range);
    for insert in &mut batch.inserts {
        let mut block = Block::new(Arc::clone(&insert.mapping.columns));
        for _ in 0..insert.rows {
            let cells: Vec<_> = insert.mapping.columns.iter().map(cell).collect();
            block.push_row(&cells).unwrap();
        }
        insert.body = block.take();
    }
    batch
}

fn cell(column: &crate::block::Column) -> Cell<'static> {
    match column.column_type().to_string().as_str() {
        "UUID" => Cell::Text("00000000-0000-0000-0000-000000000001"),
        "String" => Cell::Text("text"),
        _ => Cell::Int(1),
    }
}

/// Seats for two.
fn seats(edges: &Arc<Edges<Scripted, Scripted, Scripted>>) -> [Seat; 2] {
    let held = Budget::of(ByteSize::mib(1)).hold(0);
    convene(&Handle::current(), edges, 2, held).try_into().unwrap()
}

/// Runs a writer for each of two batches that are offered one insert, and returns what they
/// did. The first is told to stop by `stop`.
async fn jointly(
    script: &Arc<Script>,
    stop: CancellationToken,
    [one, other]: [Sealed; 2],
) -> ([Result<(), WriteError>; 2], Vec<Did>) {
    let edges = edges(script);
    let [first, second] = seats(&edges);
    let one_writer = Writer { stop, ..writer(&edges, 3, one.start) };
    let other_writer = writer(&edges, 4, other.start);
    let (one, other) = tokio::join!(
        one_writer.run(queue(vec![Work::Write(one, held(), Some(first))])),
        other_writer.run(queue(vec![Work::Write(other, held(), Some(second))])),
    );
    let did = std::mem::take(&mut *lock(&script.did));
    ([one, other], did)
}

async fn both(script: &Arc<Script>) -> Vec<Did> {
    let batches = [with_rows(ONE), with_rows(OTHER)];
    let (outcomes, did) = jointly(script, CancellationToken::new(), batches).await;
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    did
}

/// Those of one of the batches.
fn of(range: &Range<i64>, did: &[Did]) -> Vec<String> {
    let is_of = |step: &String| {
        step.ends_with(&format!("{}-{}", range.start, range.end))
            || step.ends_with(&format!("{range:?}"))
            || *step == format!("commit {}", range.end)
    };
    steps(did).into_iter().filter(is_of).collect()
}

fn plans(did: &[Did]) -> Vec<&Plan> {
    did.iter()
        .filter_map(|did| if let Did::Planned(_, plan) = did { Some(plan) } else { None })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn joint_insert_is_one_under_a_token_that_every_plan_names() {
    let did = both(&Arc::default()).await;
    assert_eq!(steps(&did)[..3], ["plan 0: 0-5", "plan 10: 10-12", "insert"]);
    let mut ends = steps(&did)[3..].to_vec();
    ends.sort();
    assert_eq!(ends, ["commit 12", "commit 5"]);
    let [one, other] = plans(&did)[..] else { panic!("{did:?}") };
    assert!(one.by_provenance && one.first == other.first, "{did:?}");
    let partition = TopicPartition { topic: "t".into(), partition: 4 };
    let target = mapping().target().to_owned();
    assert_eq!(tokens(&did), [other.first_token("cluster", &partition, &target)]);
}

#[tokio::test(start_paused = true)]
async fn joint_insert_is_tried_again_under_its_token_and_no_offset_moves_meanwhile() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = [252, 241, 242].repeat(10).into();
    let did = both(&script).await;
    let tokens = tokens(&did);
    assert_eq!((tokens.len(), did.len()), (31, 35));
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn joint_insert_that_is_refused_goes_on_apart_under_its_token_and_asks_for_the_rest() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![469].into();
    let did = both(&script).await;
    for range in [ONE, OTHER] {
        let planned = format!("plan {}: {}-{}", range.start, range.start, range.end);
        let missing = format!("insert missing {range:?}");
        let end = format!("commit {}", range.end);
        // Of its own, and what only a later configuration makes of it.
        assert_eq!(of(&range, &did), [planned.clone(), planned, missing.clone(), missing, end]);
    }
    // The joint one, and each alone.
    let inserted = did.iter().filter_map(|did| match did {
        Did::Inserted(token) => Some(token),
        _ => None,
    });
    let inserted: Vec<_> = inserted.collect();
    assert_eq!(inserted.len(), 3);
    assert!(inserted.iter().all(|token| *token == inserted[0]), "{inserted:?}");
    let rest: std::collections::HashSet<_> =
        tokens(&did).into_iter().filter(|token| token.ends_with("/rest")).collect();
    assert_eq!(rest.len(), 2, "the rest is each partition's own");
    assert!(plans(&did).iter().all(|plan| plan.first == plans(&did)[0].first));
}

#[tokio::test(start_paused = true)]
async fn joint_insert_that_is_never_answered_by_a_server_that_is_there_goes_on_apart() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![NO_ANSWER; 3].into();
    let did = both(&script).await;
    for range in [ONE, OTHER] {
        assert_eq!(of(&range, &did)[2..3], [format!("insert missing {range:?}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn joint_insert_whose_token_may_be_forgotten_gives_way_to_what_the_table_has() {
    let script = Arc::new(Script { forgets: true, ..Script::default() });
    *lock(&script.insert_faults) = vec![210].into();
    let did = both(&script).await;
    for range in [ONE, OTHER] {
        let missing = format!("insert missing {range:?}");
        assert_eq!(of(&range, &did)[2..5], [missing.clone(), missing.clone(), missing]);
    }
    assert!(plans(&did)[2..].iter().all(|plan| plan.is_forgotten), "{did:?}");
}

#[tokio::test(start_paused = true)]
async fn joint_insert_goes_on_apart_when_a_partition_is_given_up() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = [210].repeat(3).into();
    let stop = CancellationToken::new();
    let stopping = async {
        while tokens(&lock(&script.did)).len() < 2 {
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let batches = [with_rows(ONE), with_rows(OTHER)];
    let ((outcomes, did), ()) = tokio::join!(jointly(&script, stop.clone(), batches), stopping);
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    assert_eq!(of(&ONE, &did), ["plan 0: 0-5"], "planned, and not stored as far as is known");
    let missing = "insert missing 10..12";
    let other = ["plan 10: 10-12", "plan 10: 10-12", missing, missing, "commit 12"];
    assert_eq!(of(&OTHER, &did), other);
}

/// Whoever has the partition by then may have used the token for its own rows alone.
#[tokio::test]
async fn joint_insert_is_not_believed_once_a_partition_was_taken_away() {
    let script = Arc::new(Script { gate: Some(Semaphore::new(0)), ..Script::default() });
    let edges = edges(&script);
    let [first, second] = seats(&edges);
    let write = |batch, seat| queue(vec![Work::Write(batch, held(), Some(seat))]);
    let one = tokio::spawn(writer(&edges, 3, ONE.start).run(write(with_rows(ONE), first)));
    let other = tokio::spawn(writer(&edges, 4, OTHER.start).run(write(with_rows(OTHER), second)));
    while tokens(&lock(&script.did)).is_empty() {
        tokio::task::yield_now().await;
    }
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    script.gate.as_ref().unwrap().add_permits(2);
    other.await.unwrap().unwrap();
    let did = std::mem::take(&mut *lock(&script.did));
    assert_eq!(of(&ONE, &did), ["plan 0: 0-5"]);
    let missing = "insert missing 10..12";
    let alone = ["plan 10: 10-12", "plan 10: 10-12", missing, missing, "commit 12"];
    assert_eq!(of(&OTHER, &did), alone);
}

#[tokio::test(start_paused = true)]
async fn joint_insert_that_is_not_planned_is_not_begun() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.commit_faults) = 1;
    let batches = [with_rows(ONE), with_rows(OTHER)];
    let (outcomes, did) = jointly(&script, CancellationToken::new(), batches).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::Commit { .. }))));
    assert_eq!(did, []);
}

#[tokio::test(start_paused = true)]
async fn joint_insert_leaves_out_what_has_letters_and_what_is_alone_then_is_not_joint() {
    let script: Arc<Script> = Arc::default();
    let batches = [with_letter_and_rows(ONE), with_rows(OTHER)];
    let (outcomes, did) = jointly(&script, CancellationToken::new(), batches).await;
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    let inserted = tokens(&did);
    assert_eq!(inserted.len(), 2);
    assert_ne!(inserted[0], inserted[1]);
    assert!(plans(&did).iter().all(|plan| plan.first.is_none()), "{did:?}");
}

fn with_letter_and_rows(range: Range<i64>) -> Sealed {
    with_a_letter(with_rows(range))
}
