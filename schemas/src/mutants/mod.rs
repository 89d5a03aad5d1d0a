//! Rules of the protocols that a test build can leave out, to show that the tests
//! would notice.
//!
//! Where a rule stands in the code, the program asks [`active`] whether it is to
//! break it. Without the feature `mutants` that is a constant, and nothing of it is
//! left in the program; with it, the variable `OUTPOUR_MUTANT` names the one rule
//! that does not hold. A release build refuses the feature.
//!
//! The rules are those that the model (`integration-tests/model`) takes away, and
//! some that it does not know. Not here: fencing of the letters' transaction, since the client
//! library makes no group metadata without a generation, and all that takes an hour
//! to show.

#[cfg(feature = "mutants")]
mod chosen;
mod list;

#[cfg(feature = "mutants")]
pub use self::chosen::{active, announce};

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` breaks what Outpour promises: it is for test builds alone");

/// Names the rule that does not hold, by its [`Mutant::name`].
pub const VARIABLE: &str = "OUTPOUR_MUTANT";

/// Whether the rule is to be broken.
#[cfg(not(feature = "mutants"))]
#[inline]
#[must_use]
pub const fn active(_: Mutant) -> bool {
    false
}

/// Which of the programs breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Relay,
    Consumer,
}

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    NoFencing,
    CheckpointBeforeFencing,
    CheckpointUnsettled,
    CheckpointOutside,
    NoCheckpoint,
    NoGapCheck,
    NoRowCount,
    RowCountForgotten,
    ConfirmEarly,
    KeepaliveInFlight,
    KeepaliveWithoutCheckpoint,
    AbortedIsDone,
    RandomPartition,
    NoPlan,
    PlanIgnored,
    PlanAtTheEnd,
    CommitUnawaited,
    NoHandOver,
    NoToken,
    TokenPerOwner,
    NoProvenance,
    FirstTokenForgotten,
    RestLeftOut,
    MovesIgnored,
    LettersOutside,
    LettersAfterPlan,
    LettersAgain,
    RefusedIsDone,
    InsertGivenUp,
    ReadUncommitted,
    BentValue,
}

/// What is to be known of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What [`VARIABLE`] says; it does not change.
    pub name: &'static str,
    pub program: Program,
    /// What the program does that it must not.
    pub does: &'static str,
    /// The invariant that falls, of docs/architecture.md, and how that looks.
    pub breaks: &'static str,
    /// What has to happen for that.
    pub shows: &'static str,
}

impl Mutant {
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_by_which_it_is_found() {
        let names: BTreeSet<_> = Mutant::ALL.into_iter().map(Mutant::name).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(mutant));
            let is_kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(mutant.name().chars().all(is_kebab), "{mutant:?}");
        }
        assert_eq!(Mutant::named("no-such-rule"), None);
        assert_eq!(Mutant::named(""), None);
    }

    #[test]
    fn each_says_which_invariant_falls_and_what_it_takes() {
        for mutant in Mutant::ALL {
            let Facts { does, breaks, shows, .. } = mutant.facts();
            assert!(!does.is_empty() && !shows.is_empty(), "{mutant:?}");
            let invariant = (1..=8).map(|number| format!("I{number}"));
            let names_one = invariant.into_iter().any(|name| breaks.starts_with(&name));
            assert!(names_one || breaks.starts_with("values"), "{mutant:?}: {breaks}");
        }
    }

    #[test]
    fn no_rule_is_broken_unless_it_is_named() {
        for mutant in Mutant::ALL {
            assert!(!active(mutant), "{mutant:?} without {VARIABLE}");
        }
    }
}
