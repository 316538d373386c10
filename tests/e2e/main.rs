//! The whole program against real servers: Apache Kafka, a schema registry, the SQLite and REST catalogs, and engines that
//! read the tables.
//!
//! `make setup` gets them, `make test` does that first. What isn't there fails a test; nothing is skipped.

mod access;
mod answers;
mod aperio;
mod avro;
mod damage;
mod discover;
mod encode;
mod events;
mod every_schema_step;
mod every_step;
mod faults;
mod formats;
mod history;
mod hive;
mod instances;
mod json_table;
mod load;
mod many_tables;
mod neighbours;
mod observe;
mod produce;
mod proxy;
mod readers;
mod rebalance;
mod records;
mod registry;
mod registry_faults;
mod reset;
mod schema_check;
mod servers;
mod setup;
mod shared;
mod smoke;
mod source;
mod subjects;
mod topic_table;
mod truncated;
mod world;
