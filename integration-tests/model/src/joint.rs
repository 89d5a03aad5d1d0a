//! Two partitions of one record each, and an insert that has both.
//!
//! Their first owner has planned it. It is followed, in one partition after the other or
//! in both at once, by heirs that do not know of each other. Requests to ClickHouse have a
//! life of their own.

use outpour_schemas::invariants;
use stateright::{Model, Property};

const PARTITIONS: [usize; 2] = [0, 1];

/// What joint inserts rest on. Each can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An answer to the joint insert counts only while no member has left.
    BelievesTheWhole,
    /// Whoever goes on alone sends its rows before it asks the table,
    SendsItAgain,
    /// under the token of the joint insert,
    SharesTheToken,
    /// and then what the table has not got all the same.
    SendsTheRest,
}

/// How often something may go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A program dies; one that goes on alone is started again.
    pub crashes: u8,
    /// The group takes the first owner for dead that lives.
    pub expulsions: u8,
    /// The first owner gives one partition up, and keeps the other.
    pub hand_overs: u8,
    /// An answer of ClickHouse's is lost, or not waited for any longer.
    pub lost_answers: u8,
}

#[derive(Clone, Debug)]
pub struct JointModel {
    pub faults: Faults,
    /// The rule that does not hold.
    pub without: Option<Rule>,
}

/// How far whoever goes on with one partition alone has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alone {
    Begins,
    /// It waits for the answer to its rows under the joint token.
    Again,
    Asks,
    /// It waits for the answer to what was missing.
    Rest,
    IsStored,
    IsDone,
}

/// The first owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum First {
    /// It has planned the joint insert, and sends it.
    Sends,
    Waits,
    /// Each partition that it still has goes on by itself.
    Apart,
    IsGone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    Joint,
    Again(usize),
    Rest(usize),
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiter {
    Nobody,
    First,
    /// Whoever works on this partition alone.
    Alone(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub first: First,
    /// Whether the group knows the first owner still.
    pub is_known: bool,
    /// The partitions that it has not given up.
    pub members: [bool; 2],
    /// Who goes on alone, the first owner or an heir.
    pub alone: [Option<Alone>; 2],
    pub committed: [bool; 2],
    /// How many rows the table has of each record.
    pub rows: [u8; 2],
    /// The tokens that it knows: the joint one, those of rests, and those of nobody's making.
    pub joint: bool,
    pub rests: [bool; 2],
    pub others: [bool; 2],
    pub requests: Vec<(Rows, Waiter)>,
    pub faults: Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first owner sends the joint insert.
    Send,
    /// It stops waiting, and tries again or takes it apart.
    GiveUpWaiting,
    TakeApart,
    HandOver(usize),
    Expel,
    Crash,
    CrashAlone(usize),
    /// The step that comes next of who goes on alone.
    Step(usize),
    Arrive(usize),
    /// The same, and nobody hears of it.
    ArriveUnheard(usize),
}

impl JointModel {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn is_over(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.is_empty()
    }

    fn step(&self, state: &mut State, partition: usize) {
        let Some(alone) = state.alone[partition] else { return };
        state.alone[partition] = Some(match alone {
            Alone::Begins if self.keeps(Rule::SendsItAgain) => {
                state.requests.push((Rows::Again(partition), Waiter::Alone(partition)));
                Alone::Again
            }
            Alone::Begins | Alone::Asks => {
                let is_missing = state.rows[partition] == 0;
                if is_missing && self.keeps(Rule::SendsTheRest) {
                    state.requests.push((Rows::Rest(partition), Waiter::Alone(partition)));
                    Alone::Rest
                } else {
                    Alone::IsStored
                }
            }
            Alone::IsStored => {
                state.committed[partition] = true;
                Alone::IsDone
            }
            Alone::Again | Alone::Rest | Alone::IsDone => alone,
        });
    }

    /// The server takes a request, or knows its token.
    fn insert(&self, state: &mut State, rows: Rows) {
        let shares = self.keeps(Rule::SharesTheToken);
        let (token, of): (&mut bool, &[usize]) = match &rows {
            Rows::Joint => (&mut state.joint, &PARTITIONS),
            Rows::Again(of) if shares => (&mut state.joint, std::slice::from_ref(of)),
            Rows::Again(of) => (&mut state.others[*of], std::slice::from_ref(of)),
            Rows::Rest(of) => (&mut state.rests[*of], std::slice::from_ref(of)),
        };
        if !std::mem::replace(token, true) {
            of.iter().for_each(|partition| state.rows[*partition] += 1);
        }
    }

    fn answer(&self, state: &mut State, waiter: Waiter) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::First if state.first != First::Waits => {}
            Waiter::First => {
                let is_whole = state.members == [true; 2];
                let outcome = match is_whole || !self.keeps(Rule::BelievesTheWhole) {
                    true => Alone::IsStored,
                    false => Alone::Begins,
                };
                apart(state, outcome);
            }
            Waiter::Alone(partition) => match state.alone[partition] {
                Some(Alone::Again) => state.alone[partition] = Some(Alone::Asks),
                Some(Alone::Rest) => state.alone[partition] = Some(Alone::IsStored),
                _ => {}
            },
        }
    }
}

