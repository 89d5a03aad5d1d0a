//! Every integration test of Outpour, in one binary: it links once.
#![allow(clippy::unwrap_used)]

mod stack;
