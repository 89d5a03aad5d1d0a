//! The wanted fields of a JSON object, in one pass and without a tree: each is
//! found as the text it has in the payload, so that no digit can be lost.

use std::{
    borrow::Cow,
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use hashbrown::HashMap;
use serde::{
    Deserializer as _,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Error, value::RawValue};
use smallvec::SmallVec;

use super::unknown::Unknown;

/// Which fields are wanted, as a tree of names.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Where the field's text goes, whatever it is.
    slots: SmallVec<[usize; 2]>,
    /// Those of them that take arrays, and may also get one that is put together
    /// from the objects of an array.
    list_slots: SmallVec<[usize; 1]>,
    children: Vec<Child>,
    by_name: HashMap<String, usize>,
    /// Which of the children came first in the last object.
    first: Guess,
    /// Whether this or one below has a list slot.
    has_lists: bool,
}

#[derive(Debug, Default)]
struct Child {
    name: String,
    wanted: Wanted,
    /// Which of its siblings came next in the last object.
    next: Guess,
}

/// A child that is likely to come, since objects of one kind mostly have their
/// fields in one order. It saves hashing their names.
#[derive(Debug, Default)]
struct Guess(AtomicUsize);

/// Values that no part of the payload holds as one text: by slot, the JSON array
/// of what the objects of an array have at a path.
pub(super) type Gathered = Vec<(usize, String)>;

/// Where the wanted fields go.
pub(super) struct Slots<'s, 'a> {
    pub(super) found: &'s mut [Option<&'a str>],
    pub(super) gathered: &'s mut Gathered,
}

impl Wanted {
    /// Wants the field at the path of these names in `slot`.
    pub(super) fn add<'n>(
        &mut self,
        path: impl IntoIterator<Item = &'n str>,
        slot: usize,
        is_list: bool,
    ) {
        let mut node = self;
        node.has_lists |= is_list;
        for name in path {
            let next = node.children.len();
            let index = *node.by_name.entry(name.to_owned()).or_insert(next);
            if index == next {
                node.children.push(Child { name: name.to_owned(), ..Child::default() });
            }
            node = &mut node.children[index].wanted;
            node.has_lists |= is_list;
        }
        node.slots.push(slot);
        if is_list {
            node.list_slots.push(slot);
        }
    }

    /// Whether nothing is wanted below this.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether a value here leaves nothing over. In the objects of an array only
    /// columns of arrays find something.
    pub(super) fn takes_all(&self, in_array: bool) -> bool {
        if in_array { !self.list_slots.is_empty() } else { !self.slots.is_empty() }
    }

    /// The node of a field, if something in it can be found.
    pub(super) fn child(&self, name: &str, in_array: bool) -> Option<&Wanted> {
        let child = &self.children[*self.by_name.get(name)?].wanted;
        (child.has_lists || !in_array).then_some(child)
    }

    /// The child of this name. `guess` is looked at first, and learns.
    fn following(&self, name: &str, guess: &Guess) -> Option<&Child> {
        let guessed = self.children.get(guess.0.load(Relaxed));
        if let Some(child) = guessed.filter(|child| child.name == name) {
            return Some(child);
        }
        let index = *self.by_name.get(name)?;
        guess.0.store(index, Relaxed);
        Some(&self.children[index])
    }

    /// The elements of `raw`, if it is an array in which columns may find something.
    pub(super) fn goes_through<'a>(&self, raw: &'a str) -> Option<Vec<&'a RawValue>> {
        if self.has_lists && !self.is_leaf() { objects(raw) } else { None }
    }

    /// Puts the raw text of each wanted field of `json` into its slots, and what
    /// nothing wants into `unknown`.
    ///
    /// # Errors
    /// When `json` is not one JSON object.
    pub(super) fn find<'a>(
        &self,
        json: &'a str,
        slots: &mut Slots<'_, 'a>,
        unknown: &mut Unknown,
    ) -> Result<(), Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        deserializer.deserialize_map(Fields { wanted: self, slots, unknown })?;
        deserializer.end()
    }

    /// Takes the value of the field that this is the node of.
    fn take<'a>(&self, raw: &'a str, slots: &mut Slots<'_, 'a>) -> Result<(), Error> {
        for &slot in &self.slots {
            slots.found[slot] = Some(raw);
        }
        if self.is_leaf() {
            return Ok(());
        }
        if raw.starts_with('{') {
            return self.find(raw, slots, &mut Unknown::Ignored);
        }
        if let Some(elements) = self.goes_through(raw) {
            self.gather(&mut Vec::new(), &elements, slots)?;
        }
        Ok(())
    }

    /// Puts together what `elements` have at the paths below this node, to which
    /// `path` leads from an element.
    fn gather<'w>(
        &'w self,
        path: &mut Vec<&'w str>,
        elements: &[&RawValue],
        slots: &mut Slots<'_, '_>,
    ) -> Result<(), Error> {
        for Child { name, wanted: child, .. } in
            self.children.iter().filter(|child| child.wanted.has_lists)
        {
            path.push(name);
            for &slot in &child.list_slots {
                // The last one wins, as among fields of one name.
                slots.found[slot] = None;
                slots.gathered.retain(|(gathered, _)| *gathered != slot);
                slots.gathered.push((slot, each(elements, path)?));
            }
            child.gather(path, elements, slots)?;
            path.pop();
        }
        Ok(())
    }
}

