//! What many need and one asks for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::CatalogError;

/// Something that a catalog is asked for once, until it doesn't hold any more: its settings, its layout, a token.
///
/// One asks at a time. Who waited for the one that asked takes its failure, too: else each table of a process would in turn wait
/// as long for a catalog that is away, the hundredth a hundred times as long as `--retry-for` says.
#[derive(Debug)]
pub(super) struct Asked<T> {
    /// A lock and no channel: it guards a look-up, and no wait happens under it.
    held: Mutex<Option<T>>,
    /// Held across a question, with how and when the last one failed.
    turn: tokio::sync::Mutex<Option<(Instant, CatalogError)>>,
}

impl<T: Clone> Asked<T> {
    /// Nothing is known yet.
    pub fn new() -> Asked<T> {
        Asked {
            held: Mutex::new(None),
            turn: tokio::sync::Mutex::new(None),
        }
    }

    /// Returns what is known, if it `holds`.
    pub fn known(&self, holds: impl Fn(&T) -> bool) -> Option<T> {
        self.held().clone().filter(holds)
    }

    /// Returns what is known and `holds`, or asks.
    ///
    /// # Errors
    /// Those of the question, ours or the one that was waited for.
    pub async fn get(
        &self,
        holds: impl Fn(&T) -> bool,
        ask: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        if let Some(known) = self.known(&holds) {
            return Ok(known);
        }
        let since = Instant::now();
        let mut failed = self.turn.lock().await;
        if let Some(known) = self.known(&holds) {
            return Ok(known);
        }
        if let Some((at, error)) = failed.as_ref().filter(|(at, _)| *at >= since) {
            tracing::debug!(%error, ago = ?at.elapsed(), "the answer that was waited for is a failure");
            return Err(error.again());
        }
        // If this is dropped here, the next in the row asks.
        match ask.await {
            Ok(found) => {
                *failed = None;
                *self.held() = Some(found.clone());
                Ok(found)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.again()));
                Err(error)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<T>> {
        // A panic while it was replaced leaves the old or the new one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;

    fn always(_: &u32) -> bool {
        true
    }

    #[tokio::test]
    async fn many_ask_once_and_share_the_answer_or_the_failure() {
        let (asked, questions) = (Asked::new(), AtomicU32::new(0));
        let (answers, answered) = tokio::sync::watch::channel(false);
        let question = |fails: bool| {
            let mut answered = answered.clone();
            let questions = &questions;
            async move {
                let number = questions.fetch_add(1, Ordering::Relaxed) + 1;
                answered.wait_for(|answered| *answered).await.expect("an answer");
                match fails {
                    true => Err(CatalogError::Unreachable("away".to_owned())),
                    false => Ok(number),
                }
            }
        };
        let all = join_all((0..100).map(|_| asked.get(always, question(true))));
        let (failures, ()) = tokio::join!(all, async {
            tokio::task::yield_now().await;
            answers.send(true).expect("somebody waits");
        });
        let away = |answer: &Result<u32, CatalogError>| matches!(answer, Err(CatalogError::Unreachable(_)));
        assert!(failures.iter().all(away));
        assert_eq!(questions.load(Ordering::Relaxed), 1, "the others waited for it");
        // Who asks later asks anew.
        let found = join_all((0..100).map(|_| asked.get(always, question(false)))).await;
        assert!(found.iter().all(|answer| matches!(answer, Ok(2))), "{found:?}");
        assert_eq!(asked.known(always), Some(2));
        let next = asked.get(|held| *held > 2, question(false)).await;
        assert_eq!((next.ok(), asked.known(always)), (Some(3), Some(3)));
    }

    #[tokio::test]
    async fn a_question_that_is_given_up_is_asked_by_the_next() {
        let asked = Asked::new();
        let never = asked.get(always, std::future::pending());
        assert!(futures::poll!(std::pin::pin!(never)).is_pending());
        assert_eq!(asked.get(always, async { Ok(5) }).await.ok(), Some(5));
    }
}
