//! How far a JSON value goes, with its grammar checked on the way. Positions are
//! in bytes; what goes wrong is told by where.

use smallvec::SmallVec;

use super::Kind;

/// Where a value ends, or where it stops being one.
pub(super) type End = Result<usize, usize>;

/// Past the space at `at`.
#[inline]
pub(super) fn space(bytes: &[u8], mut at: usize) -> usize {
    // Most JSON that machines write has none.
    while let Some(byte) = bytes.get(at).filter(|byte| **byte <= b' ') {
        if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        at += 1;
    }
    at
}

/// Past the value that begins at `at`, and of which kind it is.
#[inline(always)]
pub(super) fn value(bytes: &[u8], at: usize) -> Result<(usize, Kind), usize> {
    match bytes.get(at) {
        Some(b'-' | b'0'..=b'9') => match integer(bytes, at) {
            (0, _) => Ok((number(bytes, at)?, Kind::Other)),
            (end, value) => Ok((end, Kind::Int(value))),
        },
        Some(b'"') => match plain(bytes, at + 1) {
            end if bytes.get(end) == Some(&b'"') => Ok((end + 1, Kind::Plain)),
            end => Ok((rest_of_string(bytes, end)?, Kind::Other)),
        },
        Some(b'n') => Ok((literal(bytes, at, b"null")?, Kind::Null)),
        Some(b'{' | b'[') => Ok((composite(bytes, at)?, Kind::Other)),
        _ => Ok((scalar(bytes, at)?, Kind::Other)),
    }
}

/// Past the string that begins at `at`.
#[inline]
pub(super) fn string(bytes: &[u8], at: usize) -> End {
    if bytes.get(at) != Some(&b'"') {
        return Err(at);
    }
    match plain(bytes, at + 1) {
        end if bytes.get(end) == Some(&b'"') => Ok(end + 1),
        end => rest_of_string(bytes, end),
    }
}

/// Past the string that goes on at `at` with something special.
#[cold]
fn rest_of_string(bytes: &[u8], mut at: usize) -> End {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = escape(bytes, at)?,
            _ => return Err(at),
        }
        at = plain(bytes, at);
    }
}

#[inline]
fn scalar(bytes: &[u8], at: usize) -> End {
    match bytes.get(at) {
        Some(b'"') => string(bytes, at),
        Some(b'-' | b'0'..=b'9') => number(bytes, at),
        Some(b't') => literal(bytes, at, b"true"),
        Some(b'f') => literal(bytes, at, b"false"),
        Some(b'n') => literal(bytes, at, b"null"),
        _ => Err(at),
    }
}

fn literal(bytes: &[u8], at: usize, literal: &[u8]) -> End {
    if bytes[at..].starts_with(literal) { Ok(at + literal.len()) } else { Err(at) }
}

/// To the first byte that a string cannot have as it is: a quote, a backslash or
/// a control character.
#[inline(never)]
fn plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
        // What is not short is mostly longer than another eight bytes.
        while bytes.get(at..).and_then(|rest| rest.first_chunk()).is_some_and(is_plain) {
            at += 16;
        }
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Whether none of the bytes is special. Without an early end, so that the compiler
/// takes all of them at a time.
#[inline]
fn is_plain(bytes: &[u8; 16]) -> bool {
    let has = |is: fn(u8) -> bool| bytes.iter().fold(false, |found, byte| found | is(*byte));
    !(has(|byte| byte < 0x20) | has(|byte| byte == b'"') | has(|byte| byte == b'\\'))
}

/// Marks the first of eight bytes that is a quote, a backslash or a control
/// character by the highest of its bits, and none before it. Bytes behind it may be
/// marked for nothing: a borrow of the subtraction goes upwards.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let is_less = |word: u64, than: u64| word.wrapping_sub(ONES * than) & !word & HIGH;
    let is = |byte: u8| is_less(word ^ (ONES * u64::from(byte)), 1);
    is(b'"') | is(b'\\') | is_less(word, 0x20)
}

/// Past the escape that begins at `at`. Whether a surrogate has its other half is
/// not looked at.
fn escape(bytes: &[u8], at: usize) -> End {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match bytes.get(at + 2..at + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            _ => Err(at),
        },
        _ => Err(at),
    }
}

