//! The tokens that the text of a column type is made of.

use crate::block::types::TypeError;

/// How far a text is read.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    /// How many types stand in each other here.
    pub(super) depth: usize,
}

impl<'a> Parser<'a> {
    /// The text between balanced parentheses, as it is; empty without any.
    pub(super) fn raw_arguments(&mut self) -> Result<&'a str, TypeError> {
        if !self.peek("(") {
            return Ok("");
        }
        self.expect("(", "`(`")?;
        let start = self.at;
        let mut depth = 1;
        while let Some(c) = self.text[self.at..].chars().next() {
            match c {
                '\'' | '`' => {
                    self.quoted(c)?;
                    continue;
                }
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            self.at += c.len_utf8();
            if depth == 0 {
                return Ok(self.text[start..self.at - 1].trim());
            }
        }
        Err(self.syntax("`)`"))
    }

    pub(super) fn parenthesised<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TypeError>,
    ) -> Result<T, TypeError> {
        self.expect("(", "`(`")?;
        let value = inner(self)?;
        self.expect(")", "`)`")?;
        Ok(value)
    }

    pub(super) fn number(&mut self) -> Result<i64, TypeError> {
        self.space();
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        let text = &rest[..sign + digits];
        let value = text.parse().map_err(|_| self.syntax("a number"))?;
        self.at += text.len();
        Ok(value)
    }

    /// Quoted text, with ClickHouse's escapes and with doubled quotes.
    pub(super) fn quoted(&mut self, quote: char) -> Result<String, TypeError> {
        self.space();
        let mut chars = self.text[self.at..].char_indices().peekable();
        if chars.next().map(|(_, c)| c) != Some(quote) {
            return Err(self.syntax("a quoted text"));
        }
        let mut text = String::new();
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('0') => text.push('\0'),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('a') => text.push('\u{7}'),
                    Some('v') => text.push('\u{b}'),
                    Some(c) => text.push(c),
                    None => break,
                },
                c if c == quote => {
                    if chars.next_if(|(_, c)| *c == quote).is_some() {
                        text.push(quote);
                    } else {
                        self.at += index + quote.len_utf8();
                        return Ok(text);
                    }
                }
                c => text.push(c),
            }
        }
        Err(self.syntax("a quoted text"))
    }

    pub(super) fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    pub(super) fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    pub(super) fn peek(&mut self, token: &str) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    pub(super) fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), TypeError> {
        if !self.peek(token) {
            return Err(self.syntax(expected));
        }
        self.at += token.len();
        Ok(())
    }

    pub(super) fn syntax(&self, expected: &'static str) -> TypeError {
        TypeError::Syntax { text: self.text.to_owned(), at: self.at, expected }
    }
}
