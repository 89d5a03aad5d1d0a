//! From PostgreSQL's log into Kafka.
//!
//! One relay streams the slot. Another one, [`State::former`], has lost its
//! connection and may not know it: whatever it does in Kafka it may do at any
//! later time. Those that wait for the slot have no state.

mod kafka;
mod possible;
mod postgres;
mod session;
mod steps;

use outpour_schemas::invariants;
use stateright::{Model, Property};

pub use self::{
    kafka::{Checkpoint, Kafka, Position},
    postgres::{Postgres, Slot},
    session::{Relay, Streaming},
    steps::{Action, Who},
};

/// What the protocol rests on. Each can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A new relay takes over the transactional id before anything else in Kafka.
    Fences,
    /// The checkpoint is read after fencing, not before.
    ReadsAfterFencing,
    /// Open transactions of other slots in the topic of checkpoints are waited for.
    WaitsForOpenTransactions,
    /// Records and their checkpoint are one Kafka transaction.
    CheckpointWithRecords,
    /// What is confirmed to PostgreSQL was committed by Kafka before.
    ConfirmsAfterCommit,
    /// The slot is compared with the checkpoint at the start.
    ComparesWithSlot,
    /// A checkpoint inside a transaction says at which row.
    CountsRows,
    /// A checkpoint before the rest of a transaction still says at which row.
    KeepsTheCount,
    /// A keepalive is acknowledged only when no record waits for its commit.
    AcknowledgesWhenIdle,
    /// The position of a keepalive is written to a checkpoint before it is confirmed.
    CheckpointsBeforeConfirming,
}

/// How often something may go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A relay that streams, dead.
    pub crashes: u8,
    /// PostgreSQL takes the connection for dead and frees the slot.
    pub drops: u8,
    /// Kafka aborts what has been open for too long.
    pub timeouts: u8,
    /// Another slot's relay opens a transaction in the topic of checkpoints.
    pub strangers: u8,
    /// Somebody advances the slot.
    pub slot_moves: u8,
}

#[derive(Clone, Debug)]
pub struct RelayModel {
    /// Transactions as they commit, by their number of events; 0 is one that has none.
    pub log: Vec<u8>,
    pub faults: Faults,
    /// The rule that does not hold.
    pub without: Option<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub active: Option<Relay>,
    pub former: Option<Relay>,
    /// A relay refused to start: a person has to look.
    pub refused: bool,
    pub faults: Faults,
}

impl RelayModel {
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Every row that a committed transaction of the database has.
    fn rows(&self, written: u8) -> impl Iterator<Item = Position> {
        (0..written)
            .flat_map(|entry| (0..self.log[usize::from(entry)]).map(move |o| (entry, o)))
            .map(|(entry, ordinal)| Position { commit_lsn: postgres::commit_lsn(entry), ordinal })
    }

    /// The first transaction from `entry` on that has an event: PostgreSQL sends
    /// nothing of the others.
    fn next_with_rows(&self, entry: u8) -> u8 {
        let mut rest = self.log.iter().skip(usize::from(entry));
        entry + rest.position(|rows| *rows > 0).unwrap_or(rest.len()) as u8
    }

    /// Whether nothing is left to happen.
    fn is_over(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.is_empty()
    }
}

impl Model for RelayModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            postgres: Postgres::default(),
            kafka: Kafka::default(),
            active: None,
            former: None,
            refused: false,
            faults: self.faults.clone(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        possible::possible(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        steps::take(self, &mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 arrives in the end", |model: &Self, state: &State| {
                let rows = model.rows(state.postgres.written);
                state.refused
                    || invariants::all_arrive(rows, state.kafka.read_committed())
                    || !model.is_over(state)
            }),
            Property::always(
                "I1 a checkpoint stands for what is there",
                |model: &Self, state: &State| {
                    let Some(newest) = state.kafka.newest_checkpoint() else { return true };
                    // Nobody publishes what somebody else has made the slot pass over.
                    let covered =
                        model.rows(state.postgres.written).filter(|row| newest.covers(*row));
                    state.postgres.slot.was_moved
                        || invariants::all_arrive(covered, state.kafka.read_committed())
                },
            ),
            Property::always("I2", |_, state: &State| {
                invariants::each_once(state.kafka.read_committed())
            }),
            Property::always("I3", |_, state: &State| {
                invariants::in_order(state.kafka.read_committed())
            }),
            Property::always("I7", |model: &Self, state: &State| {
                let published: Vec<_> = state.kafka.read_committed().collect();
                let open = model.rows(state.postgres.written);
                let open = open.filter(|row| !published.contains(row)).map(|row| row.commit_lsn);
                state.postgres.slot.was_moved
                    || invariants::passes_nothing_open(state.postgres.slot.confirmed, open)
            }),
            Property::always("a refusal tells a real gap", |_, state: &State| {
                !state.refused || state.postgres.slot.was_moved
            }),
            Property::sometimes("all is published and confirmed", |model: &Self, state: &State| {
                usize::from(state.postgres.written) == model.log.len()
                    && state.postgres.slot.confirmed == state.postgres.end()
                    && model.is_over(state)
            }),
        ]
    }
}
