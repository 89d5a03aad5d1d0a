//! JSON text, walked through once from front to back, without a tree: what is
//! wanted of it is found as the text that it is, so that no digit can be lost.
//!
//! The grammar is checked on the way, to the last byte of every value that is
//! passed. It is code of its own since a general parser reads each name before it is
//! known whether it is the expected one, which [`Cursor::takes_name`] saves.

mod scan;

use std::borrow::Cow;

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// An array or an object that has been entered.
#[derive(Debug)]
pub(crate) struct Entered {
    close: u8,
    first: bool,
}

/// Text that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("it ends too early, at byte {0}")]
    Ends(usize),
    #[error("unexpected `{found}` at byte {at}")]
    Unexpected { found: char, at: usize },
    #[error("a name has half of a surrogate pair: {0}")]
    Name(String),
}

impl<'a> Cursor<'a> {
    /// At the front of one value, or of space before it.
    #[inline]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: scan::space(text.as_bytes(), 0) }
    }

    /// Goes into the array that begins here; `None` if another value does.
    #[inline]
    pub(crate) fn enter_array(&mut self) -> Option<Entered> {
        self.enter(b'[', b']')
    }

    /// Goes into the object that begins here; `None` if another value does.
    #[inline]
    pub(crate) fn enter_object(&mut self) -> Option<Entered> {
        self.enter(b'{', b'}')
    }

    #[inline]
    fn enter(&mut self, open: u8, close: u8) -> Option<Entered> {
        if self.peek() != Some(open) {
            return None;
        }
        self.at += 1;
        Some(Entered { close, first: true })
    }

    /// Whether the value that begins here is null.
    pub(crate) fn is_null(&self) -> bool {
        self.text.as_bytes()[self.at..].starts_with(b"null")
    }

    /// Moves to the next part of what was entered; past its end if there is none.
    #[inline]
    pub(crate) fn next(&mut self, entered: &mut Entered) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(byte) if byte == entered.close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !entered.first => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(_) if entered.first => {
                entered.first = false;
                Ok(true)
            }
            _ => Err(self.unexpected(self.at)),
        }
    }

    /// Takes the name of an object's member, still quoted, and moves to its value.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<&'a str, JsonError> {
        let name = self.take(scan::string)?;
        self.colon()?;
        Ok(name)
    }

    /// Takes the name if it is written as `quoted`, and moves to its value.
    #[inline]
    pub(crate) fn takes_name(&mut self, quoted: &str) -> Result<bool, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(quoted.as_bytes()) {
            return Ok(false);
        }
        self.at += quoted.len();
        self.colon().map(|()| true)
    }

    /// Takes the value that begins here, whole.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<&'a str, JsonError> {
        self.take(scan::value)
    }

    /// Makes sure that nothing follows.
    pub(crate) fn end(mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.unexpected(self.at)) }
    }

    /// What is wrong where something else begins than what was looked for.
    pub(crate) fn error(&self) -> JsonError {
        self.unexpected(self.at)
    }

    #[inline]
    fn colon(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.unexpected(self.at));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    #[inline]
    fn take(&mut self, scan: impl Fn(&[u8], usize) -> scan::End) -> Result<&'a str, JsonError> {
        let start = self.at;
        self.at = scan(self.text.as_bytes(), start).map_err(|at| self.unexpected(at))?;
        // Values begin and end at ASCII, so between characters.
        Ok(&self.text[start..self.at])
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        self.at = scan::space(self.text.as_bytes(), self.at);
    }

    #[cold]
    fn unexpected(&self, at: usize) -> JsonError {
        // An error may be told in the middle of a character.
        let at = self.text.floor_char_boundary(at);
        match self.text[at..].chars().next() {
            Some(found) => JsonError::Unexpected { found, at },
            None => JsonError::Ends(at),
        }
    }
}

