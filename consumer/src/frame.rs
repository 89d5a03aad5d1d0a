//! What a replay keeps beside each committed offset of its group: what it was
//! asked for, and where the partition ends. Pure.
//!
//! It is written once, before the group is first joined, and carried along in
//! every plan and commit. Whoever goes on after a crash therefore has the bounds
//! that the first start had, whatever the topic has grown to since.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;
use uuid::Uuid;

use crate::plan::STORED;

/// Metadata of an offset from which nothing was read yet, while the tables may
/// have rows of what follows.
const BEGUN: &str = "outpour: replay";

/// The part of one partition that is replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Tells what was asked for from anything else.
    pub job: String,
    /// First offset.
    pub from: i64,
    /// One past the last.
    pub until: i64,
    /// When the replay began, in milliseconds since the Unix epoch: it sets its
    /// deduplication tokens apart from those of any other.
    pub began_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
}

/// The tables that are to be exchanged, as they were before: names change hands,
/// UUIDs do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    pub live: Uuid,
    pub shadow: Uuid,
    /// Whether it is about what the live table got before the exchange and the
    /// shadow did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_after: bool,
}

impl Frame {
    /// The name of what was asked for.
    #[must_use]
    pub fn job(asked_for: &str) -> String {
        format!("{:016x}", XxHash3_64::oneshot(asked_for.as_bytes()))
    }

    /// The frame in an offset's metadata that holds no plan.
    #[must_use]
    pub fn parse(metadata: &str) -> Option<Frame> {
        let text = metadata.strip_prefix(STORED).or_else(|| metadata.strip_prefix(BEGUN))?;
        serde_json::from_str(text).ok()
    }

    /// What stands beside an offset up to which everything is stored. `may_be_there`:
    /// the tables may have rows of what follows, and are asked.
    #[must_use]
    pub fn metadata(&self, may_be_there: bool) -> String {
        let prefix = if may_be_there { BEGUN } else { STORED };
        // Strings and numbers alone: it cannot fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{prefix} {text}")
    }

    /// Part of every token.
    #[must_use]
    pub(crate) fn epoch(&self) -> String {
        format!("replay-{}-{}", self.job, self.began_at_ms)
    }

    #[must_use]
    pub(crate) fn began_at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.began_at_ms).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn frame() -> Frame {
        let swap = Swap { live: Uuid::nil(), shadow: Uuid::max(), is_after: true };
        Frame { job: Frame::job("x"), from: 1, until: 9, began_at_ms: 5, swap: Some(swap) }
    }

    #[test]
    fn a_frame_survives_its_metadata_and_is_no_plan() {
        for may_be_there in [true, false] {
            let metadata = frame().metadata(may_be_there);
            assert_eq!(Frame::parse(&metadata), Some(frame()));
            assert_eq!(Plan::parse(&metadata).unwrap(), None);
            assert_eq!(metadata.starts_with(STORED), !may_be_there);
        }
    }

    #[test]
    fn metadata_of_others_holds_no_frame() {
        for metadata in ["", STORED, "outpour: replay {", "{}", "x"] {
            assert_eq!(Frame::parse(metadata), None, "{metadata}");
        }
    }
}
