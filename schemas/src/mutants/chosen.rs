//! The mutant that this process is.

use std::{process::exit, sync::OnceLock};

use super::{Mutant, VARIABLE};

/// As for a configuration that is wrong.
const USAGE: i32 = 2;

/// Read once: a process is one mutant for its life. A name that is none ends it,
/// since tests of a mutant that is not there would prove nothing.
fn chosen() -> Option<Mutant> {
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var_os(VARIABLE)?;
        let mutant = name.to_str().and_then(Mutant::named);
        if mutant.is_none() {
            let known = Mutant::ALL.map(Mutant::name).join(", ");
            eprintln!("error: {VARIABLE}={} is no mutant; there are {known}", name.display());
            exit(USAGE);
        }
        mutant
    })
}

/// Whether the rule is to be broken.
#[must_use]
pub fn active(mutant: Mutant) -> bool {
    chosen() == Some(mutant)
}

/// Says which rule does not hold, or ends the process if there is no such rule.
#[cfg(feature = "program")]
pub fn announce() {
    if let Some(mutant) = chosen() {
        let facts = mutant.facts();
        tracing::warn!(
            mutant = facts.name,
            does = facts.does,
            "THIS IS A MUTANT: a rule is broken on purpose, and events will be lost, doubled or bent"
        );
    }
}
