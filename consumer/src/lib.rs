//! Kafka topics into ClickHouse tables.
//!
//! ```text
//! Kafka ─▶ source/ ─▶ decode/ ─▶ batch/ ─▶ writer/ ─▶ sink/ ─▶ ClickHouse
//!                       │ json/ block/       │ plan.rs
//!                       └─ what does not fit ┴─▶ dead_letter.rs
//! ```
//!
//! `pipeline.rs` puts it together; `assignment.rs` holds what belongs to the
//! partitions that this member of the group owns; `health/` tells whether it gets
//! on; `doctor/` tells before the start what would keep it from that; `reconcile/`
//! compares afterwards what ClickHouse has with what Kafka holds. `replay/` runs it
//! over a topic again, `dlq/` over what was parked; `gap.rs` moves the group behind
//! what Kafka has removed unread. Decoding, encoding, batches and
//! plans are pure and know neither Kafka nor ClickHouse.

mod assignment;
pub mod batch;
pub mod block;
mod budget;
pub mod cli;
mod confirm;
mod dead_letter;
pub mod decode;
mod deduplication;
pub mod dlq;
mod doctor;
mod durability;
pub mod error;
pub mod frame;
mod gap;
mod health;
mod init;
mod json;
mod merging;
mod metrics;
pub mod pipeline;
pub mod plan;
mod progress;
mod reconcile;
pub mod rejected;
pub mod replay;
pub mod sink;
pub mod source;
mod statement;
mod status;
pub mod table;
mod tables;
pub mod trace;
mod writer;
