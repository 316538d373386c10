//! The conductor of one pipeline: feeds events to the run and hands its actions on. It alone owns the run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::catalog::{LoadedTable, ViewError};
use crate::chunk::Chunk;
use crate::config::{MaxRejected, OnDecodeError, Pipeline};
use crate::error::{Exit, Failure, chain};
use crate::kafka::budget::{Budget, Permit};
use crate::kafka::consumer::{Consumer, ConsumerSettings, KafkaEvent};
use crate::kill_points::{self, Effect, KillPoint, Place};
use crate::line::{Line, LineSettings, LineWindow, Order, Reply};
use crate::offsets::{Offset, OffsetRanges, Offsets, Partition};
use crate::run::window::{RejectLimit, SealReason};
use crate::run::{Action, Event, Outcome, Run, RunConfig, Swapped};
use crate::shell::open::{self, Topic, World};
use crate::shell::perform::{self, Aside};
use crate::shell::report::{Counters, OffsetSpan, SyncPointAhead, TableOutcome, TableReport, WindowReport};
use crate::shell::{RunOptions, now};
use crate::store::{Store, UploadSinks};
use crate::sync_points::SyncPoints;
use crate::table::ledger::Ledger;
use crate::table::{SealedWindow, TableView, WindowId};
use crate::units::Millis;

/// How often the run is told that time has passed.
const TICK: Duration = Duration::from_millis(100);

/// How often a service looks again at a topic that was empty and whose columns nobody declared.
const EMPTY_TOPIC_WAIT: Duration = Duration::from_secs(2);

/// How long a stop waits for the window under way: Kubernetes kills after 30 s.
const GRACE: Millis = Millis(25_000);

/// How long a member waits for its first partitions before it says so, and asks whether its group can be talked to.
const ASSIGNMENT_WAIT: Millis = Millis(15_000);

/// The part of `--memory` that chunks may hold between Kafka and the lines.
const CHUNK_SHARE: u64 = 8;

/// The part of `--memory` that librdkafka may hold in its queues.
const QUEUE_SHARE: u64 = 8;

/// The part of `--memory` that open files may hold.
const FILES_SHARE: u64 = 4;

/// A chunk's size: large enough for columns to pay, small enough that several are on their way at once.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Answers of effects that run beside the conductor.
enum Answer {
    Event(Event),
    Loaded(Result<(LoadedTable, TableView), String>),
    Swapped(Vec<WindowId>, Swapped, Option<LoadedTable>),
    Published(Result<(Offsets, Vec<perform::Ahead>), String>),
    GroupReached(Result<(), Failure>),
    Diagnosed(Option<Failure>),
}

/// Runs one pipeline from its first look at the world to its report.
pub(super) async fn conduct(
    pipeline: Pipeline,
    options: RunOptions,
    counters: Arc<Counters>,
    stop: watch::Receiver<bool>,
) -> TableReport {
    let started = now();
    let mut report = TableReport::new(pipeline.full_name());
    let outcome = match play(pipeline, options, &counters, stop, &mut report).await {
        Ok(outcome) => outcome,
        Err(failure) => Outcome::Failed(failure),
    };
    close(&mut report, &outcome, now().since(started));
    report
}

fn close(report: &mut TableReport, outcome: &Outcome, millis: Millis) {
    (report.outcome, report.exit_code, report.error) = match outcome {
        Outcome::Done => (TableOutcome::Done, Exit::Done as u8, None),
        Outcome::Stopped => (TableOutcome::Stopped, Exit::Done as u8, None),
        Outcome::Failed(failure) => (TableOutcome::Failed, failure.exit as u8, Some(failure.to_string())),
    };
    report.millis = millis.0.unsigned_abs();
}

async fn play(
    pipeline: Pipeline,
    options: RunOptions,
    counters: &Arc<Counters>,
    mut stop: watch::Receiver<bool>,
    report: &mut TableReport,
) -> Result<Outcome, Failure> {
    let world = Arc::new(World::new(pipeline, options.retry_for)?);
    let opening = async {
        // Ends: a topic that stays empty is looked at until the service is stopped.
        loop {
            let topic = world.topic().await?;
            match world.table().await? {
                Some((table, view)) => {
                    if let Some(ledger) = &view.ledger {
                        world.continues(ledger, &topic).await?;
                    }
                    return Ok(Some((topic, table, view)));
                }
                None if options.once => return Ok(None),
                None => tokio::time::sleep(EMPTY_TOPIC_WAIT).await,
            }
        }
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        _ = stop.wait_for(|stop| *stop) => return Ok(Outcome::Stopped),
    };
    let Some((topic, table, view)) = opened else {
        info!(
            topic = world.pipeline.source.topic,
            "the topic is empty and no columns are declared: no table yet"
        );
        return Ok(Outcome::Done);
    };
    Conductor::new(world, options, counters.clone(), &topic, table)?
        .play(topic, view, stop, report)
        .await
}

