//! The fields of a payload that no column takes.

use super::payload::{Wanted, members};
use crate::json::JsonError;

/// What is done with them, and what there is of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Ignored,
    /// The first one's path, once there is one.
    Named(Option<String>),
    Collected(Collected),
}

/// The unknown fields in their order, as the members of one JSON object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Collected {
    members: String,
    /// Whether each value's JSON text becomes a string, for a `Map` of strings:
    /// in it, `"1"` and `1` are then not the same.
    as_text: bool,
}

impl Collected {
    pub(super) fn new(as_text: bool) -> Self {
        Collected { members: String::new(), as_text }
    }

    fn add(&mut self, name: &str, raw: &str) {
        if self.as_text {
            let mut text = String::new();
            push_quoted(&mut text, raw);
            add_member(&mut self.members, name, &text);
        } else {
            add_member(&mut self.members, name, raw);
        }
    }

    /// The object.
    pub(super) fn into_object(self) -> String {
        format!("{{{}}}", self.members)
    }
}

impl Unknown {
    #[inline]
    pub(super) fn is_ignored(&self) -> bool {
        matches!(self, Unknown::Ignored)
    }

    /// A field that nothing wants, nor anything in it.
    pub(super) fn add(&mut self, name: &str, raw: &str) {
        match self {
            Unknown::Ignored => {}
            Unknown::Named(first) => {
                first.get_or_insert_with(|| name.to_owned());
            }
            Unknown::Collected(collected) => collected.add(name, raw),
        }
    }

    /// A field in which something is wanted: what is left of it.
    ///
    /// # Errors
    /// When a name in it is no text.
    pub(super) fn add_rest(
        &mut self,
        name: &str,
        wanted: &Wanted,
        raw: &str,
    ) -> Result<(), JsonError> {
        let (first, with_nulls) = match self {
            Unknown::Ignored | Unknown::Named(Some(_)) => return Ok(()),
            Unknown::Named(_) => (true, false),
            Unknown::Collected(_) => (false, true),
        };
        let Some(rest) = rest_of(wanted, raw, Looking { in_array: false, with_nulls })? else {
            return Ok(());
        };
        if first {
            self.add(&joined(name, &rest.first), "");
        } else {
            self.add(name, &rest.text);
        }
        Ok(())
    }
}

/// What no column takes of a value in which a path may lead on.
struct Rest {
    text: String,
    /// The path of its first field; empty if it is the value itself.
    first: String,
}

#[derive(Clone, Copy)]
struct Looking {
    /// Whether an array has been gone through on the way here.
    in_array: bool,
    /// Whether null counts that stands where a path leads on: there is no field
    /// in it that a column could miss.
    with_nulls: bool,
}

/// No deeper than paths are long, whatever `raw` is.
fn rest_of(wanted: &Wanted, raw: &str, looking: Looking) -> Result<Option<Rest>, JsonError> {
    if wanted.takes_all(looking.in_array) {
        return Ok(None);
    }
    if raw.starts_with('{') {
        return rest_of_object(wanted, raw, looking);
    }
    if let Some(elements) = wanted.goes_through(raw) {
        let looking = Looking { in_array: true, ..looking };
        let (mut text, mut first) = (String::from("["), None);
        for element in elements {
            if text.len() > 1 {
                text.push(',');
            }
            // An element that is taken whole still has its place.
            match element {
                "null" => text.push_str("null"),
                object => match rest_of_object(wanted, object, looking)? {
                    None => text.push_str("{}"),
                    Some(rest) => {
                        text.push_str(&rest.text);
                        first.get_or_insert(rest.first);
                    }
                },
            }
        }
        text.push(']');
        return Ok(first.map(|first| Rest { text, first }));
    }
    let is_nothing = raw == "null" && !looking.with_nulls;
    Ok((!is_nothing).then(|| Rest { text: raw.to_owned(), first: String::new() }))
}

fn rest_of_object(wanted: &Wanted, raw: &str, looking: Looking) -> Result<Option<Rest>, JsonError> {
    let members = members(raw)?;
    let is_empty = members.is_empty();
    let (mut text, mut first) = (String::new(), None);
    for (name, value) in members {
        let rest = match wanted.child(&name, looking.in_array) {
            Some(child) => rest_of(child, value, looking)?,
            None => Some(Rest { text: value.to_owned(), first: String::new() }),
        };
        if let Some(rest) = rest {
            add_member(&mut text, &name, &rest.text);
            first.get_or_insert_with(|| joined(&name, &rest.first));
        }
    }
    // An object of nothing says something only where it is kept.
    if is_empty && looking.with_nulls && !looking.in_array {
        first = Some(String::new());
    }
    Ok(first.map(|first| Rest { text: format!("{{{text}}}"), first }))
}

fn add_member(members: &mut String, name: &str, raw: &str) {
    if !members.is_empty() {
        members.push(',');
    }
    push_quoted(members, name);
    members.push(':');
    members.push_str(raw);
}

