//! Loopback ports, chosen once per stack and kept for its life.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs,
    hash::{BuildHasher, Hasher},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Below what Linux hands out to outgoing connections by default.
const CANDIDATES: Range<u16> = 20_000..32_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) postgres: u16,
    pub(super) kafka: u16,
    pub(super) kafka_controller: u16,
    pub(super) clickhouse: u16,
    pub(super) clickhouse_native: u16,
    /// Of a secured stack only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secured: Option<SecuredPorts>,
    /// Of a stack whose Kafka can be come to through a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proxied: Option<ProxiedPorts>,
}

/// A listener of Kafka's that tells its clients to come to another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProxiedPorts {
    pub(super) listens: u16,
    pub(super) advertised: u16,
}

/// Which listeners Kafka has beside the open one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listeners {
    pub(super) secured: bool,
    pub(super) proxied: bool,
}

/// Kafka's listeners beside the open one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SecuredPorts {
    pub(super) ssl: u16,
    pub(super) sasl_ssl: u16,
}

impl Ports {
    /// Free ports that are not in `taken`.
    ///
    /// Never one that the system may give to an outgoing connection: while a
    /// service is down, a client that keeps reconnecting to such a port can be
    /// given the very same one as its own, and then talks to itself.
    pub(super) fn choose(taken: &BTreeSet<u16>, listeners: Listeners) -> Result<Self> {
        let outgoing = outgoing_ports();
        let span = CANDIDATES.end - CANDIDATES.start;
        // Apart from stacks elsewhere on the machine that choose right now.
        let first = RandomState::new().build_hasher().finish();
        let first = u16::try_from(first % u64::from(span))?;
        let mut free = (0..span)
            .map(|step| CANDIDATES.start + (first + step) % span)
            .filter(|port| !taken.contains(port) && !outgoing.contains(port))
            .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
        let mut next = || free.next().context("no free port between 20000 and 32000");
        Ok(Self {
            postgres: next()?,
            kafka: next()?,
            kafka_controller: next()?,
            clickhouse: next()?,
            clickhouse_native: next()?,
            secured: match listeners.secured {
                true => Some(SecuredPorts { ssl: next()?, sasl_ssl: next()? }),
                false => None,
            },
            proxied: match listeners.proxied {
                true => Some(ProxiedPorts { listens: next()?, advertised: next()? }),
                false => None,
            },
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u16> {
        let open = [self.postgres, self.kafka, self.kafka_controller];
        let clickhouse = [self.clickhouse, self.clickhouse_native];
        let secured = self.secured.map(|ports| [ports.ssl, ports.sasl_ssl]);
        let proxied = self.proxied.map(|ports| [ports.listens, ports.advertised]);
        let more = secured.into_iter().chain(proxied).flatten();
        open.into_iter().chain(clickhouse).chain(more)
    }
}

fn outgoing_ports() -> Range<u16> {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let (first, last) = text.trim().split_once(char::is_whitespace)?;
            Some(first.parse().ok()?..last.trim().parse::<u16>().ok()?.saturating_add(1))
        })
        // A range that leaves nothing over must not leave the stack without.
        .filter(|outgoing: &Range<u16>| outgoing.start > CANDIDATES.start + 100)
        .unwrap_or(0..0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_two_stacks_do_not_meet() {
        let all = Listeners { secured: true, proxied: true };
        let one = Ports::choose(&BTreeSet::new(), all).unwrap();
        let taken: BTreeSet<u16> = one.all().collect();
        let other = Ports::choose(&taken, Listeners::default()).unwrap();
        let both: BTreeSet<u16> = taken.into_iter().chain(other.all()).collect();
        assert_eq!(both.len(), 14);
    }
}
