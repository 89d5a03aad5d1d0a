//! One batch on its way: planned, parked, inserted.

use super::{
    ConsumerModel, Late, Rule, State,
    batch::{Batch, bit},
    group::{Content, First, Note, Pending, Plan},
    process::{Phase, Process, Todo},
    steps::Who,
    table::{Insert, Part, Request, Token, Waiter, is_refused},
};

/// Does something to a process that may change the state besides.
pub(super) fn with(state: &mut State, who: Who, change: impl FnOnce(&mut State, &mut Process)) {
    let place = |state: &mut State| match who {
        Who::Owner => std::mem::take(&mut state.owner),
        Who::Former => std::mem::take(&mut state.former),
    };
    if let Some(mut process) = place(state) {
        change(state, &mut process);
        match who {
            Who::Owner => state.owner = Some(process),
            Who::Former => state.former = Some(process),
        }
    }
}

pub(super) fn take_up(model: &ConsumerModel, state: &mut State) {
    with(state, Who::Owner, |state, process| {
        let group = &state.group;
        let open = match group.note {
            Note::Plan(plan) => Some(plan),
            Note::None | Note::Stored => None,
        };
        process.was_moved = match group.note {
            Note::Plan(plan) => plan.was_moved,
            Note::Stored => false,
            // Before the first commit there is no offset at all.
            Note::None => state.was_moved && model.keeps(Rule::NoticesMoves),
        };
        process.there_until = None;
        process.phase = Phase::Ready { next: group.offset, open, is_stored: false };
    });
}

/// The plan of a batch, as `Writer::planned` makes it. One that was found is taken
/// over if its token can be relied on.
pub(super) fn planned(
    model: &ConsumerModel,
    state: &State,
    process: &mut Process,
    range: std::ops::Range<u8>,
    open: Option<Plan>,
) -> (Plan, Batch) {
    let found = open.filter(|_| model.keeps(Rule::KeepsTheRange));
    let settled = found.filter(|_| model.keeps(Rule::PassesOverParked));
    let settled = settled.map_or(0, |plan| plan.content.rejected);
    let batch = Batch::of(model, process, range.clone(), settled);
    let content = Content { is_altered: process.is_altered, rejected: batch.rejected };
    let by_provenance = match found {
        Some(plan) => {
            let is_trusted = state.clock == plan.planned_at || !model.keeps(Rule::AsksTheTable);
            let is_same = plan.content == content;
            if is_same && is_trusted && !plan.by_provenance && batch.letters == 0 {
                return (plan, batch);
            }
            true
        }
        None if process.was_moved => {
            let until = *process.there_until.get_or_insert(state.table.until());
            process.was_moved = range.start < until;
            process.was_moved
        }
        None => false,
    };
    let plan = Plan {
        start: range.start,
        end: range.end,
        content,
        first: found.map(|plan| plan.first()),
        by_provenance: by_provenance && model.keeps(Rule::AsksTheTable),
        was_moved: process.was_moved,
        search: found.and_then(|plan| plan.search),
        planned_at: found.map_or(state.clock, |plan| plan.planned_at),
    };
    (plan, batch)
}

pub(super) fn plan(model: &ConsumerModel, state: &mut State, end: u8) {
    with(state, Who::Owner, |state, process| {
        let Phase::Ready { next, open, .. } = process.phase else { return };
        if process.was_moved && process.there_until.is_none() {
            rest_is_over(model, state);
        }
        let (plan, batch) = planned(model, state, process, next..end, open);
        let is_written = open == Some(plan);
        let letters = batch.letters;
        process.phase = if is_written || !model.keeps(Rule::PlansFirst) {
            write_letters(state, letters);
            Phase::Planned { plan, todo: Todo::All }
        } else if letters == 0 {
            let at = if model.keeps(Rule::CommitsTheStart) { plan.start } else { plan.end };
            commit(model, state, at, Note::Plan(plan));
            Phase::Planned { plan, todo: Todo::All }
        } else if !model.keeps(Rule::LettersNotAfterPlan) {
            state.group.commit(plan.start, Note::Plan(plan));
            Phase::LettersDue { plan, letters }
        } else if !model.keeps(Rule::LettersNotBeforePlan) {
            write_letters(state, letters);
            Phase::PlanDue { plan }
        } else {
            state.group.pending = Some(Pending { plan, letters });
            Phase::Parking { plan, letters }
        };
    });
}

