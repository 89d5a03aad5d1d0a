//! Tables as ClickHouse describes them.

use super::{ClickHouse, SinkError};
use crate::table::{DescribedColumn, TableName};

/// What there is to know of a table before rows are sent to it.
#[derive(Debug, PartialEq)]
pub(crate) struct TableFinding {
    pub(crate) columns: Vec<DescribedColumn>,
    pub(crate) engine: String,
    /// Blocks whose tokens the table remembers; `None` where a replica set
    /// remembers them elsewhere.
    pub(crate) deduplication_window: Option<u64>,
}

impl ClickHouse {
    /// `None` if there is no such table.
    pub(crate) async fn find_table(
        &self,
        name: &TableName,
    ) -> Result<Option<TableFinding>, SinkError> {
        let engines: Vec<(String, String)> = self
            .within(async {
                let query = self.client().query(
                    "SELECT engine, engine_full FROM system.tables WHERE database = ? AND name = ?",
                );
                Ok(query.bind(&name.database).bind(&name.table).fetch_all().await?)
            })
            .await?;
        let Some((engine, engine_full)) = engines.into_iter().next() else { return Ok(None) };
        let columns: Vec<(String, String, String)> = self
            .within(async {
                let query = self.client().query(
                    "SELECT name, type, default_kind FROM system.columns \
                     WHERE database = ? AND table = ? ORDER BY position",
                );
                Ok(query.bind(&name.database).bind(&name.table).fetch_all().await?)
            })
            .await?;
        let columns = columns
            .into_iter()
            .map(|(name, type_name, default_kind)| DescribedColumn {
                name,
                type_name,
                default_kind,
            })
            .collect();
        let deduplication_window = window(&engine, &engine_full);
        Ok(Some(TableFinding { columns, engine, deduplication_window }))
    }
}

/// How many blocks a table of its own remembers. ClickHouse's default is none.
fn window(engine: &str, engine_full: &str) -> Option<u64> {
    if engine.starts_with("Replicated") || engine.starts_with("Shared") {
        return None;
    }
    const SETTING: &str = "non_replicated_deduplication_window = ";
    let Some(at) = engine_full.find(SETTING) else { return Some(0) };
    let rest = &engine_full[at + SETTING.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some(rest[..digits].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_none_unless_the_table_sets_one() {
        let plain = "MergeTree ORDER BY a SETTINGS index_granularity = 8192";
        assert_eq!(window("MergeTree", plain), Some(0));
        let set = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000, x = 1";
        assert_eq!(window("MergeTree", set), Some(1000));
        assert_eq!(window("ReplicatedMergeTree", ""), None);
    }
}
