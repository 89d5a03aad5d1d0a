//! Names and constants in SQL text.

/// An identifier as SQL takes it, whatever it contains.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A string constant, whatever it contains. A backslash in it means itself as
/// long as nobody turns `standard_conforming_strings` off.
#[cfg(feature = "relay")]
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An identifier for a person to copy: quoted only where SQL needs it.
#[cfg(feature = "relay")]
pub(crate) fn legible(identifier: &str) -> String {
    let is_plain = identifier.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && identifier.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { identifier.to_owned() } else { quoted(identifier) }
}

/// The same for `schema.table`.
#[cfg(feature = "relay")]
pub(crate) fn legible_table(table: &str) -> String {
    match table.split_once('.') {
        Some((schema, table)) => format!("{}.{}", legible(schema), legible(table)),
        None => legible(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_name_whatever_it_contains() {
        assert_eq!(quoted("my\"pub, 'x"), "\"my\"\"pub, 'x\"");
        assert_eq!(legible("outpour_1"), "outpour_1");
        assert_eq!(legible("Outpour"), "\"Outpour\"");
        assert_eq!(legible("1st"), "\"1st\"");
        assert_eq!(legible_table("app.Outbox"), "app.\"Outbox\"");
    }
}
