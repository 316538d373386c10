//! The run of one pipeline as a pure state machine: it takes in what happened and says what to do about it.
//!
//! ```text
//! Opened ──▶ (ResolveStart ─▶ start commit) ──▶ Publish ──▶ Join ──▶ Assigned ──▶ Read
//!                                                                         │
//!        ┌────────────────── Fetched: Take into the filling window ◀──────┘
//!        ▼
//!      Seal ──▶ Sealed ──▶ Prepare (dead letters, identity) ──▶ Load ──▶ admit ──▶ Swap ──▶ Publish
//!        ▲                                                      ▲                   │
//!        └── refused: drop all windows, read again              └─ Conflict, Unknown┘
//! ```
//!
//! Invariants:
//! - one commit is under way at a time, while the next window fills;
//! - windows commit in the order of their sequence, and a dropped one drops all later ones;
//! - `Unknown` is never taken for success or failure: the table is asked, and asked again;
//! - where nothing else is to be committed, the ledger is written again once its snapshot is older than a day.

mod commit;
pub mod deadline;
mod end;
pub mod start;
mod unwritten;
pub mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use crate::error::{Exit, Failure};
use crate::offsets::{OffsetRange, OffsetRanges, Offsets, Partition, Position};
use crate::run::commit::Commit;
use crate::run::deadline::Look;
use crate::run::unwritten::Unwritten;
use crate::run::window::{Filling, RejectLimit, SealReason};
use crate::table::admit::{self, CommitPlan, Source};
use crate::table::ledger::Ledger;
use crate::table::{SealedWindow, TableView, WindowId};
use crate::units::Millis;

/// Sealed windows that may wait for a commit; more, and reading pauses: they hold dead letters. What was fetched by then
/// still comes and may close a few more: the bytes between Kafka and the lines are bounded, see `kafka::budget`.
const SEALED_WINDOWS_MAX: usize = 4;

/// Times in a row that other runs may overtake a `--once` run before it gives way; named by the contract (exit code 5).
const OVERTAKEN_MAX: u32 = 3;

/// How long a revoke may wait for the commit of what it takes away. Kafka allows `max.poll.interval.ms`, 5 minutes by
/// default; a group is better served by a quick hand-over.
const REVOKE_WAIT: Millis = Millis(20_000);

/// How often a `--once` run without work looks whether other instances have reached the ends.
const IDLE_LOAD_INTERVAL: Millis = Millis(1_000);

/// How often a service without work looks whether its table was rolled back: one look at the catalog a minute is little,
/// and who rolls back a table sees its records come again within it.
const QUIET_LOAD_INTERVAL: Millis = Millis(60_000);