struct Conductor {
    world: Arc<World>,
    run: Run,
    once: bool,
    memory: u64,
    counters: Arc<Counters>,
    table: LoadedTable,
    store: Arc<Store>,
    points: Arc<SyncPoints>,
    aside: Arc<Aside>,
    topic_id: Option<String>,
    consumer: Option<Consumer>,
    kafka: (UnboundedSender<KafkaEvent>, UnboundedReceiver<KafkaEvent>),
    answers: (UnboundedSender<Answer>, UnboundedReceiver<Answer>),
    replies: UnboundedReceiver<Reply>,
    orders: mpsc::Sender<Order>,
    /// The rebalance that brought each partition, and whether it has been started in librdkafka.
    generations: BTreeMap<Partition, u64>,
    started: BTreeSet<Partition>,
    revoke: Option<mpsc::SyncSender<()>>,
    sealing: HashMap<WindowId, (OffsetRanges, SealReason)>,
    /// Windows that wait for their commit, or for its end.
    sealed: HashMap<WindowId, (LineWindow, SealReason)>,
    /// The windows of the commit under way.
    committing: Vec<WindowId>,
    unreachable_since: Option<(Millis, String)>,
    /// Since when this member waits for its first assignment, or was last told that its group is well.
    unassigned_since: Option<Millis>,
    /// Somebody looks already why Kafka says that the topic, or offsets in it, are gone.
    diagnosing: bool,
}

impl Conductor {
    fn new(
        world: Arc<World>,
        options: RunOptions,
        counters: Arc<Counters>,
        topic: &Topic,
        table: LoadedTable,
    ) -> Result<Conductor, Failure> {
        let source = &world.pipeline.source;
        let config = RunConfig {
            run: options.run,
            once: options.once,
            batch_size: source.batch_size,
            batch_window: source.batch_window,
            retry_for: options.retry_for,
            grace: GRACE,
            source: topic.source.clone(),
            reject_limit: match world.pipeline.errors.max_rejected {
                MaxRejected::Share(share) => RejectLimit::Share(share),
                MaxRejected::Count(most) => RejectLimit::Count(most),
            },
        };
        let settings = LineSettings {
            topic: source.topic.clone(),
            event_time: source.event_time.clone(),
            rows_per_file_max: source.batch_size,
            open_bytes_max: usize::try_from(options.memory / FILES_SHARE).unwrap_or(usize::MAX),
            keeps_rejects: matches!(world.pipeline.errors.on_decode_error, OnDecodeError::DeadLetter { .. }),
        };
        let store = Arc::new(table.store.clone());
        let (handle, line_store) = (Handle::current(), table.store.clone());
        let sinks = Box::new(move || {
            let sinks = UploadSinks {
                store: line_store.clone(),
                handle: handle.clone(),
            };
            Box::new(sinks) as Box<dyn crate::write::FileSinks>
        });
        let line = Line::new(settings, world.line_plan(&table)?, sinks).map_err(|error| {
            Failure::new(Exit::Config, format!("table `{}` can't be written", world.ident)).detail(chain(&error))
        })?;
        let (orders, inbox) = mpsc::channel();
        let (outbox, replies) = unbounded_channel();
        std::thread::Builder::new()
            .name("line-0".into())
            .spawn(move || {
                // A conductor that is gone wants no answers.
                line.work(inbox, |reply| drop(outbox.send(reply)));
            })
            .map_err(|error| Failure::new(Exit::Remote, format!("no thread for the line: {error}")))?;
        let points = open::sync_points(&world.pipeline, Some(table.metadata.location()))?
            .expect("the table's location is known");
        let aside = Aside::open(&world)?;
        Ok(Conductor {
            run: Run::new(config),
            once: options.once,
            memory: options.memory,
            counters,
            store,
            points: Arc::new(points),
            aside: Arc::new(aside),
            topic_id: topic.source.topic_id.clone(),
            consumer: None,
            kafka: unbounded_channel(),
            answers: unbounded_channel(),
            replies,
            orders,
            generations: BTreeMap::new(),
            started: BTreeSet::new(),
            revoke: None,
            sealing: HashMap::new(),
            sealed: HashMap::new(),
            committing: Vec::new(),
            unreachable_since: None,
            unassigned_since: None,
            diagnosing: false,
            table,
            world,
        })
    }

