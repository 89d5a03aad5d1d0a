//! Paths into a payload, as the configuration writes them.

/// The names of a path: `a.b` is the field `b` of the field `a`. A backslash
/// makes the dot or the backslash after it part of a name.
pub(super) fn names(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = (c == '\\').then(|| chars.next_if(|c| matches!(c, '.' | '\\'))).flatten();
        match (escaped, names.last_mut()) {
            (None, _) if c == '.' => names.push(String::new()),
            (escaped, Some(name)) => name.push(escaped.unwrap_or(c)),
            // There is always a last one.
            (_, None) => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_part_names_unless_they_are_escaped() {
        for (path, expected) in [
            ("a", &["a"] as &[&str]),
            ("a.b.c", &["a", "b", "c"]),
            (r"a\.b.c", &["a.b", "c"]),
            (r"a\\.b", &[r"a\", "b"]),
            (r"a\b.c\", &[r"a\b", r"c\"]),
            ("a..é", &["a", "", "é"]),
            ("", &[""]),
        ] {
            assert_eq!(names(path), expected, "{path}");
        }
    }
}
