//! A plan that was found at the start: its outcome is open.

use super::*;

/// 0 to 5 is sent under the first token, and what the table does not have even then.
const AGAIN: [&str; 4] = ["plan 0: 0-5", "insert", "insert missing 0..5", "commit 5"];

/// What the table has of 0 to 5 is asked, and asked again.
const ASKED: [&str; 4] = ["plan 0: 0-5", "insert missing 0..5", "insert missing 0..5", "commit 5"];

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
async fn so_does_a_young_one_whose_token_others_have_pushed_out() {
    let script = Arc::new(Script { forgets: true, ..Script::default() });
    let did = undisturbed(&script, Some(found(&batch(0..5), 1)), vec![batch(0..5)]).await;
    assert_eq!(steps(&did), ASKED);
    // Its owner dies. Who comes next does not even ask whether it is remembered.
    let Did::Planned(_, second) = &did[0] else { panic!("{did:?}") };
    let did = undisturbed(&Arc::default(), Some(second.clone()), vec![batch(0..5)]).await;
    assert_eq!(steps(&did), ASKED);
}

#[tokio::test(start_paused = true)]
async fn what_was_planned_anew_and_interrupted_is_planned_anew_again() {
    let script = Arc::default();
    let plan = Plan { by_provenance: true, ..found(&batch(0..5), 0) };
    let did = undisturbed(&script, Some(plan), vec![batch(0..5)]).await;
    assert_eq!(steps(&did), AGAIN);
}