/// Appends a JSON string.
fn push_quoted(out: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn joined(name: &str, rest: &str) -> String {
    if rest.is_empty() { name.to_owned() } else { format!("{name}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::payload::{Gathered, Slots};

    /// What is left of `json` by the columns of these paths; one that ends with
    /// `[]` is a column of arrays.
    fn left(paths: &[&str], json: &str, mut unknown: Unknown) -> Unknown {
        let mut wanted = Wanted::default();
        for (slot, path) in paths.iter().enumerate() {
            let is_list = path.ends_with("[]");
            wanted.add(path.trim_end_matches("[]").split('.'), slot, is_list);
        }
        let (mut found, mut gathered) = (vec![None; paths.len()], Gathered::new());
        let mut slots = Slots { found: &mut found, gathered: &mut gathered };
        wanted.find(json, &mut slots, &mut unknown).unwrap();
        unknown
    }

    fn collected(paths: &[&str], json: &str) -> String {
        match left(paths, json, Unknown::Collected(Collected::new(false))) {
            Unknown::Collected(collected) => collected.into_object(),
            other => panic!("{other:?}"),
        }
    }

    fn first(paths: &[&str], json: &str) -> Option<String> {
        match left(paths, json, Unknown::Named(None)) {
            Unknown::Named(first) => first,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_that_nothing_wants_keep_text_and_order() {
        let json = r#"{"z": 1.50, "a":1, "y" : {"b": [ ]}, "x\n":"\u00e9", "z":null}"#;
        let expected = r#"{"z":1.50,"y":{"b": [ ]},"x\n":"\u00e9","z":null}"#;
        assert_eq!(collected(&["a"], json), expected);
        assert_eq!(first(&["a"], json).as_deref(), Some("z"));
        for json in ["{}", r#"{"a":{"b":1}}"#, r#"{"a":1,"a":2}"#] {
            assert_eq!(collected(&["a"], json), "{}");
            assert_eq!(first(&["a"], json), None);
        }
    }

    #[test]
    fn an_object_that_a_path_leads_into_is_kept_without_what_is_taken() {
        let paths = ["customer.address.city", "id"];
        for (json, rest, named) in [
            (r#"{"id":1,"customer":{"address":{"city":"P"}}}"#, "{}", None),
            (
                r#"{"customer":{"name":"x","address":{"zip":1,"city":"P","city":"Q"},"age":2}}"#,
                r#"{"customer":{"name":"x","address":{"zip":1},"age":2}}"#,
                Some("customer.name"),
            ),
            (
                r#"{"customer":{"address":{"city":"P","geo":{"x":1}}}}"#,
                r#"{"customer":{"address":{"geo":{"x":1}}}}"#,
                Some("customer.address.geo"),
            ),
            (r#"{"customer":"x"}"#, r#"{"customer":"x"}"#, Some("customer")),
            (r#"{"customer":[1]}"#, r#"{"customer":[1]}"#, Some("customer")),
            // Nothing is missed by a column here, but it is not nothing.
            (r#"{"customer":null}"#, r#"{"customer":null}"#, None),
            (r#"{"customer":{}}"#, r#"{"customer":{}}"#, None),
            (r#"{"customer":{"address":null}}"#, r#"{"customer":{"address":null}}"#, None),
        ] {
            assert_eq!(collected(&paths, json), rest);
            assert_eq!(first(&paths, json).as_deref(), named, "{json}");
        }
        // The whole of it is taken by another column.
        let all = ["customer.address.city", "customer"];
        assert_eq!(collected(&all, r#"{"customer":{"name":"x"}}"#), "{}");
    }

    #[test]
    fn so_are_the_objects_of_an_array_that_columns_gather_from() {
        let json = r#"{"n":[{"x":1,"y":2},null,{"x":3}]}"#;
        for (paths, rest, named) in [
            (&["n.x[]", "n.y[]"] as &[&str], "{}", None),
            (&["n.x[]"], r#"{"n":[{"y":2},null,{}]}"#, Some("n.y")),
            // A column that is no array finds nothing in one.
            (&["n.x[]", "n.y"], r#"{"n":[{"y":2},null,{}]}"#, Some("n.y")),
            (&["n.x"], r#"{"n":[{"x":1,"y":2},null,{"x":3}]}"#, Some("n")),
            (&["n", "n.x[]"], "{}", None),
        ] {
            assert_eq!(collected(paths, json), rest);
            assert_eq!(first(paths, json).as_deref(), named, "{paths:?}");
        }
        assert_eq!(collected(&["n.x[]"], r#"{"n":[]}"#), "{}");
        assert_eq!(collected(&["n.x[]"], r#"{"n":[1]}"#), r#"{"n":[1]}"#);
    }

    #[test]
    fn for_a_map_of_strings_values_are_their_json_text() {
        let unknown = Unknown::Collected(Collected::new(true));
        let json = r#"{"a":1,"s":"x","n":1.50,"o":{"k":["\n"]},"z":null}"#;
        match left(&["a"], json, unknown) {
            Unknown::Collected(collected) => assert_eq!(
                collected.into_object(),
                r#"{"s":"\"x\"","n":"1.50","o":"{\"k\":[\"\\n\"]}","z":"null"}"#
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_too_deep() {
        const DEEP: usize = 200_000;
        let objects = format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP));
        let json = format!("{{\"a\":{objects},\"b\":{objects}}}");
        let rest = collected(&["a.a.x", "a.b[]"], &json);
        assert_eq!(rest.len(), json.len());
        assert_eq!(first(&["a.a.x"], &json).as_deref(), Some("a.a.a"));
    }
}