/// What a run is told once.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// This process's id, part of every window's name.
    pub run: Uuid,
    /// Ends when the table reaches the ends the topic had at the start.
    pub once: bool,
    /// Records at which a window closes.
    pub batch_size: u64,
    /// Age at which a window closes.
    pub batch_window: Millis,
    /// How long something remote may fail before the run ends with exit code 4.
    pub retry_for: Millis,
    /// How long a stop may wait for the window under way.
    pub grace: Millis,
    /// The topic that is read.
    pub source: Source,
    /// How many rejects a window may hold.
    pub reject_limit: RejectLimit,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The table was loaded or created, and the topic looked at. Always the first event.
    Opened {
        /// The table.
        view: TableView,
        /// All partitions of the topic.
        partitions: Vec<Partition>,
        /// The topic's ends; empty in a service.
        ends: Offsets,
    },
    /// Answer to [`Action::ResolveStart`].
    StartResolved(Offsets),
    /// Kafka assigned partitions to this member.
    Assigned(Vec<Partition>),
    /// Kafka takes partitions away; it waits for [`Action::AckRevoke`].
    Revoked {
        /// Which.
        partitions: Vec<Partition>,
        /// Another member may own them already.
        lost: bool,
    },
    /// A chunk came out of Kafka. The answer's first action is [`Action::Take`] or [`Action::Discard`].
    Fetched {
        /// The epoch of the [`Action::Read`] that it was read under.
        epoch: u64,
        /// Its partition.
        partition: Partition,
        /// The offsets that it accounts for.
        range: OffsetRange,
        /// Its records; fewer than offsets where there are holes.
        records: u64,
    },
    /// The dead letters of a window hold as much memory as they may, or its files can't be written: it is closed, if it isn't
    /// already.
    Crowded(WindowId),
    /// The files of a window are complete.
    Sealed(SealedWindow),
    /// The files of a window could not be written, and may be when its records are read again.
    Unwritten {
        /// Which; it was being sealed.
        window: WindowId,
        /// Those of its files that are complete.
        files: Vec<String>,
        /// When its files were to be completed.
        since: Millis,
        /// How the run ends where that lasts.
        failure: Failure,
    },
    /// Answer to [`Action::Prepare`].
    Prepared {
        /// The windows of that action: an answer may come when they are dropped and others are being prepared.
        windows: Vec<WindowId>,
        /// What became of it.
        answer: Result<(), String>,
    },
    /// Answer to [`Action::Load`].
    Loaded(Result<TableView, String>),
    /// Answer to [`Action::Swap`].
    Swapped {
        /// The windows of its plan: an answer may come when they are dropped and others are being swapped.
        windows: Vec<WindowId>,
        /// What became of it.
        answer: Swapped,
    },
    /// Answer to [`Action::Publish`].
    Published(Result<(), String>),
    /// Time has passed.
    Tick,
    /// Somebody asked the run to stop.
    Stop,
    /// Nothing more can be read; what was read before is whole, and is to be in the table when the run fails.
    Unreadable(Failure),
    /// Something can't be gone on with.
    Failed(Failure),
}

/// What a swap came to, as far as it is known.
#[expect(clippy::large_enum_variant, reason = "there is one for each commit")]
#[derive(Debug, Clone)]
pub enum Swapped {
    /// The table is now like this.
    Committed(TableView),
    /// Nothing happened and nothing will: the table had moved.
    Conflict,
    /// Nothing happened and nothing will: it failed before anything was sent. The same may succeed later.
    Failed(String),
    /// Nobody knows; the request may even arrive later.
    Unknown(String),
    /// Nothing happened, and trying the same again is useless.
    Rejected(String),
}

/// One thing to do. The fault list of the simulation matches this without a wildcard.
#[derive(Debug, Clone)]
pub enum Action {
    /// Find where these partitions start, by `startOffset` or from the beginning.
    ResolveStart {
        /// Which.
        partitions: Vec<Partition>,
        /// This is the very first commit: `startOffset` applies.
        first: bool,
    },
    /// Join the consumer group.
    Join,
    /// Read these partitions from these offsets; what was fetched under an earlier epoch is void.
    Read {
        /// The new epoch.
        epoch: u64,
        /// Where each partition starts.
        positions: Vec<(Partition, Position)>,
    },
    /// Put the chunk at hand into this window.
    Take(WindowId),
    /// Throw the chunk at hand away.
    Discard,
    /// Complete the files of a window; nothing more is put into it.
    Seal {
        /// Which.
        window: WindowId,
        /// The offsets that it covers.
        ranges: OffsetRanges,
        /// Why it closed.
        reason: SealReason,
    },
    /// Store dead letters and late rows of these windows, and compare the topic's identity.
    Prepare {
        /// Which, in order.
        windows: Vec<WindowId>,
        /// Wait this long first.
        after: Millis,
    },
    /// Load the table.
    Load {
        /// Wait this long first.
        after: Millis,
    },
    /// Write the manifests of a plan and swap the table, once, without a retry.
    Swap(Box<CommitPlan>),
    /// Bring sync points, then group offsets, to the ledger.
    Publish {
        /// The ledger, freshly loaded.
        ledger: Ledger,
        /// Wait this long first.
        after: Millis,
    },
    /// Forget these windows.
    Drop {
        /// Which; those still being written among them.
        windows: Vec<WindowId>,
        /// Files that no attempt can bring into the table any more.
        files: Vec<String>,
    },
    /// Stop fetching, keep polling.
    Pause,
    /// Fetch again.
    Resume,
    /// Let the rebalance go on.
    AckRevoke,
    /// The run is over.
    Finish(Outcome),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The table has reached the ends.
    Done,
    /// It was asked to stop.
    Stopped,
    /// It can't go on.
    Failed(Failure),
}

