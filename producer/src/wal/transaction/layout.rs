//! Which columns of a table are wanted, and where they stand.

use super::{AssemblyError, Open};
use crate::wal::{
    pgoutput::{Cell, Relation},
    row::{OutboxRow, Value, Wanted},
};

/// Which cells of the outbox table's rows hold what is wanted.
pub(crate) struct Layout {
    pub(super) table: String,
    width: usize,
    /// Place and type of each wanted column.
    sources: Vec<Option<(usize, u32)>>,
}

impl Layout {
    pub(crate) fn of(relation: &Relation, wanted: &[Wanted]) -> Result<Self, AssemblyError> {
        let table = format!("{}.{}", relation.namespace, relation.name);
        let source = |wanted: &Wanted| {
            let found = relation
                .columns
                .iter()
                .enumerate()
                .find(|(_, column)| column.name == wanted.column);
            match found {
                Some((_, column)) if !wanted.expects.takes(column.type_oid) => {
                    Err(AssemblyError::ColumnType {
                        table: table.clone(),
                        column: wanted.column.clone(),
                        key: wanted.key,
                        expects: wanted.expects,
                    })
                }
                Some((at, column)) => Ok(Some((at, column.type_oid))),
                None if wanted.required => Err(AssemblyError::MissingColumn {
                    table: table.clone(),
                    column: wanted.column.clone(),
                    key: wanted.key,
                }),
                None => Ok(None),
            }
        };
        let sources = wanted.iter().map(source).collect::<Result<_, _>>()?;
        Ok(Layout { width: relation.columns.len(), sources, table })
    }

    pub(super) fn row(&self, cells: &[Cell], open: &mut Open) -> Result<OutboxRow, AssemblyError> {
        let values = self.values(cells)?;
        let position = open.next_position()?;
        Ok(OutboxRow { position, committed_at_us: open.committed_at_us, values })
    }

    /// What is wanted of a row's cells.
    pub(crate) fn values(&self, cells: &[Cell]) -> Result<Vec<Option<Value>>, AssemblyError> {
        if cells.len() != self.width {
            return Err(AssemblyError::CellCount {
                table: self.table.clone(),
                expected: self.width,
                found: cells.len(),
            });
        }
        // A column may be wanted more than once; its bytes are shared.
        let value = |&(at, type_oid): &(usize, u32)| Value {
            type_oid,
            text: match &cells[at] {
                Cell::Text(text) => Some(text.clone()),
                Cell::Null | Cell::Unchanged => None,
            },
        };
        Ok(self.sources.iter().map(|source| source.as_ref().map(value)).collect())
    }
}
