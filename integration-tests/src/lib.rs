//! The real PostgreSQL, Kafka and ClickHouse behind Outpour's integration
//! tests, `make run`, the benchmarks and the fault campaigns.

pub mod bench;
mod eventually;
mod flights;
pub mod http;
pub mod pipeline;
mod place;
pub mod program;
pub mod proxy;
pub mod run;
pub mod stack;
pub mod torture;

pub use eventually::eventually;
