//! `Enum8` and `Enum16`: names that are stored as small numbers.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;

use super::cell::Cell;
use super::error::Reason;
use super::integer;

/// The members of an enumeration, by name and by value.
#[derive(Debug, Clone)]
pub struct Enumeration {
    width: usize,
    /// Ordered by value, as ClickHouse orders them.
    members: Vec<(String, i16)>,
    by_name: HashMap<String, i16>,
}

impl Enumeration {
    /// `None` if a name or value comes twice, or a value exceeds the width.
    pub(super) fn new(width: usize, mut members: Vec<(String, i16)>) -> Option<Self> {
        members.sort_by_key(|(_, value)| *value);
        let by_name: HashMap<_, _> = members.iter().cloned().collect();
        let distinct = members.windows(2).all(|pair| pair[0].1 != pair[1].1);
        let fits = width == 2 || members.iter().all(|(_, value)| i8::try_from(*value).is_ok());
        (distinct && fits && !members.is_empty() && by_name.len() == members.len())
            .then_some(Self { width, members, by_name })
    }

    /// The bytes of a value: 1 or 2.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Names and values, ordered by value.
    #[must_use]
    pub fn members(&self) -> &[(String, i16)] {
        &self.members
    }

    /// Appends the value that the cell names or is.
    pub(super) fn write(&self, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let value = match cell.text()? {
            Some(name) => self.by_name.get(name.as_ref()).copied(),
            None => i16::try_from(integer::value(cell)?)
                .ok()
                .filter(|value| self.members.binary_search_by_key(value, |m| m.1).is_ok()),
        };
        let value = value.ok_or(Reason::UnknownEnumValue)?;
        out.extend_from_slice(&value.to_le_bytes()[..self.width]);
        Ok(())
    }
}

impl PartialEq for Enumeration {
    fn eq(&self, other: &Self) -> bool {
        self.width == other.width && self.members == other.members
    }
}

impl Eq for Enumeration {}

impl Hash for Enumeration {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.width.hash(state);
        self.members.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_and_by_value() {
        let members = vec![("paid".to_owned(), 2), ("open".to_owned(), -1)];
        let names = Enumeration::new(1, members).unwrap();
        let encoded = |cell| {
            let mut out = Vec::new();
            names.write(cell, &mut out).map(|()| out)
        };
        assert_eq!(encoded(Cell::Json("\"paid\"")), Ok(vec![2]));
        assert_eq!(encoded(Cell::Text("open")), Ok(vec![0xff]));
        assert_eq!(encoded(Cell::Json("-1")), Ok(vec![0xff]));
        assert_eq!(encoded(Cell::Json("\"2\"")), Err(Reason::UnknownEnumValue));
        assert_eq!(encoded(Cell::Int(3)), Err(Reason::UnknownEnumValue));
        assert_eq!(encoded(Cell::Json("18446744073709551615")), Err(Reason::OutOfRange));
        assert_eq!(encoded(Cell::Json("true")), Err(Reason::WrongType));
    }

    #[test]
    fn contradictions_are_no_enumeration() {
        let of = |width, members: &[(&str, i16)]| {
            Enumeration::new(width, members.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect())
        };
        assert!(of(1, &[("a", 1), ("a", 2)]).is_none());
        assert!(of(1, &[("a", 1), ("b", 1)]).is_none());
        assert!(of(1, &[("a", 300)]).is_none());
        assert!(of(2, &[("a", 300)]).is_some());
        assert!(of(1, &[]).is_none());
    }
}
