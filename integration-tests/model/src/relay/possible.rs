//! What can happen next.

use super::{
    RelayModel, Rule, State,
    session::{Relay, Streaming},
    steps::{Action, Who},
};

pub(super) fn possible(model: &RelayModel, state: &State, actions: &mut Vec<Action>) {
    let faults = &state.faults;
    if usize::from(state.postgres.written) < model.log.len() {
        actions.push(Action::Write);
    }
    if state.active.is_none() && !state.refused {
        actions.push(Action::TakeSlot);
        // Before there is a checkpoint, where the slot stands is where it all begins.
        let has_begun = state.kafka.newest_checkpoint().is_some();
        if faults.slot_moves > 0
            && has_begun
            && state.postgres.slot.confirmed < state.postgres.end()
        {
            actions.push(Action::MoveSlot);
        }
    }
    for (who, relay) in [(Who::Active, &state.active), (Who::Former, &state.former)] {
        if let Some(relay) = relay {
            of_relay(model, state, who, relay, actions);
        }
    }
    if state.active.is_some() {
        if faults.crashes > 0 {
            actions.push(Action::Crash);
        }
        if faults.drops > 0 && state.former.is_none() {
            actions.push(Action::Drop);
        }
    }
    if state.former.is_some() {
        actions.push(Action::Notice);
    }
    if faults.timeouts > 0 && state.kafka.is_open(state.kafka.newest) {
        actions.push(Action::TimeOut);
    }
    if faults.strangers > 0 {
        actions.push(Action::StrangerOpens);
    }
    if state.kafka.has_stranger() {
        actions.push(Action::StrangerEnds);
    }
}

fn of_relay(model: &RelayModel, state: &State, who: Who, relay: &Relay, actions: &mut Vec<Action>) {
    match relay {
        Relay::Holding { early } => {
            if early.is_none() && !model.keeps(Rule::ReadsAfterFencing) {
                actions.push(Action::ReadEarly(who));
            } else {
                actions.push(Action::Fence(who));
            }
        }
        Relay::Fenced { .. } => {
            if !state.kafka.has_stranger() || !model.keeps(Rule::WaitsForOpenTransactions) {
                actions.push(Action::ReadCheckpoint(who));
            }
        }
        Relay::Beginning { .. } => actions.push(Action::Begin(who)),
        Relay::Streaming(streaming) => {
            of_stream(model, state, who, streaming, actions);
        }
    }
}

fn of_stream(
    model: &RelayModel,
    state: &State,
    who: Who,
    streaming: &Streaming,
    actions: &mut Vec<Action>,
) {
    let written = state.postgres.written;
    if streaming.to_confirm.is_some() && who == Who::Active {
        actions.push(Action::Confirm);
    }
    if streaming.owed.is_some() {
        actions.push(Action::CommitOwed(who));
        return;
    }
    if streaming.closing.is_some() {
        actions.push(Action::Commit(who));
        return;
    }
    if streaming.next_row(model, written).is_some() {
        actions.push(Action::Row(who));
    } else if streaming.is_inside {
        actions.push(Action::End(who));
    }
    let is_idle = streaming.sent == 0 || !model.keeps(Rule::AcknowledgesWhenIdle);
    if is_idle
        && streaming.keepalive(model, written).is_some_and(|at| at > streaming.committed.end_lsn)
    {
        actions.push(Action::Keepalive(who));
    }
    if streaming.sent > 0 {
        actions.push(Action::SendCheckpoint(who));
    }
}
