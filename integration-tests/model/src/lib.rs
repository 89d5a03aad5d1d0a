//! The protocols of relay and consumer as state machines.
//!
//! ```text
//!  relay/     PostgreSQL's log, slot ──▶ relays ──▶ Kafka's transactions
//!  consumer/  a partition, the group ──▶ consumers ──▶ a table that drops repeated inserts
//!  joint.rs   an insert that two partitions share, and those who go on alone
//!  check.rs   goes through every state that can be reached; a rule taken away must show
//! ```
//!
//! The two meet in what readers of committed records find in a partition. The
//! relay's model proves I1, I2 and I3 of it, and the consumer's begins with it.
//! The properties are the predicates of [`outpour_schemas::invariants`], which
//! the programs assert, too. docs/model.md says what is modelled and what is not.

pub mod check;
pub mod consumer;
pub mod joint;
pub mod relay;
