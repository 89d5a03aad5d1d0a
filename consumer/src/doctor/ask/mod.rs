//! Asking the services, without changing or disturbing anything.

pub(super) mod clickhouse;
mod group;
pub(super) mod kafka;
