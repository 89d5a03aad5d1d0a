//! Tables as ClickHouse describes them.

use super::{ClickHouse, SinkError};
use crate::{
    deduplication::{Defaults, Memory},
    durability,
    merging::Merging,
    table::{DescribedColumn, TableName},
};

/// What there is to know of a table before rows are sent to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableFinding {
    pub(crate) columns: Vec<DescribedColumn>,
    pub(crate) engine: String,
    /// Whether one insert may be several parts, each stored by itself.
    pub(crate) is_partitioned: bool,
    /// What it knows of the inserts that it has had.
    pub(crate) memory: Memory,
    /// Whether an insert is on the disk when it is confirmed.
    pub(crate) is_synced: bool,
    /// Whether rows go once they are too old.
    pub(crate) expires: bool,
    /// What it makes of its rows later.
    pub(crate) merging: Merging,
}

/// Engine, all of it, sorting key, whether there is a partition key; windows and seconds
/// of deduplication, and settings of fsync, as the server has them.
type Engine = (String, String, String, u8, String, String, String, String);

impl TableFinding {
    /// Whether it has replicas, each of which may not know yet what another was
    /// given.
    pub(crate) fn is_replicated(&self) -> bool {
        matches!(self.memory, Memory::Shared { .. })
    }
}

impl ClickHouse {
    /// `None` if there is no such table.
    pub(crate) async fn find_table(
        &self,
        name: &TableName,
    ) -> Result<Option<TableFinding>, SinkError> {
        // A table does not show what it has from the server's configuration.
        let engines: Vec<Engine> = self
            .fetch(
                self.query(
                    "SELECT engine, engine_full, sorting_key, partition_key != '',
                        ifNull((SELECT value FROM system.merge_tree_settings
                         WHERE name = 'non_replicated_deduplication_window'), ''),
                        ifNull((SELECT value FROM system.replicated_merge_tree_settings
                         WHERE name = 'replicated_deduplication_window'), ''),
                        ifNull((SELECT value FROM system.replicated_merge_tree_settings
                         WHERE name = 'replicated_deduplication_window_seconds'), ''),
                        arrayStringConcat((SELECT groupArray(name) FROM system.merge_tree_settings
                         WHERE startsWith(name, 'fsync_') AND value IN ('1', 'true')), ',')
                     FROM system.tables WHERE database = ? AND name = ?",
                )
                .bind(&name.database)
                .bind(&name.table),
            )
            .await?;
        let Some(found) = engines.into_iter().next() else { return Ok(None) };
        let (engine, engine_full, sorting_key, partitioned, ..) = &found;
        let (is_partitioned, expires) = (*partitioned != 0, engine_full.contains(" TTL "));
        let merging = Merging::of(engine, engine_full, sorting_key);
        let (engine, engine_full, _, _, local_window, shared_window, shared_seconds, synced) =
            found;
        let number = |text: String| text.parse().unwrap_or(0);
        let defaults = Defaults {
            local_window: number(local_window),
            shared_window: number(shared_window),
            shared_seconds: number(shared_seconds),
        };
        let columns: Vec<(String, String, String)> = self
            .fetch(
                self.query(
                    "SELECT name, type, default_kind FROM system.columns \
                     WHERE database = ? AND table = ? ORDER BY position",
                )
                .bind(&name.database)
                .bind(&name.table),
            )
            .await?;
        let columns = columns
            .into_iter()
            .map(|(name, type_name, default_kind)| DescribedColumn {
                name,
                type_name,
                default_kind,
            })
            .collect();
        let memory = Memory::of(&engine, &engine_full, defaults);
        let is_synced = durability::is_synced(&engine_full, &synced.split(',').collect::<Vec<_>>());
        Ok(Some(TableFinding {
            columns,
            engine,
            is_partitioned,
            memory,
            is_synced,
            expires,
            merging,
        }))
    }
}
