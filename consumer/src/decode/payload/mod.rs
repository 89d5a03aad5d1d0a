//! The wanted fields of a JSON object, in one pass and without a tree: each is
//! found as the text it has in the payload, so that no digit can be lost.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use hashbrown::HashMap;

use super::unknown::Unknown;
use crate::{
    block::Cell,
    json::{Cursor, JsonError, Name, unquoted},
};

/// Which fields are wanted, as a tree of names.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Where the field's text goes, whatever it is.
    slots: Vec<usize>,
    /// Those of them that take arrays, and may also get one that is put together
    /// from the objects of an array.
    list_slots: Vec<usize>,
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
    written: Name,
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
    pub(super) found: &'s mut [Option<Cell<'a>>],
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
                node.children.push(Child {
                    name: name.to_owned(),
                    written: Name::new(name),
                    ..Child::default()
                });
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

    /// Takes the name at hand: the child of that name, or the name of none.
    /// `guess` is looked at first, and learns.
    #[inline]
    fn following<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        guess: &Guess,
    ) -> Result<Result<&Child, Cow<'a, str>>, JsonError> {
        if let Some(child) = self.children.get(guess.0.load(Relaxed))
            && cursor.takes_name(&child.written)
        {
            return Ok(Ok(child));
        }
        let name = name(cursor)?;
        let Some(&index) = self.by_name.get(&*name) else { return Ok(Err(name)) };
        guess.0.store(index, Relaxed);
        Ok(Ok(&self.children[index]))
    }

    /// The elements of `raw`, if it is an array in which columns may find something.
    pub(super) fn goes_through<'a>(&self, raw: &'a str) -> Option<Vec<&'a str>> {
        if self.has_lists && !self.is_leaf() { objects(raw) } else { None }
    }

    /// Puts each wanted field of `json` into its slots, and what nothing wants into
    /// `unknown`.
    ///
    /// # Errors
    /// When `json` is not one JSON object.
    pub(super) fn find<'a>(
        &self,
        json: &'a str,
        slots: &mut Slots<'_, 'a>,
        unknown: &mut Unknown,
    ) -> Result<(), JsonError> {
        let mut cursor = Cursor::new(json);
        let mut object = cursor.enter_object().ok_or_else(|| cursor.error())?;
        let mut guess = &self.first;
        while cursor.next(&mut object)? {
            let Child { name, wanted, next, .. } = match self.following(&mut cursor, guess)? {
                Ok(child) => child,
                Err(name) => {
                    unknown.add(&name, cursor.value()?.raw());
                    continue;
                }
            };
            guess = next;
            let value = cursor.value()?;
            wanted.take(value.into(), slots);
            if !wanted.is_leaf() {
                wanted.take_parts(value.raw(), slots)?;
                unknown.add_rest(name, wanted, value.raw())?;
            }
        }
        cursor.end()
    }

    /// Takes the value of the field that this is the node of.
    #[inline]
    fn take<'a>(&self, value: Cell<'a>, slots: &mut Slots<'_, 'a>) {
        for &slot in &self.slots {
            slots.found[slot] = Some(value);
            // The last one wins among fields of one name.
            if !slots.gathered.is_empty() {
                slots.gathered.retain(|(gathered, _)| *gathered != slot);
            }
        }
    }

    /// Takes what is wanted of the value's parts.
    fn take_parts<'a>(&self, raw: &'a str, slots: &mut Slots<'_, 'a>) -> Result<(), JsonError> {
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
        elements: &[&str],
        slots: &mut Slots<'_, '_>,
    ) -> Result<(), JsonError> {
        for Child { name, wanted: child, .. } in
            self.children.iter().filter(|child| child.wanted.has_lists)
        {
            path.push(name);
            for &slot in &child.list_slots {
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
fn objects(raw: &str) -> Option<Vec<&str>> {
    let mut cursor = Cursor::new(raw);
    let mut array = cursor.enter_array()?;
    let mut elements = Vec::new();
    while cursor.next(&mut array).ok()? {
        let element = cursor.value().ok()?.raw();
        if !element.starts_with('{') && element != "null" {
            return None;
        }
        elements.push(element);
    }
    Some(elements)
}

/// The JSON array of what each of `elements` has at `path`; null where it has
/// nothing there.
fn each(elements: &[&str], path: &[&str]) -> Result<String, JsonError> {
    let mut array = String::from("[");
    for element in elements {
        if array.len() > 1 {
            array.push(',');
        }
        array.push_str(&at(element, path)?);
    }
    array.push(']');
    Ok(array)
}

/// What `raw` has at `path`. No deeper than the path is long, whatever `raw` is.
fn at<'a>(raw: &'a str, path: &[&str]) -> Result<Cow<'a, str>, JsonError> {
    let [name, rest @ ..] = path else { return Ok(Cow::Borrowed(raw)) };
    if !raw.starts_with('{') {
        return Ok(Cow::Borrowed("null"));
    }
    let mut found = None;
    for (field, value) in members(raw)? {
        if field == *name {
            found = Some(value);
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
pub(super) fn members(raw: &str) -> Result<Vec<(Cow<'_, str>, &str)>, JsonError> {
    let mut cursor = Cursor::new(raw);
    let mut object = cursor.enter_object().ok_or_else(|| cursor.error())?;
    let mut members = Vec::new();
    while cursor.next(&mut object)? {
        members.push((name(&mut cursor)?, cursor.value()?.raw()));
    }
    Ok(members)
}

/// The name of the field at hand, borrowed unless it holds an escape.
fn name<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, JsonError> {
    let quoted = cursor.name()?;
    unquoted(quoted).ok_or_else(|| JsonError::name(quoted))
}

#[cfg(test)]
mod tests;
