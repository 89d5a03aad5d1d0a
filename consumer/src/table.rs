//! A table of ClickHouse, as far as rows are written to it. Pure.

use std::sync::Arc;

use crate::block::{Column, ColumnType, TypeError};

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
}

#[derive(Debug, Clone)]
pub struct SchemaColumn {
    pub column: Column,
    pub nullable: bool,
    /// Whether the table has a DEFAULT for it.
    pub has_default: bool,
}

/// A column of a type that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("column `{column}` of table {table}")]
pub struct SchemaError {
    pub table: String,
    pub column: String,
    pub source: TypeError,
}

impl TableSchema {
    /// The schema of `described`, less what ClickHouse computes itself.
    ///
    /// # Errors
    /// Names the column whose type is not supported.
    pub fn of(name: TableName, described: &[DescribedColumn]) -> Result<Self, SchemaError> {
        let columns =
            described
                .iter()
                .filter(|column| matches!(column.default_kind.as_str(), "" | "DEFAULT"))
                .map(|column| {
                    let kind: ColumnType = column.type_name.parse().map_err(|source| {
                        SchemaError { table: name.to_string(), column: column.name.clone(), source }
                    })?;
                    let has_default = !column.default_kind.is_empty();
                    let nullable = kind.is_nullable();
                    let plain = Column::new(&column.name, kind);
                    Ok(SchemaColumn {
                        column: if has_default { plain.with_default() } else { plain },
                        nullable,
                        has_default,
                    })
                })
                .collect::<Result<_, _>>()?;
        Ok(TableSchema { name, columns })
    }

    /// The INSERT that a block of `columns` follows.
    #[must_use]
    pub fn insert_sql(&self, columns: &[Column]) -> Arc<str> {
        let names: Vec<_> = columns.iter().map(|column| quoted(column.name())).collect();
        format!("INSERT INTO {} ({}) FORMAT Native", self.name.quoted(), names.join(", ")).into()
    }
}
