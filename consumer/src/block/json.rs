//! Takes JSON arrays and objects apart into the raw texts of their parts.
//!
//! The record as a whole was parsed before, so this only finds boundaries. Text
//! that is not JSON after all is refused or misread, but never causes a panic.

use super::error::Reason;

/// The parts of one array or object, front to back.
pub(super) struct Parts<'a> {
    text: &'a str,
    at: usize,
    close: u8,
    first: bool,
}

impl<'a> Parts<'a> {
    /// The elements of an array; `None` for any other value.
    pub(super) fn of_array(raw: &'a str) -> Option<Self> {
        Self::enter(raw, b'[', b']')
    }

    /// The members of an object; `None` for any other value.
    pub(super) fn of_object(raw: &'a str) -> Option<Self> {
        Self::enter(raw, b'{', b'}')
    }

    fn enter(raw: &'a str, open: u8, close: u8) -> Option<Self> {
        (raw.as_bytes().first() == Some(&open)).then_some(Self {
            text: raw,
            at: 1,
            close,
            first: true,
        })
    }

    /// The next element of an array.
    pub(super) fn next_element(&mut self) -> Result<Option<&'a str>, Reason> {
        if !self.advance()? {
            return Ok(None);
        }
        self.value().map(Some)
    }

    /// The next member of an object: its name, still quoted, and its value.
    pub(super) fn next_member(&mut self) -> Result<Option<(&'a str, &'a str)>, Reason> {
        if !self.advance()? {
            return Ok(None);
        }
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
        Ok(Some((name, self.value()?)))
    }

    /// Moves to the next part; `false` at the end.
    fn advance(&mut self) -> Result<bool, Reason> {
        self.space();
        match self.peek() {
            Some(byte) if byte == self.close => Ok(false),
            Some(b',') if !self.first => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(_) if self.first => {
                self.first = false;
                Ok(true)
            }
            _ => Err(Reason::Malformed),
        }
    }

    fn value(&mut self) -> Result<&'a str, Reason> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = value_length(rest).ok_or(Reason::Malformed)?;
        let start = self.at;
        self.at += length;
        // Values end at ASCII, so between characters.
        self.text.get(start..self.at).ok_or(Reason::Malformed)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// How far the value at the front goes.
fn value_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_length(bytes),
        b'{' | b'[' => {
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
        _ => bytes
            .iter()
            .position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .filter(|length| *length > 0),
    }
}

/// How far the string at the front goes, quotes included.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(raw: &str) -> Result<Vec<&str>, Reason> {
        let mut parts = Parts::of_array(raw).unwrap();
        let mut found = Vec::new();
        while let Some(element) = parts.next_element()? {
            found.push(element);
        }
        Ok(found)
    }

    fn members(raw: &str) -> Result<Vec<(&str, &str)>, Reason> {
        let mut parts = Parts::of_object(raw).unwrap();
        let mut found = Vec::new();
        while let Some(member) = parts.next_member()? {
            found.push(member);
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
        assert!(Parts::of_array("{}").is_none());
        assert!(Parts::of_object("").is_none());
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
