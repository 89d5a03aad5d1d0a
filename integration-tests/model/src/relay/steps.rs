//! What happens, and what it does.

use super::{
    RelayModel, Rule, State,
    kafka::{Checkpoint, Entry},
    postgres,
    session::{Relay, Streaming},
};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The relay that streams the slot.
    Active,
    /// The one that has lost the slot to it.
    Former,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An application commits a transaction.
    Write,
    /// A relay gets the slot.
    TakeSlot,
    ReadEarly(Who),
    Fence(Who),
    ReadCheckpoint(Who),
    /// It writes where it begins.
    Begin(Who),
    Row(Who),
    /// The rows of a transaction are over.
    End(Who),
    Keepalive(Who),
    SendCheckpoint(Who),
    Commit(Who),
    /// Only where the checkpoint is no part of the records' transaction.
    CommitOwed(Who),
    Confirm,
    Crash,
    /// PostgreSQL gives the connection up. Its relay need not notice.
    Drop,
    /// The former relay notices.
    Notice,
    /// Kafka aborts a transaction that has been open for too long.
    TimeOut,
    StrangerOpens,
    StrangerEnds,
    MoveSlot,
}

pub(super) fn take(model: &RelayModel, state: &mut State, action: Action) {
    match action {
        Action::Write => state.postgres.written += 1,
        Action::TakeSlot => state.active = Some(Relay::Holding { early: None }),
        Action::Confirm => {
            if let Some(Relay::Streaming(streaming)) = &mut state.active
                && let Some(at) = streaming.to_confirm.take()
            {
                state.postgres.slot.confirmed = state.postgres.slot.confirmed.max(at);
            }
        }
        Action::Crash => {
            state.faults.crashes -= 1;
            state.active = None;
        }
        Action::Drop => {
            state.faults.drops -= 1;
            state.former = state.active.take();
            if let Some(Relay::Streaming(streaming)) = &mut state.former {
                streaming.reads_until = Some(state.postgres.written);
                streaming.to_confirm = None;
            }
        }
        Action::Notice => state.former = None,
        Action::TimeOut => {
            state.faults.timeouts -= 1;
            state.kafka.newest += 1;
            state.kafka.fence(state.kafka.newest);
        }
        Action::StrangerOpens => {
            state.faults.strangers -= 1;
            state.kafka.checkpoints.push(Entry::Stranger);
        }
        Action::StrangerEnds => state.kafka.checkpoints.retain(|entry| *entry != Entry::Stranger),
        Action::MoveSlot => {
            state.faults.slot_moves -= 1;
            state.postgres.slot.was_moved = true;
            state.postgres.slot.confirmed = state.postgres.end();
        }
        Action::ReadEarly(who)
        | Action::Fence(who)
        | Action::ReadCheckpoint(who)
        | Action::Begin(who)
        | Action::Row(who)
        | Action::End(who)
        | Action::Keepalive(who)
        | Action::SendCheckpoint(who)
        | Action::Commit(who)
        | Action::CommitOwed(who) => {
            let place = match who {
                Who::Active => &mut state.active,
                Who::Former => &mut state.former,
            };
            let relay = place.take().and_then(|relay| step(model, state, who, relay, action));
            match who {
                Who::Active => state.active = relay,
                Who::Former => state.former = relay,
            }
        }
    }
}

/// The relay after a step of its own; `None` if it has come to its end.
fn step(
    model: &RelayModel,
    state: &mut State,
    who: Who,
    relay: Relay,
    action: Action,
) -> Option<Relay> {
    match relay {
        Relay::Holding { .. } if matches!(action, Action::ReadEarly(_)) => {
            Some(Relay::Holding { early: Some(state.kafka.visible_checkpoint()) })
        }
        Relay::Holding { early } => {
            Some(Relay::Fenced { epoch: state.kafka.init(model.keeps(Rule::Fences)), early })
        }
        Relay::Fenced { epoch, early } => {
            let found = early.unwrap_or_else(|| state.kafka.visible_checkpoint());
            let confirmed = state.postgres.slot.confirmed;
            let Some(checkpoint) = found else {
                let checkpoint = Checkpoint { end_lsn: confirmed, within: None };
                return Some(Relay::Beginning { epoch, checkpoint });
            };
            if confirmed > checkpoint.end_lsn && model.keeps(Rule::ComparesWithSlot) {
                state.refused = true;
                return None;
            }
            streaming(model, state, who, epoch, checkpoint)
        }
        Relay::Beginning { epoch, checkpoint } => {
            if !state.kafka.takes(epoch) {
                return None;
            }
            state.kafka.send_checkpoint(epoch, checkpoint);
            state.kafka.commit(epoch);
            streaming(model, state, who, epoch, checkpoint)
        }
        Relay::Streaming(streaming) => stream(model, state, streaming, action),
    }
}

