//! The encoding of the database's text, and UTF-8 made of it. Pure.
//!
//! A server refuses to send a text that it cannot convert, and with it everything
//! behind. So where that can happen its bytes are taken as they are, and converted
//! here: what is no text is then the affair of its own row.
//!
//! | the server's encoding | it sends |
//! | --- | --- |
//! | UTF8, which is checked when it is written | UTF-8 |
//! | SQL_ASCII, which may be anything | its bytes, most likely UTF-8 |
//! | one byte a character: LATIN1, WIN1252, … | its bytes, of which some have no meaning |
//! | several bytes a character: EUC_JP, … | UTF-8, converted by the server |

use bytes::Bytes;

use super::{pgoutput::Cell, row};
use crate::sql::literal;

/// How text that comes from the server becomes UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charset {
    /// It is UTF-8 as it comes.
    Utf8,
    /// Bytes that nobody has checked.
    Unchecked,
    /// A character a byte: what the bytes from 128 on mean, as far as they do.
    SingleByte(Box<[Option<char>; 128]>),
}

impl Charset {
    /// Whether the server is to send its bytes as they are.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        *self != Charset::Utf8
    }

    /// The text as UTF-8; `None` if it is no text.
    #[must_use]
    pub fn decode(&self, text: &Bytes) -> Option<Bytes> {
        match self {
            Charset::Utf8 => Some(text.clone()),
            _ if text.is_ascii() => Some(text.clone()),
            Charset::Unchecked => std::str::from_utf8(text).is_ok().then(|| text.clone()),
            Charset::SingleByte(high) => {
                let character = |&byte: &u8| match byte {
                    0..128 => Some(char::from(byte)),
                    128.. => high[usize::from(byte - 128)],
                };
                text.iter().map(character).collect::<Option<String>>().map(Bytes::from)
            }
        }
    }

    /// What comes of `text` where the server's bytes of it are taken for UTF-8.
    pub(super) fn mistaken(&self, text: &str) -> String {
        let Charset::SingleByte(high) = self else { return text.to_owned() };
        let byte = |character: char| {
            let place = high.iter().position(|&known| known == Some(character));
            place.and_then(|at| u8::try_from(at + 128).ok()).unwrap_or(character as u8)
        };
        String::from_utf8_lossy(&text.chars().map(byte).collect::<Vec<u8>>()).into_owned()
    }

    /// An expression of a query for the text of `column` as this takes it: where
    /// bytes are to come as they are, their digits.
    pub(crate) fn select(&self, column: &str) -> String {
        if !self.is_raw() {
            return column.to_owned();
        }
        // What a type writes, whatever casts of its own it has.
        format!(
            "CASE WHEN {column} IS DISTINCT FROM NULL \
             THEN convert_to(format('%s', {column}), 'SQL_ASCII') END"
        )
    }

    /// A constant of SQL for text that came as this takes it.
    pub(crate) fn literal(&self, text: &[u8]) -> String {
        if !self.is_raw() || text.is_ascii() {
            return literal(&String::from_utf8_lossy(text));
        }
        let digits = text.iter().map(|byte| format!("\\x{byte:02x}"));
        format!("E'{}'", digits.collect::<String>())
    }

    /// A cell of such a query's answer.
    pub(crate) fn cell(&self, answer: Option<&str>) -> Cell {
        let Some(text) = answer.map(str::as_bytes) else { return Cell::Null };
        Cell::Text(match self.is_raw() {
            true => row::bytea(text).map_or_else(|| Bytes::copy_from_slice(text), Bytes::from),
            false => Bytes::copy_from_slice(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LATIN1, but for 0x81, which means nothing.
    fn single_byte() -> Charset {
        let mut high = [None; 128];
        for byte in (128..=255).filter(|&byte| byte != 0x81) {
            high[usize::from(byte - 128)] = Some(char::from(byte));
        }
        Charset::SingleByte(Box::new(high))
    }

    fn decoded(charset: &Charset, text: &'static [u8]) -> Option<String> {
        let text = charset.decode(&Bytes::from_static(text))?;
        Some(String::from_utf8(text.into()).unwrap())
    }

    #[test]
    fn text_becomes_utf_8_and_what_is_none_is_told() {
        let cases = [
            (Charset::Unchecked, b"Gr\xc3\xbc\xc3\x9fe".as_slice(), Some("Grüße")),
            (Charset::Unchecked, b"Gr\xfc\xdfe", None),
            (single_byte(), b"Gr\xfc\xdfe", Some("Grüße")),
            (single_byte(), b"plain", Some("plain")),
            (single_byte(), b"\x81", None),
        ];
        for (charset, text, expected) in cases {
            assert_eq!(decoded(&charset, text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_constant_has_the_bytes_that_came() {
        assert_eq!(Charset::Unchecked.literal(b"it's"), "'it''s'");
        assert_eq!(Charset::Unchecked.literal(b"a\xff"), r"E'\x61\xff'");
        assert_eq!(Charset::Utf8.literal("ü".as_bytes()), "'ü'");
    }

    #[test]
    fn a_name_can_be_told_by_what_comes_of_it() {
        assert_eq!(Charset::Unchecked.mistaken("größe"), "größe");
        assert_eq!(single_byte().mistaken("größe"), "gr\u{fffd}\u{fffd}e");
    }

    #[test]
    fn bytes_are_asked_for_as_digits_only_where_they_may_be_no_text() {
        assert_eq!(Charset::Utf8.select("o.\"id\""), "o.\"id\"");
        assert_eq!(Charset::Utf8.cell(Some("\\xff")), Cell::Text(Bytes::from_static(b"\\xff")));
        assert!(Charset::Unchecked.select("o.\"id\"").contains("format('%s', o.\"id\")"));
        assert_eq!(Charset::Unchecked.cell(Some("\\xff")), Cell::Text(Bytes::from_static(b"\xff")));
        assert_eq!(Charset::Unchecked.cell(None), Cell::Null);
    }
}
