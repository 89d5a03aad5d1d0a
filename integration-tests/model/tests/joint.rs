//! Every state of an insert that two partitions share, and what each of its rules is there
//! for.

use outpour_model::{
    check,
    joint::{Action, Faults, JointModel, Rule},
};

const ALL: Faults = Faults { crashes: 2, expulsions: 1, hand_overs: 1, lost_answers: 2 };

fn model(faults: Faults) -> JointModel {
    JointModel { faults, without: None }
}

fn without(rule: Rule) -> JointModel {
    JointModel { without: Some(rule), ..model(ALL) }
}

#[test]
fn once_whoever_goes_on_alone_and_however_late_the_inserts_come() {
    let explored = check::holds("joint", model(ALL));
    assert!(explored.states > 10_000, "{explored:?}");
}

#[test]
fn every_run_ends() {
    assert!(check::every_run_ends(&model(ALL)));
}

#[test]
fn without_believing_only_the_whole_a_partition_passes_what_was_dropped() {
    let way = check::breaks(without(Rule::BelievesTheWhole), "I6");
    assert!(way.iter().any(|action| matches!(action, Action::HandOver(_))), "{way:?}");
}

#[test]
fn without_sending_it_again_the_joint_insert_comes_after_the_table_was_asked() {
    check::breaks(without(Rule::SendsItAgain), "I5");
}

#[test]
fn without_the_common_token_the_joint_insert_comes_as_well() {
    check::breaks(without(Rule::SharesTheToken), "I5");
}

#[test]
fn without_the_rest_only_who_comes_first_has_its_rows() {
    check::breaks(without(Rule::SendsTheRest), "I4");
}
