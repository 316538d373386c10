//! What a run owes, and since when: so that one that is up and does nothing is seen.
//!
//! Whatever fails with an error ends by `--retry-for`, and by its own words. Here is what doesn't fail and doesn't end: a
//! request without an answer, a thread that hangs, a consumer that stays paused, partitions that a member holds and doesn't
//! read. Nothing is decided by these clocks but that somebody should look.

use std::collections::BTreeMap;
use std::fmt;

use crate::run::QUIET_LOAD_INTERVAL;
use crate::table::WindowId;
use crate::units::Millis;

/// What every limit holds beside the times that are configured: slow machines are no reason to wake anybody.
const MARGIN: Millis = Millis(30_000);

/// Between two looks at the clock: where more time passes the process itself was stopped, or its machine asleep, and what
/// it waits for may be there at the next look.
const GAP_MAX: Millis = Millis(10_000);

/// The times that the limits are made of.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Age at which a window closes.
    pub batch_window: Millis,
    /// How long something remote may fail.
    pub retry_for: Millis,
}

impl Patience {
    /// How long one thing may take that only waits for remotes: for the attempts, and for the last one's own end.
    fn remote(self) -> Millis {
        Millis(self.retry_for.0.saturating_mul(2)).after(MARGIN)
    }

    /// How long it may take until the work of a window shows.
    fn window(self) -> Millis {
        self.remote().after(self.batch_window)
    }

    /// How long the offsets of a table may stay where they are although somebody has records to read: a window of theirs
    /// and its commit, and the time until this run looks at the table again.
    fn offsets(self) -> Millis {
        self.window().after(self.batch_window).after(QUIET_LOAD_INTERVAL)
    }
}

/// Something that should have happened by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// What.
    pub what: Owed,
    /// For how long it has been waited for.
    pub waited: Millis,
    /// How long it may take.
    pub limit: Millis,
}

/// What can be overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// A commit under way ends.
    Commit,
    /// The files of a window are completed.
    Seal,
    /// Records become rows.
    Chunk,
    /// Records that are there come out of Kafka.
    Records,
    /// The table's offsets move towards the ends, by whomever.
    Offsets,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Owed::Commit => "a commit is under way without an end",
            Owed::Seal => "a window is past its deadline: its files aren't completed",
            Owed::Chunk => "records were read and don't become rows",
            Owed::Records => "there are records to read and none comes",
            Owed::Offsets => "the offsets of the table stay behind the topic's ends and don't move",
        };
        let seconds = |millis: Millis| millis.0 / 1_000;
        write!(
            f,
            "{what}, for {} s; {} s are allowed",
            seconds(self.waited),
            seconds(self.limit)
        )
    }
}

/// The clocks of one run. All times are of one clock that only goes forward.
#[derive(Debug)]
pub struct Deadlines {
    patience: Patience,
    last_look: Millis,
    commit_since: Option<Millis>,
    seals: BTreeMap<WindowId, Millis>,
    chunks_owed: u64,
    /// When the lines last answered, or were first asked.
    lines_since: Millis,
    /// Since when there are records to read and none came.
    behind_since: Option<Millis>,
    /// Since when the table's offsets are behind and nothing moves at all.
    waiting_since: Option<Millis>,
}

/// What a look at a run shows beside what was told as it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// A commit is under way.
    pub commits: bool,
    /// The run wants records, and partitions that it reads hold some.
    pub records_due: bool,
    /// The table's offsets are behind the ends that are worked towards.
    pub behind: bool,
}

impl Deadlines {
    /// Starts with nothing owed.
    pub fn new(patience: Patience, now: Millis) -> Self {
        Deadlines {
            patience,
            last_look: now,
            commit_since: None,
            seals: BTreeMap::new(),
            chunks_owed: 0,
            lines_since: now,
            behind_since: None,
            waiting_since: None,
        }
    }

    /// A chunk came out of Kafka; `taken`: it went to a line, which owes an answer now.
    pub fn fetched(&mut self, taken: bool, now: Millis) {
        if taken {
            if self.chunks_owed == 0 {
                self.lines_since = now;
            }
            self.chunks_owed += 1;
        }
        self.behind_since = None;
        self.waiting_since = None;
    }

    /// A line has made rows of a chunk.
    pub fn staged(&mut self, now: Millis) {
        self.chunks_owed = self.chunks_owed.saturating_sub(1);
        self.lines_since = now;
        self.waiting_since = None;
    }

    /// The files of a window are to be completed.
    pub fn seals(&mut self, window: WindowId, now: Millis) {
        self.seals.insert(window, now);
    }

    /// They are, or nobody wants them any more.
    pub fn sealed(&mut self, window: WindowId, now: Millis) {
        self.seals.remove(&window);
        self.lines_since = now;
        self.waiting_since = None;
    }

    /// The table's offsets moved, by whomever.
    pub fn moved(&mut self) {
        self.waiting_since = None;
    }

    /// A commit ended, well or not, so that one that is under way later is another one.
    pub fn commit_ended(&mut self) {
        self.commit_since = None;
    }

    /// Looks at the run: what it waits for begins to count, or no longer does.
    pub fn look(&mut self, look: Look, now: Millis) {
        let gap = now.since(self.last_look);
        self.last_look = now;
        if gap > GAP_MAX {
            self.forgive(gap);
        }
        let since = |clock: &mut Option<Millis>, runs: bool| match runs {
            true => drop(clock.get_or_insert(now)),
            false => *clock = None,
        };
        since(&mut self.commit_since, look.commits);
        // Reading may wait for the memory that lines and commits hold: those have clocks of their own.
        let lines_owe = self.chunks_owed > 0 || !self.seals.is_empty();
        since(&mut self.behind_since, look.records_due && !look.commits && !lines_owe);
        since(&mut self.waiting_since, look.behind);
    }

