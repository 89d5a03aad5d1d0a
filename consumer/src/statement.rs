//! The INSERT that a block follows. Pure.
//!
//! ```text
//! INSERT INTO t (a, b) SELECT * FROM input('a …, b …') WHERE throwIf(…) = 0 FORMAT Native
//!                                          as encoded         the table is another
//! ```
//!
//! A server that is given a block for a table of other types casts it, and says nothing:
//! 300 becomes 44 in a `UInt8`, NULL the DEFAULT, `'a'` of an `Enum` the name that has its
//! number now. No setting forbids all of that. So the statement says which columns the
//! block was made for, and the server compares them with those that it is about to write
//! to: an INSERT takes the table as it is before it looks at the columns' description, so
//! that a table that is altered or exchanged at any moment is noticed.

use twox_hash::XxHash3_64;

use crate::{
    block::Column,
    table::{DescribedColumn, TableName, quoted},
};

/// What ClickHouse answers where a table is not what the rows were encoded for.
pub(crate) const TABLE_HAS_CHANGED: &str = "outpour: the table has other columns by now";

/// Tells the columns of a table from others, in any order.
pub(crate) fn fingerprint(columns: &[DescribedColumn]) -> u64 {
    let hash = |column: &DescribedColumn| {
        let DescribedColumn { name, type_name, default_kind } = column;
        XxHash3_64::oneshot(format!("{name}\0{type_name}\0{default_kind}").as_bytes())
    };
    columns.iter().map(hash).fold(0, u64::wrapping_add)
}

/// The INSERT of columns of these names and types, without its end: settings may be
/// added. `fingerprint` is that of the table.
pub(crate) fn insert(
    table: &TableName,
    columns: impl Iterator<Item = (String, String)>,
    fingerprint: u64,
) -> String {
    let (mut names, mut structure) = (Vec::new(), Vec::new());
    for (name, kind) in columns {
        let name = quoted(&name);
        structure.push(format!("{name} {kind}"));
        names.push(name);
    }
    format!(
        "INSERT INTO {} ({}) SELECT * FROM input({}) WHERE throwIf(ifNull(({}) != {fingerprint}, 1), \
         {}) = 0",
        table.quoted(),
        names.join(", "),
        literal(&structure.join(", ")),
        present(table),
        literal(TABLE_HAS_CHANGED),
    )
}

/// Asks for the fingerprint of the table as it is.
fn present(table: &TableName) -> String {
    format!(
        "SELECT sum(xxh3(concat(name, '\\0', type, '\\0', default_kind))) FROM system.columns \
         WHERE database = {} AND table = {}",
        literal(&table.database),
        literal(&table.table),
    )
}

/// An INSERT that compares nothing.
pub(crate) fn plain(table: &TableName, columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| quoted(column.name())).collect();
    whole(&format!("INSERT INTO {} ({})", table.quoted(), names.join(", ")))
}

/// The whole of what [`insert`] began.
pub(crate) fn whole(insert: &str) -> String {
    format!("{insert} FORMAT Native")
}

/// A string constant, whatever it contains.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_name: &str, default_kind: &str) -> DescribedColumn {
        DescribedColumn {
            name: name.into(),
            type_name: type_name.into(),
            default_kind: default_kind.into(),
        }
    }

    #[test]
    fn a_fingerprint_is_what_the_server_computes_and_changes_with_every_part() {
        // SELECT xxh3(concat('n', '\0', 'UInt8', '\0', ''))
        let n = column("n", "UInt8", "");
        assert_eq!(fingerprint(std::slice::from_ref(&n)), 1_511_413_746_451_844_333);
        let others = [column("m", "UInt8", ""), column("n", "UInt16", "")];
        for other in others.into_iter().chain([column("n", "UInt8", "DEFAULT")]) {
            assert_ne!(fingerprint(&[other]), 1_511_413_746_451_844_333);
        }
        let m = column("m", "String", "DEFAULT");
        assert_eq!(fingerprint(&[n.clone(), m.clone()]), fingerprint(&[m, n]));
    }

    #[test]
    fn names_and_types_are_quoted_as_often_as_they_stand_in_each_other() {
        let table = TableName { database: "it's".into(), table: "a`b".into() };
        let columns = [("c`d".to_owned(), "DateTime('UTC')".to_owned())].into_iter();
        let sql = whole(&insert(&table, columns, 7));
        let begin = r"INSERT INTO `it's`.`a\`b` (`c\`d`) SELECT * FROM input('`c\\`d` DateTime(\'UTC\')') WHERE";
        assert!(sql.starts_with(begin), "{sql}");
        assert!(sql.contains(r"WHERE database = 'it\'s' AND table = 'a`b') != 7, 1)"), "{sql}");
        assert!(sql.ends_with(" = 0 FORMAT Native"), "{sql}");
    }
}
