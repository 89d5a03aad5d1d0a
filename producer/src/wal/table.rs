//! The outbox table as the catalog has it now: its columns, the tables whose rows
//! are its own, and the encoding of its text.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use outpour_schemas::OutboxTable;
use tokio_postgres::{Client, Row, error::SqlState, types::Type};

use super::{
    charset::Charset,
    pgoutput::{Column, Relation},
};
use crate::postgres::{PostgresError, Target};

/// The type that a column `a` of `pg_attribute` has at bottom: for a domain what it
/// is a domain over, however many there are between.
pub(crate) const BASE_TYPE: &str = "(
    WITH RECURSIVE base AS (
        SELECT oid, typtype, typbasetype FROM pg_type WHERE oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype
        FROM base JOIN pg_type t ON base.typtype = 'd' AND t.oid = base.typbasetype)
    SELECT oid FROM base WHERE typtype <> 'd')";

/// The table $1.$2 and every table whose rows are its own: partitions, and children
/// by INHERITS, at any depth.
pub(crate) const MEMBERS: &str = "
    WITH RECURSIVE member AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2
        UNION
        SELECT i.inhrelid FROM member JOIN pg_inherits i ON i.inhparent = member.oid)";

/// The columns that `is_wanted`, with the types that they have at bottom; none if
/// there is no table.
pub(crate) async fn columns(
    client: &Client,
    target: &Target,
    outbox: &OutboxTable,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Relation, PostgresError> {
    let (schema, table) = outbox.qualified();
    let sql = format!(
        "SELECT a.attname::text, {BASE_TYPE} FROM pg_attribute a
         WHERE a.attrelid = to_regclass(format('%I.%I', $1::text, $2::text))
           AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let rows = client.query(&sql, &[&schema, &table]).await;
    let rows = rows.map_err(target.failed("reading the table's columns"))?;
    let column = |row: &Row| Column { name: row.get(0), type_oid: row.get(1) };
    Ok(Relation {
        id: 0,
        namespace: schema.to_owned(),
        name: table.to_owned(),
        columns: rows.iter().map(column).filter(|column| is_wanted(&column.name)).collect(),
    })
}

/// The object ids of the table and of those whose rows are its own. In the log each
/// of them has rows under its own name, but for partitions that the publication
/// sends under the table's; and the table itself may be called otherwise soon.
pub(crate) async fn members(
    client: &Client,
    target: &Target,
    outbox: &OutboxTable,
) -> Result<HashSet<u32>, PostgresError> {
    let (schema, table) = outbox.qualified();
    let sql = format!("{MEMBERS} SELECT oid FROM member");
    let rows = client.query(&sql, &[&schema, &table]).await;
    let rows = rows.map_err(target.failed("reading the outbox's children"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How the text of the database becomes UTF-8.
pub(crate) async fn charset(client: &Client, target: &Target) -> Result<Charset, PostgresError> {
    const ENCODING: &str = "
        SELECT getdatabaseencoding()::text, pg_encoding_max_length(encoding)
        FROM pg_database WHERE datname = current_database()";
    let failed = || target.failed("reading the encoding");
    let row = client.query_one(ENCODING, &[]).await.map_err(failed())?;
    match (row.get(0), row.get(1)) {
        ("UTF8", _) => Ok(Charset::Utf8),
        ("SQL_ASCII", _) => Ok(Charset::Unchecked),
        (_, 1) => single_byte(client).await.map_err(failed()),
        _ => Ok(Charset::Utf8),
    }
}

/// Asks what every byte means: one that means nothing is one that the server cannot
/// convert.
async fn single_byte(client: &Client) -> Result<Charset, tokio_postgres::Error> {
    let chr = client.prepare_typed("SELECT chr($1)", &[Type::INT4]).await?;
    let character = async |byte: i32| match client.query_one(&chr, &[&byte]).await {
        Ok(row) => Ok(row.get::<_, &str>(0).chars().next()),
        Err(error) if is_no_character(&error) => Ok(None),
        Err(error) => Err(error),
    };
    let high = try_join_all((128..256).map(character)).await?;
    let mut characters = [None; 128];
    characters.copy_from_slice(&high);
    Ok(Charset::SingleByte(Box::new(characters)))
}

fn is_no_character(error: &tokio_postgres::Error) -> bool {
    let none = [SqlState::UNTRANSLATABLE_CHARACTER, SqlState::CHARACTER_NOT_IN_REPERTOIRE];
    error.code().is_some_and(|code| none.contains(code))
}
