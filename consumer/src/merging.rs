//! What becomes of rows once ClickHouse merges the parts that they are in. Pure.
//!
//! A row that was merged into another is not missing, and storing it again is not
//! harmless: it may come out on top of newer ones, or be counted twice.

use crate::{decode::PROVENANCE, table::TableName};

/// What an engine does with rows of one sorting key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merging {
    /// Nothing, or no two records have one key.
    Never,
    /// One stays: that of the highest version, or else the one that was stored last.
    Replaced { version: Option<String> },
    /// Rows of opposite signs go.
    Cancelled,
    /// They become one row that none of them was, its offset included.
    Combined,
}

impl Merging {
    /// That of a table whose engine and sorting key `system.tables` describes so.
    pub(crate) fn of(engine: &str, engine_full: &str, sorting_key: &str) -> Self {
        let kind = ["Replicated", "Shared"]
            .iter()
            .find_map(|prefix| engine.strip_prefix(prefix))
            .unwrap_or(engine);
        let keys: Vec<_> = sorting_key.split(',').map(str::trim).collect();
        let tells_records = PROVENANCE.iter().all(|(name, _)| keys.contains(name));
        match kind {
            _ if tells_records => Merging::Never,
            "ReplacingMergeTree" => Merging::Replaced { version: first_column(engine_full) },
            "CollapsingMergeTree" | "VersionedCollapsingMergeTree" => Merging::Cancelled,
            "MergeTree" => Merging::Never,
            // Summing, Aggregating, Coalescing, Graphite, and whatever comes.
            kind if kind.ends_with("MergeTree") => Merging::Combined,
            _ => Merging::Never,
        }
    }

    /// Whether a table comes to the same when a row is stored once more, after newer
    /// ones. `is_offset`: whether a column has the record's offset.
    pub(crate) fn takes_again(&self, is_offset: impl Fn(&str) -> bool) -> bool {
        match self {
            Merging::Never => true,
            Merging::Replaced { version } => version.as_deref().is_some_and(is_offset),
            Merging::Cancelled | Merging::Combined => false,
        }
    }

    /// What that means for who stores rows again; worded to follow the engine's name.
    pub(crate) fn harm(&self) -> &'static str {
        match self {
            Merging::Never => "which keeps every row",
            Merging::Replaced { .. } => {
                "which keeps the row of each sorting key that was stored last: one that is stored \
                 again takes the place of newer ones"
            }
            Merging::Cancelled => {
                "which removes rows of opposite signs: one that is stored again has nothing left to \
                 cancel it"
            }
            Merging::Combined => {
                "which makes one row of those of a sorting key: one that is stored again is counted \
                 twice, and nothing says which were"
            }
        }
    }

    /// How such a table can be what exactly-once needs.
    pub(crate) fn remedy(&self, table: &TableName) -> String {
        match self {
            Merging::Replaced { .. } => format!(
                "make {table} with ENGINE = ReplacingMergeTree(_offset), so that the offset decides, \
                 and not the time"
            ),
            _ => format!(
                "make {table} a MergeTree, with a materialised view on it that fills a table of this \
                 engine; or put _topic, _partition, _offset at the end of its ORDER BY"
            ),
        }
    }
}

/// The first parameter of an engine that names a column, after the path and the name
/// of a replica.
fn first_column(engine_full: &str) -> Option<String> {
    let (_, rest) = engine_full.split_once('(')?;
    // `ENGINE ORDER BY (…)`: what stands in parentheses are no parameters.
    if engine_full.find(' ').is_some_and(|space| space < engine_full.len() - rest.len()) {
        return None;
    }
    let (parameters, _) = rest.split_once(')')?;
    let mut names = parameters.split(',').map(str::trim);
    names.find(|name| !name.is_empty() && !name.starts_with('\'')).map(|name| {
        let bare = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        bare.unwrap_or(name).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(engine_full: &str, sorting_key: &str) -> Merging {
        let engine = engine_full.split([' ', '(']).next().unwrap();
        Merging::of(engine, engine_full, sorting_key)
    }

    fn replaced(version: Option<&str>) -> Merging {
        Merging::Replaced { version: version.map(str::to_owned) }
    }

    #[test]
    fn the_engine_says_what_becomes_of_rows() {
        assert_eq!(of("MergeTree ORDER BY (a, b) SETTINGS x = 1", "a, b"), Merging::Never);
        assert_eq!(of("ReplicatedMergeTree('/p', '{r}') ORDER BY a", "a"), Merging::Never);
        assert_eq!(of("ReplacingMergeTree ORDER BY (a, b)", "a, b"), replaced(None));
        assert_eq!(of("ReplacingMergeTree(v, gone) ORDER BY a", "a"), replaced(Some("v")));
        let replicated =
            "ReplicatedReplacingMergeTree('/a/{shard}', '{replica}', `v w`) ORDER BY a";
        assert_eq!(of(replicated, "a"), replaced(Some("v w")));
        let replicated = "ReplicatedReplacingMergeTree('/a/{shard}', '{replica}') ORDER BY a";
        assert_eq!(of(replicated, "a"), replaced(None));
        assert_eq!(of("SharedSummingMergeTree('/p', 'r', (n)) ORDER BY a", "a"), Merging::Combined);
        assert_eq!(of("AggregatingMergeTree ORDER BY a", "a"), Merging::Combined);
        assert_eq!(of("CoalescingMergeTree ORDER BY a", "a"), Merging::Combined);
        let collapsing = "VersionedCollapsingMergeTree(sign, v) ORDER BY a";
        assert_eq!(of(collapsing, "a"), Merging::Cancelled);
        assert_eq!(of("Log", ""), Merging::Never);
    }

    #[test]
    fn rows_of_which_each_has_a_key_of_its_own_stay() {
        let key = "a, _topic, _partition, _offset";
        assert_eq!(of("SummingMergeTree ORDER BY (a, _topic)", key), Merging::Never);
        assert_eq!(of("SummingMergeTree ORDER BY a", "a, _partition, _offset"), Merging::Combined);
    }

    #[test]
    fn an_offset_for_a_version_has_rows_come_in_any_order() {
        let is_offset = |column: &str| column == "_offset";
        assert!(Merging::Never.takes_again(is_offset));
        assert!(replaced(Some("_offset")).takes_again(is_offset));
        assert!(!replaced(Some("updated_at")).takes_again(is_offset));
        assert!(!replaced(None).takes_again(is_offset));
        assert!(!Merging::Combined.takes_again(is_offset));
    }
}
