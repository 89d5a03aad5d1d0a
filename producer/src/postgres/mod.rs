//! Connections to the database that holds the outbox.
//!
//! ```text
//! replication.rs  how the replication connection is encrypted, and by whom
//! bridge.rs       that connection, where its library cannot check the server
//! ```
//!
//! The ordinary connection is that of `outpour_schemas`.

mod bridge;
mod replication;

pub(crate) use outpour_schemas::postgres::{PostgresError, Target};

pub(crate) use self::{bridge::Bridge, replication::Replication};