/// The partitions of the first owner go on by themselves. One that the group does not know
/// any more can commit nothing; what it sends alone, an heir sends as well.
fn apart(state: &mut State, from: Alone) {
    state.first = First::Apart;
    for partition in PARTITIONS {
        if state.members[partition] && state.is_known {
            state.alone[partition] = Some(from);
        }
    }
}

/// Nobody waits any more for what `waiter` has sent.
fn forget(state: &mut State, waiter: Waiter) {
    let ours = state.requests.iter_mut().filter(|(_, of)| *of == waiter);
    ours.for_each(|(_, of)| *of = Waiter::Nobody);
}

/// Somebody else reads the plan of a partition.
fn inherit(state: &mut State, partition: usize) {
    state.members[partition] = false;
    if !state.committed[partition] {
        forget(state, Waiter::Alone(partition));
        state.alone[partition] = Some(Alone::Begins);
    }
}

impl Model for JointModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            first: First::Sends,
            is_known: true,
            members: [true; 2],
            alone: [None; 2],
            committed: [false; 2],
            rows: [0; 2],
            joint: false,
            rests: [false; 2],
            others: [false; 2],
            requests: Vec::new(),
            faults: self.faults.clone(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { first, faults, .. } = state;
        if *first == First::Sends {
            actions.extend([Action::Send, Action::TakeApart]);
        }
        if *first == First::Waits && faults.lost_answers > 0 {
            actions.push(Action::GiveUpWaiting);
        }
        if state.is_known && *first != First::IsGone {
            if faults.expulsions > 0 {
                actions.push(Action::Expel);
            }
            if faults.crashes > 0 {
                actions.push(Action::Crash);
            }
        }
        for partition in PARTITIONS {
            let has_it = state.members[partition] && state.is_known;
            if has_it && *first != First::IsGone && faults.hand_overs > 0 {
                actions.push(Action::HandOver(partition));
            }
            match state.alone[partition] {
                None | Some(Alone::IsDone) => continue,
                Some(Alone::Again | Alone::Rest) => {}
                Some(_) => actions.push(Action::Step(partition)),
            }
            if faults.crashes > 0 {
                actions.push(Action::CrashAlone(partition));
            }
        }
        for place in 0..state.requests.len() {
            actions.push(Action::Arrive(place));
            if faults.lost_answers > 0 && state.requests[place].1 != Waiter::Nobody {
                actions.push(Action::ArriveUnheard(place));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send => {
                state.requests.push((Rows::Joint, Waiter::First));
                state.first = First::Waits;
            }
            Action::GiveUpWaiting => {
                state.faults.lost_answers -= 1;
                forget(&mut state, Waiter::First);
                state.first = First::Sends;
            }
            Action::TakeApart => apart(&mut state, Alone::Begins),
            Action::HandOver(partition) => {
                state.faults.hand_overs -= 1;
                inherit(&mut state, partition);
            }
            Action::Expel => {
                state.faults.expulsions -= 1;
                state.is_known = false;
                PARTITIONS.iter().for_each(|partition| inherit(&mut state, *partition));
                // It does not know, and goes on as if it had them.
                if matches!(state.first, First::Sends | First::Waits) {
                    state.members = [true; 2];
                }
            }
            Action::Crash => {
                state.faults.crashes -= 1;
                state.first = First::IsGone;
                forget(&mut state, Waiter::First);
                for partition in PARTITIONS {
                    if state.members[partition] {
                        inherit(&mut state, partition);
                    }
                }
            }
            Action::CrashAlone(partition) => {
                state.faults.crashes -= 1;
                inherit(&mut state, partition);
            }
            Action::Step(partition) => self.step(&mut state, partition),
            Action::Arrive(place) => {
                let (rows, waiter) = state.requests.remove(place);
                self.insert(&mut state, rows);
                self.answer(&mut state, waiter);
            }
            Action::ArriveUnheard(place) => {
                state.faults.lost_answers -= 1;
                let (rows, waiter) = state.requests.remove(place);
                self.insert(&mut state, rows);
                // It is sent again.
                match waiter {
                    Waiter::Nobody => {}
                    Waiter::First if state.first == First::Waits => state.first = First::Sends,
                    Waiter::First => {}
                    Waiter::Alone(_) => state.requests.push((rows, waiter)),
                }
            }
        }
        state.requests.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I4", |model: &Self, state: &State| {
                state.rows.iter().all(|rows| *rows > 0) || !model.is_over(state)
            }),
            Property::always("I5", |_, state: &State| {
                let stored = PARTITIONS
                    .iter()
                    .flat_map(|partition| (0..state.rows[*partition]).map(move |_| *partition));
                invariants::each_once(stored)
            }),
            Property::always("I6", |_, state: &State| {
                state.committed.iter().zip(state.rows).all(|(passed, rows)| !passed || rows > 0)
            }),
            Property::always("the lag is 0 in the end", |model: &Self, state: &State| {
                state.committed == [true; 2] || !model.is_over(state)
            }),
            Property::sometimes("all is stored", |model: &Self, state: &State| {
                model.is_over(state)
            }),
        ]
    }
}