/// A JSON string that says `text`, as nearly everybody writes it.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a JSON string says, borrowed unless it holds an escape. `None` if an escape
/// names half of a surrogate pair.
#[inline]
pub(crate) fn unquoted(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(raw: &str) -> Result<Vec<&str>, JsonError> {
        let mut cursor = Cursor::new(raw);
        let mut array = cursor.enter_array().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut array)? {
            found.push(cursor.value()?);
        }
        cursor.end()?;
        Ok(found)
    }

    fn members(raw: &str) -> Result<Vec<(&str, &str)>, JsonError> {
        let mut cursor = Cursor::new(raw);
        let mut object = cursor.enter_object().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut object)? {
            found.push((cursor.name()?, cursor.value()?));
        }
        cursor.end()?;
        Ok(found)
    }

    #[test]
    fn parts_keep_their_text() {
        assert_eq!(elements("[]"), Ok(vec![]));
        assert_eq!(elements(" [ ] "), Ok(vec![]));
        assert_eq!(
            elements(r#"[1, "a,]\"" ,[2,{"b":"]"}],{}, null ]"#),
            Ok(vec!["1", r#""a,]\"""#, r#"[2,{"b":"]"}]"#, "{}", "null"])
        );
        assert_eq!(members("{}"), Ok(vec![]));
        assert_eq!(
            members(r#"{"a":1, "b\"c" : [true] }"#),
            Ok(vec![("\"a\"", "1"), (r#""b\"c""#, "[true]")])
        );
        assert!(Cursor::new("{}").enter_array().is_none());
        assert!(Cursor::new("").enter_object().is_none());
    }

    #[test]
    fn a_name_is_known_by_the_way_it_is_written() {
        for (json, name, is_taken) in [
            (r#"{"a":1}"#, "a", Ok(true)),
            (r#"{ "a\"b" : 1}"#, "a\"b", Ok(true)),
            (r#"{"ab":1}"#, "a", Ok(false)),
            (r#"{"\u0061":1}"#, "a", Ok(false)),
            (r#"{"a" 1}"#, "a", Err(JsonError::Unexpected { found: '1', at: 5 })),
        ] {
            let mut cursor = Cursor::new(json);
            let mut object = cursor.enter_object().unwrap();
            assert_eq!(cursor.next(&mut object), Ok(true));
            assert_eq!(cursor.takes_name(&quoted(name)), is_taken, "{json}");
            if is_taken == Ok(true) {
                assert_eq!(cursor.value(), Ok("1"), "{json}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let unexpected = |found, at| Err(JsonError::Unexpected { found, at });
        assert_eq!(elements("["), Err(JsonError::Ends(1)));
        assert_eq!(elements("[1"), Err(JsonError::Ends(2)));
        assert_eq!(elements("[1 2]"), unexpected('2', 3));
        assert_eq!(elements("[\"é"), Err(JsonError::Ends(4)));
        assert_eq!(elements("[é]"), unexpected('é', 1));
        assert_eq!(elements("[[1}"), unexpected('}', 3));
        assert_eq!(elements("[,1]"), unexpected(',', 1));
        assert_eq!(elements("[1,]"), unexpected(']', 3));
        assert_eq!(elements("[01]"), unexpected('1', 2));
        assert_eq!(elements("[1]x"), unexpected('x', 3));
        assert_eq!(members("{"), Err(JsonError::Ends(1)).map(|()| vec![]));
        assert_eq!(members("{1:2}"), unexpected('1', 1).map(|_: Vec<&str>| vec![]));
        assert_eq!(members("{\"a\"}"), unexpected('}', 4).map(|_: Vec<&str>| vec![]));
        assert_eq!(members("{\"a\":}"), unexpected('}', 5).map(|_: Vec<&str>| vec![]));
        assert_eq!(members("{\"a\":1,}"), unexpected('}', 7).map(|_: Vec<&str>| vec![]));
    }

    #[test]
    fn strings_are_unescaped_exactly() {
        assert!(matches!(unquoted(r#""plain é""#), Some(Cow::Borrowed("plain é"))));
        assert_eq!(unquoted(r#""a\n\"\\\u00e9\ud83d\ude00""#).unwrap(), "a\n\"\\é😀");
        assert_eq!(unquoted(r#""\ud83d""#), None);
        assert_eq!(unquoted("\""), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r#"[\[{][\[\]{},:"\\ 1é]{0,20}"#) {
            if text.starts_with('[') {
                let _read = elements(&text);
            } else {
                let _read = members(&text);
            }
        }
    }
}
