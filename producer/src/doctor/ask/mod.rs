//! Asking the services, without changing or disturbing anything.

pub(super) mod database;
pub(super) mod kafka;
mod outbox;
