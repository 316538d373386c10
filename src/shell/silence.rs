//! Sees a conductor that hangs, so that not even then a run is up and does nothing.
//!
//! A thread of the operating system, since a conductor that blocks may hold up the runtime too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Exit, Failure};
use crate::observe::Table;
use crate::run::Outcome;
use crate::shell::conductor::close;
use crate::shell::report::TableReport;
use crate::units::Millis;

/// The time between two looks. Looks are counted, not time: a process that is stopped takes none.
const STEP: Duration = Duration::from_secs(1);

/// What a start of a run may take beside the times that its questions have: it stirs between a handful of them, each of
/// which may come to its end just before `--retry-for` and then wait for one more answer.
const MARGIN: Duration = Duration::from_secs(240);

/// How long a conductor may stay silent.
pub(super) fn limit(retry_for: Millis) -> Duration {
    Duration::from(retry_for).saturating_mul(8).saturating_add(MARGIN)
}

/// How often a mark was looked at since it changed.
#[derive(Debug, Default)]
struct Silence {
    mark: u64,
    looks: u64,
}

impl Silence {
    /// Looks once more; returns how many looks ago the mark was another one.
    fn look(&mut self, mark: u64) -> u64 {
        self.looks = if mark == self.mark { self.looks + 1 } else { 0 };
        self.mark = mark;
        self.looks
    }
}

/// Begins to watch tables; each answer comes when its table's conductor was silent for `limit`, and never otherwise.
pub(super) fn watch(tables: Vec<Arc<Table>>, limit: Duration) -> Vec<oneshot::Receiver<()>> {
    let (mut watched, mut answers) = (Vec::new(), Vec::new());
    for table in tables {
        let (sender, receiver) = oneshot::channel();
        watched.push((table, sender, Silence::default()));
        answers.push(receiver);
    }
    if watched.is_empty() {
        return answers;
    }
    // Ends: with the last run that waits for an answer, or the last answer. Without a thread nobody watches, and all else
    // goes on.
    let look = move || {
        while !watched.is_empty() {
            std::thread::sleep(STEP);
            let mut left = Vec::new();
            for (table, sender, mut silence) in watched {
                if silence.look(table.stirred()) * STEP.as_secs() > limit.as_secs() {
                    // Whoever has gone needs no answer.
                    let _ = sender.send(());
                } else if !sender.is_closed() {
                    left.push((table, sender, silence));
                }
            }
            watched = left;
        }
    };
    let _ = std::thread::Builder::new().name("watch".into()).spawn(look);
    answers
}

/// The report of a table whose conductor hangs.
pub(super) fn report(table: String, limit: Duration) -> TableReport {
    let failure = Failure::new(Exit::Remote, format!("the work on table `{table}` hangs"))
        .detail(format!(
            "nothing happened for {} s, and it doesn't answer",
            limit.as_secs()
        ))
        .hint("nothing is lost: the table holds the offsets. Run again; please report it, with the log of this run");
    let mut report = TableReport::new(table);
    close(&mut report, &Outcome::Failed(failure), Millis::from(limit));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_that_stays_is_silence() {
        let mut silence = Silence::default();
        assert_eq!([7, 7, 7, 8, 9, 9].map(|mark| silence.look(mark)), [0, 1, 2, 0, 0, 1]);
    }

    #[tokio::test]
    async fn who_does_not_stir_is_told_of() {
        let answers = watch(vec![Arc::default(), Arc::default()], Duration::ZERO);
        for answer in answers {
            answer.await.expect("nobody stirs");
        }
    }

    #[test]
    fn a_table_that_hangs_is_a_failure_to_try_again() {
        let report = report("sales.orders".into(), limit(Millis(60_000)));
        assert_eq!(report.exit_code, 4);
        assert!(report.error.expect("a failure").contains("nothing happened for 720 s"));
    }
}
