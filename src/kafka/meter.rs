//! What a consumer counts of its own work, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one consumer since it was made; each is written by the consumer's thread and read without order.
#[derive(Debug, Default)]
pub struct Meter {
    /// Takes from librdkafka's queue.
    pub polls: AtomicU64,
    /// Those that brought no record.
    pub empty_polls: AtomicU64,
    /// Records of the last poll that brought any.
    pub batch_size: AtomicU64,
    /// Assignments and revokes.
    pub rebalances: AtomicU64,
    /// Errors that librdkafka told of, those that it goes round by itself among them.
    pub errors: AtomicU64,
}

impl Meter {
    pub(crate) fn polled(&self, records: u64) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        if records == 0 {
            self.empty_polls.fetch_add(1, Ordering::Relaxed);
        } else {
            self.batch_size.store(records, Ordering::Relaxed);
        }
    }

    pub(crate) fn rebalanced(&self) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
