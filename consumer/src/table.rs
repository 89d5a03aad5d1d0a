//! A table of ClickHouse, as far as rows are written to it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    block::{Block, Cell, Column, ColumnType, TypeError},
    statement,
};

/// `database.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub database: String,
    pub table: String,
}

impl TableName {
    /// `table` or `database.table`, as the configuration has it.
    #[must_use]
    pub fn parse(text: &str, default_database: &str) -> Self {
        let (database, table) = text.split_once('.').unwrap_or((default_database, text));
        TableName { database: database.to_owned(), table: table.to_owned() }
    }

    /// As SQL takes it, whatever the names hold.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.database), quoted(&self.table))
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// An identifier between backticks.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("`{}`", identifier.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A column as ClickHouse describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedColumn {
    pub name: String,
    /// As `system.columns` prints it.
    pub type_name: String,
    /// Empty, `DEFAULT`, `MATERIALIZED`, `ALIAS` or `EPHEMERAL`.
    pub default_kind: String,
}

/// The columns that rows are written to.
#[derive(Debug, Clone)]
pub struct TableSchema {
    pub name: TableName,
    pub columns: Vec<SchemaColumn>,
    /// What cannot be written, and ClickHouse fills.
    pub left_out: Vec<SchemaError>,
    /// All columns, as ClickHouse describes them.
    pub described: Arc<[DescribedColumn]>,
    /// Tells all that the table was described with from anything else.
    fingerprint: u64,
}

#[derive(Debug, Clone)]
pub struct SchemaColumn {
    pub column: Column,
    pub nullable: bool,
    /// Whether the table has a DEFAULT for it.
    pub has_default: bool,
    /// EPHEMERAL: other columns are computed from it, and it is not stored.
    pub is_ephemeral: bool,
    /// The JSON of what it has where the record has no value, if that is one for all rows.
    pub constant: Option<Arc<str>>,
}

/// A column of a type that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` of table {table}")]
pub struct SchemaError {
    pub table: String,
    pub column: String,
    pub source: TypeError,
}

impl TableSchema {
    /// The schema of `described`, less what ClickHouse computes itself, and what it fills
    /// because its type cannot be written: what an INSERT names.
    ///
    /// # Errors
    /// Names the column whose type is not supported, and that has nothing to be filled with.
    pub fn of(name: TableName, described: &[DescribedColumn]) -> Result<Self, SchemaError> {
        let (mut columns, mut left_out) = (Vec::new(), Vec::new());
        let written = |column: &&DescribedColumn| {
            matches!(column.default_kind.as_str(), "" | "DEFAULT" | "EPHEMERAL")
        };
        for column in described.iter().filter(written) {
            let has_default = !column.default_kind.is_empty();
            let kind: ColumnType = match column.type_name.parse() {
                Ok(kind) => kind,
                Err(source) => {
                    let (table, name) = (name.to_string(), column.name.clone());
                    let unsupported = SchemaError { table, column: name, source };
                    if !has_default && !takes_null(&column.type_name) {
                        return Err(unsupported);
                    }
                    left_out.push(unsupported);
                    continue;
                }
            };
            let nullable = kind.is_nullable();
            let plain = Column::new(&column.name, kind);
            columns.push(SchemaColumn {
                column: if has_default { plain.with_default() } else { plain },
                nullable,
                has_default,
                is_ephemeral: column.default_kind == "EPHEMERAL",
                constant: None,
            });
        }
        let fingerprint = statement::fingerprint(described);
        Ok(TableSchema { name, columns, left_out, described: described.into(), fingerprint })
    }

    /// The same with what columns have by default, as JSON, where ClickHouse cannot be asked
    /// for it row by row. What does not fit its column after all is left out.
    #[must_use]
    pub fn with_constants(mut self, constants: &BTreeMap<String, String>) -> Self {
        for column in &mut self.columns {
            let Some(json) = constants.get(column.column.name()) else { continue };
            let plain = Column::new(column.column.name(), column.column.column_type().clone());
            if Block::new([plain.clone()].into()).push_row(&[Cell::Json(json)]).is_ok() {
                (column.column, column.constant) = (plain, Some(json.as_str().into()));
            }
        }
        self
    }

    /// The INSERT that a block of `columns` follows. ClickHouse refuses it as soon as the
    /// table is not described as it was.
    #[must_use]
    pub fn insert_sql(&self, columns: &[Column]) -> Arc<str> {
        statement::whole(&self.insert(columns)).into()
    }

    /// The same, to which conditions may be added.
    pub(crate) fn insert(&self, columns: &[Column]) -> String {
        let columns =
            columns.iter().map(|column| (column.name().to_owned(), column.wire_type().to_string()));
        statement::insert(&self.name, columns, self.fingerprint)
    }
}

/// Whether a column of this type, which is not one of those that can be written, is NULL
/// where it is left out.
fn takes_null(type_name: &str) -> bool {
    let kinds = ["Nullable(", "LowCardinality(Nullable(", "Variant(", "Dynamic"];
    kinds.iter().any(|kind| type_name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: &[(&str, &str, &str)]) -> Result<TableSchema, SchemaError> {
        let described = columns.iter().map(|(name, type_name, default_kind)| DescribedColumn {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            default_kind: (*default_kind).to_owned(),
        });
        TableSchema::of(TableName::parse("t", "db"), &described.collect::<Vec<_>>())
    }

    #[test]
    fn what_cannot_be_written_is_left_out_where_it_has_something_to_be_filled_with() {
        let found = schema(&[
            ("n", "UInt8", ""),
            ("v", "Variant(String, UInt64)", ""),
            ("d", "Dynamic", ""),
            ("s", "AggregateFunction(sum, UInt64)", "DEFAULT"),
            ("m", "AggregateFunction(max, UInt64)", "MATERIALIZED"),
        ]);
        let found = found.unwrap();
        let left_out: Vec<_> = found.left_out.iter().map(|left| left.column.as_str()).collect();
        assert_eq!((found.columns.len(), left_out), (1, vec!["v", "d", "s"]));
        let refused = schema(&[("s", "AggregateFunction(sum, UInt64)", "")]).unwrap_err();
        assert_eq!(refused.column, "s");
    }
}