pub(super) fn commit(model: &ConsumerModel, state: &mut State, offset: u8, note: Note) {
    if model.keeps(Rule::AwaitsCommits) {
        state.group.commit(offset, note);
    } else {
        state.group.stray = Some((offset, note));
    }
}

pub(super) fn park(state: &mut State, who: Who) {
    let is_ours = |state: &State, plan: Plan, letters: u8| {
        state.group.pending == Some(Pending { plan, letters })
    };
    with(state, who, |state, process| {
        let Phase::Parking { plan, letters } = process.phase else { return };
        if is_ours(state, plan, letters) {
            state.group.pending = None;
            state.group.commit(plan.start, Note::Plan(plan));
            write_letters(state, letters);
            process.phase = Phase::Planned { plan, todo: Todo::All };
        } else {
            process.phase = Phase::Joined;
        }
    });
}

pub(super) fn write_letters(state: &mut State, letters: u8) {
    for (at, count) in (0..).zip(&mut state.letters) {
        *count += u8::from(letters & bit(at) != 0);
    }
}

pub(super) fn send(model: &ConsumerModel, state: &mut State, who: Who) {
    with(state, who, |state, process| {
        let Phase::Planned { plan, todo } = process.phase else { return };
        let todo = match (todo, plan.search) {
            (Todo::All, Some(_)) => Todo::OneByOne { next: plan.start, found: 0 },
            _ => todo,
        };
        let is_old = state.clock != plan.planned_at && !plan.by_provenance;
        if is_old && model.asks_when_old && model.keeps(Rule::AsksTheTable) {
            // Of a former owner the group takes no such plan.
            let plan = plan.asking();
            if who == Who::Owner {
                commit(model, state, plan.start, Note::Plan(plan));
                process.phase = Phase::Planned { plan, todo };
            } else {
                process.phase = Phase::Joined;
            }
            return;
        }
        let all = Batch::of(model, process, plan.start..plan.end, plan.content.rejected).rows;
        let token = |content, part| {
            let token = Token { start: plan.start, end: plan.end, content, part };
            model.keeps(Rule::HasTokens).then_some(token)
        };
        let insert = match todo {
            Todo::All if plan.by_provenance => {
                let first = match model.keeps(Rule::KeepsTheFirstToken) {
                    true => plan.first(),
                    false => First { content: plan.content, is_moved: false },
                };
                let part = if first.is_moved { Part::Moved } else { Part::All };
                // Where somebody moved the offset, other tokens are at work.
                let is_known = plan.first.is_some()
                    && !plan.was_moved
                    && plan.search.is_none()
                    && state.clock == plan.planned_at;
                let by_provenance = !is_known || !model.keeps(Rule::SendsItAgain);
                Insert { rows: all, token: token(first.content, part), by_provenance }
            }
            Todo::All => {
                Insert { rows: all, token: token(plan.content, Part::All), by_provenance: false }
            }
            Todo::Rest => {
                Insert { rows: all, token: token(plan.content, Part::Rest), by_provenance: true }
            }
            Todo::OneByOne { next, .. } => {
                let is_planned = plan.search.is_some_and(|from| next >= from);
                let by_provenance = !is_planned || state.clock != plan.planned_at;
                let part = if by_provenance { Part::MissingRow(next) } else { Part::Row(next) };
                let token = token(plan.first().content, part);
                Insert { rows: all & bit(next), token, by_provenance }
            }
        };
        let waiter = match who {
            Who::Owner => Waiter::Owner,
            Who::Former => Waiter::Former,
        };
        if insert.by_provenance && model.late == Late::BeforeAsking {
            state.requests.retain(|request| request.waiter != Waiter::Nobody);
        }
        if insert.by_provenance && who == Who::Owner {
            rest_is_over(model, state);
        }
        state.requests.push(Request { waiter, insert, missing: None });
        process.phase = Phase::Waiting { plan, todo };
    });
}

