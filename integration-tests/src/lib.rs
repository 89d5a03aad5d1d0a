//! The real PostgreSQL, Kafka and ClickHouse behind Outpour's integration
//! tests, `make run`, the benchmarks and the fault campaigns.

mod eventually;
pub mod http;
pub mod pipeline;
pub mod program;
pub mod run;
pub mod stack;

pub use eventually::eventually;
