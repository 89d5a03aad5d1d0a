//! Object ids of PostgreSQL's types, as far as a value's text is not all there
//! is to know. They never change: `src/include/catalog/pg_type.dat`.

pub const BOOL: u32 = 16;
pub const BYTEA: u32 = 17;
pub const INT8: u32 = 20;
pub const INT2: u32 = 21;
pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;
pub const FLOAT4: u32 = 700;
pub const FLOAT8: u32 = 701;
pub const VARCHAR: u32 = 1043;
pub const TIMESTAMP: u32 = 1114;
pub const TIMESTAMPTZ: u32 = 1184;
pub const NUMERIC: u32 = 1700;
pub const UUID: u32 = 2950;
pub const JSONB: u32 = 3802;

/// The id of a built-in type, by the name that the log calls it by.
#[must_use]
pub fn of(name: &str) -> Option<u32> {
    Some(match name {
        "bool" => BOOL,
        "bytea" => BYTEA,
        "int8" => INT8,
        "int2" => INT2,
        "int4" => INT4,
        "text" => TEXT,
        "float4" => FLOAT4,
        "float8" => FLOAT8,
        "varchar" => VARCHAR,
        "timestamp" => TIMESTAMP,
        "timestamptz" => TIMESTAMPTZ,
        "numeric" => NUMERIC,
        "uuid" => UUID,
        "jsonb" => JSONB,
        _ => return None,
    })
}