    async fn play(
        mut self,
        topic: Topic,
        view: TableView,
        mut stop: watch::Receiver<bool>,
        report: &mut TableReport,
    ) -> Result<Outcome, Failure> {
        let ends = if self.once { topic.ends } else { Offsets::default() };
        let begin = view.ledger.as_ref().map(|ledger| ledger.offsets.clone());
        let total: u64 = ends
            .iter()
            .map(|(partition, end)| {
                end.since(
                    begin
                        .as_ref()
                        .and_then(|held| held.get(partition))
                        .unwrap_or(Offset::ZERO),
                )
            })
            .sum();
        self.counters.position_total.store(total, Ordering::Relaxed);
        let opened = Event::Opened {
            view,
            partitions: topic.partitions,
            ends,
        };
        let mut finished = self.tell(opened, None, report);
        let mut tick = tokio::time::interval(TICK);
        let mut stopping = false;
        // Ends: the run finishes, or is stopped.
        while finished.is_none() {
            finished = tokio::select! {
                biased;
                changed = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    drop(changed);
                    self.tell(Event::Stop, None, report)
                }
                Some(answer) = self.answers.1.recv() => self.answered(answer, report),
                Some(reply) = self.replies.recv() => self.replied(reply, report),
                Some(event) = self.kafka.1.recv() => self.heard(event, report),
                _ = tick.tick() => self.ticked(report),
            };
        }
        let outcome = finished.expect("the loop ends with an outcome");
        drop(self.revoke.take());
        if let Some(consumer) = self.consumer.take() {
            // Leaving the group waits for brokers; the runtime must not.
            let _ = tokio::task::spawn_blocking(move || consumer.stop()).await;
        }
        if let Some(ledger) = self.run.ledger() {
            let begin = begin.unwrap_or_default();
            for (partition, end) in ledger.offsets.iter() {
                let start = begin.get(partition).unwrap_or(Offset::ZERO);
                report.offsets.insert(
                    partition.to_string(),
                    OffsetSpan {
                        start: start.get(),
                        end: end.get(),
                    },
                );
            }
            if self.once {
                let behind = self
                    .run
                    .ends()
                    .iter()
                    .map(|(partition, end)| end.since(ledger.offsets.get(partition).unwrap_or(Offset::ZERO)));
                report.lag = Some(behind.sum());
            }
        }
        kill_points::pass(KillPoint::After(Effect::Finish));
        Ok(outcome)
    }

    /// Tells the run what happened and does what it says.
    fn tell(&mut self, event: Event, mut hand: Option<(Chunk, Permit)>, report: &mut TableReport) -> Option<Outcome> {
        let mut outcome = None;
        for action in self.run.on(event, now()) {
            outcome = self.perform(action, &mut hand, report).or(outcome);
        }
        outcome
    }

    fn perform(
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
            Action::Read { epoch, offsets } => self.read(epoch, offsets),
            Action::Take(window) => {
                let (chunk, permit) = hand.take().expect("a chunk is at hand when it is taken");
                self.order(Order::Take {
                    window,
                    chunk,
                    ticket: Box::new(permit),
                });
            }
            Action::Discard => drop(hand.take()),
            Action::Seal { window, ranges, reason } => {
                self.sealing.insert(window, (ranges, reason));
                self.order(Order::Seal(window));
            }
            Action::Prepare { windows, after } => {
                self.prepare(windows, after);
                return None;
            }
            Action::Load { after } => {
                self.begin(effect, async move {
                    wait(after).await;
                    Answer::Loaded(match world.catalog.load(&world.ident).await {
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
            Action::Swap(plan) => {
                let (base, windows) = (self.table.clone(), plan.windows.clone());
                self.begin(effect, async move {
                    let (swapped, table) = perform::swap(&world, base, *plan).await;
                    Answer::Swapped(windows, swapped, table)
                });
                return None;
            }
            Action::Publish { ledger, after } => {
                self.count_committed(report);
                self.publish(ledger, after);
                return None;
            }
            Action::Drop { windows, files } => {
                for window in windows {
                    self.sealed.remove(&window);
                    self.order(Order::Drop(window));
                }
                tokio::spawn(perform::delete(Store::clone(&self.store), files));
            }
            Action::Pause => self.consumer.iter().for_each(Consumer::pause),
            Action::Resume => self.consumer.iter().for_each(Consumer::resume),
            Action::AckRevoke => drop(self.revoke.take().map(|ack| ack.send(()))),
            Action::Finish(outcome) => return Some(outcome),
        }
        kill_points::pass(KillPoint::After(effect));
        None
    }

    fn join(&mut self, report: &mut TableReport) -> Option<Outcome> {
        let source = &self.world.pipeline.source;
        let mut client = source.client.clone();
        let queue_kbytes = (self.memory / QUEUE_SHARE / 1024).max(1024).to_string();
        client
            .entry("queued.max.messages.kbytes".into())
            .or_insert(queue_kbytes);
        let settings = ConsumerSettings {
            brokers: source.brokers.clone(),
            topic: source.topic.clone(),
            group: source.group.clone(),
            read_committed: source.read_committed,
            max_poll_records: source.max_poll_records as usize,
            chunk_bytes_max: CHUNK_BYTES_MAX,
            client,
        };
        let budget = Budget::new(
            usize::try_from(self.memory / CHUNK_SHARE)
                .unwrap_or(usize::MAX)
                .max(2 * CHUNK_BYTES_MAX),
        );
        match Consumer::start(settings, budget, self.kafka.0.clone()) {
            Ok(consumer) => {
                self.consumer = Some(consumer);
                self.unassigned_since = Some(now());
                None
            }
            Err(error) => {
                let failure = error.failure(&source.brokers, &source.topic);
                self.tell(Event::Failed(failure), None, report)
            }
        }
    }

    /// Starts partitions that are new here, and seeks those that are being read.
    fn read(&mut self, epoch: u64, offsets: Vec<(Partition, Offset)>) {
        let Some(consumer) = &self.consumer else { return };
        let mut starts: BTreeMap<u64, Offsets> = BTreeMap::new();
        for (partition, offset) in offsets {
            if self.started.insert(partition) {
                let generation = self.generations.get(&partition).copied().unwrap_or_default();
                starts.entry(generation).or_default().set(partition, offset);
            } else {
                consumer.seek(partition, offset, epoch);
            }
        }
        for (generation, offsets) in starts {
            consumer.start_at(generation, epoch, offsets);
        }
    }

    /// Stores dead letters and asks whether the topic is still the same one.
    fn prepare(&mut self, windows: Vec<WindowId>, after: Millis) {
        self.committing = windows.clone();
        let letters: Vec<_> = windows
            .iter()
            .filter_map(|id| self.sealed.get(id))
            .flat_map(|(window, _)| window.aside.clone())
            .collect();
        let ledger = self
            .run
            .ledger()
            .map(|ledger| ledger.offsets.clone())
            .unwrap_or_default();
        let (world, aside, known) = (self.world.clone(), self.aside.clone(), self.topic_id.clone());
        self.begin(Effect::Prepare, async move {
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
                        .hint("nothing of the window was stored; to read the new topic, use another table");
                    return Answer::Event(Event::Failed(failure));
                }
                Ok(_) => {}
            }
            let answer = aside.store(&ledger, &letters).await;
            Answer::Event(Event::Prepared { windows, answer })
        });
    }

    fn publish(&mut self, ledger: Ledger, after: Millis) {
        let (world, points) = (self.world.clone(), self.points.clone());
        self.begin(Effect::Publish, async move {
            wait(after).await;
            let published = perform::publish(&world, &points, &ledger).await;
            Answer::Published(published.map(|ahead| (ledger.offsets, ahead)))
        });
    }

    /// Brings the group offsets to what was published: a copy for lag tools, never waited for and never read back.
    fn commit_group(&self, offsets: Offsets) {
        kill_points::pass(KillPoint::Inside(Place::PointsPublished));
        if let Some(consumer) = &self.consumer {
            consumer.commit_group(offsets);
        }
    }

    fn answered(&mut self, answer: Answer, report: &mut TableReport) -> Option<Outcome> {
        match answer {
            Answer::Event(event) => {
                if let Event::Prepared { answer: Err(error), .. } = &event {
                    warn!(table = %self.world.ident, %error, "tried again");
                }
                self.tell(event, None, report)
            }
            Answer::Published(Err(error)) => {
                warn!(table = %self.world.ident, %error, "tried again");
                self.tell(Event::Published(Err(error)), None, report)
            }
            Answer::Published(Ok((offsets, ahead))) => {
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
                self.tell(Event::Loaded(Ok(view)), None, report)
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
            Answer::Diagnosed(found) => {
                self.diagnosing = false;
                self.tell(found.map_or(Event::Tick, Event::Failed), None, report)
            }
            Answer::Swapped(windows, answer, table) => {
                kill_points::pass(KillPoint::Inside(Place::AnswerHeld));
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

    fn note_commit(&self, view: &TableView, report: &mut TableReport) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        report.snapshots.extend(view.snapshot);
        if let (Some(before), Some(after)) = (self.run.ledger(), &view.ledger) {
            let moved: u64 = after
                .offsets
                .iter()
                .map(|(partition, offset)| offset.since(before.offsets.get(partition).unwrap_or(offset)))
                .sum();
            self.counters.position_done.fetch_add(moved, Ordering::Relaxed);
            info!(table = %self.world.ident, snapshot = view.snapshot, offsets = moved, "committed");
        }
    }

    fn replied(&mut self, reply: Reply, report: &mut TableReport) -> Option<Outcome> {
        match reply {
            Reply::Staged(tally) => {
                self.counters.records_read.fetch_add(tally.records, Ordering::Relaxed);
                None
            }
            Reply::Unseen { shape, schema_id, plan } => {
                let (world, answers) = (self.world.clone(), self.answers.0.clone());
                tokio::spawn(async move {
                    match world.evolve(&shape, schema_id).await {
                        Ok(evolved) => drop(plan.send(Ok(evolved))),
                        Err(failure) => {
                            drop(answers.send(Answer::Event(Event::Failed(failure))));
                            drop(plan.send(Err("the table's schema could not be changed".into())));
                        }
                    }
                });
                None
            }
            Reply::Sealed(window) => self.line_sealed(*window, report),
            Reply::Failed(error) => {
                let failure = Failure::new(
                    Exit::Remote,
                    format!("the files of table `{}` can't be written", self.world.ident),
                )
                .detail(chain(&error))
                .hint("look at the store's space and permissions; nothing of the window is in the table");
                self.tell(Event::Failed(failure), None, report)
            }
        }
    }

    fn line_sealed(&mut self, window: LineWindow, report: &mut TableReport) -> Option<Outcome> {
        let (ranges, reason) = self
            .sealing
            .remove(&window.id)
            .expect("a line seals what it was told to");
        for reason in &window.reasons {
            warn!(table = %self.world.ident, reason, "rejected");
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
        };
        self.sealed.insert(window.id, (window, reason));
        self.tell(Event::Sealed(sealed), None, report)
    }

    /// Counts the windows of a commit that is in the table, and lets go of them; those that were dropped are gone already.
    fn count_committed(&mut self, report: &mut TableReport) {
        for id in std::mem::take(&mut self.committing) {
            let Some((window, reason)) = self.sealed.remove(&id) else {
                continue;
            };
            let tally = window.tally;
            self.counters.rows_written.fetch_add(tally.rows, Ordering::Relaxed);
            self.counters.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
            report.records_read += tally.records;
            report.rows_written += tally.rows;
            report.rejected += tally.rejected;
            report.filtered += tally.filtered;
            report.fields_dropped += window.fields_dropped;
            report.bytes_written += bytes(&window);
            report.files_written += window.files.len() as u64;
            report.windows.push(WindowReport {
                id: id.to_string(),
                reason: reason.to_string(),
                records: tally.records,
                rows: tally.rows,
                rejected: tally.rejected,
            });
        }
    }

    fn heard(&mut self, event: KafkaEvent, report: &mut TableReport) -> Option<Outcome> {
        let (topic, group) = (
            self.world.pipeline.source.topic.clone(),
            self.world.pipeline.source.group.clone(),
        );
        let event = match event {
            KafkaEvent::Assigned { generation, partitions } => {
                // Whoever is given partitions was let in by a coordinator.
                self.unreachable_since = None;
                self.unassigned_since = None;
                for partition in &partitions {
                    self.generations.insert(*partition, generation);
                    self.started.remove(partition);
                }
                Event::Assigned(partitions)
            }
            KafkaEvent::Revoked { partitions, lost, ack } => {
                kill_points::pass(KillPoint::Inside(Place::RevokeHeard));
                for partition in &partitions {
                    self.started.remove(partition);
                }
                self.revoke = Some(ack);
                Event::Revoked { partitions, lost }
            }
            KafkaEvent::Fetched {
                epoch, chunk, permit, ..
            } => {
                self.unreachable_since = None;
                let event = Event::Fetched {
                    epoch,
                    partition: chunk.partition,
                    range: chunk.range,
                    records: chunk.len() as u64,
                };
                return self.tell(event, Some((chunk, permit)), report);
            }
            KafkaEvent::Caught { .. } => {
                self.unreachable_since = None;
                return None;
            }
            KafkaEvent::Stopped => return None,
            KafkaEvent::Reachable => {
                info!(topic, "Kafka is back");
                self.unreachable_since = None;
                return None;
            }
            KafkaEvent::Unreachable { error } | KafkaEvent::Refused { error } => {
                if self.unreachable_since.is_none() {
                    warn!(topic, error, "Kafka can't be reached; trying on");
                    self.unreachable_since = Some((now(), error));
                }
                return None;
            }
            KafkaEvent::OffsetsGone { partition, wanted } => {
                self.diagnose(move |found| {
                    let wanted = wanted.map_or("the offset to read next".to_owned(), |offset| format!("offset {offset}"));
                    Some(found.unwrap_or_else(|| {
                        Failure::new(Exit::Remote, format!("{topic}/{partition} couldn't be read on"))
                            .detail(format!("the broker doesn't give {wanted}, although the topic goes on where the table was left"))
                            .hint("nothing was skipped: the table holds the offsets. Run again")
                    }))
                });
                return None;
            }
            KafkaEvent::TopicMissing => {
                self.diagnose(|found| found);
                return None;
            }
            KafkaEvent::Unfit { error } => Event::Failed(
                Failure::new(Exit::Config, format!("consumer group `{group}` doesn't take this consumer"))
                    .detail(error)
                    .hint("does another application use this group? Give this one its own `source.consumerGroup`; else look at `source.consumerConfig`"),
            ),
            KafkaEvent::Failed { error } => Event::Failed(
                Failure::new(Exit::Remote, format!("the Kafka client of topic `{topic}` can't go on"))
                    .detail(error)
                    .hint("run again"),
            ),
        };
        self.tell(event, None, report)
    }

    fn ticked(&mut self, report: &mut TableReport) -> Option<Outcome> {
        let patience = self.world.retry_for;
        if let Some((_, error)) = self
            .unreachable_since
            .take_if(|(since, _)| now().since(*since) >= patience)
        {
            let source = &self.world.pipeline.source;
            let what = format!(
                "Kafka at `{}` can't be read for topic `{}`",
                source.brokers, source.topic
            );
            let failure = Failure::new(Exit::Remote, what)
                .detail(error)
                .hint("nothing was lost: the table holds the offsets. Run again when it is back, or wait longer with `--retry-for`");
            return self.tell(Event::Failed(failure), None, report);
        }
        if self
            .unassigned_since
            .is_some_and(|since| now().since(since) >= ASSIGNMENT_WAIT)
        {
            self.unassigned_since = None;
            let world = self.world.clone();
            self.spawn(async move { Answer::GroupReached(world.reach_group().await) });
        }
        self.tell(Event::Tick, None, report)
    }

    /// Has somebody look at the topic; `conclude` makes of what is found what ends the run, if anything does.
    fn diagnose(&mut self, conclude: impl FnOnce(Option<Failure>) -> Option<Failure> + Send + 'static) {
        if self.diagnosing {
            return;
        }
        self.diagnosing = true;
        let (world, ledger) = (self.world.clone(), self.run.ledger().cloned());
        self.spawn(async move { Answer::Diagnosed(conclude(world.diagnose(ledger).await)) });
    }

    fn order(&self, order: Order) {
        // A line that is gone has said why: `Reply::Failed` is on its way.
        let _ = self.orders.send(order);
    }

    /// Starts the effect of an action.
    fn begin(&self, effect: Effect, work: impl Future<Output = Answer> + Send + 'static) {
        self.spawn(async move {
            let answer = work.await;
            kill_points::pass(KillPoint::After(effect));
            answer
        });
    }

    fn spawn(&self, work: impl Future<Output = Answer> + Send + 'static) {
        let answers = self.answers.0.clone();
        tokio::spawn(async move {
            // A conductor that is gone wants no answers.
            let _ = answers.send(work.await);
        });
    }
}

fn bytes(window: &LineWindow) -> u64 {
    window.files.iter().map(|file| file.file.file_size_in_bytes()).sum()
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
        tokio::time::sleep(Duration::from_millis(after.0.unsigned_abs())).await;
    }
}
