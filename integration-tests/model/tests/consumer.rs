//! Every state of the consumer's protocol, what each of its rules is there for,
//! and where its guarantee ends.

use outpour_model::{
    check,
    consumer::{
        Action, ConsumerModel, Faults,
        Item::{Fits, FitsLater, FitsNoMore, Marker, Refused},
        Late, Rule, Who,
    },
};

const NONE: Faults = Faults {
    crashes: 0,
    expulsions: 0,
    hand_overs: 0,
    lost_answers: 0,
    torn: 0,
    half_hours: 0,
    alters: 0,
    moves: 0,
};
const CRASH: Faults = Faults { crashes: 1, ..NONE };

/// One transaction of a record that fits and one that is parked, and then
/// another. Inserts come as late as they like.
fn model(faults: Faults) -> ConsumerModel {
    ConsumerModel {
        log: vec![Fits, FitsLater, Marker, Fits, Marker],
        shown: vec![3, 5],
        faults,
        late: Late::Ever,
        window: 100,
        asks_when_old: true,
        without: None,
    }
}

/// Inserts are over before a table is asked what it has.
fn punctual(faults: Faults) -> ConsumerModel {
    ConsumerModel { late: Late::BeforeAsking, ..model(faults) }
}

#[test]
fn once_however_late_the_inserts_of_dead_and_paused_owners_come() {
    let faults = Faults { crashes: 2, lost_answers: 2, expulsions: 1, ..NONE };
    let explored = check::holds("consumer, by token", model(faults));
    assert!(explored.states > 100_000, "{explored:?}");
    let faults = Faults { lost_answers: 1, expulsions: 2, ..CRASH };
    let explored = check::holds("consumer, twice expelled", model(faults));
    assert!(explored.states > 50_000, "{explored:?}");
}

#[test]
fn once_though_the_table_changes_and_plans_grow_old() {
    let faults = Faults { alters: 1, lost_answers: 1, expulsions: 1, ..CRASH };
    let explored = check::holds("consumer, altered", model(faults));
    assert!(explored.states > 400_000, "{explored:?}");
    let faults = Faults { alters: 1, half_hours: 1, lost_answers: 1, ..CRASH };
    let explored = check::holds("consumer, altered and old", model(faults));
    assert!(explored.states > 150_000, "{explored:?}");
    let faults = Faults { half_hours: 1, lost_answers: 1, expulsions: 1, ..CRASH };
    let explored = check::holds("consumer, old", model(faults));
    assert!(explored.states > 50_000, "{explored:?}");
}

#[test]
fn once_though_clickhouse_refuses_a_row() {
    let log = vec![Fits, Refused, FitsLater, Marker];
    let refusing = |faults| ConsumerModel { log: log.clone(), shown: vec![4], ..model(faults) };
    let faults = Faults { lost_answers: 1, expulsions: 1, ..CRASH };
    let explored = check::holds("consumer, refused", refusing(faults));
    assert!(explored.states > 300_000, "{explored:?}");
    let faults = Faults { lost_answers: 1, alters: 1, ..CRASH };
    let explored = check::holds("consumer, refused and altered", refusing(faults));
    assert!(explored.states > 80_000, "{explored:?}");
}

/// Rows come to a table and to its view one after the other.
#[test]
fn a_view_gets_what_it_has_missed_when_the_server_died() {
    let torn = Faults { torn: 1, lost_answers: 1, expulsions: 1, ..CRASH };
    let explored = check::holds("consumer, torn", model(torn.clone()));
    assert!(explored.states > 50_000, "{explored:?}");
    let log = vec![Fits, Refused, Fits, Marker];
    let refusing = ConsumerModel { log, shown: vec![4], ..model(torn) };
    let explored = check::holds("consumer, refused and torn", refusing);
    assert!(explored.states > 50_000, "{explored:?}");
    let faults = Faults { torn: 1, alters: 1, lost_answers: 1, ..CRASH };
    let log = vec![Fits, Fits, Marker];
    let altered = ConsumerModel { log, shown: vec![3], ..model(faults) };
    let explored = check::holds("consumer, altered and torn", altered);
    assert!(explored.states > 5_000, "{explored:?}");
}

#[test]
fn once_though_somebody_moves_the_group_back() {
    let faults = Faults { crashes: 2, moves: 1, lost_answers: 1, expulsions: 1, ..NONE };
    let explored = check::holds("consumer, moved back", punctual(faults));
    assert!(explored.states > 100_000, "{explored:?}");
}

