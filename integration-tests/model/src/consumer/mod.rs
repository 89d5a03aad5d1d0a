//! From one partition into one table.
//!
//! One consumer owns the partition. Another one, [`State::former`], was taken for
//! dead and may not know it: it belongs to an older generation of the group, and
//! what it was about to do it may do at any later time. Requests to ClickHouse
//! have a life of their own.

mod batch;
mod group;
mod possible;
mod process;
mod steps;
mod table;
mod writing;

use outpour_schemas::invariants;
use stateright::{Model, Property};

pub use self::{
    batch::Item,
    group::{Content, First, Group, Note, Pending, Plan},
    process::{Phase, Process, Todo},
    steps::{Action, Who},
    table::{Insert, Part, Request, Table, Token, Waiter},
};

/// What the protocol rests on. Each can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A batch is planned before it is inserted.
    PlansFirst,
    /// A plan is committed at the first offset of its batch, not at the last.
    CommitsTheStart,
    /// A range that was planned is read again to exactly the same end.
    KeepsTheRange,
    /// An insert carries a token.
    HasTokens,
    /// The table is asked what it has where the token cannot be relied on.
    AsksTheTable,
    /// A range that is planned anew goes under the token of its first plan.
    KeepsTheFirstToken,
    /// All of it does, while that is remembered, and not only what the table lacks.
    SendsItAgain,
    /// A part that is tried alone is planned first, and tried again as it was.
    PlansParts,
    /// A commit is waited for before anything rests on it.
    AwaitsCommits,
    /// No commit is under way when the partition is given up.
    JoinsCommits,
    /// A plan is not committed before the letters that it names.
    LettersNotAfterPlan,
    /// Letters are not committed before the plan that names them.
    LettersNotBeforePlan,
    /// The transaction of the letters names the generation of the group.
    FencesLetters,
    /// Offsets in an open transaction are waited for.
    WaitsForPendingOffsets,
    /// What a plan names as parked is neither parked again nor stored.
    PassesOverParked,
    /// An offset that somebody has moved is told from an own one.
    NoticesMoves,
}

/// How often something may go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub crashes: u8,
    /// The group takes an owner for dead that lives.
    pub expulsions: u8,
    /// An owner gives the partition up in the middle of a commit.
    pub hand_overs: u8,
    /// An answer of ClickHouse's is lost, or not waited for any longer; or Kafka
    /// aborts the letters' transaction of an owner that is too slow.
    pub lost_answers: u8,
    /// The server dies with rows in the table that its view has not.
    pub torn: u8,
    /// Half an hour passes: a plan is trusted for less, a token is remembered for
    /// twice as long.
    pub half_hours: u8,
    /// The table's columns change.
    pub alters: u8,
    /// Somebody moves the group's offset back.
    pub moves: u8,
}

/// How late an insert may come that nobody waits for any more, and one that a
/// former owner was about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Within half an hour, and before anybody asks the table what it has.
    BeforeAsking,
    /// Whenever it likes.
    Ever,
}

#[derive(Clone, Debug)]
pub struct ConsumerModel {
    pub log: Vec<Item>,
    /// How much of the log can be read at first, and later.
    pub shown: Vec<u8>,
    pub faults: Faults,
    pub late: Late,
    /// How many inserts the table remembers.
    pub window: usize,
    /// Whether an insert that is tried for so long that its plan is not trusted any
    /// more goes on by asking the table, as the consumer's does.
    pub asks_when_old: bool,
    /// The rule that does not hold.
    pub without: Option<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Offsets before it can be read.
    pub visible: u8,
    /// In half hours.
    pub clock: u8,
    pub is_altered: bool,
    /// Somebody has moved the group's offset.
    pub was_moved: bool,
    pub group: Group,
    pub owner: Option<Process>,
    pub former: Option<Process>,
    pub table: Table,
    /// What has been made of its rows.
    pub view: Table,
    pub requests: Vec<Request>,
    /// Letters that readers of committed records find, by offset.
    pub letters: Vec<u8>,
    pub faults: Faults,
}

impl ConsumerModel {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Offsets of all records, of which the log has fewer than offsets.
    fn records(&self, visible: u8) -> impl Iterator<Item = u8> {
        (0..visible).filter(|offset| self.log[usize::from(*offset)] != Item::Marker)
    }

    /// Whether nothing is left to happen.
    fn is_over(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.is_empty()
    }
}

impl State {
    /// Whether a record has become a row or a letter.
    fn is_kept(&self, offset: u8) -> bool {
        let at = usize::from(offset);
        invariants::is_kept(self.table.rows[at].into(), self.letters[at].into())
    }

    /// Whether the owner is in the middle of a transaction.
    fn owner_parks(&self) -> bool {
        self.owner.is_some_and(|owner| matches!(owner.phase, Phase::Parking { .. }))
    }
}

/// Each offset as often as it was counted.
fn repeated(counts: &[u8]) -> impl Iterator<Item = usize> {
    counts.iter().enumerate().flat_map(|(at, count)| (0..*count).map(move |_| at))
}

impl Model for ConsumerModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            visible: self.shown[0],
            clock: 0,
            is_altered: false,
            was_moved: false,
            group: Group::default(),
            owner: None,
            former: None,
            table: Table::new(self.log.len()),
            view: Table::new(self.log.len()),
            requests: Vec::new(),
            letters: vec![0; self.log.len()],
            faults: self.faults.clone(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        possible::possible(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        steps::take(self, &mut state, action);
        // The order in which they were sent means nothing.
        state.requests.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I4", |model: &Self, state: &State| {
                let kept = (0..state.visible).filter(|offset| state.is_kept(*offset));
                invariants::all_arrive(model.records(state.visible), kept) || !model.is_over(state)
            }),
            Property::always("I5", |_, state: &State| {
                invariants::each_once(repeated(&state.table.rows))
            }),
            Property::always("I5 of the letters", |_, state: &State| {
                // What is read anew because somebody wants it to is parked anew.
                state.was_moved || invariants::each_once(repeated(&state.letters))
            }),
            Property::always("no record is both stored and parked", |_, state: &State| {
                let both = state.table.rows.iter().zip(&state.letters);
                both.into_iter().all(|(rows, letters)| *rows == 0 || *letters == 0)
            }),
            Property::always("I6", |model: &Self, state: &State| {
                let open = model.records(state.visible).filter(|offset| !state.is_kept(*offset));
                invariants::passes_nothing_open(state.group.offset, open)
            }),
            Property::always("I6 a plan begins where it stands", |_, state: &State| {
                let Note::Plan(plan) = &state.group.note else { return true };
                invariants::begins_at(&(plan.start..plan.end), &state.group.offset)
            }),
            Property::always("the view has what the table has", |model: &Self, state: &State| {
                state.view.rows == state.table.rows || !model.is_over(state)
            }),
            Property::always("the lag is 0 in the end", |model: &Self, state: &State| {
                let is_at_end = usize::from(state.group.offset) == model.log.len()
                    && !matches!(state.group.note, Note::Plan(_));
                is_at_end || !model.is_over(state)
            }),
            Property::sometimes("all is stored or parked", |model: &Self, state: &State| {
                model.is_over(state)
            }),
        ]
    }
}
