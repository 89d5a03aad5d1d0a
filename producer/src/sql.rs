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