#[test]
fn every_run_ends_so_that_what_holds_of_last_states_comes_in_the_end() {
    let faults = Faults { crashes: 1, expulsions: 1, lost_answers: 1, ..NONE };
    assert!(check::every_run_ends(&model(faults)));
    let faults = Faults { alters: 1, half_hours: 1, moves: 1, ..CRASH };
    assert!(check::every_run_ends(&punctual(faults)));
    let log = vec![Fits, Refused, FitsLater, Marker];
    let refusing = ConsumerModel { log, shown: vec![4], ..punctual(CRASH) };
    assert!(check::every_run_ends(&refusing));
}

/// The rule taken away, `property` breaks, in a way that has `cause` in it. With
/// the rule the same model has no such way.
fn is_for(rule: Rule, property: &'static str, model: ConsumerModel, cause: &[Action]) {
    let way = check::breaks(ConsumerModel { without: Some(rule), ..model.clone() }, property);
    assert_has(&way, cause);
    check::holds(&format!("with {rule:?}"), model);
}

fn assert_has(way: &[Action], cause: &[Action]) {
    for step in cause {
        assert!(way.contains(step), "{step:?} is no part of {way:?}");
    }
}

const LETTERS: &str = "I5 of the letters";

#[test]
fn without_a_plan_the_next_owner_cuts_other_batches() {
    is_for(Rule::PlansFirst, "I5", model(CRASH), &[Action::Crash]);
}

#[test]
fn a_plan_at_the_end_of_its_batch_passes_what_is_not_stored() {
    is_for(Rule::CommitsTheStart, "I6", model(CRASH), &[]);
    is_for(Rule::CommitsTheStart, "I6 a plan begins where it stands", model(CRASH), &[]);
    is_for(Rule::CommitsTheStart, "I4", model(CRASH), &[Action::Crash]);
}

#[test]
fn a_range_that_is_read_again_to_another_end_is_stored_again() {
    is_for(Rule::KeepsTheRange, "I5", model(CRASH), &[Action::Crash]);
}

#[test]
fn without_a_token_a_repeated_insert_is_stored_again() {
    is_for(Rule::HasTokens, "I5", model(CRASH), &[Action::Crash]);
    let lost = Faults { lost_answers: 1, ..NONE };
    is_for(Rule::HasTokens, "I5", model(lost), &[]);
}

#[test]
fn a_token_that_is_forgotten_has_to_be_made_up_for_by_provenance() {
    let faults = Faults { half_hours: 2, ..CRASH };
    is_for(Rule::AsksTheTable, "I5", punctual(faults), &[Action::Crash, Action::HalfAnHour]);
}

#[test]
fn an_insert_under_way_while_its_table_is_asked_has_to_be_known_by_its_token() {
    // Nobody has to die.
    let altered = Faults { alters: 1, ..NONE };
    let cause = [Action::Alter, Action::SeeTable];
    is_for(Rule::KeepsTheFirstToken, "I5", model(altered), &cause);
    let faults = Faults { half_hours: 1, alters: 1, ..CRASH };
    is_for(Rule::KeepsTheFirstToken, "I5", model(faults), &[Action::Alter]);
}

const VIEW: &str = "the view has what the table has";

#[test]
fn a_view_that_has_missed_rows_gets_them_only_if_all_is_sent_again() {
    let log = vec![Fits, Fits, Marker];
    let faults = Faults { torn: 1, alters: 1, ..CRASH };
    let altered = ConsumerModel { log, shown: vec![3], ..model(faults) };
    is_for(Rule::SendsItAgain, VIEW, altered, &[Action::Alter]);
}

#[test]
fn a_view_that_has_missed_a_part_gets_it_only_if_that_was_planned() {
    let log = vec![Fits, Refused, Fits, Marker];
    let faults = Faults { torn: 1, ..CRASH };
    let refusing = ConsumerModel { log, shown: vec![4], ..model(faults) };
    is_for(Rule::PlansParts, VIEW, refusing, &[]);
}

#[test]
fn a_commit_that_nobody_waits_for_may_put_the_group_back() {
    is_for(Rule::AwaitsCommits, "I5", model(CRASH), &[Action::Crash, Action::StrayArrives]);
}

#[test]
fn a_commit_still_under_way_when_the_partition_goes_may_put_the_group_back() {
    let faults = Faults { hand_overs: 1, ..CRASH };
    let cause = [Action::StrayArrives, Action::Crash];
    is_for(Rule::JoinsCommits, "I5", model(faults), &cause);
}

