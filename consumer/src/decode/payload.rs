//! The wanted fields of a JSON object, in one pass and without a tree: each is
//! found as the text it has in the payload, so that no digit can be lost.

use std::{borrow::Cow, fmt};

use hashbrown::HashMap;
use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Which fields are wanted, as a tree of names.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    slot: Option<usize>,
    children: HashMap<String, Wanted>,
}

impl Wanted {
    /// Wants the field at `path`, its names separated by dots, in `slot`.
    pub(super) fn add(&mut self, path: &str, slot: usize) {
        let mut node = self;
        for name in path.split('.') {
            node = node.children.entry(name.to_owned()).or_default();
        }
        node.slot = Some(slot);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Puts the raw text of each wanted field of `json` into its slot, and
    /// returns the first name at the top that nothing wants.
    ///
    /// # Errors
    /// When `json` is not one JSON object.
    pub(super) fn find<'a>(
        &self,
        json: &'a str,
        slots: &mut [Option<&'a str>],
    ) -> Result<Option<Cow<'a, str>>, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let mut unknown = None;
        deserializer.deserialize_map(Fields { wanted: self, slots, unknown: &mut unknown })?;
        deserializer.end()?;
        Ok(unknown)
    }
}

struct Fields<'w, 's, 'a> {
    wanted: &'w Wanted,
    slots: &'s mut [Option<&'a str>],
    unknown: &'s mut Option<Cow<'a, str>>,
}

impl<'a> Visitor<'a> for Fields<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let Some(wanted) = self.wanted.children.get(name.as_ref()) else {
                self.unknown.get_or_insert(name);
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &'a RawValue = map.next_value()?;
            if let Some(slot) = wanted.slot {
                self.slots[slot] = Some(raw.get());
            }
            if !wanted.is_empty() && raw.get().starts_with('{') {
                wanted.find(raw.get(), self.slots).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// A field's name, borrowed unless it holds an escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsName;

        impl<'de> Visitor<'de> for AsName {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(AsName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(
        paths: &[&str],
        json: &'a str,
    ) -> Result<(Vec<Option<&'a str>>, Option<String>), String> {
        let mut wanted = Wanted::default();
        for (slot, path) in paths.iter().enumerate() {
            wanted.add(path, slot);
        }
        let mut slots = vec![None; paths.len()];
        let unknown = wanted.find(json, &mut slots).map_err(|error| error.to_string())?;
        Ok((slots, unknown.map(Cow::into_owned)))
    }

    #[test]
    fn fields_keep_the_text_they_have() {
        let json = r#"{"b": 0.10, "a":12345678901234567890.5 , "c":{"d":[1, 2]}, "e\n":null}"#;
        let (slots, unknown) = find(&["a", "b", "c.d", "c", "e\n", "x", "c.y"], json).unwrap();
        let expected = [
            Some("12345678901234567890.5"),
            Some("0.10"),
            Some("[1, 2]"),
            Some(r#"{"d":[1, 2]}"#),
            Some("null"),
            None,
            None,
        ];
        assert_eq!(slots, expected);
        assert_eq!(unknown, None);
    }

    #[test]
    fn the_first_field_that_nobody_wants_is_named() {
        assert_eq!(find(&["a"], r#"{"a":1,"b":{"a":2},"c":3}"#).unwrap().1.as_deref(), Some("b"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in ["", "[1]", "1", "null", "{", r#"{"a":1}x"#, r#"{"a":}"#] {
            assert!(find(&["a"], json).is_err(), "{json}");
        }
    }
}
