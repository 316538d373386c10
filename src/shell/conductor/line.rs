//! What comes back from the lines: staged chunks, records with unseen fields, and sealed windows, whose parts become one.

use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::config::OnDecodeError;
use crate::error::{Exit, Failure, chain};
use crate::line::{LineError, LineWindow, Reply, Wants};
use crate::run::{Event, Outcome};
use crate::shell::conductor::answers::Answer;
use crate::shell::conductor::counts::bytes;
use crate::shell::conductor::{Conductor, Sealing};
use crate::shell::report::TableReport;
use crate::shell::tables::TableForm;
use crate::table::SealedWindow;

impl Conductor {
    pub(super) fn replied(&mut self, reply: Reply, report: &mut TableReport) -> Option<Outcome> {
        match reply {
            Reply::Staged(tally) => {
                self.counters.records_read.fetch_add(tally.records, Ordering::Relaxed);
                self.deadlines.staged(self.clock());
                None
            }
            Reply::Wants {
                wants,
                schema_id,
                answer,
            } => {
                let (world, answers) = (self.world.clone(), self.answers.0.clone());
                let evolving = self.evolving.clone();
                tokio::spawn(async move {
                    let _one_at_a_time = evolving.lock().await;
                    let given = match wants {
                        Wants::Columns(shape) => world.evolve(&shape, schema_id).await,
                        Wants::Schemas(keys) => world.learn(&keys).await,
                    };
                    match given {
                        Ok((given, form)) => {
                            drop(answer.send(Ok(given)));
                            drop(answers.send(Answer::Planned(form)));
                        }
                        Err(failure) => refuse(failure, &answers, &answer),
                    }
                });
                None
            }
            Reply::WantsEvents {
                partition,
                start,
                answer,
            } => {
                let (world, answers) = (self.world.clone(), self.answers.0.clone());
                let (evolving, ahead) = (self.evolving.clone(), self.events_ahead.clone());
                let reading: Vec<_> = self.run.assigned().collect();
                tokio::spawn(async move {
                    let _one_at_a_time = evolving.lock().await;
                    match world.events_before(partition, start, &reading, &ahead).await {
                        Ok(events) => drop(answer.send(Ok(events))),
                        Err(failure) => refuse(failure, &answers, &answer),
                    }
                });
                None
            }
            Reply::Crowded(window) => self.tell(Event::Crowded(window), None, report),
            Reply::Sealed(window) => self.line_sealed(*window, report),
            Reply::Failed(error) => {
                let failure = match error {
                    LineError::Events(error) => Failure::new(
                        Exit::Config,
                        format!(
                            "the events that `{}` is to remember don't fit into memory",
                            self.world.ident
                        ),
                    )
                    .detail(error.to_string())
                    .hint("raise `--memory`, or lower `envelope.horizon`; nothing of the window is in the table"),
                    error => self.unwritten(chain(&error)),
                };
                self.tell(Event::Failed(failure), None, report)
            }
        }
    }

    /// How a run ends whose files can't be written.
    fn unwritten(&self, why: String) -> Failure {
        let what = format!("the files of table `{}` can't be written", self.world.ident);
        Failure::new(Exit::Remote, what)
            .detail(why)
            .hint("look at the store's space and permissions; nothing of the window is in the table")
    }

    /// Gives the line the plan of the table as it was just loaded, where that has another form than the last.
    pub(super) fn replan(&mut self) -> Result<(), Failure> {
        let form = TableForm::of(&self.table);
        if self.planned != form {
            let plan = self.world.line_plan(&self.table)?;
            info!(table = %self.world.ident, schema = plan.rows.schema.schema_id(), spec = plan.spec.spec_id(), "the next window is written for the table as it is now");
            self.planned = form;
            self.lines.plan(&plan);
        }
        Ok(())
    }

    fn line_sealed(&mut self, window: LineWindow, report: &mut TableReport) -> Option<Outcome> {
        let mut sealing = self
            .sealing
            .remove(&window.id)
            .expect("a line seals what it was told to");
        let window = match sealing.sealed.take() {
            Some(others) => others.merge(window),
            None => window,
        };
        sealing.lines_open -= 1;
        if sealing.lines_open > 0 {
            let id = window.id;
            sealing.sealed = Some(window);
            self.sealing.insert(id, sealing);
            return None;
        }
        self.deadlines.sealed(window.id, self.clock());
        let Sealing {
            ranges, reason, since, ..
        } = sealing;
        if let Some(why) = window.unwritten {
            warn!(table = %self.world.ident, error = why, "the files of a window can't be written; its records are read again");
            let files = window.files.iter().map(|file| file.file.file_path().to_owned());
            let unwritten = Event::Unwritten {
                window: window.id,
                files: files.collect(),
                since,
                failure: self.unwritten(why),
            };
            return self.tell(unwritten, None, report);
        }
        for reason in &window.reasons {
            warn!(table = %self.world.ident, reason, "rejected");
        }
        if window.gone > 0 {
            warn!(table = %self.world.ident, changes = window.gone, "rows were deleted at the source, which `mode: kstream` can't follow: these changes make no row");
        }
        let tally = window.tally;
        if tally.rejected > 0 && self.world.pipeline.errors.on_decode_error == OnDecodeError::Fail {
            let first = window.reasons.first().cloned().unwrap_or_default();
            let failure = Failure::new(
                Exit::Data,
                format!(
                    "a record of topic `{}` can't become a row",
                    self.world.pipeline.source.topic
                ),
            )
            .detail(first)
            .hint("`errors.onDecodeError` is fail: mend `columns`, or choose deadLetter or skip");
            return self.tell(Event::Failed(failure), None, report);
        }
        info!(window = %window.id, %reason, records = tally.records, rows = tally.rows, rejected = tally.rejected, files = window.files.len(), bytes = bytes(&window), "sealed");
        let sealed = SealedWindow {
            id: window.id,
            ranges,
            files: window.files.clone(),
            tally,
            event_times: window.event_times.clone(),
            schemas: window.schemas.clone(),
        };
        self.sealed.insert(window.id, (window, reason));
        self.tell(Event::Sealed(sealed), None, report)
    }
}

/// Ends the run, and then the wait of the line that asked.
fn refuse<T>(failure: Failure, answers: &UnboundedSender<Answer>, answer: &SyncSender<Result<T, String>>) {
    drop(answers.send(Answer::Event(Event::Failed(failure))));
    drop(answer.send(Err("what the records need could not be had".into())));
}
