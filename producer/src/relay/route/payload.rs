//! The compact form of a JSON payload. The text is copied piece by piece and
//! never becomes a value, so that order, strings and every digit of a number
//! stay, whatever the payload's shape or depth.

use outpour_schemas::config::{JsonEmptyArray, JsonNull, Relay};
use serde::de::IgnoredAny;

/// Why a payload stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotExpanded {
    #[error("it does not start with {{ or [")]
    NoStructure,
    #[error("it is not JSON")]
    NotJson,
}

/// What stays of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expansion {
    keep_nulls: bool,
    keep_empty_arrays: bool,
}

impl Expansion {
    pub(super) fn of(relay: &Relay) -> Option<Self> {
        relay.expand_json_payload.then(|| Expansion {
            keep_nulls: relay.json_payload_null_behavior == JsonNull::OptionalBytes,
            keep_empty_arrays: relay.json_payload_empty_array_behavior
                == JsonEmptyArray::OptionalString,
        })
    }

    /// Leaves out white space, and fields as configured. The elements of an
    /// array all stay: without one the others would be counted anew.
    pub(super) fn expand(self, payload: &[u8]) -> Result<String, NotExpanded> {
        if !matches!(payload.first(), Some(b'{' | b'[')) {
            return Err(NotExpanded::NoStructure);
        }
        let text = std::str::from_utf8(payload).map_err(|_| NotExpanded::NotJson)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| NotExpanded::NotJson)?;
        Ok(self.compact(text))
    }

    /// Of valid JSON.
    fn compact(self, text: &str) -> String {
        let mut compact = String::with_capacity(text.len());
        // Innermost last; whether it is an object.
        let mut containers = Vec::new();
        // The key of the field whose value comes next.
        let mut key = None;
        let mut tokens = Tokens { rest: text }.peekable();
        while let Some(token) = tokens.next() {
            match token {
                "," | ":" => continue,
                "}" | "]" => {
                    containers.pop();
                    compact.push_str(token);
                    continue;
                }
                "null" if key.is_some() && !self.keep_nulls => {
                    key = None;
                    continue;
                }
                "[" if key.is_some()
                    && !self.keep_empty_arrays
                    && tokens.next_if_eq(&"]").is_some() =>
                {
                    key = None;
                    continue;
                }
                _ if key.is_none() && containers.last() == Some(&true) => {
                    key = Some(token);
                    continue;
                }
                _ => {}
            }
            if !compact.is_empty() && !compact.ends_with(['{', '[']) {
                compact.push(',');
            }
            if let Some(key) = key.take() {
                compact.push_str(key);
                compact.push(':');
            }
            compact.push_str(token);
            if let "{" | "[" = token {
                containers.push(token == "{");
            }
        }
        compact
    }
}

/// The tokens of valid JSON, as they are written.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let length = match rest.bytes().next()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => {
                let mut escaped = false;
                let end = rest.bytes().skip(1).position(|byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            // A number or a word.
            _ => rest
                .find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | '}' | ']'))
                .unwrap_or(rest.len()),
        };
        let (token, rest) = rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DROP: Expansion = Expansion { keep_nulls: false, keep_empty_arrays: false };
    const KEEP: Expansion = Expansion { keep_nulls: true, keep_empty_arrays: true };

    #[test]
    fn a_plain_object_is_compact_and_in_order() {
        assert_eq!(
            DROP.expand(br#"{"b": 1, "a" : "x  y",  "c":true}"#).unwrap(),
            r#"{"b":1,"a":"x  y","c":true}"#
        );
    }

    #[test]
    fn nested_arrays_and_objects_keep_their_shape() {
        let payload = br#"{"a": [[1, 2], [3]], "b": {"c": [{"d": {}}]}}"#;
        assert_eq!(DROP.expand(payload).unwrap(), r#"{"a":[[1,2],[3]],"b":{"c":[{"d":{}}]}}"#);
    }

    #[test]
    fn null_fields_and_empty_arrays_go_or_stay_as_configured() {
        let payload = br#"{"a": null, "b": [ ], "c": {"d": null}, "e": "null", "f": "[]"}"#;
        assert_eq!(DROP.expand(payload).unwrap(), r#"{"c":{},"e":"null","f":"[]"}"#);
        assert_eq!(
            KEEP.expand(payload).unwrap(),
            r#"{"a":null,"b":[],"c":{"d":null},"e":"null","f":"[]"}"#
        );
    }

    #[test]
    fn elements_of_an_array_stay_even_if_the_first_is_null_or_empty() {
        let payload = br#"{"a": [null, 2], "b": [[], [1]], "c": [{"d": null}, {"d": 1}]}"#;
        assert_eq!(
            DROP.expand(payload).unwrap(),
            r#"{"a":[null,2],"b":[[],[1]],"c":[{},{"d":1}]}"#
        );
    }

    #[test]
    fn top_level_arrays_mixed_types_and_numbers_of_any_size_are_fine() {
        let payload = b"[1, \"a\", 1.50, 123456789012345678901234567890, 1E400, -0.0]";
        assert_eq!(
            DROP.expand(payload).unwrap(),
            "[1,\"a\",1.50,123456789012345678901234567890,1E400,-0.0]"
        );
    }

    #[test]
    fn strings_are_copied_to_the_byte() {
        let payload = r#"{"a\"}": "\\", "b": "\u00e9\/ü {,}", "c{": "]["}"#;
        assert_eq!(
            DROP.expand(payload.as_bytes()).unwrap(),
            r#"{"a\"}":"\\","b":"\u00e9\/ü {,}","c{":"]["}"#
        );
    }

    #[test]
    fn what_is_no_object_or_array_is_not_expanded() {
        for payload in ["\"text\"", "1", "null", "", " {}", "plain"] {
            assert_eq!(DROP.expand(payload.as_bytes()), Err(NotExpanded::NoStructure), "{payload}");
        }
        for payload in ["{", "{\"a\":}", "[1,]", "{} x"] {
            assert_eq!(DROP.expand(payload.as_bytes()), Err(NotExpanded::NotJson), "{payload}");
        }
        assert_eq!(DROP.expand(b"[\"\xff\"]"), Err(NotExpanded::NotJson));
    }

    #[test]
    fn depth_costs_no_stack() {
        let payload = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(KEEP.expand(payload.as_bytes()).unwrap(), payload);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(Into::into),
            any::<bool>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_compact_form_is_what_a_serializer_writes(value in json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            if let Ok(compact) = KEEP.expand(pretty.as_bytes()) {
                prop_assert_eq!(compact, value.to_string());
            }
        }

        #[test]
        fn what_is_left_is_json(value in json()) {
            if let Ok(compact) = DROP.expand(value.to_string().as_bytes()) {
                serde_json::from_str::<serde_json::Value>(&compact).unwrap();
            }
        }
    }
}
