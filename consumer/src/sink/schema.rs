//! Tables as ClickHouse describes them.

use std::collections::BTreeMap;

use super::{Class, ClickHouse, SinkError};
use crate::{
    block::ColumnType,
    decode::PROVENANCE,
    deduplication::{Defaults, Memory},
    durability,
    merging::Merging,
    statement::literal,
    table::{DescribedColumn, SchemaError, TableName, TableSchema},
};

/// What there is to know of a table before rows are sent to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableFinding {
    pub(crate) columns: Vec<DescribedColumn>,
    /// What columns have by default, as JSON, where a NULL in the block cannot ask for it.
    pub(crate) constants: BTreeMap<String, String>,
    pub(crate) engine: String,
    /// Whether one insert may be several parts, each stored by itself.
    pub(crate) is_partitioned: bool,
    /// Whether materialised views get what it gets. Whoever may see the table is told of
    /// them, whatever rights there are on them.
    pub(crate) has_dependents: bool,
    /// Whether the user may see where its rows came from, of all of them.
    pub(crate) can_be_asked: bool,
    /// What it knows of the inserts that it has had.
    pub(crate) memory: Memory,
    /// Whether an insert is on the disk when it is confirmed.
    pub(crate) is_synced: bool,
    /// Whether rows go once they are too old.
    pub(crate) expires: bool,
    /// What it makes of its rows later.
    pub(crate) merging: Merging,
}

/// Engine, all of it, sorting key, whether there is a partition key, whether there are
/// views; windows and seconds of deduplication, and settings of fsync, as the server has
/// them.
type Engine = (String, String, String, u8, u8, String, String, String, String);

impl TableFinding {
    /// What rows of it are made of.
    ///
    /// # Errors
    /// Names the column whose type is not supported.
    pub(crate) fn schema(&self, name: TableName) -> Result<TableSchema, SchemaError> {
        Ok(TableSchema::of(name, &self.columns)?.with_constants(&self.constants))
    }

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
                        notEmpty(dependencies_table),
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
        let (engine, engine_full, sorting_key, partitioned, dependents, ..) = &found;
        let (is_partitioned, has_dependents) = (*partitioned != 0, *dependents != 0);
        let expires = engine_full.contains(" TTL ");
        let merging = Merging::of(engine, engine_full, sorting_key);
        let (engine, engine_full, _, _, _, local_window, shared_window, shared_seconds, synced) =
            found;
        let number = |text: String| text.parse().unwrap_or(0);
        let defaults = Defaults {
            local_window: number(local_window),
            shared_window: number(shared_window),
            shared_seconds: number(shared_seconds),
        };
        let columns: Vec<(String, String, String, String)> = self
            .fetch(
                self.query(
                    "SELECT name, type, default_kind, default_expression FROM system.columns \
                     WHERE database = ? AND table = ? ORDER BY position",
                )
                .bind(&name.database)
                .bind(&name.table),
            )
            .await?;
        let mut constants = BTreeMap::new();
        let mut described = Vec::new();
        for (name, type_name, default_kind, expression) in columns {
            let column = DescribedColumn { name, type_name, default_kind };
            if needs_constant(&column)
                && let Some(json) = self.constant(&expression, &column.type_name).await?
            {
                constants.insert(column.name.clone(), json);
            }
            described.push(column);
        }
        let can_be_asked = self.can_be_asked(name, &described).await?;
        let memory = Memory::of(&engine, &engine_full, defaults);
        let is_synced = durability::is_synced(&engine_full, &synced.split(',').collect::<Vec<_>>());
        Ok(Some(TableFinding {
            columns: described,
            constants,
            engine,
            is_partitioned,
            has_dependents,
            can_be_asked,
            memory,
            is_synced,
            expires,
            merging,
        }))
    }

    /// # Errors
    /// When that may be known later.
    async fn can_be_asked(
        &self,
        name: &TableName,
        described: &[DescribedColumn],
    ) -> Result<bool, SinkError> {
        let has = |wanted: &str| described.iter().any(|column| column.name == wanted);
        if !PROVENANCE.iter().all(|(column, _)| has(column)) {
            return Ok(false);
        }
        let sql = format!("SELECT _topic, _partition, _offset FROM {} LIMIT 0", name.quoted());
        let asking = async {
            self.check_sees_all(name).await?;
            self.fetch_bytes(&sql, "Null").await
        };
        match asking.await {
            Ok(_) => Ok(true),
            Err(error) if error.class() == Class::Transient => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The JSON of an expression that is the same for all rows, whenever it is computed;
    /// `None` of one that names other columns, or the time of day.
    async fn constant(&self, expression: &str, kind: &str) -> Result<Option<String>, SinkError> {
        // Servers call the column `deterministic` or `is_deterministic`.
        let moves = format!(
            "WITH (SELECT groupArray((name, COLUMNS('deterministic$'))) FROM system.functions)
                 AS functions
             SELECT toUInt8(arrayExists(f -> ifNull(f.2, 0) = 0
                 AND match({}, concat('(?i)\\\\b', f.1, '\\\\s*\\\\(')), functions))",
            literal(expression),
        );
        // By itself: what else had a name here would be taken for a column of that name.
        let json = format!(
            "SELECT arrayFilter(json -> isValidUTF8(json), [toJSONString(CAST(({expression}), {}))])
             SETTINGS date_time_output_format = 'iso', output_format_json_quote_denormals = 1",
            literal(kind),
        );
        let asking = async {
            match self.fetch_raw::<u8>(&moves).await?.first() {
                Some(0) => self.fetch_raw::<Vec<String>>(&json).await,
                _ => Ok(Vec::new()),
            }
        };
        match asking.await {
            Ok(found) => Ok(found.into_iter().flatten().next()),
            Err(error) if error.code.is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether what stands for an absent value has to be sent: NULL has no place in these types,
/// and beneath an EPHEMERAL column others would be computed from it.
fn needs_constant(column: &DescribedColumn) -> bool {
    match column.default_kind.as_str() {
        "EPHEMERAL" => true,
        "DEFAULT" => column.type_name.parse().is_ok_and(|kind: ColumnType| kind.empty().is_some()),
        _ => false,
    }
}
