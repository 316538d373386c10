//! Effects that run beside the conductor: begun here, and what came of them taken in.

use std::collections::BTreeSet;

use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::catalog::LoadedTable;
use crate::error::Failure;
use crate::kill_points::{self, Effect, KillPoint, Place};
use crate::offsets::{Offsets, RecordAt};
use crate::run::{Event, Outcome, Swapped};
use crate::shell::conductor::Conductor;
use crate::shell::report::{SyncPointAhead, TableReport};
use crate::shell::tables::TableForm;
use crate::shell::{now, perform};
use crate::table::{TableView, WindowId};

/// Answers of effects that run beside the conductor.
pub(super) enum Answer {
    Event(Event),
    Loaded(Result<(LoadedTable, TableView), String>),
    Swapped(Vec<WindowId>, Swapped, Option<LoadedTable>),
    /// With the records whose letters are to be taken back after the commit.
    Prepared(Vec<WindowId>, Result<BTreeSet<RecordAt>, String>),
    /// With the records whose letters were taken back.
    Published(BTreeSet<RecordAt>, Result<(Offsets, Vec<perform::Ahead>), String>),
    GroupReached(Result<(), Failure>),
    Diagnosed(Option<Failure>),
    /// The line was given a plan for new fields, past the conductor.
    Planned(TableForm),
}

impl Conductor {
    /// Starts the effect of an action.
    pub(super) fn begin(&self, effect: Effect, work: impl Future<Output = Answer> + Send + 'static) -> AbortHandle {
        self.spawn(async move {
            let answer = work.await;
            kill_points::pass(KillPoint::After(effect));
            answer
        })
    }

    pub(super) fn spawn(&self, work: impl Future<Output = Answer> + Send + 'static) -> AbortHandle {
        let answers = self.answers.0.clone();
        let spawned = tokio::spawn(async move {
            // A conductor that is gone wants no answers.
            let _ = answers.send(work.await);
        });
        spawned.abort_handle()
    }

    pub(super) fn answered(&mut self, answer: Answer, report: &mut TableReport) -> Option<Outcome> {
        match answer {
            Answer::Event(event) => self.tell(event, None, report),
            Answer::Prepared(windows, answer) => {
                if windows == self.committing {
                    match &answer {
                        Ok(stale) => self.stale.clone_from(stale),
                        Err(error) => warn!(table = %self.world.ident, %error, "tried again"),
                    }
                }
                let answer = answer.map(drop);
                self.tell(Event::Prepared { windows, answer }, None, report)
            }
            Answer::Published(taken_back, Err(error)) => {
                self.taken_back.extend(taken_back);
                warn!(table = %self.world.ident, %error, "tried again");
                self.tell(Event::Published(Err(error)), None, report)
            }
            Answer::Published(taken_back, Ok((offsets, ahead))) => {
                self.taken_back.extend(taken_back);
                self.commit_group(offsets);
                for ahead in ahead {
                    let (table, partition) = (&self.world.ident, &ahead.partition);
                    warn!(
                        %table,
                        partition,
                        sync_point = ahead.sync_point,
                        held = ahead.table,
                        "a sync point was ahead of the table and is overwritten: was the table rolled back?"
                    );
                    let found = SyncPointAhead {
                        sync_point: ahead.sync_point,
                        table: ahead.table,
                    };
                    report.sync_points_ahead.insert(ahead.partition, found);
                }
                self.tell(Event::Published(Ok(())), None, report)
            }
            Answer::Loaded(Err(error)) => {
                warn!(table = %self.world.ident, %error, "the table can't be loaded; tried again");
                self.tell(Event::Loaded(Err(error)), None, report)
            }
            Answer::Loaded(Ok((table, view))) => {
                self.table = table;
                let replanned = self.replan();
                match replanned {
                    Ok(()) => self.tell(Event::Loaded(Ok(view)), None, report),
                    Err(failure) => self.tell(Event::Failed(failure), None, report),
                }
            }
            Answer::GroupReached(Err(failure)) => self.tell(Event::Failed(failure), None, report),
            Answer::GroupReached(Ok(())) => {
                if self.generations.is_empty() {
                    let source = &self.world.pipeline.source;
                    info!(
                        topic = source.topic,
                        group = source.group,
                        "waiting for partitions: other members of the group hold them, or one that died does until its session is over"
                    );
                    self.unassigned_since = Some(now());
                }
                None
            }
            Answer::Planned(form) => {
                self.planned = form;
                None
            }
            Answer::Diagnosed(found) => {
                self.diagnosing = false;
                self.tell(found.map_or(Event::Tick, Event::Failed), None, report)
            }
            Answer::Swapped(windows, answer, table) => {
                kill_points::pass(KillPoint::Inside(Place::AnswerHeld));
                self.count_answer(&answer);
                match &answer {
                    Swapped::Committed(view) => self.note_commit(view, report),
                    Swapped::Conflict => info!(table = %self.world.ident, "the table moved; admitting again"),
                    Swapped::Failed(error) | Swapped::Unknown(error) | Swapped::Rejected(error) => {
                        warn!(table = %self.world.ident, %error, "the commit's answer is not a yes");
                    }
                }
                self.table = table.unwrap_or_else(|| self.table.clone());
                self.tell(Event::Swapped { windows, answer }, None, report)
            }
        }
    }
}