#[test]
fn letters_after_their_plan_are_lost_with_a_crash() {
    is_for(Rule::LettersNotAfterPlan, "I4", model(CRASH), &[Action::Crash]);
    is_for(Rule::LettersNotAfterPlan, "I6", model(CRASH), &[Action::Crash]);
}

#[test]
fn letters_before_their_plan_are_written_again_after_a_crash() {
    is_for(Rule::LettersNotBeforePlan, LETTERS, model(CRASH), &[Action::Crash]);
}

#[test]
fn letters_that_do_not_name_the_generation_come_from_former_owners_too() {
    let expelled = Faults { expulsions: 1, ..NONE };
    let cause = [Action::Expel, Action::ParkUnfenced];
    is_for(Rule::FencesLetters, LETTERS, model(expelled.clone()), &cause);
    is_for(Rule::FencesLetters, "I5", model(expelled), &cause);
}

#[test]
fn an_offset_in_an_open_transaction_is_not_to_be_read_past() {
    let expelled = Faults { expulsions: 1, ..NONE };
    let cause = [Action::Expel, Action::Park(Who::Former)];
    is_for(Rule::WaitsForPendingOffsets, "I5", model(expelled), &cause);
}

#[test]
fn what_a_plan_names_as_parked_is_neither_parked_again_nor_stored() {
    let cause = [Action::Crash];
    is_for(Rule::PassesOverParked, LETTERS, model(CRASH), &cause);
    let altered = Faults { alters: 1, ..NONE };
    let both = "no record is both stored and parked";
    is_for(Rule::PassesOverParked, both, punctual(altered), &[Action::Alter]);
}

#[test]
fn an_offset_that_was_moved_back_has_to_be_noticed() {
    let faults = Faults { moves: 1, ..CRASH };
    is_for(Rule::NoticesMoves, "I5", punctual(faults), &[Action::MoveBack]);
}

#[test]
fn a_table_that_remembers_too_few_inserts_stores_a_late_one_again() {
    let way = check::breaks(ConsumerModel { window: 1, ..model(CRASH) }, "I5");
    assert_has(&way, &[Action::Crash]);
    check::holds("a window that is large enough", model(CRASH));
}

/// An owner that cannot reach ClickHouse would try on under a token that is
/// forgotten meanwhile, though it was stored at once and only the answer was lost.
#[test]
fn an_insert_tried_for_longer_than_its_token_is_trusted_has_to_ask_the_table() {
    let faults = Faults { lost_answers: 1, half_hours: 2, ..NONE };
    let trusting = ConsumerModel { asks_when_old: false, ..punctual(faults.clone()) };
    let way = check::breaks(trusting, "I5");
    assert_has(&way, &[Action::HalfAnHour]);
    assert!(!way.contains(&Action::Crash), "{way:?}");
    let faults = Faults { crashes: 1, expulsions: 1, ..faults };
    check::holds("… not if it asks the table then", punctual(faults));
}

// Where the guarantee ends: the protocol as it is, and what it would take.

/// What was sent before belongs to other batches, whose tokens nobody knows any more.
#[test]
fn an_insert_from_before_the_group_was_moved_may_be_stored_twice() {
    let moved = Faults { moves: 1, ..CRASH };
    let way = check::breaks(model(moved.clone()), "I5");
    assert_has(&way, &[Action::MoveBack]);
    check::holds("moved, in time", punctual(moved));
}

/// Its range is long stored under a token that is forgotten, too.
#[test]
fn an_insert_that_is_later_than_tokens_are_remembered_may_be_stored_twice() {
    let faults = Faults { half_hours: 2, ..CRASH };
    let way = check::breaks(model(faults.clone()), "I5");
    assert_has(&way, &[Action::HalfAnHour, Action::Crash]);
    check::holds("… not by half an hour", model(Faults { half_hours: 1, ..faults }));
}

/// What was stored is parked as well, if it does not fit the altered table and its
/// batch is read again.
#[test]
fn a_record_that_fits_no_more_may_be_both_stored_and_parked() {
    let faults = Faults { alters: 1, ..CRASH };
    let log = vec![Fits, FitsNoMore];
    let narrowed = ConsumerModel { log, shown: vec![2], ..punctual(faults) };
    let way = check::breaks(narrowed, "no record is both stored and parked");
    assert_has(&way, &[Action::Alter]);
}
