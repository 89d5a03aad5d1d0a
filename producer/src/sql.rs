//! Names in SQL text.

/// An identifier as SQL takes it, whatever it contains.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
