//! Walks through JSON that is made of parts, once, from front to back.
//!
//! The record as a whole was parsed before, so this only finds boundaries. Text
//! that is not JSON after all is refused or misread, but never causes a panic.

use memchr::memchr2;

use super::error::Reason;

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// An array or an object that has been entered.
#[derive(Debug)]
pub(super) struct Entered {
    close: u8,
    first: bool,
}

impl<'a> Cursor<'a> {
    /// At the front of one value.
    pub(super) fn new(raw: &'a str) -> Self {
        Self { text: raw, at: 0 }
    }

    /// Goes into the array that begins here; `None` if another value does.
    #[inline]
    pub(super) fn enter_array(&mut self) -> Option<Entered> {
        self.enter(b'[', b']')
    }

    /// Goes into the object that begins here; `None` if another value does.
    #[inline]
    pub(super) fn enter_object(&mut self) -> Option<Entered> {
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
    pub(super) fn is_null(&self) -> bool {
        self.text.as_bytes()[self.at..].starts_with(b"null")
    }

    /// Moves to the next part of what was entered; past its end if there is none.
    pub(super) fn next(&mut self, entered: &mut Entered) -> Result<bool, Reason> {
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
            _ => Err(Reason::Malformed),
        }
    }

    /// Takes the name of an object's member, still quoted, and moves to its value.
    pub(super) fn name(&mut self) -> Result<&'a str, Reason> {
        if self.peek() != Some(b'"') {
            return Err(Reason::Malformed);
        }
        let name = self.value()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(Reason::Malformed);
        }
        self.at += 1;
        self.space();
        Ok(name)
    }

    /// Takes the value that begins here, whole.
    #[inline]
    pub(super) fn value(&mut self) -> Result<&'a str, Reason> {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let length = value_length(rest).ok_or(Reason::Malformed)?;
        self.at += length;
        // Values end at ASCII, so between characters.
        self.text.get(start..self.at).ok_or(Reason::Malformed)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// How far the value at the front goes.
#[inline]
fn value_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_length(bytes),
        b'{' | b'[' => composite_length(bytes),
        _ => bytes
            .iter()
            .position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .map_or(Some(bytes.len()), |length| (length > 0).then_some(length)),
    }
}

fn composite_length(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_length(&bytes[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// How far the string at the front goes, quotes included.
#[inline]
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(raw: &str) -> Result<Vec<&str>, Reason> {
        let mut cursor = Cursor::new(raw);
        let mut array = cursor.enter_array().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut array)? {
            found.push(cursor.value()?);
        }
        Ok(found)
    }

    fn members(raw: &str) -> Result<Vec<(&str, &str)>, Reason> {
        let mut cursor = Cursor::new(raw);
        let mut object = cursor.enter_object().unwrap();
        let mut found = Vec::new();
        while cursor.next(&mut object)? {
            found.push((cursor.name()?, cursor.value()?));
        }
        Ok(found)
    }

    #[test]
    fn parts_keep_their_text() {
        assert_eq!(elements("[]"), Ok(vec![]));
        assert_eq!(elements("[ ]"), Ok(vec![]));
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
    fn what_is_no_json_is_refused() {
        for text in ["[", "[1", "[1 2]", "[\"a]", "[[1]", "[,1]", "[1,"] {
            assert_eq!(elements(text), Err(Reason::Malformed), "{text}");
        }
        for text in ["{", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\":1 \"b\":2}"] {
            assert_eq!(members(text), Err(Reason::Malformed), "{text}");
        }
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
