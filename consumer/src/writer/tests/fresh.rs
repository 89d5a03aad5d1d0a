//! Batches that nobody has planned before.

use super::*;

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
    // Half an hour, in steps of four seconds at most.
    *lock(&script.insert_faults) = [210].repeat(1200).into();
    *lock(&script.nothing_faults) = [210].repeat(1200).into();
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
async fn so_does_one_that_others_have_pushed_out() {
    let script = Arc::new(Script { forgets: true, ..Script::default() });
    *lock(&script.insert_faults) = vec![210].into();
    let did = undisturbed(&script, None, vec![batch(0..5), batch(5..6)]).await;
    let asked = ["plan 0: 0-5", "insert", "plan 0: 0-5", "insert missing 0..5"];
    let rest = ["insert missing 0..5", "plan 5: 5-6", "insert", "commit 6"];
    assert_eq!(steps(&did), [&asked[..], &rest[..]].concat());
    let Did::Planned(_, plan) = &did[2] else { panic!("{did:?}") };
    assert!(plan.is_forgotten, "the next owner must not trust the first token either");
    let Did::Planned(_, plan) = &did[5] else { panic!("{did:?}") };
    assert!(!plan.is_forgotten && !plan.by_provenance, "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_needs_somebody_is_waited_out_and_drops_nothing() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = vec![60, 497, 60].into();
    let did = undisturbed(&script, None, vec![batch(0..5)]).await;
    assert_eq!(steps(&did), ["plan 0: 0-5", "insert", "insert", "insert", "insert", "commit 5"]);
}

/// Where an insert without rows is refused, too, it is not about the rows.
#[tokio::test(start_paused = true)]
async fn a_table_that_takes_nothing_at_all_is_waited_for_whatever_it_says() {
    for code in [44, 131, 153, 241, 252] {
        let script: Arc<Script> = Arc::default();
        *lock(&script.insert_faults) = [code].repeat(20).into();
        *lock(&script.nothing_faults) = [code].repeat(20).into();
        let did = undisturbed(&script, None, vec![batch(0..5)]).await;
        let (first, rest) = (&steps(&did)[..1], &steps(&did)[1..22]);
        assert_eq!(first, ["plan 0: 0-5"]);
        assert!(rest.iter().all(|step| step == "insert"), "{code}: {rest:?}");
        assert_eq!(steps(&did).last().unwrap(), "commit 5");
    }
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
async fn a_table_that_changed_ends_the_writer_with_the_plan_standing() {
    let script = Arc::new(Script { has_changed: true, ..Script::default() });
    *lock(&script.insert_faults) = vec![16].into();
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![batch(0..5)]).await;
    assert!(matches!(outcome, Err(WriteError::SchemaDrift { .. })));
    assert_eq!(steps(&did), ["plan 0: 0-5", "insert"]);
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
async fn where_somebody_moved_the_offset_only_what_is_missing_is_inserted() {
    let script = Arc::new(Script { moved_below: Some(6), ..Script::default() });
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
        mapping().target(),
    );
    assert_ne!(tokens(&did)[0], own, "what was deleted since would be taken for stored");
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_while_clickhouse_is_away_it_leaves_the_plan() {
    let script: Arc<Script> = Arc::default();
    *lock(&script.insert_faults) = [241].repeat(1000).into();
    *lock(&script.nothing_faults) = [241].repeat(1000).into();
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

#[tokio::test(start_paused = true)]
async fn a_letter_is_not_written_for_a_table_that_is_another_by_now() {
    let letter = |route| {
        let mut batch = with_a_letter(batch(0..2));
        batch.parked[0].route = route;
        batch
    };
    let script = Arc::new(Script { has_changed: true, ..Script::default() });
    let batches = vec![letter(Some(0))];
    let (outcome, did) = run(&script, None, CancellationToken::new(), batches).await;
    assert!(matches!(outcome, Err(WriteError::RefusedByWhatWas { .. })), "{outcome:?}");
    assert_eq!(did, []);
    // What no route takes is no table's matter.
    let (outcome, did) = run(&script, None, CancellationToken::new(), vec![letter(None)]).await;
    outcome.unwrap();
    assert!(matches!(did.as_slice(), [Did::Parked(1, _), ..]), "{did:?}");
}
