//! The bytes that chunks may hold between the Kafka thread and the lines.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A number of bytes that may be in flight; clones share it.
///
/// A mutex and a condition instead of tokio's semaphore: the one who waits is a plain thread, which must wake up in
/// between to keep its place in the consumer group.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    available: Mutex<usize>,
    returned: Condvar,
}

/// Bytes taken from a [`Budget`]; they go back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Inner>,
    bytes: usize,
}

impl Budget {
    /// Makes a budget of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is 0: nothing could ever be fetched.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0, "a budget of no bytes lets nothing through");
        Budget(Arc::new(Inner {
            total: bytes,
            available: Mutex::new(bytes),
            returned: Condvar::new(),
        }))
    }

    /// Takes `bytes`, waiting up to `timeout` for them.
    ///
    /// More than the whole budget counts as the whole: a chunk that is larger than the budget goes alone, rather than
    /// never.
    pub fn acquire(&self, bytes: usize, timeout: Duration) -> Option<Permit> {
        let bytes = bytes.min(self.0.total);
        let deadline = Instant::now() + timeout;
        let mut available = self.0.available.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends: each round either has the bytes or comes closer to the deadline.
        while *available < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            (available, _) = self
                .0
                .returned
                .wait_timeout(available, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *available -= bytes;
        Some(Permit {
            budget: Arc::clone(&self.0),
            bytes,
        })
    }

    /// Returns the bytes that nobody holds.
    pub fn available(&self) -> usize {
        *self.0.available.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Returns how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.available.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.returned.notify_all();
    }
}
