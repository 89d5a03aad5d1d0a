//! Every state of the relay's protocol, and what each of its rules is there for.

use outpour_model::{
    check,
    relay::{Action, Faults, RelayModel, Rule, Who},
};

const NONE: Faults = Faults { crashes: 0, drops: 0, timeouts: 0, strangers: 0, slot_moves: 0 };
const CRASH: Faults = Faults { crashes: 1, ..NONE };
const DROP: Faults = Faults { drops: 1, ..NONE };

/// Two rows that may be split, a transaction without any, one row.
fn model(faults: Faults) -> RelayModel {
    RelayModel { log: vec![2, 0, 1], faults, without: None }
}

fn short(faults: Faults) -> RelayModel {
    RelayModel { log: vec![1], ..model(faults) }
}

#[test]
fn once_and_in_order_through_a_crash_and_a_relay_that_has_lost_its_slot() {
    let explored = check::holds("relay, replaced", model(Faults { drops: 1, ..CRASH }));
    assert!(explored.states > 1_000_000, "{explored:?}");
}

#[test]
fn once_and_in_order_though_kafka_aborts_what_was_open_for_too_long() {
    let faults = Faults { timeouts: 2, ..CRASH };
    let explored = check::holds("relay, timed out", model(faults));
    assert!(explored.states > 100_000, "{explored:?}");
    let replaced = Faults { drops: 1, timeouts: 1, ..CRASH };
    let explored = check::holds("relay, timed out and replaced", short(replaced));
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn once_and_in_order_beside_open_transactions_of_other_slots() {
    let faults = Faults { strangers: 1, ..CRASH };
    let explored = check::holds("relay, beside others", model(faults));
    assert!(explored.states > 100_000, "{explored:?}");
}

#[test]
fn a_slot_that_somebody_moved_is_refused_or_has_nothing_missing() {
    let faults = Faults { slot_moves: 1, ..CRASH };
    let explored = check::holds("relay, slot moved", model(faults));
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn every_run_ends_so_that_what_holds_of_last_states_comes_in_the_end() {
    let faults = Faults { crashes: 1, drops: 1, timeouts: 1, strangers: 1, slot_moves: 1 };
    assert!(check::every_run_ends(&short(faults)));
    assert!(check::every_run_ends(&model(Faults { timeouts: 1, ..CRASH })));
}

/// The rule taken away, `property` breaks, in a way that has `cause` in it. With
/// the rule the same model has no such way.
fn is_for(rule: Rule, property: &'static str, model: RelayModel, cause: &[Action]) {
    let way = check::breaks(RelayModel { without: Some(rule), ..model.clone() }, property);
    for step in cause {
        assert!(way.contains(step), "{rule:?}: {step:?} is no part of {way:?}");
    }
    check::holds(&format!("with {rule:?}"), model);
}

#[test]
fn without_fencing_a_relay_that_lost_its_slot_publishes_beside_the_next() {
    let cause = [Action::Drop, Action::Commit(Who::Former), Action::Commit(Who::Active)];
    is_for(Rule::Fences, "I2", short(DROP), &cause);
    is_for(Rule::Fences, "I3", short(DROP), &cause);
}

#[test]
fn a_checkpoint_read_before_fencing_may_be_outdone() {
    let cause = [Action::ReadEarly(Who::Active), Action::Commit(Who::Former)];
    is_for(Rule::ReadsAfterFencing, "I2", short(DROP), &cause);
}

#[test]
fn an_open_transaction_of_another_slot_hides_the_newest_checkpoint() {
    let faults = Faults { strangers: 1, ..CRASH };
    let cause = [Action::StrangerOpens, Action::Crash];
    is_for(Rule::WaitsForOpenTransactions, "I2", short(faults), &cause);
}

#[test]
fn a_checkpoint_outside_of_the_transaction_is_lost_with_a_crash() {
    is_for(Rule::CheckpointWithRecords, "I2", model(CRASH), &[Action::Crash]);
}

#[test]
fn a_position_confirmed_before_the_commit_passes_rows() {
    is_for(Rule::ConfirmsAfterCommit, "I7", model(CRASH), &[Action::Confirm]);
}

#[test]
fn a_slot_that_is_not_compared_loses_rows_without_a_word() {
    let faults = Faults { slot_moves: 1, ..CRASH };
    let cause = [Action::MoveSlot];
    is_for(Rule::ComparesWithSlot, "I1 arrives in the end", model(faults), &cause);
}

#[test]
fn a_split_transaction_without_its_row_is_published_again() {
    is_for(Rule::CountsRows, "I2", model(CRASH), &[Action::Crash]);
}

#[test]
fn a_keepalive_before_the_rest_of_a_split_transaction_must_not_forget_the_row() {
    let cause = [Action::Crash, Action::Keepalive(Who::Active)];
    is_for(Rule::KeepsTheCount, "I2", model(CRASH), &cause);
}

#[test]
fn a_keepalive_acknowledged_with_rows_in_flight_passes_them() {
    let cause = [Action::Keepalive(Who::Active), Action::Confirm];
    is_for(Rule::AcknowledgesWhenIdle, "I7", model(CRASH), &cause);
}

#[test]
fn an_idle_position_without_a_checkpoint_looks_like_a_gap() {
    let cause = [Action::Keepalive(Who::Active), Action::Confirm, Action::Crash];
    let told = "a refusal tells a real gap";
    is_for(Rule::CheckpointsBeforeConfirming, told, model(CRASH), &cause);
}