    /// Names what has been waited for too long, the one that explains the others first.
    pub fn overdue(&self, now: Millis) -> Option<Overdue> {
        let (remote, window) = (self.patience.remote(), self.patience.window());
        let oldest_seal = self.seals.values().min().copied();
        let lines = (self.chunks_owed > 0).then_some(self.lines_since);
        let clocks = [
            (Owed::Commit, self.commit_since, remote),
            (Owed::Seal, oldest_seal, window),
            (Owed::Chunk, lines, window),
            (Owed::Records, self.behind_since, remote),
            (Owed::Offsets, self.waiting_since, self.patience.offsets()),
        ];
        clocks.into_iter().find_map(|(what, since, limit)| {
            let waited = now.since(since?);
            (waited > limit).then_some(Overdue { what, waited, limit })
        })
    }

    /// Takes the time away in which this process didn't run.
    fn forgive(&mut self, gap: Millis) {
        let later = |clock: &mut Millis| *clock = clock.after(gap);
        self.commit_since.iter_mut().for_each(later);
        self.seals.values_mut().for_each(later);
        later(&mut self.lines_since);
        self.behind_since.iter_mut().for_each(later);
        self.waiting_since.iter_mut().for_each(later);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Patience = Patience {
        batch_window: Millis(60_000),
        retry_for: Millis(10_000),
    };
    const REMOTE: i64 = 50_000;
    const WINDOW: i64 = 110_000;
    const OFFSETS: i64 = 230_000;
    const WINDOW_ID: WindowId = WindowId {
        run: Uuid::nil(),
        sequence: 0,
    };

    /// Looks every five seconds from 0 on and returns when something was overdue first, and what.
    fn first_overdue(look: Look, tell: impl FnOnce(&mut Deadlines)) -> Option<(i64, Owed)> {
        let mut deadlines = Deadlines::new(PATIENCE, Millis(0));
        tell(&mut deadlines);
        (0..100).map(|n| n * 5_000).find_map(|now| {
            deadlines.look(look, Millis(now));
            Some((now, deadlines.overdue(Millis(now))?.what))
        })
    }

    #[test]
    fn each_thing_that_is_owed_has_its_limit_and_none_is_overdue_before() {
        let idle = Look::default();
        let (step, nothing) = (5_000, |_: &mut Deadlines| ());
        assert_eq!(first_overdue(idle, nothing), None);
        let commits = Look { commits: true, ..idle };
        assert_eq!(first_overdue(commits, nothing), Some((REMOTE + step, Owed::Commit)));
        let seals = |deadlines: &mut Deadlines| deadlines.seals(WINDOW_ID, Millis(0));
        assert_eq!(first_overdue(idle, seals), Some((WINDOW + step, Owed::Seal)));
        let takes = |deadlines: &mut Deadlines| deadlines.fetched(true, Millis(0));
        assert_eq!(first_overdue(idle, takes), Some((WINDOW + step, Owed::Chunk)));
        let due = Look {
            records_due: true,
            behind: true,
            ..idle
        };
        assert_eq!(first_overdue(due, nothing), Some((REMOTE + step, Owed::Records)));
        assert_eq!(
            first_overdue(due, takes),
            Some((WINDOW + step, Owed::Chunk)),
            "the line is at fault"
        );
        let behind = Look { behind: true, ..idle };
        assert_eq!(first_overdue(behind, nothing), Some((OFFSETS + step, Owed::Offsets)));
    }

    #[test]
    fn what_moves_is_not_overdue_and_begins_to_count_anew() {
        let mut deadlines = Deadlines::new(PATIENCE, Millis(0));
        let look = Look {
            commits: true,
            records_due: true,
            behind: true,
        };
        for now in (0..1_000).map(|n| Millis(n * 5_000)) {
            deadlines.fetched(true, now);
            deadlines.staged(now);
            deadlines.seals(WINDOW_ID, now);
            deadlines.sealed(WINDOW_ID, now);
            deadlines.commit_ended();
            deadlines.moved();
            deadlines.look(look, now);
            assert_eq!(deadlines.overdue(now), None, "{now}");
        }
        let (mut now, mut seen) = (Millis(1_000 * 5_000), None);
        while seen.is_none() {
            now = now.after(Millis(1_000));
            deadlines.look(look, now);
            seen = deadlines.overdue(now);
        }
        assert_eq!(
            seen.map(|overdue| (overdue.what, overdue.limit)),
            Some((Owed::Commit, Millis(REMOTE)))
        );
    }

    #[test]
    fn time_in_which_the_process_was_stopped_counts_for_nobody() {
        let mut deadlines = Deadlines::new(PATIENCE, Millis(0));
        let look = Look {
            commits: true,
            records_due: true,
            behind: true,
        };
        deadlines.look(look, Millis(1_000));
        deadlines.seals(WINDOW_ID, Millis(1_000));
        deadlines.look(look, Millis(2_000));
        let woken = Millis(24 * 3_600_000);
        deadlines.look(look, woken);
        assert_eq!(deadlines.overdue(woken), None);
    }

    #[test]
    fn it_says_what_for_how_long_and_how_long_is_allowed() {
        let overdue = Overdue {
            what: Owed::Commit,
            waited: Millis(51_234),
            limit: Millis(REMOTE),
        };
        assert_eq!(
            overdue.to_string(),
            "a commit is under way without an end, for 51 s; 50 s are allowed"
        );
    }
}
