//! The run's actions, handed out: to Kafka, to the line, or as effects that run beside the conductor.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tracing::info;

use crate::catalog::ViewError;
use crate::chunk::Chunk;
use crate::error::{Exit, Failure, chain};
use crate::kafka::budget::Permit;
use crate::kafka::consumer::Consumer;
use crate::kill_points::{self, Effect, KillPoint};
use crate::run::{Action, Event, Outcome};
use crate::shell::conductor::answers::Answer;
use crate::shell::conductor::{Conductor, Sealing};
use crate::shell::perform::{Unprepared, Unpublished};
use crate::shell::report::TableReport;
use crate::shell::tables::TableForm;
use crate::shell::{now, open, perform};
use crate::table::WindowId;
use crate::table::ledger::Ledger;
use crate::units::Millis;

impl Conductor {
    pub(super) fn perform(
        &mut self,
        action: Action,
        hand: &mut Option<(Chunk, Permit)>,
        report: &mut TableReport,
    ) -> Option<Outcome> {
        let world = self.world.clone();
        let effect = effect_of(&action);
        kill_points::pass(KillPoint::Before(effect));
        match action {
            Action::ResolveStart { partitions, first } => {
                self.begin(effect, async move {
                    Answer::Event(match world.starts(partitions, first).await {
                        Ok(starts) => Event::StartResolved(starts),
                        Err(failure) => Event::Failed(failure),
                    })
                });
                return None;
            }
            Action::Join => {
                let failed = self.join(report);
                if failed.is_some() {
                    return failed;
                }
            }
            Action::Read { epoch, positions } => self.read(epoch, positions),
            Action::Take(window) => {
                self.deadlines.fetched(true, self.clock());
                let (chunk, permit) = hand.take().expect("a chunk is at hand when it is taken");
                let behind = self.behind();
                self.lines.take(window, chunk, Box::new(permit), behind);
            }
            Action::Discard => {
                self.deadlines.fetched(false, self.clock());
                drop(hand.take());
            }
            Action::Seal { window, ranges, reason } => {
                self.deadlines.seals(window, self.clock());
                let sealing = Sealing {
                    ranges,
                    reason,
                    since: now(),
                    lines_open: self.lines.seal(window),
                    sealed: None,
                };
                self.sealing.insert(window, sealing);
            }
            Action::Prepare { windows, after } => {
                self.prepare(windows, after);
                return None;
            }
            Action::Load { after } => {
                let (known, planned) = (self.table.clone(), self.planned.clone());
                self.begin(effect, async move {
                    wait(after).await;
                    let loaded = match perform::load(&world, &known).await {
                        // Others changed its columns: it must still take the declared ones.
                        Ok(Some(table)) if planned != TableForm::of(&table) => match world.adopt(table).await {
                            Ok(table) => Ok(Some(table)),
                            Err(failure) => return Answer::Event(Event::Failed(failure)),
                        },
                        loaded => loaded,
                    };
                    Answer::Loaded(match loaded {
                        Err(error) => Err(chain(&error)),
                        Ok(None) => {
                            let failure = Failure::new(Exit::Data, format!("table `{}` is gone", world.ident))
                                .detail("it was dropped or renamed while this run worked")
                                .hint("nothing of the window was stored; restore the table and run again");
                            return Answer::Event(Event::Failed(failure));
                        }
                        Ok(Some(table)) => match table.view().await {
                            Ok(view) => Ok((table, view)),
                            Err(ViewError::Catalog(error)) => Err(chain(&error)),
                            Err(ViewError::Ledger(problem)) => {
                                return Answer::Event(Event::Failed(open::ledger_failure(&world.ident, &problem)));
                            }
                        },
                    })
                });
                return None;
            }
            Action::Swap(mut plan) => {
                self.note_stale(&mut plan.ledger);
                self.commit_began.get_or_insert_with(Instant::now);
                let (base, windows) = (self.table.clone(), plan.windows.clone());
                self.begin(effect, async move {
                    let (swapped, table) = perform::swap(&world, base, *plan).await;
                    Answer::Swapped(windows, swapped, table)
                });
                return None;
            }
            Action::Publish { ledger, after } => {
                self.note_committed();
                self.count_committed(report);
                self.publish(ledger, after);
                return None;
            }
            Action::Drop { windows, files } => {
                if !windows.is_empty() {
                    info!(table = %world.ident, windows = windows.len(), "windows dropped: their records are read again");
                }
                // Not where a line has completed a window late that was dropped before: the commit under way is of others.
                if windows.iter().any(|window| self.committing.contains(window)) {
                    self.commit_began = None;
                    self.stale.clear();
                    // What it stores from here on would be beside what comes of these records when they are read again.
                    self.preparing.take().iter().for_each(AbortHandle::abort);
                    self.deadlines.commit_ended();
                }
                self.events_ahead.forget();
                // The table may not be as it was then, and name the same ones again.
                self.taken_back.clear();
                for window in windows {
                    self.sealed.remove(&window);
                    self.lines.forget(window);
                }
                let store = Arc::clone(&self.store);
                tokio::spawn(async move { store.delete_unused(&files).await });
            }
            Action::Pause => self.consumer.iter().for_each(Consumer::pause),
            Action::Resume => self.consumer.iter().for_each(Consumer::resume),
            Action::AckRevoke => drop(self.revoke.take().map(|ack| ack.send(()))),
            Action::Finish(outcome) => return Some(outcome),
        }
        kill_points::pass(KillPoint::After(effect));
        None
    }