/// The elements of an array of objects, with nulls where there is none.
fn objects(raw: &str) -> Option<Vec<&RawValue>> {
    if !raw.starts_with('[') {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let is_object = |element: &&RawValue| element.get().starts_with('{') || element.get() == "null";
    elements.iter().all(is_object).then_some(elements)
}

/// The JSON array of what each of `elements` has at `path`; null where it has
/// nothing there.
fn each(elements: &[&RawValue], path: &[&str]) -> Result<String, Error> {
    let mut array = String::from("[");
    for element in elements {
        if array.len() > 1 {
            array.push(',');
        }
        array.push_str(&at(element.get(), path)?);
    }
    array.push(']');
    Ok(array)
}

/// What `raw` has at `path`. No deeper than the path is long, whatever `raw` is.
fn at<'a>(raw: &'a str, path: &[&str]) -> Result<Cow<'a, str>, Error> {
    let [name, rest @ ..] = path else { return Ok(Cow::Borrowed(raw)) };
    if !raw.starts_with('{') {
        return Ok(Cow::Borrowed("null"));
    }
    let mut found = None;
    for (field, value) in members(raw)? {
        if field == *name {
            found = Some(value.get());
        }
    }
    match found {
        None => Ok(Cow::Borrowed("null")),
        Some(raw) if rest.is_empty() => Ok(Cow::Borrowed(raw)),
        Some(raw) => match objects(raw) {
            Some(elements) => each(&elements, rest).map(Cow::Owned),
            None => at(raw, rest),
        },
    }
}

/// The fields of an object, one after the other, doubled ones included.
pub(super) fn members(raw: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Error> {
    struct Members;

    impl<'a> Visitor<'a> for Members {
        type Value = Vec<(Cow<'a, str>, &'a RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((Name(name), value)) = map.next_entry()? {
                members.push((name, value));
            }
            Ok(members)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(raw);
    deserializer.deserialize_map(Members)
}

struct Fields<'w, 's, 'u, 'a> {
    wanted: &'w Wanted,
    slots: &'u mut Slots<'s, 'a>,
    unknown: &'u mut Unknown,
}

impl<'a> Visitor<'a> for Fields<'_, '_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut guess = &self.wanted.first;
        while let Some(Name(name)) = map.next_key()? {
            let Some(Child { wanted, next, .. }) = self.wanted.following(&name, guess) else {
                if self.unknown.is_ignored() {
                    map.next_value::<IgnoredAny>()?;
                } else {
                    let raw: &RawValue = map.next_value()?;
                    self.unknown.add(&name, raw.get());
                }
                continue;
            };
            guess = next;
            let raw: &'a str = map.next_value::<&RawValue>()?.get();
            wanted.take(raw, self.slots).map_err(A::Error::custom)?;
            if !wanted.is_leaf() && !self.unknown.is_ignored() {
                self.unknown.add_rest(&name, wanted, raw).map_err(A::Error::custom)?;
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
mod tests;
