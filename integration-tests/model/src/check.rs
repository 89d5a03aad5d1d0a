//! Going through every state that can be reached.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{BuildHasher, Hash, RandomState},
    time::Instant,
};

use stateright::{Checker, HasDiscoveries, Model};

/// What a whole search came to.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    /// States that differ.
    pub states: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
}

/// Goes through all states of `model`.
///
/// # Panics
/// When a property does not hold, with a short way to where it does not;
/// when one that should sometimes hold never does.
pub fn holds<M>(name: &str, model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Debug + Send + Sync + Clone + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    let found = Explored { states: checker.unique_state_count(), depth: checker.max_depth() };
    println!(
        "{name}: {} states, {} steps deep, {:.1?}",
        found.states,
        found.depth,
        began.elapsed()
    );
    checker.assert_properties();
    found
}

/// A short way to a state in which `property` does not hold, as the actions that
/// lead there.
///
/// # Panics
/// When it holds in every state.
pub fn breaks<M>(model: M, property: &'static str) -> Vec<M::Action>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Debug + Send + Sync + Clone + PartialEq,
{
    let is_asked = |found: &str| found == property;
    let known = model.properties().iter().any(|known| is_asked(known.name));
    assert!(known, "the model has no property `{property}`");
    // One thread finds the same way each time, and hardly a longer one than needed.
    let asked = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(asked).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("`{property}` holds in all {} states", checker.unique_state_count());
    };
    let actions = path.into_actions();
    println!("{property} after {} states by {actions:?}", checker.unique_state_count());
    actions
}

/// Whether every run comes to an end: no state can be reached from itself. Then a
/// property of all last states is one that every run comes to in the end.
pub fn every_run_ends<M>(model: &M) -> bool
where
    M: Model,
    M::State: Hash,
{
    let hashes = RandomState::new();
    // Whether all that follows a state has been looked at.
    let mut is_done: HashMap<u64, bool> = HashMap::new();
    for first in model.init_states() {
        let mut path = vec![(hashes.hash_one(&first), model.next_states(&first))];
        is_done.insert(path[0].0, false);
        while let Some((state, following)) = path.last_mut() {
            let Some(next) = following.pop() else {
                is_done.insert(*state, true);
                path.pop();
                continue;
            };
            let name = hashes.hash_one(&next);
            match is_done.get(&name) {
                Some(true) => {}
                Some(false) => return false,
                None => {
                    is_done.insert(name, false);
                    path.push((name, model.next_states(&next)));
                }
            }
        }
    }
    true
}

const THREADS: usize = 2;
