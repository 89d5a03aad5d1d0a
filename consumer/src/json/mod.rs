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

/// A value in its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    pub(crate) kind: Kind,
}

impl<'a> Value<'a> {
    /// As it is written, without space around it.
    #[inline]
    pub(crate) fn raw(&self) -> &'a str {
        // Values begin and end at ASCII, so between characters.
        &self.text[self.start..self.end]
    }

    /// What is between the quotes of a string.
    #[inline]
    pub(crate) fn inner(&self) -> &'a str {
        &self.text[self.start + 1..self.end - 1]
    }
}

/// What is known of a value for having gone through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// A string without an escape: it says what is between its quotes.
    Plain,
    /// A number that is written as this integer is.
    Int(i64),
    Other,
}

/// Text that is not JSON. In a box, since nearly nothing is wrong and what is right
/// goes through registers then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) struct JsonError(#[from] Box<Wrong>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
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
        loop {
            match self.peek() {
                Some(b',') if !entered.first => {
                    self.at += 1;
                    self.space();
                    return Ok(true);
                }
                Some(byte) if byte == entered.close => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.space(),
                Some(_) if entered.first => {
                    entered.first = false;
                    return Ok(true);
                }
                _ => return Err(self.unexpected(self.at)),
            }
        }
    }

    /// Takes the name of an object's member, still quoted, and moves to its value.
    pub(crate) fn name(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let end = scan::string(self.text.as_bytes(), start).map_err(|at| self.unexpected(at))?;
        self.at = end;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.error());
        }
        self.at += 1;
        self.space();
        Ok(&self.text[start..end])
    }

    /// Takes the name if it is written as `name`, and moves to its value.
    #[inline]
    pub(crate) fn takes_name(&mut self, name: &Name) -> bool {
        let is_it = self.text.as_bytes()[self.at..].starts_with(name.0.as_bytes());
        if is_it {
            self.at += name.0.len();
            self.space();
        }
        is_it
    }

    /// Takes the value that begins here, whole.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Result<Value<'a>, JsonError> {
        let (text, start) = (self.text, self.at);
        let scanned = scan::value(text.as_bytes(), start);
        let (end, kind) = scanned.map_err(|at| self.unexpected(at))?;
        self.at = end;
        Ok(Value { text, start, end, kind })
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
        JsonError(Box::new(match self.text[at..].chars().next() {
            Some(found) => Wrong::Unexpected { found, at },
            None => Wrong::Ends(at),
        }))
    }
}

impl JsonError {
    /// Of a name as it is written.
    #[cold]
    pub(crate) fn name(quoted: &str) -> Self {
        Self(Box::new(Wrong::Name(quoted.to_owned())))
    }
}

/// A member's name as nearly everybody writes it, with the colon: other ways are
/// found by reading.
#[derive(Debug, Default)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        Self(format!("{}:", serde_json::Value::from(name)))
    }
}

/// The integer that is written so, if 64 bits hold it.
#[inline]
pub(crate) fn integer(text: &str) -> Option<i64> {
    let (end, value) = scan::integer(text.as_bytes(), 0);
    (end > 0 && end == text.len()).then_some(value)
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

    fn wrong<T>(wrong: Wrong) -> Result<T, JsonError> {
        Err(JsonError(Box::new(wrong)))
    }

    fn elements(raw: &str) -> Result<Vec<&str>, JsonError> {
        let mut cursor = Cursor::new(raw);
        let mut array = cursor.enter_array().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut array)? {
            found.push(cursor.value()?.raw());
        }
        cursor.end()?;
        Ok(found)
    }

    fn members(raw: &str) -> Result<Vec<(&str, &str)>, JsonError> {
        let mut cursor = Cursor::new(raw);
        let mut object = cursor.enter_object().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut object)? {
            found.push((cursor.name()?, cursor.value()?.raw()));
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
            (r#"{"a":1}"#, "a", true),
            (r#"{ "a\"b": 1}"#, "a\"b", true),
            (r#"{"a" :1}"#, "a", false),
            (r#"{"ab":1}"#, "a", false),
            (r#"{"\u0061":1}"#, "a", false),
            (r#"{"a" 1}"#, "a", false),
        ] {
            let mut cursor = Cursor::new(json);
            let mut object = cursor.enter_object().unwrap();
            assert_eq!(cursor.next(&mut object), Ok(true));
            assert_eq!(cursor.takes_name(&Name::new(name)), is_taken, "{json}");
            if is_taken {
                assert_eq!(cursor.value().unwrap().raw(), "1", "{json}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let unexpected = |found, at| wrong(Wrong::Unexpected { found, at });
        assert_eq!(elements("["), wrong(Wrong::Ends(1)));
        assert_eq!(elements("[1"), wrong(Wrong::Ends(2)));
        assert_eq!(elements("[1 2]"), unexpected('2', 3));
        assert_eq!(elements("[\"é"), wrong(Wrong::Ends(4)));
        assert_eq!(elements("[é]"), unexpected('é', 1));
        assert_eq!(elements("[[1}"), unexpected('}', 3));
        assert_eq!(elements("[,1]"), unexpected(',', 1));
        assert_eq!(elements("[1,]"), unexpected(']', 3));
        assert_eq!(elements("[01]"), unexpected('1', 2));
        assert_eq!(elements("[1]x"), unexpected('x', 3));
        assert_eq!(members("{"), wrong(Wrong::Ends(1)));
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