/// The run of one pipeline.
#[derive(Debug)]
pub struct Run {
    config: RunConfig,
    ledger: Option<Ledger>,
    /// See [`TableView::ledger_at`], as this run last saw it.
    ledger_at: Option<Millis>,
    /// When this run last began to write the ledger once more.
    renewed_at: Option<Millis>,
    ends: Offsets,
    joined: bool,
    /// Partitions that are assigned and wait for a fresh ledger before they are read.
    joining: BTreeSet<Partition>,
    /// For each partition being read, the offset that its next chunk must start at.
    positions: Offsets,
    assigned: BTreeSet<Partition>,
    epoch: u64,
    next_sequence: u64,
    filling: Option<Filling>,
    sealing: BTreeMap<WindowId, OffsetRanges>,
    /// Windows that were dropped while their files were being written.
    abandoned: BTreeSet<WindowId>,
    sealed: BTreeMap<WindowId, SealedWindow>,
    unwritten: Unwritten,
    commit: Option<Commit>,
    /// What sync points and group offsets were last brought to.
    published: Offsets,
    /// What the publication under way will bring them to.
    publishing: Offsets,
    loading: bool,
    /// The load under way was asked for before an attempt that has been answered since: what it shows is out of date.
    stale: bool,
    last_load: Millis,
    /// When a `--once` run last had something to do, or saw that others did something.
    progress_at: Millis,
    load_failing_since: Option<Millis>,
    paused: bool,
    revoke: Option<Revoke>,
    stop_deadline: Option<Millis>,
    /// What the stop is for, where it isn't asked for.
    ending: Option<Failure>,
    overtaken: u32,
    outcome: Option<Outcome>,
    actions: VecDeque<Action>,
}

/// A rebalance that waits for us.
#[derive(Debug)]
struct Revoke {
    partitions: BTreeSet<Partition>,
    deadline: Millis,
}

impl Run {
    /// Makes a run that waits for [`Event::Opened`].
    pub fn new(config: RunConfig) -> Self {
        Run {
            config,
            ledger: None,
            ledger_at: None,
            renewed_at: None,
            ends: Offsets::default(),
            joined: false,
            joining: BTreeSet::new(),
            positions: Offsets::default(),
            assigned: BTreeSet::new(),
            epoch: 0,
            next_sequence: 0,
            filling: None,
            sealing: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            sealed: BTreeMap::new(),
            unwritten: Unwritten::default(),
            commit: None,
            published: Offsets::default(),
            publishing: Offsets::default(),
            loading: false,
            stale: false,
            progress_at: Millis(0),
            last_load: Millis(0),
            load_failing_since: None,
            paused: false,
            revoke: None,
            stop_deadline: None,
            ending: None,
            overtaken: 0,
            outcome: None,
            actions: VecDeque::new(),
        }
    }

    /// The ledger as this run last saw it.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// What the windows of the commit under way have read.
    pub fn committing(&self) -> OffsetRanges {
        let mut all = OffsetRanges::default();
        let windows = self.commit.iter().flat_map(Commit::windows);
        for (partition, range) in windows.flat_map(|window| window.ranges.iter()) {
            all.extend(partition, range)
                .expect("each window goes on where the last one ended");
        }
        all
    }

