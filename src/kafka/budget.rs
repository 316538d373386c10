//! The bytes that chunks may hold between the Kafka thread and the lines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::{Held, Memory, Purpose};

/// A number of bytes that may be in flight; clones share it.
///
/// Dead letters take of it as well: they came in chunks, and stay when these are encoded.
///
/// A mutex and a condition instead of tokio's semaphore: the one who waits is a plain thread, which must wake up in
/// between to keep its place in the consumer group.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    memory: Memory,
    taken: Mutex<Held>,
    /// Somebody waited in vain since the last who got something.
    starved: AtomicBool,
    returned: Condvar,
}

/// Bytes taken from a [`Budget`]; they go back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Inner>,
    bytes: usize,
}

impl Budget {
    /// Makes a budget of `bytes`; what is taken of it counts as chunks in `memory`, and its letters are
    /// counted here.
    ///
    /// # Panics
    /// If `bytes` is 0: nothing could ever be fetched.
    pub fn new(bytes: usize, memory: &Memory) -> Self {
        assert!(bytes > 0, "a budget of no bytes lets nothing through");
        Budget(Arc::new(Inner {
            total: bytes,
            memory: memory.clone(),
            starved: AtomicBool::new(false),
            taken: Mutex::new(memory.hold(Purpose::Chunks)),
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
        let mut taken = self.0.taken();
        // Ends: each round either has the bytes or comes closer to the deadline.
        while self.0.free(&taken) < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.0.starved.store(true, Ordering::Relaxed);
                return None;
            }
            (taken, _) = self
                .0
                .returned
                .wait_timeout(taken, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let more = taken.bytes() + bytes;
        taken.set(more);
        self.0.starved.store(false, Ordering::Relaxed);
        drop(taken);
        Some(Permit {
            budget: Arc::clone(&self.0),
            bytes,
        })
    }

    /// The memory that it is a part of.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Returns the bytes that nobody holds.
    pub fn available(&self) -> usize {
        self.0.free(&self.0.taken())
    }

    /// Says whether half of it or more is held by chunks.
    pub fn is_half_taken(&self) -> bool {
        self.0.taken().bytes() >= self.0.total / 2
    }

    /// Says whether somebody waits for bytes that nothing but dead letters hold: only a commit frees these.
    pub fn is_held_by_letters(&self) -> bool {
        self.0.starved.load(Ordering::Relaxed)
            && self.0.taken().bytes() == 0
            && self.0.memory.held_for(Purpose::Letters) > 0
    }
}

impl Inner {
    fn free(&self, taken: &Held) -> usize {
        let letters = usize::try_from(self.memory.held_for(Purpose::Letters)).unwrap_or(usize::MAX);
        self.total.saturating_sub(taken.bytes().saturating_add(letters))
    }

    fn taken(&self) -> MutexGuard<'_, Held> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut taken = self.budget.taken();
        let less = taken.bytes() - self.bytes;
        taken.set(less);
        drop(taken);
        self.budget.returned.notify_all();
    }
}
