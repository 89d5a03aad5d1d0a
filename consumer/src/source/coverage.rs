//! Whether the members of a group have every partition that there is to read. Pure.
//!
//! Kafka gives a member that comes back under its name what it had before, though there
//! be more to read by now: nothing is dealt out anew until somebody asks for it.

use std::collections::BTreeSet;

/// What is known of it, look by look.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// All of these were somebody's.
    covered: BTreeSet<String>,
    /// These were nobody's at the last look.
    left: BTreeSet<String>,
}

impl Coverage {
    /// Whether the group has to be asked who has `partitions`, all that there are.
    pub(super) fn is_open(&self, partitions: &BTreeSet<String>) -> bool {
        self.covered != *partitions
    }

    /// The first partition that was nobody's twice in a row: another member that is about
    /// to ask for it has done so by then. `owned` is `None` while they are dealt out.
    pub(super) fn judge(
        &mut self,
        partitions: &BTreeSet<String>,
        owned: Option<&BTreeSet<String>>,
    ) -> Option<String> {
        let Some(owned) = owned else {
            self.left.clear();
            return None;
        };
        let left: BTreeSet<_> = partitions.difference(owned).cloned().collect();
        if left.is_empty() {
            self.covered.clone_from(partitions);
        }
        let again = left.intersection(&self.left).next().cloned();
        // Told once: what follows from it takes a while.
        self.left = if again.is_some() { BTreeSet::new() } else { left };
        again
    }
}

/// The partitions in an assignment of the consumer protocol, each `topic/number`: after a
/// version, topics with their partitions. Empty where a member has none yet.
pub(crate) fn assigned(mut bytes: &[u8]) -> Option<Vec<String>> {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    fn int(bytes: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    fn short(bytes: &mut &[u8]) -> Option<i16> {
        Some(i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?))
    }
    short(&mut bytes)?;
    let mut all = Vec::new();
    for _ in 0..int(&mut bytes)? {
        let length = usize::try_from(short(&mut bytes)?).ok()?;
        let topic = std::str::from_utf8(take(&mut bytes, length)?).ok()?;
        for _ in 0..int(&mut bytes)? {
            all.push(format!("{topic}/{}", int(&mut bytes)?));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_partition_is_left_to_nobody_when_it_was_so_twice() {
        let set = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        let (all, some): (BTreeSet<String>, BTreeSet<String>) =
            (set(&["t/0", "t/1"]), set(&["t/0"]));
        let mut coverage = Coverage::default();
        assert!(coverage.is_open(&all) && !coverage.is_open(&set(&[])));
        assert_eq!(coverage.judge(&all, Some(&some)), None, "it may be on its way");
        assert_eq!(coverage.judge(&all, None), None, "they are dealt out");
        assert_eq!(coverage.judge(&all, Some(&some)), None);
        assert_eq!(coverage.judge(&all, Some(&some)).as_deref(), Some("t/1"));
        assert_eq!(coverage.judge(&all, Some(&some)), None, "it is joining anew");
        assert_eq!(coverage.judge(&all, Some(&all)), None);
        assert!(!coverage.is_open(&all) && coverage.is_open(&some));
    }

    #[test]
    fn an_assignment_is_read_and_what_is_cut_off_is_not() {
        let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(assigned(&bytes).unwrap(), ["t/0", "t/7"]);
        bytes.pop();
        assert_eq!(assigned(&bytes), None);
        assert_eq!(assigned(&[0, 0, 0, 0, 0, 0]).unwrap(), Vec::<String>::new());
        assert_eq!(assigned(&[]), None);
    }

    proptest! {
        #[test]
        fn any_assignment_is_read_or_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            assigned(&bytes);
        }
    }
}
