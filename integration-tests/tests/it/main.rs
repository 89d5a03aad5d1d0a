//! Every integration test of Outpour, in one binary: it links once.
#![allow(clippy::unwrap_used)]

mod at_least_once;
mod bad_input;
mod compose;
mod consumer;
mod consumer_doctor;
mod consumer_doctor_probe;
mod consumer_health;
mod consumer_memory;
mod consumer_tables;
mod contract;
mod debezium;
mod diagnosis;
mod doctor;
mod event_producer;
mod event_producer_faults;
mod health;
mod limits;
mod messages;
mod native_types;
mod outbox;
mod partitions;
mod poll;
mod probes;
mod records;
mod relay;
mod relay_faults;
mod repository;
mod retention;
mod security;
mod services;
mod snapshot;
mod stack;
mod ways;
