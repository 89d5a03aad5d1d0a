//! How far a snapshot is, as the checkpoint keeps it. Pure.

use outpour_schemas::{
    Lsn, Position,
    config::{Config, SnapshotMode},
};
use serde::{Deserialize, Serialize};

use crate::relay::Checkpoint;

/// The snapshot's part of a checkpoint. It stays there when it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Published so far.
    pub rows: u64,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
    pub done: bool,
}

/// A row's place in the order of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// In PostgreSQL's text.
    pub id: String,
    /// Comes before the id in the order, where the table has such a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimePlace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimePlace {
    /// Kept, so that a snapshot ends in the order in which it began.
    pub column: String,
    /// In PostgreSQL's text; absent for NULL, which comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A snapshot, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SnapshotProgress {
    pub rows: u64,
    pub done: bool,
}

impl Snapshot {
    #[must_use]
    pub fn progress(&self) -> SnapshotProgress {
        SnapshotProgress { rows: self.rows, done: self.done }
    }

    /// The position of the next row. No transaction has one that low: a
    /// database's log begins behind its first segment.
    pub(super) fn next_position(&self) -> Position {
        // Both halves of the count, so that it cannot overflow.
        let ordinal = u32::try_from(self.rows & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Position { commit_lsn: Lsn(self.rows >> 32), ordinal }
    }
}

/// Says in the checkpoint whether a snapshot is to be taken. Only a first start
/// begins one: later ones would publish again what came by the log.
pub(in crate::relay) fn decide(
    checkpoint: Checkpoint,
    is_first_start: bool,
    config: &Config,
) -> Checkpoint {
    let mode = match config.relay.snapshot {
        // Events that are messages have been nowhere but in the log.
        _ if !config.outbox.has_table() => SnapshotMode::Never,
        mode => mode,
    };
    let snapshot = match (mode, checkpoint.snapshot) {
        (SnapshotMode::Initial | SnapshotMode::Only, None) if is_first_start => {
            Some(Snapshot::default())
        }
        // Forgotten, since what is streamed from now on it could not tell from
        // what is older than the slot.
        (SnapshotMode::Never, Some(Snapshot { done: false, rows, .. })) => {
            tracing::warn!(rows, "unfinished snapshot given up (relay.snapshot = \"never\")");
            None
        }
        (_, snapshot) => snapshot,
    };
    Checkpoint { snapshot, ..checkpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(snapshot: Option<Snapshot>) -> Checkpoint {
        Checkpoint {
            system_identifier: "1".to_owned(),
            timeline: 1,
            end_lsn: Lsn(7),
            within: None,
            snapshot,
            sequence: 0,
        }
    }

    #[test]
    fn only_a_first_start_begins_a_snapshot_and_only_never_gives_one_up() {
        let (begun, half) = (Snapshot::default(), Snapshot { rows: 5, ..Snapshot::default() });
        let done = Snapshot { rows: 9, after: None, done: true };
        let cases = [
            (SnapshotMode::Initial, true, None, Some(&begun)),
            (SnapshotMode::Only, true, None, Some(&begun)),
            (SnapshotMode::Never, true, None, None),
            (SnapshotMode::Initial, false, None, None),
            (SnapshotMode::Only, false, None, None),
            (SnapshotMode::Initial, false, Some(&half), Some(&half)),
            (SnapshotMode::Never, false, Some(&half), None),
            (SnapshotMode::Never, false, Some(&done), Some(&done)),
            (SnapshotMode::Initial, false, Some(&done), Some(&done)),
        ];
        for (mode, is_first, found, expected) in cases {
            let mut config = Config::default();
            config.relay.snapshot = mode;
            let decided = decide(checkpoint(found.cloned()), is_first, &config);
            assert_eq!(decided.snapshot.as_ref(), expected, "{mode:?} {is_first} {found:?}");
        }
        let mut config = Config::default();
        config.outbox.table.clear();
        assert_eq!(decide(checkpoint(None), true, &config).snapshot, None, "there is no table");
    }

    #[test]
    fn positions_increase_past_what_an_ordinal_holds_and_stay_below_every_log() {
        let at = |rows| Snapshot { rows, ..Snapshot::default() }.next_position();
        let counts = [0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 40];
        for pair in counts.windows(2) {
            assert!(at(pair[0]) < at(pair[1]), "{pair:?}");
        }
        assert_eq!(at(3).to_string(), "0/0/3");
        let first_segment = Position { commit_lsn: Lsn(1 << 20), ordinal: 0 };
        assert!(at(1 << 50) < first_segment);
    }

    #[test]
    fn a_checkpoint_of_before_snapshots_can_be_read() {
        let text = r#"{"system_identifier":"1","timeline":1,"end_lsn":"0/7","sequence":3}"#;
        assert_eq!(serde_json::from_str::<Checkpoint>(text).unwrap().snapshot, None);
    }
}