    /// The window that takes chunks now.
    pub fn filling(&self) -> Option<WindowId> {
        self.filling.as_ref().map(|filling| filling.id)
    }

    /// The ends that a `--once` run works towards; empty in a service.
    pub fn ends(&self) -> &Offsets {
        &self.ends
    }

    /// The partitions that this member was given.
    pub fn assigned(&self) -> impl Iterator<Item = Partition> + '_ {
        self.assigned.iter().copied()
    }

    /// What this run waits for, as far as its own state tells.
    ///
    /// - `ends`: the topic's; empty where they aren't known.
    pub fn look(&self, ends: &Offsets) -> Look {
        let ledger = self.ledger.as_ref().map(|ledger| &ledger.offsets);
        let held = |partition| ledger.and_then(|held| held.get(partition));
        let works = self.joined && self.outcome.is_none() && self.stop_deadline.is_none();
        let unread = |(partition, at)| ends.get(partition).is_some_and(|end| at < end);
        // A service answers for its own partitions; one that was given none, for the group that gives none.
        let counts = |partition| self.config.once || self.assigned.is_empty() || self.assigned.contains(&partition);
        Look {
            commits: self.commit.is_some(),
            records_due: works && !self.paused && self.revoke.is_none() && self.positions.iter().any(unread),
            behind: works
                && ends
                    .iter()
                    .any(|(partition, end)| counts(partition) && held(partition).is_none_or(|held| held < end)),
        }
    }

    /// Takes in one thing that happened; returns what to do about it, in order. Same inputs, same answer.
    pub fn on(&mut self, event: Event, now: Millis) -> Vec<Action> {
        if self.outcome.is_some() {
            // A finished run answers only what somebody waits for.
            return match event {
                Event::Fetched { .. } => vec![Action::Discard],
                Event::Revoked { .. } => vec![Action::AckRevoke],
                _ => Vec::new(),
            };
        }
        self.take_in(event, now);
        self.settle(now);
        self.actions.drain(..).collect()
    }

    fn take_in(&mut self, event: Event, now: Millis) {
        match event {
            Event::Opened { view, partitions, ends } => self.opened(view, partitions, ends, now),
            Event::StartResolved(starts) => self.start_resolved(starts),
            Event::Assigned(partitions) => {
                self.progress_at = now;
                self.assigned.extend(&partitions);
                self.joining.extend(partitions);
                self.load(Millis(0));
            }
            Event::Revoked { partitions, lost } => self.revoked(partitions, lost, now),
            Event::Fetched {
                epoch,
                partition,
                range,
                records,
            } => self.fetched(epoch, partition, range, records, now),
            Event::Crowded(window) => {
                if let Some(filling) = self.filling.take_if(|filling| filling.id == window) {
                    self.seal(filling, SealReason::Memory);
                }
            }
            Event::Sealed(window) => self.window_sealed(window),
            Event::Unwritten {
                window,
                files,
                since,
                failure,
            } => self.window_unwritten(window, files, since, failure, now),
            Event::Prepared { windows, answer } => self.prepared(&windows, answer, now),
            Event::Loaded(answer) => self.loaded(answer, now),
            Event::Swapped { windows, answer } => self.swapped(&windows, answer, now),
            Event::Published(answer) => self.published(answer, now),
            Event::Tick => {}
            Event::Stop => self.stop(now),
            Event::Unreadable(failure) => {
                self.ending.get_or_insert(failure);
                self.stop(now);
            }
            Event::Failed(failure) => self.finish(Outcome::Failed(failure)),
        }
    }

    /// Reads no more: the window under way is the last, if it is committed within the grace.
    fn stop(&mut self, now: Millis) {
        self.actions.push_back(Action::Pause);
        self.paused = true;
        self.stop_deadline.get_or_insert(now.after(self.config.grace));
    }

    fn opened(&mut self, view: TableView, partitions: Vec<Partition>, ends: Offsets, now: Millis) {
        self.ends = ends;
        self.last_load = now;
        self.ledger_at = view.ledger_at;
        let first = view.ledger.is_none();
        let known = view
            .ledger
            .as_ref()
            .map(|ledger| ledger.offsets.clone())
            .unwrap_or_default();
        self.ledger = view.ledger;
        let missing: Vec<_> = partitions
            .into_iter()
            .filter(|partition| known.get(*partition).is_none())
            .collect();
        if missing.is_empty() {
            self.publish_start();
        } else {
            self.resolve(missing, first);
        }
    }

    fn fetched(&mut self, epoch: u64, partition: Partition, range: OffsetRange, records: u64, now: Millis) {
        let expected = self.positions.get(partition);
        let past_end = self.ends.get(partition).is_some_and(|end| range.start() >= end);
        if epoch != self.epoch
            || expected != Some(range.start())
            || past_end
            || self.stop_deadline.is_some()
            || self.unwritten.waits()
        {
            self.actions.push_back(Action::Discard);
            return;
        }
        let filling = match &mut self.filling {
            Some(filling) => filling,
            None => {
                let id = WindowId {
                    run: self.config.run,
                    sequence: self.next_sequence,
                };
                self.next_sequence += 1;
                self.filling.insert(Filling::open(id, now))
            }
        };
        filling.add(partition, range, records);
        self.positions.set(partition, range.end());
        self.actions.push_back(Action::Take(filling.id));
    }

    fn window_sealed(&mut self, window: SealedWindow) {
        if self.sealing.remove(&window.id).is_none() {
            if !self.abandoned.remove(&window.id) {
                // Heard before: its files may be in the table by now.
                return;
            }
            // No attempt ever named its files.
            let files = window
                .files
                .iter()
                .map(|file| file.file.file_path().to_owned())
                .collect();
            self.actions.push_back(Action::Drop {
                windows: vec![window.id],
                files,
            });
            return;
        }
        if self.config.reject_limit.exceeded(window.tally) {
            let (rejected, records) = (window.tally.rejected, window.tally.records);
            let what = format!(
                "too many records of topic `{}` can't become rows",
                self.config.source.topic
            );
            self.finish(Outcome::Failed(
                Failure::new(Exit::Data, what)
                    .detail(format!("{rejected} of {records} records of one window were rejected, allowed are {}", self.config.reject_limit))
                    .hint("the log shows the first reasons; mend `columns`, or raise `errors.maxRejected`. Nothing of the window was stored"),
            ));
            return;
        }
        self.unwritten.written();
        self.sealed.insert(window.id, window);
    }

    fn revoked(&mut self, partitions: Vec<Partition>, lost: bool, now: Millis) {
        self.progress_at = now;
        let gone: BTreeSet<_> = partitions.into_iter().collect();
        self.assigned.retain(|partition| !gone.contains(partition));
        self.joining.retain(|partition| !gone.contains(partition));
        self.positions = self
            .positions
            .iter()
            .filter(|(partition, _)| !gone.contains(partition))
            .collect();
        if lost && self.touches(&gone) {
            self.drop_windows();
        }
        if let Some(filling) = self.filling.take_if(|filling| filling.touches(&gone)) {
            self.seal(filling, SealReason::Revoke);
        }
        self.revoke = Some(Revoke {
            partitions: gone,
            deadline: now.after(REVOKE_WAIT),
        });
    }

    /// Brings everything forward that can go on: closes windows, starts commits, ends the run.
    fn settle(&mut self, now: Millis) {
        if self.outcome.is_some() {
            return;
        }
        self.close_window(now);
        self.settle_revoke(now);
        self.next_commit();
        self.settle_unwritten();
        self.settle_end(now);
        if self.outcome.is_none() && self.stop_deadline.is_none() {
            self.throttle();
        }
    }

    fn close_window(&mut self, now: Millis) {
        let ends_read = self.config.once
            && self.assigned.iter().all(|partition| {
                match (self.positions.get(*partition), self.ends.get(*partition)) {
                    (Some(position), Some(end)) => position >= end,
                    (None, Some(_)) => false,
                    (_, None) => true,
                }
            });
        let stopping = self.stop_deadline.is_some();
        let Some(filling) = &self.filling else { return };
        let reason = if filling.records >= self.config.batch_size {
            SealReason::Size
        } else if stopping {
            SealReason::Stop
        } else if ends_read {
            SealReason::End
        } else if now.since(filling.opened_at) >= self.config.batch_window {
            SealReason::Age
        } else {
            return;
        };
        let filling = self.filling.take().expect("looked at above");
        self.seal(filling, reason);
    }

    fn seal(&mut self, filling: Filling, reason: SealReason) {
        self.sealing.insert(filling.id, filling.ranges.clone());
        self.actions.push_back(Action::Seal {
            window: filling.id,
            ranges: filling.ranges,
            reason,
        });
    }

    fn settle_revoke(&mut self, now: Millis) {
        let Some(revoke) = &self.revoke else { return };
        let (gone, late) = (revoke.partitions.clone(), now >= revoke.deadline);
        let touches = self.touches(&gone);
        // Group offsets can be committed only while the partitions are ours, and they follow the publication.
        let publishes = self.commit.as_ref().is_some_and(Commit::publishes);
        if (touches || publishes) && !late {
            return;
        }
        if touches {
            self.drop_windows();
        }
        self.revoke = None;
        self.actions.push_back(Action::AckRevoke);
    }

    fn settle_end(&mut self, now: Millis) {
        let idle = self.idle();
        if !(self.joined && idle) {
            self.progress_at = now;
        }
        if let Some(deadline) = self.stop_deadline {
            if idle || now >= deadline {
                let ending = self.ending.take();
                self.finish(ending.map_or(Outcome::Stopped, Outcome::Failed));
            }
            return;
        }
        if self.commit.is_some() {
            return;
        }
        if !self.config.once {
            if idle && self.renewal_due(now) {
                self.renew(now);
            } else if self.joined && idle && !self.loading && now.since(self.last_load) >= QUIET_LOAD_INTERVAL {
                self.load(Millis(0));
            }
            return;
        }
        let reached = self.ledger.as_ref().filter(|ledger| ledger.offsets.reaches(&self.ends));
        if let Some(ledger) = reached {
            if self.renewal_due(now) {
                self.renew(now);
            } else if ledger.offsets == self.published {
                self.finish(Outcome::Done);
            } else {
                // Another run reached the ends and may have died before it published them.
                self.publish_start();
            }
        } else if !(self.joined && idle) {
            // Busy, or not there yet.
        } else if now.since(self.progress_at) >= self.config.retry_for.after(self.config.batch_window) {
            // A window that is filled elsewhere shows only when it is committed.
            let failure = end::stuck(&self.config.source, self.ledger.as_ref(), &self.ends, &self.assigned);
            self.finish(Outcome::Failed(failure));
        } else if !self.loading && now.since(self.last_load) >= IDLE_LOAD_INTERVAL {
            self.load(Millis(0));
        }
    }

    fn idle(&self) -> bool {
        self.filling.is_none() && self.sealing.is_empty() && self.sealed.is_empty() && self.commit.is_none()
    }

    /// Says whether the ledger should be written once more; never twice a day, whatever the table's clock says.
    fn renewal_due(&self, now: Millis) -> bool {
        self.ledger.is_some()
            && admit::renewal_due(self.ledger_at, now)
            && self.renewed_at.is_none_or(|at| admit::renewal_due(Some(at), now))
    }

    fn throttle(&mut self) {
        let crowded = self.sealing.len() + self.sealed.len() >= SEALED_WINDOWS_MAX || self.unwritten.waits();
        if crowded != self.paused {
            self.paused = crowded;
            self.actions
                .push_back(if crowded { Action::Pause } else { Action::Resume });
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.actions.push_back(Action::Finish(outcome.clone()));
        self.outcome = Some(outcome);
    }

    fn load(&mut self, after: Millis) {
        if !self.loading {
            self.loading = true;
            self.actions.push_back(Action::Load { after });
        }
    }

    /// Takes the ledger of a fresh view and starts the partitions that waited for one.
    fn see(&mut self, ledger: Ledger) {
        let ready: Vec<_> = self
            .joining
            .iter()
            .filter_map(|partition| ledger.position(*partition).map(|at| (*partition, at)))
            .collect();
        for (partition, at) in &ready {
            self.joining.remove(partition);
            self.positions.set(*partition, at.offset);
        }
        self.ledger = Some(ledger);
        if !ready.is_empty() {
            self.actions.push_back(Action::Read {
                epoch: self.epoch,
                positions: ready,
            });
        }
        if self.commit.is_none() && !self.joining.is_empty() {
            let added = self.joining.iter().copied().collect();
            self.resolve(added, false);
        }
    }

    /// Drops every window that isn't in the table, and reads again from the ledger. Later windows go with an earlier one,
    /// since they start where it would have ended.
    fn drop_windows(&mut self) {
        self.epoch += 1;
        let (mut windows, mut files) = (Vec::new(), Vec::new());
        if let Some(commit) = self.commit.take_if(|commit| commit.has_windows()) {
            let certain = commit.never_unknown();
            for window in commit.into_windows() {
                windows.push(window.id);
                if certain {
                    files.extend(window.files.iter().map(|file| file.file.file_path().to_owned()));
                }
            }
        }
        for (id, window) in std::mem::take(&mut self.sealed) {
            windows.push(id);
            files.extend(window.files.iter().map(|file| file.file.file_path().to_owned()));
        }
        let answered = self.unwritten.take();
        let unanswered = self.sealing.keys().filter(|id| !answered.contains(id));
        self.abandoned.extend(unanswered);
        windows.extend(std::mem::take(&mut self.sealing).into_keys());
        windows.extend(self.filling.take().map(|filling| filling.id));
        self.actions.push_back(Action::Drop { windows, files });
        let ledger = self.ledger.as_ref().expect("windows fill only under a ledger");
        let mut positions = Vec::new();
        for partition in self.positions.partitions() {
            match ledger.position(partition) {
                Some(at) => positions.push((partition, at)),
                // A rollback took it out of the ledger: it starts anew.
                None => drop(self.joining.insert(partition)),
            }
        }
        self.positions = positions
            .iter()
            .map(|(partition, at)| (*partition, at.offset))
            .collect();
        self.actions.push_back(Action::Read {
            epoch: self.epoch,
            positions,
        });
    }

    /// Nothing is on its way into the table, and yet it isn't where reading goes on: it was rolled back, or another run
    /// has committed what is to come.
    fn strayed(&self) -> bool {
        let ledger = self.ledger.as_ref().map(|ledger| &ledger.offsets);
        self.idle()
            && self
                .positions
                .iter()
                .any(|(partition, at)| ledger.and_then(|held| held.get(partition)) != Some(at))
    }

    fn touches(&self, partitions: &BTreeSet<Partition>) -> bool {
        let hit = |ranges: &OffsetRanges| ranges.iter().any(|(partition, _)| partitions.contains(&partition));
        self.filling.as_ref().is_some_and(|filling| filling.touches(partitions))
            || self.sealing.values().any(hit)
            || self.sealed.values().any(|window| hit(&window.ranges))
            || self
                .commit
                .as_ref()
                .is_some_and(|commit| commit.windows().iter().any(|window| hit(&window.ranges)))
    }
}
