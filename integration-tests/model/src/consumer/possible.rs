//! What can happen next.

use super::{
    ConsumerModel, Rule, State,
    batch::Item,
    group::Plan,
    process::{Phase, Process},
    steps::{Action, Who},
    table::{Request, Waiter},
};

pub(super) fn possible(model: &ConsumerModel, state: &State, actions: &mut Vec<Action>) {
    let faults = &state.faults;
    if model.shown.iter().any(|end| *end > state.visible) {
        actions.push(Action::Show);
    }
    match &state.owner {
        None => actions.push(Action::Assign),
        Some(owner) => {
            of_owner(model, state, owner, actions);
            of_process(Who::Owner, owner, actions);
            if faults.crashes > 0 {
                actions.push(Action::Crash);
            }
            if faults.expulsions > 0 && state.former.is_none() {
                actions.push(Action::Expel);
            }
        }
    }
    if let Some(former) = &state.former {
        of_process(Who::Former, former, actions);
        actions.push(Action::Notice);
        let would_plan = matches!(former.phase, Phase::Ready { .. });
        if would_plan && !model.keeps(Rule::FencesLetters) {
            actions.push(Action::ParkUnfenced);
        }
    }
    for (index, request) in state.requests.iter().enumerate() {
        of_request(state, index, request, actions);
    }
    if state.group.stray.is_some() {
        actions.push(Action::StrayArrives);
    }
    let may_time_out = !state.owner_parks() || faults.lost_answers > 0;
    if state.group.pending.is_some() && may_time_out {
        actions.push(Action::TimeOut);
    }
    if faults.half_hours > 0 {
        actions.push(Action::HalfAnHour);
    }
    if faults.alters > 0 {
        actions.push(Action::Alter);
    }
    let is_empty = state.owner.is_none() && state.former.is_none();
    if faults.moves > 0 && is_empty && state.group.pending.is_none() && state.group.offset > 0 {
        actions.push(Action::MoveBack);
    }
}

/// What needs the group's consent.
fn of_owner(model: &ConsumerModel, state: &State, owner: &Process, actions: &mut Vec<Action>) {
    match &owner.phase {
        Phase::Joined => {
            let is_stable = state.group.pending.is_none();
            if is_stable || !model.keeps(Rule::WaitsForPendingOffsets) {
                actions.push(Action::TakeUp);
            }
        }
        Phase::Ready { next, open, is_stored } => {
            // Without waiting for it there is still one at a time.
            let is_free = state.group.stray.is_none() || model.keeps(Rule::AwaitsCommits);
            if *is_stored && is_free {
                actions.push(Action::CommitStored);
            }
            // Without a plan only this tells the group.
            let must_commit = *is_stored && !model.keeps(Rule::PlansFirst);
            if must_commit || !is_free {
                return;
            }
            let may_hand_over = state.faults.hand_overs > 0;
            for end in ends(model, state, *next, *open) {
                actions.push(Action::Plan { end });
                if may_hand_over {
                    actions.push(Action::HandOver { end });
                }
            }
            let rest = *next..state.visible;
            let is_tail = rest.clone().all(|at| model.log[usize::from(at)] == Item::Marker);
            if !rest.is_empty() && is_tail {
                actions.push(Action::Pass);
            }
        }
        _ => {}
    }
    if owner.is_altered != state.is_altered {
        actions.push(Action::SeeTable);
    }
}

/// Where the batch from `next` on may end: behind any of its records, or where
/// its plan says.
pub(super) fn ends(model: &ConsumerModel, state: &State, next: u8, open: Option<Plan>) -> Vec<u8> {
    match open {
        Some(plan) if model.keeps(Rule::KeepsTheRange) => vec![plan.end],
        _ => model.records(state.visible).filter(|at| *at >= next).map(|at| at + 1).collect(),
    }
}

fn of_process(who: Who, process: &Process, actions: &mut Vec<Action>) {
    match &process.phase {
        Phase::Parking { .. } => actions.push(Action::Park(who)),
        Phase::LettersDue { .. } => actions.push(Action::WriteLetters(who)),
        Phase::PlanDue { .. } => actions.push(Action::CommitPlan(who)),
        Phase::Planned { .. } => actions.push(Action::SendInsert(who)),
        Phase::Joined | Phase::Ready { .. } | Phase::Waiting { .. } => {}
    }
}

fn of_request(state: &State, index: usize, request: &Request, actions: &mut Vec<Action>) {
    if request.insert.by_provenance && request.missing.is_none() {
        actions.push(Action::Ask(index));
    } else {
        actions.push(Action::Land(index));
        if state.faults.torn > 0 {
            actions.push(Action::LandTorn(index));
        }
    }
    if request.waiter == Waiter::Nobody {
        actions.push(Action::Vanish(index));
    } else if state.faults.lost_answers > 0 {
        actions.push(Action::GiveUp(index));
    }
}
