//! Rows that ClickHouse refuses.

use super::*;

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

/// An expression of the table may throw whatever it likes.
#[tokio::test(start_paused = true)]
async fn rows_that_are_refused_are_found_whatever_the_code() {
    for code in [153, 131, 60, 241] {
        let script = Script { refuses: vec![1, 4], refuses_with: Some(code), ..Script::default() };
        *lock(&script.insert_faults) = [code].repeat(if code == 241 { 8 } else { 3 }).into();
        let script = Arc::new(script);
        let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..6)]).await;
        assert!(matches!(outcome, Err(WriteError::Refused { rows: 2, .. })), "{code}: {outcome:?}");
        let partition = TopicPartition { topic: "t".into(), partition: 3 };
        let mut offsets: Vec<_> = script.refused.of(&partition).into_keys().collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [(0, 1), (0, 4)], "{code}: {did:?}");
    }
}

/// What tells of the state of a server is no reason to park a row while the table has
/// taken no other.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_for_want_of_memory_waits_while_no_other_is_taken() {
    waits_while_no_other_is_taken(241).await;
}

/// Such as an identifier that is not known: a dictionary that a column asks may be gone.
#[tokio::test(start_paused = true)]
async fn rows_of_which_none_is_taken_wait_if_what_is_said_is_not_about_a_value() {
    waits_while_no_other_is_taken(47).await;
}

async fn waits_while_no_other_is_taken(code: u32) {
    let script = Script { refuses: vec![0], refuses_with: Some(code), ..Script::default() };
    *lock(&script.insert_faults) = [code].repeat(8).into();
    let script = Arc::new(script);
    let stop = CancellationToken::new();
    let (stopping, watched) = (stop.clone(), Arc::clone(&script));
    let stopper = async move {
        while lock(&watched.did).len() < 100 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        stopping.cancel();
    };
    let running = run(&script, None, stop, vec![batch(0..1)]);
    let ((outcome, _), ()) = tokio::join!(running, stopper);
    outcome.unwrap();
    let partition = TopicPartition { topic: "t".into(), partition: 3 };
    assert!(script.refused.of(&partition).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_row_that_clickhouse_names_is_tried_next() {
    let mut script = Script { refuses: vec![40, 70], tells_rows: true, ..Script::default() };
    script.insert_faults = Mutex::new(vec![469].into());
    let script = Arc::new(script);
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..100)]).await;
    assert!(matches!(outcome, Err(WriteError::Refused { rows: 2, .. })), "{outcome:?}");
    let parts = did.iter().filter_map(|did| match did {
        Did::InsertedPart(part, _) => Some(part.clone()),
        _ => None,
    });
    // The first refusal was of the whole and did not say.
    let expected = [0..50, 0..40, 40..41, 41..100, 41..70, 70..71, 71..100];
    assert_eq!(parts.collect::<Vec<_>>(), expected);
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
        while !lock(&watched.insert_faults).is_empty() {
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

/// The same for a batch that was planned anew before it was refused, as long as
/// the table has none of its rows.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_planned_anew_and_refused_is_stored_in_planned_parts_too() {
    let plan = Plan { content: "before 5 was refused".into(), ..found(&batch(4..8), 1) };
    let parts = async |last_offset| {
        let mut script = Script { refuses: vec![5], there: last_offset, ..Script::default() };
        script.insert_faults = Mutex::new(vec![469].into());
        let script = Arc::new(script);
        let (outcome, did) =
            run(&script, Some(plan.clone()), CancellationToken::new(), vec![batch(4..8)]).await;
        assert!(matches!(outcome, Err(WriteError::Refused { rows: 1, .. })), "{outcome:?}");
        steps(&did).into_iter().filter(|step| step.starts_with("insert ")).collect::<Vec<_>>()
    };
    let all = ["4..6", "4..5", "5..7", "5..6", "6..7", "7..8"];
    let planned = all.map(|part| format!("insert part {part}"));
    assert_eq!(parts(Some(3)).await, planned, "it has those before");
    assert_eq!(parts(None).await, planned, "it is empty");
    let asked = all.map(|part| format!("insert missing {part}"));
    assert_eq!(parts(Some(4)).await, asked, "nobody knows who has stored that one");
}

/// A batch with the same rows for a second table.
fn for_two_tables(range: Range<i64>) -> Sealed {
    let mut both = batch(range.clone());
    both.inserts.push(Insert { mapping: mapping_to("other"), ..batch(range).inserts.remove(0) });
    both
}

/// Nothing of it is stored yet, so that ClickHouse will know it: were the table asked
/// what it lacks, a view that misses it, because the server died between the two, would
/// miss it for ever.
#[tokio::test(start_paused = true)]
async fn an_insert_after_one_that_is_stored_in_parts_goes_under_its_first_token() {
    let script =
        Arc::new(Script { insert_faults: Mutex::new(vec![469].into()), ..Script::default() });
    let both = for_two_tables(0..4);
    let target = both.inserts[1].mapping.target().to_owned();
    let partition = TopicPartition { topic: "t".into(), partition: 3 };
    let first = found(&both, 0).token("cluster", &partition, &target);
    let did = undisturbed(&script, None, vec![both]).await;
    let expected = [
        "plan 0: 0-4",
        "insert",
        "plan 0: 0-4",
        "insert part 0..2",
        "plan 0: 0-4",
        "insert part 2..4",
        "insert missing 0..4",
        "insert",
        "insert missing 0..4",
        "commit 4",
    ];
    assert_eq!(steps(&did), expected);
    assert_eq!(tokens(&did)[4], first);
}

/// … and whoever goes on with it does the same. An insert before the one that is
/// searched may have been searched itself, and then has no token of the whole.
#[tokio::test(start_paused = true)]
async fn only_what_comes_after_a_search_is_known_not_to_be_begun() {
    let both = || for_two_tables(0..4);
    let steps_with = async |route, from| {
        let search = Some(plan::Search { route, from, to: 4 });
        let plan = Plan { by_provenance: true, search, ..found(&both(), 1) };
        let plan = Plan { content: "before rows were refused".into(), ..plan };
        steps(&undisturbed(&Arc::default(), Some(plan), vec![both()]).await)
    };
    let [one, other] = [0, 1].map(|place: usize| both().inserts[place].mapping.id());
    let rest = "insert missing 0..4";
    let expected = [
        "plan 0: 0-4",
        "insert missing 0..2",
        "insert part 2..4",
        rest,
        "insert",
        rest,
        "commit 4",
    ];
    assert_eq!(steps_with(one, 2).await, expected, "the first is searched");
    let expected =
        ["plan 0: 0-4", rest, rest, "insert missing 0..2", "insert part 2..4", rest, "commit 4"];
    assert_eq!(steps_with(other, 2).await, expected, "the second is searched");
    let expected = ["plan 0: 0-4", rest, rest, rest, rest, "commit 4"];
    assert_eq!(steps_with(one, 4).await, expected, "nobody knows who began with the first");
    assert_eq!(steps_with(RouteId::of("a route that is gone"), 2).await, expected);
}
