//! Events into Kafka.
//!
//! ```text
//! service tx ──Outbox::append──▶ outbox ──WAL──▶ relay ──transaction──▶ Kafka
//!              outbox.rs                 wal/    relay/        kafka/
//! ```
//!
//! A service needs [`Outbox`] and turns the `relay` feature off; the program
//! `outpour-relay` is the rest.

mod outbox;
mod sql;

#[cfg(feature = "relay")]
pub mod cli;
#[cfg(feature = "relay")]
mod emit;
#[cfg(feature = "relay")]
pub mod error;
#[cfg(feature = "relay")]
mod init;
#[cfg(feature = "relay")]
mod kafka;
#[cfg(feature = "relay")]
mod postgres;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "relay")]
mod status;
#[cfg(feature = "relay")]
pub mod wal;

pub use outbox::{Outbox, OutboxError};
