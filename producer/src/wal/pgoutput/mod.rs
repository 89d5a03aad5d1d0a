//! The messages of PostgreSQL's `pgoutput` plugin, protocol version 1.
//!
//! Source: PostgreSQL documentation, "Logical Replication Message Formats".
//! Pure: bytes in, messages out. Begin, Commit and logical messages never get
//! here, since the replication client turns them into events of its own.

#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes};

use super::charset::Charset;

/// A message that changes what we know or carries a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Relation(Relation),
    Insert {
        relation: u32,
        row: Vec<Cell>,
    },
    /// Its rows, old and new, are not read.
    Update {
        relation: u32,
    },
    /// What a type that is not built in is at bottom: of a domain, the type that
    /// it is a domain over.
    Type {
        id: u32,
        namespace: String,
        name: String,
    },
    /// Delete, truncate and what else an outbox never publishes.
    Other {
        tag: u8,
    },
}

/// The shape of a table, sent before its first row and after every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub id: u32,
    pub namespace: String,
    pub name: String,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Object id of the column's type in `pg_type`.
    pub type_oid: u32,
}

/// One value of a row, in the text form of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// A TOASTed value that an update did not touch. Never part of an insert.
    Unchanged,
    Text(Bytes),
}

/// Bytes that are not a pgoutput message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PgoutputError {
    #[error("pgoutput message ends in the middle of {0}")]
    Truncated(&'static str),
    #[error("pgoutput message has {0} bytes after its end")]
    Trailing(usize),
    #[error("pgoutput message of unknown kind {0:#04x}")]
    UnknownTag(u8),
    #[error("pgoutput tuple has a cell of unknown kind {0:#04x}")]
    UnknownCell(u8),
    #[error("pgoutput insert lacks its row (found {0:#04x})")]
    NoRow(u8),
    #[error("pgoutput {0} has a negative length")]
    NegativeLength(&'static str),
}

/// Decodes one message, which must fill `bytes` exactly. Names are of `charset`;
/// the text of cells stays as it is.
///
/// # Errors
/// For anything that the documented format does not allow.
pub fn decode(mut bytes: Bytes, charset: &Charset) -> Result<Message, PgoutputError> {
    let tag = u8_of(&mut bytes, "the message tag")?;
    let message = match tag {
        b'R' => Message::Relation(relation(&mut bytes, charset)?),
        b'I' => {
            let relation = u32_of(&mut bytes, "a relation id")?;
            match u8_of(&mut bytes, "the row's tag")? {
                b'N' => Message::Insert { relation, row: row(&mut bytes)? },
                other => return Err(PgoutputError::NoRow(other)),
            }
        }
        b'U' => return Ok(Message::Update { relation: u32_of(&mut bytes, "a relation id")? }),
        b'Y' => Message::Type {
            id: u32_of(&mut bytes, "a type's id")?,
            namespace: schema(&mut bytes, charset)?,
            name: string(&mut bytes, "a type's name", charset)?,
        },
        b'D' | b'T' | b'O' => return Ok(Message::Other { tag }),
        unknown => return Err(PgoutputError::UnknownTag(unknown)),
    };
    match bytes.remaining() {
        0 => Ok(message),
        rest => Err(PgoutputError::Trailing(rest)),
    }
}

fn relation(bytes: &mut Bytes, charset: &Charset) -> Result<Relation, PgoutputError> {
    let id = u32_of(bytes, "a relation id")?;
    let namespace = schema(bytes, charset)?;
    let name = string(bytes, "a table name", charset)?;
    u8_of(bytes, "the replica identity")?;
    let count = u16_of(bytes, "the column count")?;
    let columns = (0..count)
        .map(|_| {
            u8_of(bytes, "a column's flags")?;
            let name = string(bytes, "a column name", charset)?;
            let type_oid = u32_of(bytes, "a column's type")?;
            u32_of(bytes, "a column's type modifier")?;
            Ok(Column { name, type_oid })
        })
        .collect::<Result<_, _>>()?;
    Ok(Relation { id, namespace, name, columns })
}

fn row(bytes: &mut Bytes) -> Result<Vec<Cell>, PgoutputError> {
    let count = u16_of(bytes, "the cell count")?;
    (0..count)
        .map(|_| match u8_of(bytes, "a cell's tag")? {
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            b't' => {
                let length = u32_of(bytes, "a cell's length")?;
                let length =
                    i32::try_from(length).map_err(|_| PgoutputError::NegativeLength("cell"))?;
                // Not negative, so it fits.
                let length = length.unsigned_abs() as usize;
                if bytes.remaining() < length {
                    return Err(PgoutputError::Truncated("a cell"));
                }
                Ok(Cell::Text(bytes.split_to(length)))
            }
            other => Err(PgoutputError::UnknownCell(other)),
        })
        .collect()
}

fn u8_of(bytes: &mut Bytes, what: &'static str) -> Result<u8, PgoutputError> {
    bytes.try_get_u8().map_err(|_| PgoutputError::Truncated(what))
}

fn u16_of(bytes: &mut Bytes, what: &'static str) -> Result<u16, PgoutputError> {
    bytes.try_get_u16().map_err(|_| PgoutputError::Truncated(what))
}

fn u32_of(bytes: &mut Bytes, what: &'static str) -> Result<u32, PgoutputError> {
    bytes.try_get_u32().map_err(|_| PgoutputError::Truncated(what))
}

/// PostgreSQL leaves the schema of what is built in empty.
fn schema(bytes: &mut Bytes, charset: &Charset) -> Result<String, PgoutputError> {
    let name = string(bytes, "a schema name", charset)?;
    Ok(if name.is_empty() { "pg_catalog".to_owned() } else { name })
}

fn string(
    bytes: &mut Bytes,
    what: &'static str,
    charset: &Charset,
) -> Result<String, PgoutputError> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(PgoutputError::Truncated(what))?;
    let text = bytes.split_to(end);
    bytes.advance(1);
    // A name that is no text is none that a configuration could have.
    let text = charset.decode(&text).unwrap_or(text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
