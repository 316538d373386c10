//! Answers that are kept: what never changes for ever, and that something isn't there for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::RegistryError;

/// The most answers that are kept: a topic's records are of some dozens of schemas, this many of 10 kB are 40 MB.
const ANSWERS_MAX: usize = 4096;

/// Answers by their questions.
pub(super) struct Kept<K, T> {
    miss_lifetime: Duration,
    /// A lock and no channel: it guards a look-up, and no wait happens under it.
    slots: Mutex<HashMap<K, Slot<T>>>,
}

/// Where one question is asked by one at a time; the lock is held across the request, so that the others wait for its answer.
type Slot<T> = Arc<tokio::sync::Mutex<Option<Answer<T>>>>;

struct Answer<T> {
    at: Instant,
    said: Result<Arc<T>, RegistryError>,
}

impl<T> Answer<T> {
    /// Returns whether this answers who began to ask at `asked`, too.
    fn counts(&self, asked: Instant, miss_lifetime: Duration) -> bool {
        match self.said {
            Ok(_) => true,
            // Who waited for the one that asked takes its failure: the next would wait for its own as long.
            Err(_) if self.at >= asked => true,
            Err(RegistryError::NotFound { .. }) => self.at.elapsed() < miss_lifetime,
            Err(_) => false,
        }
    }
}

impl<K: Eq + Hash, T> Kept<K, T> {
    pub fn new(miss_lifetime: Duration) -> Kept<K, T> {
        Kept {
            miss_lifetime,
            slots: Mutex::default(),
        }
    }

    /// Returns what is known, or makes the request; whoever asks meanwhile gets its outcome.
    pub async fn get(
        &self,
        key: K,
        request: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<Arc<T>, RegistryError> {
        let asked = Instant::now();
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        match held.as_ref() {
            Some(answer) if answer.counts(asked, self.miss_lifetime) => answer.said.clone(),
            // If this is dropped here, nothing is kept, and the next in the row asks.
            _ => {
                let said = request.await.map(Arc::new);
                let at = Instant::now();
                held.insert(Answer { at, said }).said.clone()
            }
        }
    }

    fn slot(&self, key: K) -> Slot<T> {
        let mut slots = self.slots();
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&key) {
            // Records with wrong ids fill it with misses. Else any is as good as any: they are asked for again.
            slots.retain(|_, slot| {
                // Whoever holds it is asking.
                slot.try_lock()
                    .map_or(true, |held| matches!(&*held, Some(Answer { said: Ok(_), .. })))
            });
            if slots.len() >= ANSWERS_MAX {
                slots.clear();
            }
        }
        slots.entry(key).or_default().clone()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<K, Slot<T>>> {
        // A panic under it leaves a map of slots, as it was or without some.
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> RegistryError {
        RegistryError::NotFound {
            what: "schema 1".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_is_kept_has_a_bound_and_misses_go_first() {
        let kept = Kept::new(Duration::MAX);
        let last = ANSWERS_MAX - 1;
        for key in 0..last {
            kept.get(key, async { Ok(key) }).await.expect("a value");
        }
        kept.get(last, async { Err(missing()) }).await.expect_err("a miss");
        assert_eq!(kept.slots().len(), ANSWERS_MAX);
        kept.get(last + 1, async { Ok(0) }).await.expect("a value");
        assert_eq!(kept.slots().len(), ANSWERS_MAX, "the miss went");
        assert!(!kept.slots().contains_key(&last));
        kept.get(0, async { Err(missing()) }).await.expect("is kept");
        kept.get(last + 2, async { Ok(0) }).await.expect("a value");
        assert_eq!(kept.slots().len(), 1, "full of values: all went");
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_is_made_by_the_next() {
        let kept: Kept<i32, i32> = Kept::new(Duration::MAX);
        let never = kept.get(1, std::future::pending());
        assert!(futures::poll!(std::pin::pin!(never)).is_pending());
        assert_eq!(kept.get(1, async { Ok(5) }).await.ok().as_deref(), Some(&5));
    }
}
