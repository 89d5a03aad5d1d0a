//! What happens, and what it does.

use super::{
    ConsumerModel, Late, Rule, State,
    group::Note,
    possible::ends,
    process::{Phase, Process, Todo},
    table::Waiter,
    writing::{
        abandon, ask, commit, give_up, land, land_torn, own_request, park, plan, planned,
        rest_is_over, send, take_up, with, write_letters,
    },
};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Owner,
    Former,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// More of the log can be read.
    Show,
    /// The group gives the partition to a consumer.
    Assign,
    /// It reads the committed offset and what stands beside it.
    TakeUp,
    /// A batch ends there and is planned, or an open plan is taken over.
    Plan {
        end: u8,
    },
    /// The letters' transaction is committed.
    Park(Who),
    WriteLetters(Who),
    CommitPlan(Who),
    /// A former owner's letters, where nothing fences them.
    ParkUnfenced,
    SendInsert(Who),
    /// The server looks what the table has.
    Ask(usize),
    Land(usize),
    /// It does, without its view: the server dies in between.
    LandTorn(usize),
    /// Its answer is not waited for any longer.
    GiveUp(usize),
    /// An insert that nobody waits for comes to nothing.
    Vanish(usize),
    CommitStored,
    /// What is left holds no record.
    Pass,
    /// The consumer starts over with the columns as they are now.
    SeeTable,
    Crash,
    Expel,
    /// The partition is given up while a commit is under way.
    HandOver {
        end: u8,
    },
    StrayArrives,
    /// The former owner notices, or dies.
    Notice,
    /// Kafka aborts the letters' transaction.
    TimeOut,
    HalfAnHour,
    Alter,
    MoveBack,
}

pub(super) fn take(model: &ConsumerModel, state: &mut State, action: Action) {
    match action {
        Action::Show => {
            let next = model.shown.iter().find(|end| **end > state.visible);
            state.visible = next.copied().unwrap_or(state.visible);
        }
        Action::Assign => state.owner = Some(Process::new(state.is_altered)),
        Action::TakeUp => take_up(model, state),
        Action::Plan { end } => plan(model, state, end),
        Action::Park(who) => park(state, who),
        Action::WriteLetters(who) => {
            with(state, who, |state, process| {
                let Phase::LettersDue { plan, letters } = process.phase else { return };
                write_letters(state, letters);
                process.phase = Phase::Planned { plan, todo: Todo::All };
            });
        }
        Action::CommitPlan(Who::Former) | Action::Notice => state.former = None,
        Action::CommitPlan(Who::Owner) => {
            with(state, Who::Owner, |state, process| {
                let Phase::PlanDue { plan } = process.phase else { return };
                state.group.commit(plan.start, Note::Plan(plan));
                process.phase = Phase::Planned { plan, todo: Todo::All };
            });
        }
        Action::ParkUnfenced => {
            with(state, Who::Former, |state, process| {
                let Phase::Ready { next, open, .. } = process.phase else { return };
                let Some(end) = ends(model, state, next, open).pop() else { return };
                let (plan, batch) = planned(model, state, process, next..end, open);
                write_letters(state, batch.letters);
                state.group.commit(plan.start, Note::Plan(plan));
                process.phase = Phase::Planned { plan, todo: Todo::All };
            });
        }
        Action::SendInsert(who) => send(model, state, who),
        Action::Ask(index) => ask(state, index),
        Action::Land(index) => land(model, state, index),
        Action::LandTorn(index) => {
            state.faults.torn -= 1;
            land_torn(model, state, index);
        }
        Action::GiveUp(index) => {
            state.faults.lost_answers -= 1;
            give_up(state, index);
        }
        Action::Vanish(index) => drop(state.requests.remove(index)),
        Action::CommitStored => {
            with(state, Who::Owner, |state, process| {
                let Phase::Ready { next, open, .. } = process.phase else { return };
                let note = if process.was_moved { Note::None } else { Note::Stored };
                commit(model, state, next, note);
                process.phase = Phase::Ready { next, open, is_stored: false };
            });
        }
        Action::Pass => {
            with(state, Who::Owner, |state, process| {
                let phase = Phase::Ready { next: state.visible, open: None, is_stored: true };
                process.phase = phase;
            });
        }
        Action::SeeTable => {
            abandon(state);
            let is_altered = state.is_altered;
            if let Some(owner) = &mut state.owner {
                *owner = Process { refused: owner.refused, ..Process::new(is_altered) };
            }
        }
        Action::Crash => {
            state.faults.crashes -= 1;
            abandon(state);
            state.owner = None;
        }
        Action::Expel => {
            state.faults.expulsions -= 1;
            state.former = state.owner.take();
            for request in &mut state.requests {
                if request.waiter == Waiter::Owner {
                    request.waiter = Waiter::Former;
                }
            }
        }
        Action::HandOver { end } => {
            state.faults.hand_overs -= 1;
            if let Some(process) = state.owner.take()
                && let Phase::Ready { next, open, .. } = process.phase
            {
                let mut process = process;
                let (plan, batch) = planned(model, state, &mut process, next..end, open);
                // That of letters names its generation itself, and is none too late.
                if batch.letters == 0 && model.keeps(Rule::JoinsCommits) {
                    commit(model, state, plan.start, Note::Plan(plan));
                } else if batch.letters == 0 {
                    state.group.stray = Some((plan.start, Note::Plan(plan)));
                }
            }
        }
        Action::StrayArrives => {
            if let Some((offset, note)) = state.group.stray.take() {
                state.group.commit(offset, note);
            }
        }
        Action::TimeOut => {
            state.faults.lost_answers -= u8::from(state.owner_parks());
            state.group.pending = None;
        }
        Action::HalfAnHour => {
            state.faults.half_hours -= 1;
            state.clock += 1;
            if let Some(index) = own_request(state).filter(|_| model.late == Late::BeforeAsking) {
                give_up(state, index);
            }
            rest_is_over(model, state);
        }
        Action::Alter => {
            state.faults.alters -= 1;
            state.is_altered = true;
        }
        Action::MoveBack => {
            state.faults.moves -= 1;
            state.was_moved = true;
            state.group.commit(0, Note::None);
        }
    }
}