/// Past the integer at `start`, and its value: if 64 bits hold it and it is written
/// as such are. Otherwise nothing, at 0. By itself, as are strings: amid an object
/// there are too few registers for a loop.
#[inline(never)]
pub(super) fn integer(bytes: &[u8], start: usize) -> (usize, i64) {
    /// As many fit into 64 bits, whatever they are.
    const DIGITS: usize = 19;
    const OTHER: (usize, i64) = (0, 0);
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let (mut at, mut value) = (first, 0_u64);
    while let Some(digit @ 0..=9) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    let digits = at - first;
    // -0 is another number than 0 to floats.
    let is_odd = bytes.get(first) == Some(&b'0') && (digits > 1 || negative);
    let is_more = matches!(bytes.get(at), Some(b'.' | b'e' | b'E'));
    if digits == 0 || digits > DIGITS || value > i64::MAX as u64 || is_odd || is_more {
        return OTHER;
    }
    (at, if negative { -(value as i64) } else { value as i64 })
}

fn number(bytes: &[u8], mut at: usize) -> End {
    at += usize::from(bytes.get(at) == Some(&b'-'));
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(bytes, at + 1 + usize::from(signed))?;
    }
    Ok(at)
}

/// Past the digits at `at`, of which there has to be one.
#[inline]
fn digits(bytes: &[u8], start: usize) -> End {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at > start { Ok(at) } else { Err(at) }
}

/// Past the array or object that begins at `at`. Without recursion: it may be as
/// deep as it likes.
fn composite(bytes: &[u8], mut at: usize) -> End {
    // How what has been entered is left again.
    let mut entered = SmallVec::<[u8; 32]>::new();
    loop {
        // Before a value.
        match bytes.get(at) {
            Some(open @ (b'{' | b'[')) => {
                let close = open + 2;
                at = space(bytes, at + 1);
                if bytes.get(at) == Some(&close) {
                    at += 1;
                } else {
                    entered.push(close);
                    if close == b'}' {
                        at = name(bytes, at)?;
                    }
                    continue;
                }
            }
            _ => at = scalar(bytes, at)?,
        }
        // Behind one.
        loop {
            let Some(&close) = entered.last() else { return Ok(at) };
            at = space(bytes, at);
            match bytes.get(at) {
                Some(b',') => {
                    at = space(bytes, at + 1);
                    if close == b'}' {
                        at = name(bytes, at)?;
                    }
                    break;
                }
                Some(&byte) if byte == close => {
                    at += 1;
                    entered.pop();
                }
                _ => return Err(at),
            }
        }
    }
}

/// Past a member's name and its colon, to its value.
#[inline]
fn name(bytes: &[u8], at: usize) -> End {
    let at = space(bytes, string(bytes, at)?);
    if bytes.get(at) == Some(&b':') { Ok(space(bytes, at + 1)) } else { Err(at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_value(text: &str) -> bool {
        value(text.as_bytes(), 0).map(|(end, _)| end) == Ok(text.len())
    }

    #[test]
    fn a_bad_byte_is_told_by_its_place() {
        for (text, at) in [
            ("", 0),
            ("x", 0),
            ("-", 1),
            ("-x", 1),
            ("1.", 2),
            ("1e+", 3),
            ("nul", 0),
            (r#""a"#, 2),
            (r#""a\x""#, 2),
            (r#""\u12g4""#, 1),
            ("\"a\n\"", 2),
            ("[1,]", 3),
            ("[1}", 2),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":1,2}"#, 7),
            (r#"{"a":[{"b":1e}]}"#, 13),
            (r#"{"a":1"#, 6),
        ] {
            assert_eq!(value(text.as_bytes(), 0), Err(at), "{text}");
        }
    }

    #[test]
    fn the_first_special_byte_is_marked_wherever_it_is() {
        for place in 0..60 {
            for special in *b"\"\\\0\x1f" {
                for around in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xff] {
                    let mut bytes = [around; 60];
                    bytes[place] = special;
                    assert_eq!(plain(&bytes, 0), place, "{special:#x} among {around:#x}");
                }
            }
        }
    }

    proptest! {
        /// As serde_json has it. A value and something behind it is no value.
        #[test]
        fn json_is_what_serde_takes_for_it(
            text in r#"([\[\]{},: ]|"([a-z é]|\\[nu"x]|\\u00[0-9a]{2}){0,9}"|-?[0-9]{1,3}|[.eE+-]|null|true|false){1,12}"#
        ) {
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_value(text.trim()), is_json, "{}", text);
        }

        #[test]
        fn so_is_nearly_right_json(
            text in r#"\{("[ab]{1,2}": ?(-?[0-9]{1,2}(\.[0-9])?(e-?[0-9])?|"[a-z\\n]{0,12}"|\[[0-9,]{0,4}\]|\{\}),?){0,3}\}"#
        ) {
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_value(&text), is_json, "{}", text);
        }
    }
}
