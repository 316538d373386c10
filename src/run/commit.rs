//! The commit under way: one at a time, every attempt admitted anew.

use uuid::Uuid;

use crate::error::{Exit, Failure};
use crate::offsets::{Offsets, Partition};
use crate::run::{Action, OVERTAKEN_MAX, Outcome, Run, Swapped, start};
use crate::table::admit::{self, Refusal};
use crate::table::ledger::Ledger;
use crate::table::{SealedWindow, TableView, WindowId};
use crate::units::Millis;

/// The first wait after a failed attempt; doubled with each further one.
pub(super) const BACKOFF_MIN: Millis = Millis(100);

/// The longest wait between attempts: a catalog that is back is noticed within it.
const BACKOFF_MAX: Millis = Millis(10_000);

/// The longest wait after the first conflict; doubled with each further one. Every instance takes another part of it, so
/// that those that met don't meet again.
const CONFLICT_WAIT_MIN: Millis = Millis(50);

/// The longest wait after a conflict, where attempts are quick. Whoever waited longer than others would lose to them again
/// and again.
const CONFLICT_WAIT_MAX: Millis = Millis(1_000);

/// Attempts that fit into the longest wait where they are slow: about as many instances can take turns.
const TURNS: i64 = 8;

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit {
    job: Job,
    step: Step,
    /// Attempts that failed in a row, whatever the step.
    failures: u32,
    /// Attempts in a row that others were faster than.
    conflicts: u32,
    /// When the last attempt began.
    swapping_since: Millis,
    failing_since: Option<Millis>,
    /// An attempt was sent whose fate isn't known: its files must stay.
    unknown: bool,
    /// See [`TableView::sequence`], of the view that the last attempt was admitted to.
    attempted_at: Option<i64>,
}

#[derive(Debug)]
enum Job {
    /// Puts partitions that the table doesn't know where the first look at the topic found them.
    Start(Offsets),
    Windows(Vec<SealedWindow>),
    /// Writes the ledger once more as it is, in an empty snapshot.
    Renewal,
    /// Nothing to swap: brings the copies of the ledger up to it.
    Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Resolving,
    Preparing,
    Loading,
    Swapping,
    Publishing,
}

impl Commit {
    fn new(job: Job, step: Step) -> Self {
        Commit {
            job,
            step,
            failures: 0,
            conflicts: 0,
            swapping_since: Millis(0),
            failing_since: None,
            unknown: false,
            attempted_at: None,
        }
    }

    pub(super) fn has_windows(&self) -> bool {
        !self.windows().is_empty()
    }

    pub(super) fn windows(&self) -> &[SealedWindow] {
        match &self.job {
            // Once published they are in the table.
            Job::Windows(windows) if self.step != Step::Publishing => windows,
            _ => &[],
        }
    }

    /// Says whether an answer of this step, about these windows, is one to this commit.
    fn awaits(&self, step: Step, windows: &[WindowId]) -> bool {
        self.step == step
            && self
                .windows()
                .iter()
                .map(|window| window.id)
                .eq(windows.iter().copied())
    }

    pub(super) fn publishes(&self) -> bool {
        self.step == Step::Publishing
    }

    pub(super) fn into_windows(self) -> Vec<SealedWindow> {
        match self.job {
            Job::Windows(windows) => windows,
            Job::Start(_) | Job::Renewal | Job::Repair => Vec::new(),
        }
    }

    /// No attempt is out whose fate isn't known.
    pub(super) fn never_unknown(&self) -> bool {
        !self.unknown && self.step != Step::Swapping
    }

