//! The whole program against real servers: Apache Kafka, the SQLite and REST catalogs, and engines that read the tables.
//!
//! `make setup` gets them, `make test` does that first. What isn't there fails a test; nothing is skipped.

#![expect(
    dead_code,
    reason = "helpers for the tests to come; the benches use some of these modules too"
)]

mod aperio;
mod every_step;
mod history;
mod hive;
mod json_table;
mod produce;
mod readers;
mod rebalance;
mod records;
mod servers;
mod setup;
mod smoke;
mod source;
