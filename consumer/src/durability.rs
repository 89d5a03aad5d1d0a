//! Whether an insert is on the disk when ClickHouse confirms it. Pure.
//!
//! By default it is in the memory of the server's operating system: it outlives a
//! kill of the server, and not a power cut. The start of the consumer and its `doctor`
//! judge by this alike.

use crate::{deduplication::setting, table::TableName};

/// The settings of a table that have the files of an insert written through, and the
/// directory that names them.
pub(crate) const FSYNC: [&str; 2] = ["fsync_after_insert", "fsync_part_directory"];

/// Whether a table has them, as `system.tables` describes its engine. `by_default` are
/// those that the server's configuration gives to tables that say nothing.
pub(crate) fn is_synced(engine_full: &str, by_default: &[&str]) -> bool {
    FSYNC.iter().all(|name| match setting(engine_full, name) {
        Some(value) => matches!(value, "1" | "true"),
        None => by_default.contains(name),
    })
}

/// As they stand in SQL.
pub(crate) fn settings() -> String {
    FSYNC.map(|name| format!("{name} = 1")).join(", ")
}

/// The statement that gives them to a table.
pub(crate) fn alter(table: &TableName) -> String {
    format!("ALTER TABLE {} MODIFY SETTING {}", table.quoted(), settings())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_is_on_the_disk_where_the_table_or_the_server_says_both() {
        let with = |settings: &str| format!("MergeTree ORDER BY a SETTINGS x = 1{settings}");
        let both = with(&format!(", {}", self::settings()));
        assert!(is_synced(&both, &[]));
        assert!(!is_synced(&with(", fsync_after_insert = 1"), &[]));
        assert!(is_synced(&with(", fsync_after_insert = true"), &["fsync_part_directory"]));
        assert!(is_synced("MergeTree ORDER BY a", &FSYNC));
        assert!(!is_synced(&with(", fsync_after_insert = 0"), &FSYNC));
        assert!(!is_synced("Log", &[]));
    }
}
