//! What this process is called in its group, over restarts.
//!
//! A group waits for a member that was killed until its session times out, and its
//! partitions stand still as long. Whoever comes back under the name of the dead one
//! (Kafka's static membership) is given them at once instead, and no other partition
//! moves. So the name has to be the same after a restart, and no other living
//! process may have it:
//!
//! ```text
//! web-1-4f0c81d2-0 ── the host ── its boot, which tells hosts of one name apart ── a slot
//! ```
//!
//! The first free slot is claimed for as long as the process lives; the system gives
//! it back when the process ends, however it ends. Containers of one host name are
//! told apart by nothing that survives their restart. If two of them meet, Kafka
//! shuts out the one that was there first, which then goes on without a name and
//! leaves the other alone: they never take turns.

use std::sync::{Mutex, PoisonError};

use outpour_schemas::config::{AUTO, Consumer, GroupProtocol};

/// The name, while it is this process's.
#[derive(Debug, Default)]
pub(crate) struct Member {
    name: Mutex<Option<String>>,
    /// Held for its effect.
    _claim: Option<claim::Claim>,
}

impl Member {
    pub(crate) fn of(config: &Consumer) -> Self {
        match (config.group_instance_id.as_str(), config.group_protocol) {
            // The brokers keep the name of a killed member until it has timed out,
            // and let nobody in under it.
            ("", _) | (AUTO, GroupProtocol::Consumer) => Member::default(),
            (AUTO, GroupProtocol::Classic) => match claim::first_free(&config.group) {
                Some((slot, claim)) => Member::named(claim::name(slot), Some(claim)),
                None => Member::default(),
            },
            (name, _) => Member::named(name.to_owned(), None),
        }
    }

    fn named(name: String, claim: Option<claim::Claim>) -> Self {
        Member { name: Mutex::new(Some(name)), _claim: claim }
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody else has it: this process goes on without.
    pub(crate) fn give_up(&self, group: &str) {
        if let Some(name) = self.name.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::warn!(
                group,
                name,
                "another process is in the group under this one's name; going on without a name. \
                 After a crash its partitions wait for consumer.session_timeout; give each \
                 process a consumer.group_instance_id or a host name of its own"
            );
        }
    }
}

#[cfg(target_os = "linux")]
mod claim {
    use std::{
        fs,
        io::ErrorKind,
        os::{
            linux::net::SocketAddrExt,
            unix::net::{SocketAddr, UnixDatagram},
        },
    };

    use uuid::Uuid;

    /// A socket that nobody writes to: its address, which is in no file system, is
    /// one process's at a time.
    pub(super) type Claim = UnixDatagram;

    const MOST: u32 = 10_000;

    /// The first slot of `group` that no living process of this host, or of this
    /// container, has.
    pub(super) fn first_free(group: &str) -> Option<(u32, Claim)> {
        // An address has a hundred bytes, the name of a group may have more.
        let group = Uuid::new_v5(&Uuid::NAMESPACE_OID, group.as_bytes()).simple();
        for slot in 0..MOST {
            let address = format!("outpour-consumer/{group}/{slot}");
            match SocketAddr::from_abstract_name(address)
                .and_then(|at| UnixDatagram::bind_addr(&at))
            {
                Ok(claim) => return Some((slot, claim)),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::debug!(%error, "no name over restarts can be claimed");
                    return None;
                }
            }
        }
        None
    }

    pub(super) fn name(slot: u32) -> String {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let boot = read("/proc/sys/kernel/random/boot_id");
        let host = read("/proc/sys/kernel/hostname");
        super::name(&host, &boot, slot)
    }
}

#[cfg(not(target_os = "linux"))]
mod claim {
    /// There is none.
    pub(super) type Claim = std::convert::Infallible;

    pub(super) fn first_free(_group: &str) -> Option<(u32, Claim)> {
        None
    }

    pub(super) fn name(slot: u32) -> String {
        super::name("", "", slot)
    }
}

/// As Kafka takes it: letters, digits, `.`, `_` and `-`.
fn name(host: &str, boot: &str, slot: u32) -> String {
    const LONGEST: usize = 200;
    let is_legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let host: String = host.chars().filter(is_legal).take(LONGEST).collect();
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{host}-{boot}-{slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(group: &str) -> Consumer {
        Consumer { group: group.to_owned(), ..Consumer::default() }
    }

    #[test]
    fn a_name_is_legal_and_tells_hosts_boots_and_slots_apart() {
        assert_eq!(name("web-1.example\n", "4f0c81d2-77ab-4c", 3), "web-1.example-4f0c81d2-3");
        assert_eq!(name("büro wöb\0", "", 0), "browb--0");
        assert!(name(&"x".repeat(300), "4f0c81d2", u32::MAX).len() < 249);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn living_processes_of_a_group_have_names_of_their_own_and_a_dead_ones_is_free() {
        let group = uuid::Uuid::now_v7().to_string();
        let [first, second] = [(); 2].map(|()| Member::of(&config(&group)));
        let names = [first.name().unwrap(), second.name().unwrap()];
        assert_ne!(names[0], names[1]);
        drop(first);
        let third = Member::of(&config(&group));
        assert_eq!(third.name().unwrap(), names[0]);
        let other = Member::of(&config(&uuid::Uuid::now_v7().to_string()));
        assert_eq!(other.name().unwrap(), names[0], "groups know nothing of each other");
    }

    #[test]
    fn a_name_that_was_chosen_is_kept_and_one_may_do_without() {
        let with = |id: &str| {
            Member::of(&Consumer { group_instance_id: id.to_owned(), ..config("g") }).name()
        };
        assert_eq!(with("mine"), Some("mine".to_owned()));
        assert_eq!(with(""), None);
        let brokers = Consumer { group_protocol: GroupProtocol::Consumer, ..config("g") };
        assert_eq!(Member::of(&brokers).name(), None);
    }
}