/// A relay without its connection is told so by the first thing that it reads.
fn streaming(
    model: &RelayModel,
    state: &State,
    who: Who,
    epoch: u8,
    checkpoint: Checkpoint,
) -> Option<Relay> {
    let confirmed = state.postgres.slot.confirmed;
    (who == Who::Active)
        .then(|| Relay::Streaming(Streaming::new(model, epoch, checkpoint, confirmed)))
}

fn stream(
    model: &RelayModel,
    state: &mut State,
    mut streaming: Streaming,
    action: Action,
) -> Option<Relay> {
    let written = state.postgres.written;
    let epoch = streaming.epoch;
    match action {
        Action::Row(_) => {
            let row = streaming.next_row(model, written)?;
            streaming.is_inside = true;
            streaming.ordinal += 1;
            if !streaming.committed.covers(row) {
                if !state.kafka.takes(epoch) {
                    return None;
                }
                state.kafka.send(epoch, row);
                streaming.sent += 1;
                streaming.within = Some(row);
            }
        }
        Action::End(_) => {
            let end = postgres::end_lsn(streaming.entry);
            streaming.is_inside = false;
            streaming.entry = model.next_with_rows(streaming.entry + 1);
            streaming.ordinal = 0;
            streaming.within = None;
            if end > streaming.committed.end_lsn {
                streaming.complete = Some(end);
            }
        }
        Action::Keepalive(_) => {
            let at = streaming.keepalive(model, written)?;
            if streaming.sent > 0 {
                streaming.to_confirm = Some(at);
                return Some(Relay::Streaming(streaming));
            }
            if !model.keeps(Rule::CheckpointsBeforeConfirming) {
                streaming.to_confirm = Some(at);
                streaming.committed.end_lsn = at;
                return Some(Relay::Streaming(streaming));
            }
            streaming.complete = streaming.complete.max(Some(at));
            return send_checkpoint(model, state, streaming);
        }
        Action::SendCheckpoint(_) => {
            return send_checkpoint(model, state, streaming);
        }
        Action::Commit(_) => {
            let checkpoint = streaming.closing?;
            if !state.kafka.takes(epoch) {
                return None;
            }
            state.kafka.commit(epoch);
            if model.keeps(Rule::CheckpointWithRecords) {
                streaming.commit(checkpoint);
            } else {
                streaming.closing = None;
                streaming.owed = Some(checkpoint);
            }
        }
        Action::CommitOwed(_) => {
            let checkpoint = streaming.owed.take()?;
            if !state.kafka.takes(epoch) {
                return None;
            }
            state.kafka.send_checkpoint(epoch, checkpoint);
            state.kafka.commit(epoch);
            streaming.commit(checkpoint);
        }
        _ => {}
    }
    Some(Relay::Streaming(streaming))
}

fn send_checkpoint(
    model: &RelayModel,
    state: &mut State,
    mut streaming: Streaming,
) -> Option<Relay> {
    if !state.kafka.takes(streaming.epoch) {
        return None;
    }
    let checkpoint = streaming.next_checkpoint(model);
    if model.keeps(Rule::CheckpointWithRecords) {
        state.kafka.send_checkpoint(streaming.epoch, checkpoint);
    }
    if !model.keeps(Rule::ConfirmsAfterCommit) {
        streaming.to_confirm = Some(checkpoint.end_lsn);
    }
    streaming.closing = Some(checkpoint);
    Some(Relay::Streaming(streaming))
}
