//! `String`, `FixedString`, `UUID`, the two IP addresses, and JSON as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::cell::Cell;
use super::datetime;
use super::error::Reason;
use super::wire::put_string;
use crate::json::unquoted;

/// Appends the length and the bytes.
#[inline]
pub(super) fn write_string(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match cell {
        Cell::Plain(text) | Cell::Text(text) => put_string(out, text.as_bytes()),
        Cell::Bytes(bytes) => put_string(out, bytes),
        Cell::Null | Cell::Default | Cell::Json("null") => return Err(Reason::NullNotAllowed),
        Cell::Json(raw) if raw.starts_with('"') => {
            put_string(out, unquoted(raw).ok_or(Reason::InvalidUtf8)?.as_bytes());
        }
        // An object, an array, a number: its JSON text as it is. That is how
        // columns that hold whole payloads are filled.
        Cell::Json(raw) => put_string(out, raw.as_bytes()),
        Cell::Int(value) => put_string(out, itoa::Buffer::new().format(value).as_bytes()),
        Cell::Timestamp { seconds, nanos } => {
            put_string(out, datetime::rfc3339(seconds, nanos).as_bytes());
        }
    }
    Ok(())
}

/// Appends the bytes and the zeros that fill up the length.
pub(super) fn write_fixed_string(
    length: usize,
    cell: Cell<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let mut put = |bytes: &[u8]| {
        if bytes.len() > length {
            return Err(Reason::WrongLength);
        }
        let end = out.len() + length;
        out.extend_from_slice(bytes);
        out.resize(end, 0);
        Ok(())
    };
    match cell {
        Cell::Bytes(bytes) => put(bytes),
        _ => put(cell.text()?.ok_or(Reason::WrongType)?.as_bytes()),
    }
}

/// Appends the two halves, each with its lowest byte first.
pub(super) fn write_uuid(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    let uuid = Uuid::try_parse(&text).map_err(|_| Reason::Malformed)?;
    let (high, low) = uuid.as_u64_pair();
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
    Ok(())
}

/// Appends the address as a number of 32 bits.
pub(super) fn write_ipv4(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    let address: Ipv4Addr = text.parse().map_err(|_| Reason::Malformed)?;
    out.extend_from_slice(&address.to_bits().to_le_bytes());
    Ok(())
}

/// Appends the 16 bytes in network order. An IPv4 address becomes the IPv6
/// address that stands for it (`::ffff:a.b.c.d`), as ClickHouse has it.
pub(super) fn write_ipv6(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = cell.text()?.ok_or(Reason::WrongType)?;
    let address: Ipv6Addr = match text.parse() {
        Ok(address) => address,
        Err(_) => text.parse::<Ipv4Addr>().map_err(|_| Reason::Malformed)?.to_ipv6_mapped(),
    };
    out.extend_from_slice(&address.octets());
    Ok(())
}

/// Appends the text of a JSON object, which the server parses.
pub(super) fn write_json(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let raw = match cell {
        Cell::Json(raw) => raw,
        // Text was not parsed before, so here is the first chance to refuse it.
        Cell::Text(_) | Cell::Bytes(_) => {
            let text = cell.text()?.ok_or(Reason::WrongType)?;
            let raw: &RawValue = serde_json::from_str(&text).map_err(|_| Reason::Malformed)?;
            return write_json(Cell::Json(raw.get()), out);
        }
        _ => return Err(Reason::WrongType),
    };
    if !raw.starts_with('{') {
        return Err(Reason::WrongType);
    }
    put_string(out, raw.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Writer = fn(Cell<'_>, &mut Vec<u8>) -> Result<(), Reason>;

    fn encoded(write: Writer, cell: Cell<'_>) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        write(cell, &mut out).map(|()| out)
    }

    #[test]
    fn strings() {
        let string = |cell| encoded(write_string, cell);
        assert_eq!(string(Cell::Json(r#""a\"b""#)), Ok(b"\x03a\"b".to_vec()));
        assert_eq!(string(Cell::Json(r#"{"a": 1}"#)), Ok(b"\x08{\"a\": 1}".to_vec()));
        assert_eq!(string(Cell::Json("1.50")), Ok(b"\x041.50".to_vec()));
        assert_eq!(string(Cell::Bytes(&[0xff, 0])), Ok(vec![2, 0xff, 0]));
        assert_eq!(string(Cell::Int(-5)), Ok(b"\x02-5".to_vec()));
        assert_eq!(string(Cell::milliseconds(0)), Ok(b"\x141970-01-01T00:00:00Z".to_vec()));
        assert_eq!(string(Cell::Json(r#""\udc00""#)), Err(Reason::InvalidUtf8));
        assert_eq!(string(Cell::Text(&"x".repeat(300))).unwrap()[..3], [0xac, 2, b'x']);
    }

    #[test]
    fn fixed_strings() {
        let fixed = |cell| {
            let mut out = vec![9];
            write_fixed_string(3, cell, &mut out).map(|()| out)
        };
        assert_eq!(fixed(Cell::Json("\"ab\"")), Ok(vec![9, b'a', b'b', 0]));
        assert_eq!(fixed(Cell::Text("abc")), Ok(vec![9, b'a', b'b', b'c']));
        assert_eq!(fixed(Cell::Text("abcd")), Err(Reason::WrongLength));
        assert_eq!(fixed(Cell::Text("éé")), Err(Reason::WrongLength));
        assert_eq!(fixed(Cell::Json("12")), Err(Reason::WrongType));
    }

    #[test]
    fn identifiers_and_addresses() {
        let uuid = "01020304-0506-0708-090a-0b0c0d0e0f10";
        let bytes = vec![8, 7, 6, 5, 4, 3, 2, 1, 16, 15, 14, 13, 12, 11, 10, 9];
        assert_eq!(encoded(write_uuid, Cell::Text(uuid)), Ok(bytes));
        assert_eq!(encoded(write_uuid, Cell::Text("x")), Err(Reason::Malformed));
        assert_eq!(encoded(write_ipv4, Cell::Text("1.2.3.4")), Ok(vec![4, 3, 2, 1]));
        assert_eq!(encoded(write_ipv4, Cell::Text("1.2.3.400")), Err(Reason::Malformed));
        assert_eq!(encoded(write_ipv4, Cell::Json("1")), Err(Reason::WrongType));
        assert_eq!(encoded(write_ipv6, Cell::Text("::1")).unwrap()[15], 1);
        let mapped = encoded(write_ipv6, Cell::Text("1.2.3.4")).unwrap();
        assert_eq!(mapped[10..], [0xff, 0xff, 1, 2, 3, 4]);
    }

    #[test]
    fn json_is_an_object() {
        let json = |cell| encoded(write_json, cell);
        assert_eq!(json(Cell::Json("{}")), Ok(b"\x02{}".to_vec()));
        assert_eq!(json(Cell::Text(" {} ")), Ok(b"\x02{}".to_vec()));
        assert_eq!(json(Cell::Text("{")), Err(Reason::Malformed));
        assert_eq!(json(Cell::Json("[1]")), Err(Reason::WrongType));
        assert_eq!(json(Cell::Json("\"{}\"")), Err(Reason::WrongType));
        assert_eq!(json(Cell::Int(1)), Err(Reason::WrongType));
    }
}
