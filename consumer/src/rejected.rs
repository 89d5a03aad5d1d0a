//! Which records of a batch were rejected, small enough to stand in a plan.
//!
//! Dead letters are written together with the plan that names their offsets.
//! Whoever reads the range again knows by it which letters are there already,
//! and neither writes them twice nor stores such a record after all.
//!
//! As text, for each route the runs of offsets, by their distance from the end of
//! the run before: `100,4,2+3` is 100, then 105, then 108, 109 and 110.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

/// A route, as a plan names it: short, and the same after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteId(u32);

impl RouteId {
    /// For records that no route takes.
    pub const NONE: RouteId = RouteId(0);

    /// Of the route that writes to `target`.
    #[must_use]
    pub fn of(target: &str) -> Self {
        let hash = XxHash3_128::oneshot(target.as_bytes());
        // A part of it will do.
        RouteId((hash as u32).max(1))
    }

    pub(crate) fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

/// Offsets by the route that rejected them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, String>", try_from = "BTreeMap<String, String>")]
pub struct Rejected(BTreeMap<RouteId, Runs>);

/// Ranges of offsets in ascending order, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Runs {
    runs: Vec<Range<i64>>,
    /// The text of all but the last, which may still grow.
    closed: String,
}

/// Text that [`Rejected`] has not written.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no list of offsets")]
pub struct RejectedError(String);

impl Rejected {
    /// Adds an offset above all others of the route.
    pub fn add(&mut self, route: RouteId, offset: i64) {
        self.0.entry(route).or_default().add(offset..offset + 1);
    }

    #[must_use]
    pub fn contains(&self, route: RouteId, offset: i64) -> bool {
        self.0.get(&route).is_some_and(|runs| runs.contains(offset))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every rejection, route by route.
    pub fn iter(&self) -> impl Iterator<Item = (RouteId, i64)> {
        self.0.iter().flat_map(|(route, runs)| {
            runs.runs.iter().cloned().flatten().map(move |offset| (*route, offset))
        })
    }

    /// The most bytes that it takes in a plan, one more rejection by each of its
    /// routes included.
    #[must_use]
    pub fn text_size(&self) -> usize {
        /// The route's name and what stands around it.
        const NAME: usize = 14;
        self.0.values().map(|runs| NAME + runs.closed.len() + 2 * Runs::LONGEST).sum()
    }
}

impl Runs {
    /// Two numbers of 19 digits with what separates them.
    const LONGEST: usize = 40;

    fn add(&mut self, run: Range<i64>) {
        debug_assert!(self.end() <= run.start, "offsets ascend");
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => {
                self.closed = self.text();
                self.runs.push(run);
            }
        }
    }

    fn end(&self) -> i64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    fn contains(&self, offset: i64) -> bool {
        let after = self.runs.partition_point(|run| run.start <= offset);
        after.checked_sub(1).is_some_and(|at| self.runs[at].contains(&offset))
    }

    fn text(&self) -> String {
        let mut text = self.closed.clone();
        let Some((last, before)) = self.runs.split_last() else { return text };
        let gap = last.start - before.last().map_or(0, |run| run.end);
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        match last.end - last.start {
            1 => write!(text, "{comma}{gap}").ok(),
            length => write!(text, "{comma}{gap}+{length}").ok(),
        };
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut runs = Runs::default();
        for part in text.split(',') {
            let (gap, length) = part.split_once('+').unwrap_or((part, "1"));
            let (gap, length): (i64, i64) = (gap.parse().ok()?, length.parse().ok()?);
            if gap < 0 || length < 1 {
                return None;
            }
            let start = runs.end().checked_add(gap)?;
            runs.add(start..start.checked_add(length)?);
        }
        Some(runs)
    }
}

impl From<Rejected> for BTreeMap<String, String> {
    fn from(rejected: Rejected) -> Self {
        rejected.0.iter().map(|(route, runs)| (format!("{:08x}", route.0), runs.text())).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for Rejected {
    type Error = RejectedError;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let parse = |(route, text): (String, String)| {
            let parsed = u32::from_str_radix(&route, 16).ok().zip(Runs::parse(&text));
            let (route, runs) = parsed.ok_or(RejectedError(text))?;
            Ok((RouteId(route), runs))
        };
        texts.into_iter().map(parse).collect::<Result<_, _>>().map(Rejected)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn of(offsets: impl IntoIterator<Item = (u32, i64)>) -> Rejected {
        let mut rejected = Rejected::default();
        for (route, offset) in offsets {
            rejected.add(RouteId(route), offset);
        }
        rejected
    }

    #[test]
    fn runs_are_short() {
        let offsets = [100, 105, 108, 109, 110].map(|offset| (7, offset));
        let text = serde_json::to_string(&of(offsets)).unwrap();
        assert_eq!(text, r#"{"00000007":"100,4,2+3"}"#);
        let all = of((0..1_000_000).map(|offset| (1, offset)));
        assert!(all.text_size() < 200, "{}", all.text_size());
    }

    #[test]
    fn a_route_is_the_same_after_a_restart_and_none_is_no_route() {
        assert_eq!(RouteId::of("db.flights#0"), RouteId(213_204_017));
        assert_ne!(RouteId::of(""), RouteId::NONE);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", ",", "x", "1+0", "-1", "1,-1", "9223372036854775807+2", "1+"] {
            let json = serde_json::json!({ "1": text }).to_string();
            assert!(serde_json::from_str::<Rejected>(&json).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Rejected>(r#"{"route":"1"}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_was_added_is_there_and_survives_its_text(
            offsets in btree_set((0..3_u32, prop_oneof![0..40_i64, 0..i64::MAX]), 0..60)
        ) {
            let rejected = of(offsets.iter().copied());
            let text = serde_json::to_string(&rejected).unwrap();
            prop_assert!(text.len() <= rejected.text_size() + 2, "{text}");
            prop_assert_eq!(rejected.iter().collect::<Vec<_>>(),
                offsets.iter().map(|(r, o)| (RouteId(*r), *o)).collect::<Vec<_>>());
            for near in 0..42 {
                for route in 0..3 {
                    let expected = offsets.contains(&(route, near));
                    prop_assert_eq!(rejected.contains(RouteId(route), near), expected);
                }
            }
            let back: Rejected = serde_json::from_str(&text).unwrap();
            // The last run of what is read is closed as the first was written.
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), rejected.iter().collect::<Vec<_>>());
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
