//! Which columns of a table are wanted, and where they stand.

use bytes::Bytes;

use super::{AssemblyError, Open};
use crate::wal::{
    charset::Charset,
    pgoutput::{Cell, Relation},
    row::{OutboxRow, Value, Wanted},
};

/// Which cells of the outbox table's rows hold what is wanted.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(super) table: String,
    columns: Vec<String>,
    /// Place and type of each wanted column.
    sources: Vec<Option<(usize, u32)>>,
    /// Why no record can be made of the rows. Some may be published already: it
    /// matters when one is needed.
    pub(super) unfit: Option<AssemblyError>,
}

impl Layout {
    /// The types of `relation` are those at bottom, never domains.
    pub(crate) fn of(relation: &Relation, wanted: &[Wanted]) -> Self {
        let table = format!("{}.{}", relation.namespace, relation.name);
        let mut unfit = None;
        let source = |wanted: &Wanted| {
            let found = relation
                .columns
                .iter()
                .enumerate()
                .find(|(_, column)| column.name == wanted.column);
            let (table, column, key) = (table.clone(), wanted.column.clone(), wanted.key);
            match found {
                Some((at, found)) if wanted.expects.takes(found.type_oid) => {
                    return Some((at, found.type_oid));
                }
                Some(_) => unfit.get_or_insert(AssemblyError::ColumnType {
                    table,
                    column,
                    key,
                    expects: wanted.expects,
                }),
                None if !wanted.required => return None,
                None => unfit.get_or_insert(AssemblyError::MissingColumn { table, column, key }),
            };
            None
        };
        let sources = wanted.iter().map(source).collect();
        let columns = relation.columns.iter().map(|column| column.name.clone()).collect();
        Layout { columns, sources, unfit, table }
    }

    /// # Errors
    /// When no record can be made of the rows.
    pub(crate) fn fit(self) -> Result<Self, AssemblyError> {
        match self.unfit {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The names of all columns that the rows have.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn row(
        &self,
        cells: &[Cell],
        open: &mut Open,
        charset: &Charset,
    ) -> Result<OutboxRow, AssemblyError> {
        let (values, unreadable) = self.values(cells, charset)?;
        let position = open.next_position()?;
        Ok(OutboxRow { position, committed_at_us: open.committed_at_us, values, unreadable })
    }

    /// What is wanted of a row's cells, and which of it is no text.
    pub(crate) fn values(
        &self,
        cells: &[Cell],
        charset: &Charset,
    ) -> Result<(Vec<Option<Value>>, Option<usize>), AssemblyError> {
        if cells.len() != self.columns.len() {
            return Err(AssemblyError::CellCount {
                table: self.table.clone(),
                expected: self.columns.len(),
                found: cells.len(),
            });
        }
        let mut unreadable = None;
        let mut utf8 = |wanted: usize, text: &Bytes| {
            charset.decode(text).unwrap_or_else(|| {
                unreadable.get_or_insert(wanted);
                text.clone()
            })
        };
        // A column may be wanted more than once; its bytes are shared.
        let mut value = |(wanted, source): (usize, &Option<(usize, u32)>)| {
            let (at, type_oid) = (*source)?;
            let text = match &cells[at] {
                Cell::Text(text) => Some(utf8(wanted, text)),
                Cell::Null | Cell::Unchanged => None,
            };
            Some(Value { type_oid, text })
        };
        let values = self.sources.iter().enumerate().map(&mut value).collect();
        Ok((values, unreadable))
    }
}
