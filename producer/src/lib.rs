//! Events into Kafka.
//!
//! ```text
//! service tx ──Outbox::append──▶ outbox ──WAL──▶ relay ──transaction──▶ Kafka
//!              outbox/                   wal/    relay/        kafka/
//! ```
//!
//! A service needs [`Outbox`], with the feature of its driver: `tokio-postgres`
//! (the default) or `sqlx`. The program `outpour-relay` is the feature `relay`.

#[cfg(any(feature = "sqlx", feature = "tokio-postgres"))]
mod outbox;
#[cfg(any(feature = "sqlx", feature = "tokio-postgres"))]
mod sql;

#[cfg(feature = "relay")]
pub mod cli;
#[cfg(feature = "relay")]
mod doctor;
#[cfg(feature = "relay")]
mod emit;
#[cfg(feature = "relay")]
mod emit_function;
#[cfg(feature = "relay")]
pub mod error;
#[cfg(feature = "relay")]
mod health;
#[cfg(feature = "relay")]
mod init;
#[cfg(feature = "relay")]
mod kafka;
#[cfg(feature = "relay")]
mod metrics;
#[cfg(feature = "relay")]
pub mod poll;
#[cfg(feature = "relay")]
mod postgres;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "relay")]
mod status;
#[cfg(feature = "relay")]
pub mod wal;

pub use outpour_schemas::{Envelope, EnvelopeError, Event, Money, OutboxTable};

#[cfg(any(feature = "sqlx", feature = "tokio-postgres"))]
pub use outbox::{Outbox, OutboxDatabase, OutboxError, OutboxTransaction};
