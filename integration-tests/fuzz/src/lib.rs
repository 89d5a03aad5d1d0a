//! What the targets share. Each target is a program of its own, `make fuzz`
//! runs them, and `corpus/` has the inputs that they start from.

use std::sync::Arc;

use outpour_consumer::{
    block::{Block, Column},
    table::{DescribedColumn, TableName, TableSchema},
};

/// Column types, one of every kind and some of their combinations.
pub const TYPES: [&str; 44] = [
    "Int8",
    "Int64",
    "Int128",
    "Int256",
    "UInt8",
    "UInt64",
    "UInt256",
    "Float32",
    "Float64",
    "Bool",
    "Decimal(9, 4)",
    "Decimal(38, 10)",
    "Decimal(76, 38)",
    "String",
    "FixedString(5)",
    "UUID",
    "Date",
    "Date32",
    "DateTime",
    "DateTime('Europe/Berlin')",
    "DateTime64(3)",
    "DateTime64(9, 'UTC')",
    "Enum8('a' = 1, 'b\\'c' = -2)",
    "Enum16('x' = 1000)",
    "IPv4",
    "IPv6",
    "LowCardinality(String)",
    "LowCardinality(Nullable(String))",
    "LowCardinality(UInt16)",
    "Nullable(Int32)",
    "Nullable(String)",
    "Nullable(DateTime64(6))",
    "Array(UInt8)",
    "Array(Nullable(String))",
    "Array(Array(LowCardinality(String)))",
    "Map(String, Int64)",
    "Map(LowCardinality(String), Array(UInt8))",
    "Tuple(a UInt8, b String)",
    "Tuple(Int64, Nullable(String))",
    "Tuple(a Tuple(b Array(Int8)), c Map(String, Bool))",
    "Array(Tuple(n String, v Decimal(10, 2)))",
    "JSON",
    "Nullable(FixedString(2))",
    "Tuple()",
];

/// An empty block of one column.
#[must_use]
pub fn block(kind: &str) -> Option<Block> {
    let column = Column::new("c", kind.parse().ok()?);
    Some(Block::new(Arc::from([column])))
}

/// A table that has a column of every kind, called `c0`, `c1`, …
///
/// # Panics
/// If a type is not known any more.
#[must_use]
pub fn table() -> TableSchema {
    let described: Vec<_> = TYPES
        .iter()
        .enumerate()
        .map(|(number, kind)| DescribedColumn {
            name: format!("c{number}"),
            type_name: (*kind).to_owned(),
            default_kind: "DEFAULT".to_owned(),
        })
        .collect();
    let name = TableName::parse("t", "db");
    TableSchema::of(name, &described).unwrap_or_else(|error| panic!("{error}"))
}
