//! Kafka: fetches chunks, follows the group's assignments, asks brokers about topics, delivers dead letters.
//!
//! [`consumer`] owns the one thread that talks to the group; everything that it learns arrives as a
//! [`KafkaEvent`](consumer::KafkaEvent). [`admin`] answers questions and blocks while it does. Unsafe code lives in three
//! files: `batch` (the batch queue), `positions` and `topic_id`.

pub mod admin;
mod batch;
pub mod budget;
mod columns;
pub mod config;
pub mod consumer;
pub mod damage;
pub mod error;
mod fetch_size;
pub mod meter;
mod positions;
pub mod producer;
pub mod settings;
mod topic_id;

#[cfg(test)]
mod tests;