    /// Stores dead letters and asks whether the topic is still the same one.
    fn prepare(&mut self, windows: Vec<WindowId>, after: Millis) {
        self.committing = windows.clone();
        let letters: Vec<_> = windows
            .iter()
            .filter_map(|id| self.sealed.get(id))
            .flat_map(|(window, _)| window.letters.clone())
            .collect();
        let ledger = self
            .run
            .ledger()
            .map(|ledger| ledger.offsets.clone())
            .unwrap_or_default();
        let ranges = self.run.committing();
        let (world, aside, known) = (self.world.clone(), self.aside.clone(), self.topic_id.clone());
        let preparing = self.begin(Effect::Prepare, async move {
            wait(after).await;
            match world.topic_id().await {
                Err(failure) => return Answer::Event(Event::Failed(failure)),
                Ok(found) if known.is_some() && found.is_some() && found != known => {
                    let what = format!(
                        "topic `{}` was re-created while this run worked",
                        world.pipeline.source.topic
                    );
                    let failure = Failure::new(Exit::Data, what)
                        .detail(format!(
                            "its id was {}, now it is {}",
                            known.unwrap_or_default(),
                            found.unwrap_or_default()
                        ))
                        .hint("nothing of the window was stored. To read the new topic into this table, move its offsets with `aperio sync-points reset`; or use another table");
                    return Answer::Event(Event::Failed(failure));
                }
                Ok(_) => {}
            }
            let answer = match aside.store(&ledger, &ranges, &letters).await {
                Ok(stale) => Ok(stale),
                Err(Unprepared::Yet(error)) => Err(error),
                Err(Unprepared::ForEver(failure)) => return Answer::Event(Event::Failed(failure)),
            };
            Answer::Prepared(windows, answer)
        });
        self.preparing = Some(preparing);
    }

    /// Puts into a ledger that is to be committed what must be taken back afterwards: whoever comes next may have to.
    fn note_stale(&mut self, ledger: &mut Ledger) {
        // Those of commits before are in it already.
        ledger.stale_letters.retain(|at| !self.taken_back.contains(at));
        self.taken_back.retain(|at| !self.stale.contains(at));
        ledger.stale_letters.extend(&self.stale);
    }

    fn publish(&mut self, ledger: Ledger, after: Millis) {
        let (world, points) = (self.world.clone(), self.points.clone());
        // As the table tells them: of the commit before, or of a run that was killed right after its own.
        self.taken_back.retain(|at| ledger.stale_letters.contains(at));
        let stale: BTreeSet<_> = ledger.stale_letters.difference(&self.taken_back).copied().collect();
        let aside = self.aside.clone();
        self.stale.clear();
        self.begin(Effect::Publish, async move {
            wait(after).await;
            let taken_back = aside.take_back(&world, stale).await;
            match perform::publish(&world, &points, &ledger).await {
                Ok(ahead) => Answer::Published(taken_back, Ok((ledger.offsets, ahead))),
                Err(Unpublished::Yet(error)) => Answer::Published(taken_back, Err(error)),
                Err(Unpublished::ForEver(failure)) => Answer::Event(Event::Failed(failure)),
            }
        });
    }
}

fn effect_of(action: &Action) -> Effect {
    match action {
        Action::ResolveStart { .. } => Effect::ResolveStart,
        Action::Join => Effect::Join,
        Action::Read { .. } => Effect::Read,
        Action::Take(_) => Effect::Take,
        Action::Discard => Effect::Discard,
        Action::Seal { .. } => Effect::Seal,
        Action::Prepare { .. } => Effect::Prepare,
        Action::Load { .. } => Effect::Load,
        Action::Swap(_) => Effect::Swap,
        Action::Publish { .. } => Effect::Publish,
        Action::Drop { .. } => Effect::Drop,
        Action::Pause => Effect::Pause,
        Action::Resume => Effect::Resume,
        Action::AckRevoke => Effect::AckRevoke,
        Action::Finish(_) => Effect::Finish,
    }
}

async fn wait(after: Millis) {
    if after.0 > 0 {
        tokio::time::sleep(Duration::from(after)).await;
    }
}