    /// How long to wait before the next attempt after a conflict; other runs wait otherwise.
    fn wait_after_conflict(&self, run: Uuid, now: Millis) -> Millis {
        let took = now.since(self.swapping_since).0;
        let longest = took.saturating_mul(TURNS).clamp(CONFLICT_WAIT_MAX.0, BACKOFF_MAX.0);
        let doubled = CONFLICT_WAIT_MIN.0 << (self.conflicts - 1).min(10);
        let most = doubled.min(longest).unsigned_abs();
        let (high, low) = run.as_u64_pair();
        // The constant spreads what are neighbours over all numbers. Source: Knuth, TAOCP 3, 6.4, multiplicative hashing.
        let spread = (high ^ low ^ u64::from(self.conflicts)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        Millis(i64::try_from(spread % most).unwrap_or_default())
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Millis {
    let doubled = BACKOFF_MIN.0 << failures.saturating_sub(1).min(10);
    Millis(doubled.min(BACKOFF_MAX.0))
}

impl Run {
    pub(super) fn resolve(&mut self, partitions: Vec<Partition>, first: bool) {
        self.commit = Some(Commit::new(Job::Start(Offsets::default()), Step::Resolving));
        self.actions.push_back(Action::ResolveStart { partitions, first });
    }

    pub(super) fn start_resolved(&mut self, starts: Offsets) {
        if let Some(commit) = self.commit.as_mut().filter(|commit| commit.step == Step::Resolving) {
            commit.job = Job::Start(starts);
            commit.step = Step::Loading;
            self.load(Millis(0));
        }
    }

    pub(super) fn publish_start(&mut self) {
        let ledger = self.ledger.clone().expect("every partition is in the ledger");
        self.commit = Some(Commit::new(Job::Repair, Step::Publishing));
        self.publish(ledger, Millis(0));
    }

    pub(super) fn renew(&mut self, now: Millis) {
        self.renewed_at = Some(now);
        self.commit = Some(Commit::new(Job::Renewal, Step::Loading));
        self.load(Millis(0));
    }

    fn publish(&mut self, ledger: Ledger, after: Millis) {
        self.publishing = ledger.offsets.clone();
        self.actions.push_back(Action::Publish { ledger, after });
    }

    /// Starts the commit of all windows that are sealed, up to the first that is still being written.
    pub(super) fn next_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let first_open = self.sealing.keys().next().copied();
        let later = match first_open {
            Some(open) => self.sealed.split_off(&open),
            None => Default::default(),
        };
        let windows: Vec<_> = std::mem::replace(&mut self.sealed, later).into_values().collect();
        if windows.is_empty() {
            return;
        }
        let ids = windows.iter().map(|window| window.id).collect();
        self.commit = Some(Commit::new(Job::Windows(windows), Step::Preparing));
        self.actions.push_back(Action::Prepare {
            windows: ids,
            after: Millis(0),
        });
    }

    pub(super) fn prepared(&mut self, windows: &[WindowId], answer: Result<(), String>, now: Millis) {
        let awaited = |commit: &&mut Commit| commit.awaits(Step::Preparing, windows);
        let Some(commit) = self.commit.as_mut().filter(awaited) else {
            return;
        };
        match answer {
            Ok(()) => {
                commit.step = Step::Loading;
                // What was asked for before may not show columns that these windows' files have.
                self.stale = self.loading;
                self.load(Millis(0));
            }
            Err(error) => {
                if let Some(after) = self.failed_attempt("dead letters can't be stored", error, now) {
                    let windows = windows.to_vec();
                    self.actions.push_back(Action::Prepare { windows, after });
                }
            }
        }
    }

    pub(super) fn loaded(&mut self, answer: Result<TableView, String>, now: Millis) {
        self.loading = false;
        self.last_load = now;
        if std::mem::take(&mut self.stale) && answer.is_ok() {
            self.load(Millis(0));
            return;
        }
        let waits = self.commit.as_ref().is_some_and(|commit| commit.step == Step::Loading);
        match answer {
            Err(error) if waits => {
                if let Some(after) = self.failed_attempt("the catalog doesn't answer", error, now) {
                    self.load(after);
                }
            }
            Err(error) => {
                let since = *self.load_failing_since.get_or_insert(now);
                if now.since(since) >= self.config.retry_for {
                    self.give_up("the catalog doesn't answer", error);
                } else {
                    self.load(BACKOFF_MIN);
                }
            }
            Ok(view) => {
                self.load_failing_since = None;
                self.ledger_at = view.ledger_at;
                if waits {
                    self.attempt(view, now);
                } else if self.unwritten.awaits_view() {
                    self.read_again(view);
                } else if let Some(ledger) = view.ledger {
                    if self.ledger.as_ref().is_none_or(|held| held.offsets != ledger.offsets) {
                        self.progress_at = now;
                    }
                    self.ledger = Some(ledger.clone());
                    if self.strayed() {
                        self.drop_windows();
                    }
                    self.see(ledger);
                }
            }
        }
    }

    /// Admits the commit under way to the table as it was just loaded, and swaps.
    fn attempt(&mut self, view: TableView, now: Millis) {
        if self.ledger.is_some() && view.ledger.is_none() {
            // Also a new partition must not start a ledger of its own in a table that lost the others' offsets.
            self.other_source(None);
            return;
        }
        let mut commit = self.commit.take().expect("only a commit under way is attempted");
        let (fresh, sequence) = (view.ledger.clone(), view.sequence);
        if commit.attempted_at.is_some_and(|attempted_at| attempted_at != sequence) {
            // Others get on: that is no failure of the catalog's, however long it lasts.
            (commit.failures, commit.failing_since) = (0, None);
        }
        let admitted = match &commit.job {
            Job::Start(starts) => admit::admit_start(view, &self.config.source, starts),
            Job::Windows(windows) => admit::admit(view, &self.config.source, windows.clone()).map(Some),
            Job::Renewal => admit::admit_renewal(view, &self.config.source, now),
            Job::Repair => Ok(None),
        };
        match admitted {
            Ok(Some(_)) if commit.unknown && commit.has_windows() && commit.attempted_at != Some(sequence) => {
                // The attempt may have been one of the snapshots since, that were then undone and expired, its files with
                // them: they can't be named again. They stay, and the records are read again.
                self.commit = Some(commit);
                let fresh = fresh.expect("offsets were compared");
                self.ledger = Some(fresh.clone());
                self.drop_windows();
                self.see(fresh);
            }
            Ok(Some(admitted)) => {
                commit.step = Step::Swapping;
                commit.swapping_since = now;
                commit.attempted_at = Some(sequence);
                self.commit = Some(commit);
                self.actions.push_back(Action::Swap(Box::new(admit::plan(admitted))));
            }
            Ok(None) | Err(Refusal::AlreadyCommitted(_)) => {
                self.commit = Some(commit);
                self.committed(fresh.expect("a table that refuses nothing has a ledger"));
            }
            Err(Refusal::OtherSource { ledger }) => {
                self.commit = Some(commit);
                self.other_source(ledger);
            }
            // Not the other instances' doing: it counts for nothing. The shell lets the next window be of the new form.
            Err(Refusal::SchemaMoved { .. }) => {
                self.commit = Some(commit);
                let fresh = fresh.expect("offsets were compared");
                self.ledger = Some(fresh.clone());
                self.drop_windows();
                self.see(fresh);
            }
            Err(refusal @ (Refusal::Overtaken { .. } | Refusal::Gap { .. })) => {
                self.commit = Some(commit);
                self.overtaken += 1;
                let fresh = fresh.expect("offsets were compared");
                self.ledger = Some(fresh.clone());
                self.drop_windows();
                if self.config.once && self.overtaken >= OVERTAKEN_MAX {
                    self.give_way(refusal);
                } else {
                    self.see(fresh);
                }
            }
        }
    }

    pub(super) fn swapped(&mut self, windows: &[WindowId], answer: Swapped, now: Millis) {
        let awaited = |commit: &&mut Commit| commit.awaits(Step::Swapping, windows);
        let Some(commit) = self.commit.as_mut().filter(awaited) else {
            return;
        };
        // What was asked before shows the table as it was before this attempt.
        self.stale = self.loading;
        match answer {
            Swapped::Committed(view) => {
                self.overtaken = 0;
                self.ledger_at = view.ledger_at;
                self.committed(view.ledger.expect("a commit of ours writes the ledger"));
            }
            Swapped::Conflict => {
                commit.step = Step::Loading;
                commit.conflicts += 1;
                let after = commit.wait_after_conflict(self.config.run, now);
                let error = "every swap met a conflict, and the table stays as it is".into();
                if self.failed_attempt("the catalog takes no commit", error, now).is_some() {
                    self.load(after);
                }
            }
            Swapped::Failed(error) => {
                commit.step = Step::Loading;
                if let Some(after) = self.failed_attempt("the commit can't be handed to the catalog", error, now) {
                    self.load(after);
                }
            }
            Swapped::Unknown(error) => {
                commit.unknown = true;
                commit.step = Step::Loading;
                if let Some(after) = self.failed_attempt("no commit is seen to come to the table", error, now) {
                    self.load(after);
                }
            }
            Swapped::Rejected(error) => {
                let failure = Failure::new(Exit::Remote, "the commit is refused, or can't be made")
                    .detail(error)
                    .hint("nothing is lost: the table holds the offsets. Mend what the detail says, then run again");
                self.finish(Outcome::Failed(failure));
            }
        }
    }

    fn committed(&mut self, ledger: Ledger) {
        let commit = self.commit.as_mut().expect("only a commit under way is completed");
        commit.step = Step::Publishing;
        commit.failures = 0;
        commit.failing_since = None;
        self.publish(ledger.clone(), Millis(0));
        self.see(ledger);
    }

    pub(super) fn published(&mut self, answer: Result<(), String>, now: Millis) {
        if self
            .commit
            .as_ref()
            .is_none_or(|commit| commit.step != Step::Publishing)
        {
            return;
        }
        match answer {
            Ok(()) => {
                self.commit = None;
                self.published = std::mem::take(&mut self.publishing);
                let reached = self
                    .ledger
                    .as_ref()
                    .is_some_and(|ledger| ledger.offsets.reaches(&self.ends));
                let finished = self.config.once && reached;
                if !self.joined && !finished {
                    self.joined = true;
                    self.actions.push_back(Action::Join);
                }
                let ledger = self.ledger.clone().expect("published from a ledger");
                self.see(ledger);
            }
            Err(error) => {
                if let Some(after) = self.failed_attempt("the sync points can't be stored", error, now) {
                    let ledger = self.ledger.clone().expect("published from a ledger");
                    self.publish(ledger, after);
                }
            }
        }
    }

    /// Counts a failed attempt; returns how long to wait before the next, or ends the run and returns nothing.
    fn failed_attempt(&mut self, what: &str, error: String, now: Millis) -> Option<Millis> {
        let commit = self.commit.as_mut().expect("only a commit under way fails");
        commit.failures += 1;
        let since = *commit.failing_since.get_or_insert(now);
        if now.since(since) >= self.config.retry_for {
            self.give_up(what, error);
            return None;
        }
        Some(backoff(commit.failures))
    }

    fn give_up(&mut self, what: &str, error: String) {
        let failure = Failure::new(Exit::Remote, what).detail(error).hint(
            "nothing is lost: the table holds the offsets. Run again when it is back, or wait longer with `--retry-for`",
        );
        self.finish(Outcome::Failed(failure));
    }

    fn give_way(&mut self, refusal: Refusal) {
        let detail = match refusal {
            Refusal::Overtaken {
                partition,
                ledger,
                start,
            } => format!(
                "partition {partition}: the table holds offset {ledger}, this window starts at {start}; another run committed meanwhile"
            ),
            other => format!("{other:?}"),
        };
        let what = format!(
            "other instances overtook this run {OVERTAKEN_MAX} times in a row on topic `{}`",
            self.config.source.topic
        );
        self.finish(Outcome::Failed(
            Failure::new(Exit::Overtaken, what).detail(detail).hint(
                "another job works on this pipeline; if it should not, suspend it. Nothing was lost or written twice",
            ),
        ));
    }

    pub(super) fn other_source(&mut self, ledger: Option<admit::Source>) {
        let source = &self.config.source;
        let failure = match ledger {
            None => Failure::new(
                Exit::Data,
                format!("the table for topic `{}` carries no offsets any more", source.topic),
            )
            .detail("it was replaced, or its history was rewritten while this run worked")
            .hint("nothing of the window was stored; run again: what the table's history tells decides then"),
            Some(held) => start::other_source(source, &held),
        };
        self.finish(Outcome::Failed(failure));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use iceberg::spec::{NestedField, NestedFieldRef, PrimitiveType, Schema, Type};
    use uuid::Uuid;

    use super::*;
    use crate::offsets::{Offset, OffsetRange};
    use crate::run::window::{RejectLimit, SealReason};
    use crate::run::{Event, RunConfig};
    use crate::table::admit::Source;
    use crate::table::{Layout, Tally};

    const ID: Uuid = Uuid::from_u128(1);
    const ONLY: Partition = Partition(0);

    fn table() -> TableView {
        TableView {
            uuid: Uuid::from_u128(9),
            snapshot: Some(4),
            sequence: 4,
            ledger: Some(Ledger {
                topic: "t".into(),
                topic_id: None,
                cluster_id: None,
                offsets: [(ONLY, Offset::ZERO)].into_iter().collect(),
                windows: BTreeMap::new(),
                event_times: BTreeMap::new(),
                leader_epochs: BTreeMap::new(),
                stale_letters: BTreeSet::new(),
            }),
            ledger_at: Some(Millis(0)),
            layout: layout(&[]),
        }
    }

    fn layout(columns: &[NestedFieldRef]) -> Arc<Layout> {
        let schema = Schema::builder().with_fields(columns.to_vec()).build();
        Arc::new(Layout {
            schema: Arc::new(schema.expect("columns")),
            specs: BTreeSet::new(),
        })
    }

    fn id(sequence: u64) -> WindowId {
        WindowId { run: ID, sequence }
    }

    fn sealed(sequence: u64, range: OffsetRange) -> SealedWindow {
        SealedWindow {
            id: id(sequence),
            ranges: [(ONLY, range)].into_iter().collect(),
            files: Vec::new(),
            tally: Tally {
                records: 1,
                filtered: 1,
                ..Tally::default()
            },
            event_times: BTreeMap::new(),
            schemas: vec![layout(&[]).schema.clone()],
        }
    }

    /// A run that has published what the table holds, and fills windows of `batch_size` records.
    fn opened(batch_size: u64) -> Run {
        let mut run = Run::new(RunConfig {
            run: ID,
            once: false,
            batch_size,
            batch_window: Millis(60_000),
            retry_for: Millis(60_000),
            grace: Millis(1_000),
            source: Source {
                topic: "t".into(),
                topic_id: None,
                cluster_id: None,
            },
            reject_limit: RejectLimit::Count(0),
        });
        let opened = Event::Opened {
            view: table(),
            partitions: vec![ONLY],
            ends: Offsets::default(),
        };
        run.on(opened, Millis(0));
        run.on(Event::Published(Ok(())), Millis(0));
        run
    }

    /// Fills and seals the window `sequence` with one record; it is being prepared then.
    fn prepare(run: &mut Run, sequence: u64) {
        let range = OffsetRange::new(Offset::ZERO, Offset::new(1));
        run.on(Event::Assigned(vec![ONLY]), Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        let fetched = Event::Fetched {
            epoch: sequence,
            partition: ONLY,
            range,
            records: 1,
        };
        run.on(fetched, Millis(0));
        let actions = run.on(Event::Sealed(sealed(sequence, range)), Millis(0));
        assert!(
            matches!(&actions[..], [Action::Prepare { windows, .. }] if *windows == [id(sequence)]),
            "{actions:?}"
        );
    }

    #[test]
    fn an_answer_about_dropped_windows_is_none_about_those_that_follow() {
        let mut run = opened(1);
        prepare(&mut run, 0);
        let lost = Event::Revoked {
            partitions: vec![ONLY],
            lost: true,
        };
        run.on(lost, Millis(0));
        prepare(&mut run, 1);

        let prepared = |sequence| Event::Prepared {
            windows: vec![id(sequence)],
            answer: Ok(()),
        };
        let actions = run.on(prepared(0), Millis(0));
        assert!(actions.is_empty(), "the letters of window 1 aren't stored: {actions:?}");
        let actions = run.on(prepared(1), Millis(0));
        assert!(matches!(&actions[..], [Action::Load { .. }]), "{actions:?}");

        let actions = run.on(Event::Loaded(Ok(table())), Millis(0));
        assert!(matches!(&actions[..], [Action::Swap(_)]), "{actions:?}");
        let swapped = |sequence| Event::Swapped {
            windows: vec![id(sequence)],
            answer: Swapped::Conflict,
        };
        let actions = run.on(swapped(0), Millis(0));
        assert!(actions.is_empty(), "nobody knows what becomes of window 1: {actions:?}");
        let actions = run.on(swapped(1), Millis(0));
        assert!(matches!(&actions[..], [Action::Load { .. }]), "{actions:?}");
    }

    fn prepared(sequence: u64) -> Event {
        Event::Prepared {
            windows: vec![id(sequence)],
            answer: Ok(()),
        }
    }

    fn swapped(answer: Swapped) -> Event {
        Event::Swapped {
            windows: vec![id(0)],
            answer,
        }
    }

    /// A service whose first window is being swapped.
    fn swapping() -> Run {
        let mut run = opened(1);
        prepare(&mut run, 0);
        run.on(prepared(0), Millis(0));
        let actions = run.on(Event::Loaded(Ok(table())), Millis(0));
        assert!(matches!(&actions[..], [Action::Swap(_)]), "{actions:?}");
        run
    }

    #[test]
    fn conflicts_end_a_run_only_where_nobody_gets_on() {
        for (moves, ends) in [(true, false), (false, true)] {
            let mut run = swapping();
            let mut ended = false;
            // Each answer comes half a minute after the one before; one is patient for a whole one.
            for round in 1..=4 {
                let now = Millis(round * 30_000);
                let actions = run.on(swapped(Swapped::Conflict), now);
                ended = actions.iter().any(|action| matches!(action, Action::Finish(_)));
                if ended {
                    break;
                }
                let Some(Action::Load { after }) = actions.first() else {
                    panic!("{actions:?}")
                };
                assert!(*after < CONFLICT_WAIT_MAX, "{after}");
                let mut view = table();
                view.sequence += if moves { round } else { 0 };
                let actions = run.on(Event::Loaded(Ok(view)), now);
                assert!(matches!(&actions[..], [Action::Swap(_)]), "{actions:?}");
            }
            assert_eq!(ended, ends, "the table moves: {moves}");
        }
    }

    #[test]
    fn what_was_loaded_before_a_commit_is_not_taken_for_the_table_after_it() {
        let mut run = swapping();
        // A rebalance asks for the table while the swap is under way, and is answered when it is done.
        let actions = run.on(Event::Assigned(vec![Partition(1)]), Millis(0));
        assert!(matches!(&actions[..], [Action::Load { .. }]), "{actions:?}");
        let mut after = table();
        let ledger = after.ledger.as_mut().expect("a ledger");
        ledger.offsets = [(ONLY, Offset::new(1)), (Partition(1), Offset::ZERO)]
            .into_iter()
            .collect();
        run.on(swapped(Swapped::Committed(after.clone())), Millis(0));
        run.on(Event::Published(Ok(())), Millis(0));
        let actions = run.on(Event::Loaded(Ok(table())), Millis(0));
        assert!(
            matches!(&actions[..], [Action::Load { .. }]),
            "asked again: {actions:?}"
        );
        assert_eq!(
            run.ledger().map(|ledger| &ledger.offsets),
            after.ledger.map(|ledger| ledger.offsets).as_ref()
        );
    }

    #[test]
    fn a_window_written_for_columns_that_are_gone_is_read_again() {
        let mut run = opened(1);
        prepare(&mut run, 0);
        run.on(prepared(0), Millis(0));
        let column = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
        let view = TableView {
            layout: layout(&[Arc::new(column)]),
            ..table()
        };
        let actions = run.on(Event::Loaded(Ok(view)), Millis(0));
        let [Action::Drop { windows, .. }, Action::Read { epoch: 1, positions }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(
            (&windows[..], &positions[..]),
            (&[id(0)][..], &[(ONLY, Offset::ZERO.into())][..])
        );
    }

    /// A record of a window that can't be written; what the run says to that.
    fn unwritten(run: &mut Run, epoch: u64, at: i64, sequence: u64, now: Millis) -> Vec<Action> {
        let range = OffsetRange::new(Offset::new(at), Offset::new(at + 1));
        let fetched = Event::Fetched {
            epoch,
            partition: ONLY,
            range,
            records: 1,
        };
        let actions = run.on(fetched, now);
        assert!(
            matches!(&actions[..], [Action::Take(_), Action::Seal { .. }]),
            "{actions:?}"
        );
        let unwritten = Event::Unwritten {
            window: id(sequence),
            files: vec![format!("f{sequence}")],
            since: now,
            failure: Failure::new(Exit::Remote, "403"),
        };
        run.on(unwritten, now)
    }

    #[test]
    fn records_of_a_window_that_cannot_be_written_are_read_again_after_those_before_are_committed() {
        let mut run = opened(1);
        prepare(&mut run, 0);
        let actions = unwritten(&mut run, 0, 1, 1, Millis(0));
        let [Action::Drop { windows, files }, Action::Pause] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!((&windows[..], &files[..]), (&[id(1)][..], &["f1".to_owned()][..]));
        // What comes before goes on; nothing is taken in that would come after.
        let late = Event::Fetched {
            epoch: 0,
            partition: ONLY,
            range: OffsetRange::new(Offset::new(2), Offset::new(3)),
            records: 1,
        };
        assert!(matches!(&run.on(late, Millis(0))[..], [Action::Discard]));
        run.on(prepared(0), Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        let mut after = table();
        if let Some(ledger) = &mut after.ledger {
            ledger.offsets = [(ONLY, Offset::new(1))].into_iter().collect();
        }
        run.on(swapped(Swapped::Committed(after.clone())), Millis(0));
        let actions = run.on(Event::Published(Ok(())), Millis(0));
        assert!(
            matches!(&actions[..], [Action::Load { after }] if *after == BACKOFF_MIN),
            "{actions:?}"
        );
        let actions = run.on(Event::Loaded(Ok(after)), Millis(0));
        let [
            Action::Drop { windows, .. },
            Action::Read { epoch: 1, positions },
            Action::Resume,
        ] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!(windows[..], [id(1)]);
        assert_eq!(positions, &[(ONLY, Offset::new(1).into())]);
    }

    #[test]
    fn a_store_that_takes_no_files_ends_a_run_after_retry_for_and_the_wait_grows() {
        let mut run = opened(1);
        run.on(Event::Assigned(vec![ONLY]), Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        let mut waits = Vec::new();
        for round in 0..6 {
            let now = Millis(round * 15_000);
            let epoch = round.cast_unsigned();
            let actions = unwritten(&mut run, epoch, 0, epoch, now);
            if let Some(Action::Finish(Outcome::Failed(failure))) = actions.last() {
                assert_eq!((round, failure.exit), (4, Exit::Remote), "a minute is over");
                assert!(waits.is_sorted() && waits.first() < waits.last(), "{waits:?}");
                return;
            }
            let Some(Action::Load { after }) = actions.iter().find(|action| matches!(action, Action::Load { .. }))
            else {
                panic!("{actions:?}")
            };
            waits.push(*after);
            run.on(Event::Loaded(Ok(table())), now);
        }
        panic!("it is never over");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_window_that_cannot_be_written() {
        let mut run = opened(1);
        run.on(Event::Assigned(vec![ONLY]), Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        unwritten(&mut run, 0, 0, 0, Millis(0));
        let actions = run.on(Event::Stop, Millis(0));
        assert!(
            matches!(actions.last(), Some(Action::Finish(Outcome::Stopped))),
            "{actions:?}"
        );
    }

    #[test]
    fn crowded_windows_close_early_and_those_sealed_during_a_commit_share_the_next() {
        let mut run = opened(1_000);
        run.on(Event::Assigned(vec![ONLY]), Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        let mut fill = |sequence: u64| {
            let start = Offset::new(sequence.cast_signed());
            let range = OffsetRange::new(start, start.next());
            let fetched = Event::Fetched {
                epoch: 0,
                partition: ONLY,
                range,
                records: 1,
            };
            run.on(fetched, Millis(0));
            let actions = run.on(Event::Crowded(id(sequence + 1)), Millis(0));
            assert!(actions.is_empty(), "that window isn't open: {actions:?}");
            let actions = run.on(Event::Crowded(id(sequence)), Millis(0));
            assert!(
                matches!(&actions[..], [Action::Seal { window, reason: SealReason::Memory, .. }] if *window == id(sequence)),
                "{actions:?}"
            );
            run.on(Event::Sealed(sealed(sequence, range)), Millis(0))
        };
        let actions = fill(0);
        assert!(matches!(&actions[..], [Action::Prepare { .. }]), "{actions:?}");
        assert!(fill(1).is_empty(), "one commit is under way");
        assert!(fill(2).is_empty(), "one commit is under way");
        let prepared = Event::Prepared {
            windows: vec![id(0)],
            answer: Ok(()),
        };
        run.on(prepared, Millis(0));
        run.on(Event::Loaded(Ok(table())), Millis(0));
        let mut after = table();
        if let Some(ledger) = &mut after.ledger {
            ledger.offsets = [(ONLY, Offset::new(1))].into_iter().collect();
        }
        let swapped = Event::Swapped {
            windows: vec![id(0)],
            answer: Swapped::Committed(after),
        };
        run.on(swapped, Millis(0));
        let actions = run.on(Event::Published(Ok(())), Millis(0));
        assert!(
            matches!(&actions[..], [Action::Prepare { windows, .. }] if *windows == [id(1), id(2)]),
            "{actions:?}"
        );
    }
}
