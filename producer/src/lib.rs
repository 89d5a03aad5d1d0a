//! Events into Kafka.
//!
//! ```text
//! service tx ──Outbox::append──▶ outbox ──WAL──▶ relay ──transaction──▶ Kafka
//!              outbox/                   wal/    relay/        kafka/
//! ```
//!
//! | a service | needs | feature |
//! | --- | --- | --- |
//! | with a PostgreSQL database | [`Outbox`] | `tokio-postgres` (the default), `sqlx` |
//! | without one | `EventProducer` | `kafka` |
//!
//! The program `outpour-relay` is the feature `relay`.

/// Compiles what docs/services.md shows.
#[cfg(all(doctest, feature = "kafka", feature = "sqlx"))]
#[doc = include_str!("../../docs/services.md")]
struct Services;

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
#[cfg(feature = "kafka")]
pub mod event_producer;
#[cfg(feature = "relay")]
mod health;
#[cfg(feature = "relay")]
mod init;
#[cfg(feature = "kafka")]
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
mod waiting;
#[cfg(feature = "relay")]
pub mod wal;

#[cfg(feature = "kafka")]
pub use event_producer::EventProducer;
pub use outpour_schemas::{Envelope, EnvelopeError, Event, Money, OutboxTable};

#[cfg(any(feature = "sqlx", feature = "tokio-postgres"))]
pub use outbox::{Outbox, OutboxDatabase, OutboxError, OutboxTransaction};
