//! What both halves of Outpour agree on. The `program` feature alone reads files,
//! writes to the terminal and answers probes; `kafka` asks for a first answer.
//!
//! ```text
//! Event ──▶ Envelope ──outbox row──▶ WAL ──▶ Record ──Kafka──▶ row in ClickHouse
//! event.rs  envelope.rs                      wire.rs
//!           identity.rs                      position.rs
//! ```
//!
//! A service needs [`Event`] and [`Envelope`]; the relay and the consumer share
//! the record contract in [`wire`] and, with the `program` feature, one
//! configuration file (`config`) and the manners of a command (`program`). The
//! types of the configuration alone are the feature `config`.

pub mod envelope;
pub mod event;
pub mod example;
pub mod identity;
pub mod invariants;
pub mod money;
pub mod mutants;
pub mod outbox;
pub mod position;
pub mod wire;

#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "program")]
pub mod program;

pub use envelope::{Envelope, EnvelopeError};
pub use event::Event;
pub use money::Money;
pub use outbox::OutboxTable;
pub use position::{Lsn, Position};
pub use wire::Record;