pub(super) fn ask(state: &mut State, index: usize) {
    let request = &mut state.requests[index];
    request.missing = Some(state.table.lacks(request.insert.rows));
}

/// The owner is about to have the table asked what it has: may anything else
/// still be under way then?
pub(super) fn rest_is_over(model: &ConsumerModel, state: &mut State) {
    if model.late == Late::BeforeAsking {
        state.former = None;
        state.requests.retain(|request| request.waiter == Waiter::Owner);
    }
}

pub(super) fn land(model: &ConsumerModel, state: &mut State, index: usize) {
    let request = state.requests.remove(index);
    let Insert { rows, token, .. } = request.insert;
    let rows = request.missing.unwrap_or(rows);
    let is_refused = is_refused(&model.log, rows);
    if !is_refused {
        state.table.insert(rows, token, state.clock, model.window);
        state.view.insert(rows, token, state.clock, model.window);
    }
    match request.waiter {
        Waiter::Nobody => {}
        Waiter::Owner => with(state, Who::Owner, |state, process| {
            answered(model, state, process, is_refused);
        }),
        // Whatever comes next has to be committed, and is refused.
        Waiter::Former => state.former = None,
    }
}

/// The table has it, the view does not, and nobody is told.
pub(super) fn land_torn(model: &ConsumerModel, state: &mut State, index: usize) {
    give_up(state, index);
    let Request { insert, missing, .. } = state.requests.remove(index);
    let rows = missing.unwrap_or(insert.rows);
    if !is_refused(&model.log, rows) {
        state.table.insert(rows, insert.token, state.clock, model.window);
    }
}

/// The owner is told what became of its insert.
fn answered(model: &ConsumerModel, state: &mut State, process: &mut Process, is_refused: bool) {
    let Phase::Waiting { plan, todo } = process.phase else { return };
    process.phase = match (todo, is_refused) {
        (Todo::All, false) if plan.by_provenance && plan.first.is_some() => {
            Phase::Planned { plan, todo: Todo::Rest }
        }
        (Todo::All | Todo::Rest, false) => {
            Phase::Ready { next: plan.end, open: None, is_stored: true }
        }
        (Todo::All | Todo::Rest, true) => {
            // Nothing of it is stored, unless an earlier plan has left its outcome open.
            let is_known = !plan.by_provenance && model.keeps(Rule::PlansParts);
            let search = plan.search.or(Some(if is_known { plan.start } else { plan.end }));
            let plan = Plan { search, ..plan.asking() };
            commit(model, state, plan.start, Note::Plan(plan));
            Phase::Planned { plan, todo: Todo::OneByOne { next: plan.start, found: 0 } }
        }
        (Todo::OneByOne { next, found }, _) => {
            let found = if is_refused { found | bit(next) } else { found };
            let next = next + 1;
            if next < plan.end {
                let plan = Plan { search: plan.search.map(|from| from.max(next)), ..plan };
                commit(model, state, plan.start, Note::Plan(plan));
                Phase::Planned { plan, todo: Todo::OneByOne { next, found } }
            } else if found == 0 {
                Phase::Planned { plan, todo: Todo::Rest }
            } else {
                process.refused |= found;
                Phase::Joined
            }
        }
    };
}

pub(super) fn own_request(state: &State) -> Option<usize> {
    state.requests.iter().position(|request| request.waiter == Waiter::Owner)
}

pub(super) fn give_up(state: &mut State, index: usize) {
    let waiter = std::mem::replace(&mut state.requests[index].waiter, Waiter::Nobody);
    let process = match waiter {
        Waiter::Owner => &mut state.owner,
        Waiter::Former => &mut state.former,
        Waiter::Nobody => return,
    };
    if let Some(process) = process
        && let Phase::Waiting { plan, todo } = process.phase
    {
        process.phase = Phase::Planned { plan, todo };
    }
}

/// The owner ends; what it has sent goes on.
pub(super) fn abandon(state: &mut State) {
    for request in state.requests.iter_mut().filter(|request| request.waiter == Waiter::Owner) {
        request.waiter = Waiter::Nobody;
    }
}
