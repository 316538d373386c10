//! The conductor of one pipeline: feeds events to the run and hands its actions on. It alone owns the run.
//!
//! Here is its life: opened, played until the run finishes, closed. What the run must know passes [`Conductor::tell`]:
//!
//! ```text
//!   kafka::heard ──Fetched──▶ tell ──Take, Seal──▶ line::order ──▶ line::replied ──Sealed──▶ tell
//!                                                                                             │
//!     ┌──────────────────────────── Prepare, Load, Swap, Publish ◀────────────────────────────┘
//!     ▼
//!   actions::perform ──an effect beside the conductor──▶ answers::answered ──what came of it──▶ tell
//! ```
//!
//! Along the way of a record: [`kafka`] brings chunks, [`line`](mod@line) makes sealed windows of them, [`actions`]
//! hands out what the run says, [`answers`] takes in what came of it, [`counts`] notes it for the report.

mod actions;
mod answers;
mod counts;
mod kafka;
mod line;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tracing::info;

use crate::catalog::LoadedTable;
use crate::chunk::Chunk;
use crate::config::{MaxRejected, OnDecodeError, Pipeline};
use crate::error::{Exit, Failure, chain};
use crate::kafka::budget::Permit;
use crate::kafka::consumer::{Consumer, KafkaEvent};
use crate::kill_points::{self, Effect, KillPoint};
use crate::line::{Line, LineSettings, LineWindow, Order, Reply};
use crate::offsets::{Offset, OffsetRanges, Offsets, Partition};
use crate::run::window::{RejectLimit, SealReason};
use crate::run::{Event, Outcome, Run, RunConfig};
use crate::shell::conductor::answers::Answer;
use crate::shell::conductor::counts::close;
use crate::shell::open::{self, Topic, World};
use crate::shell::perform::Aside;
use crate::shell::report::{Counters, OffsetSpan, TableReport};
use crate::shell::tables::TableForm;
use crate::shell::{RunOptions, now};
use crate::store::{Store, UploadSinks};
use crate::sync_points::SyncPoints;
use crate::table::{TableView, WindowId};
use crate::units::Millis;

/// How often the run is told that time has passed.
const TICK: Duration = Duration::from_millis(100);

/// How often a service looks again at a topic that was empty and whose columns nobody declared.
const EMPTY_TOPIC_WAIT: Duration = Duration::from_secs(2);

/// How long a stop waits for the window under way: Kubernetes kills after 30 s.
const GRACE: Millis = Millis(25_000);

/// The part of `--memory` that chunks may hold between Kafka and the lines.
const CHUNK_SHARE: u64 = 8;

/// The part of `--memory` that librdkafka may hold in its queues.
const QUEUE_SHARE: u64 = 8;

/// The part of `--memory` that open files may hold.
const FILES_SHARE: u64 = 4;

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
    /// The form of the table that the line was last given a plan for.
    planned: TableForm,
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
            planned: TableForm::of(&table),
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
}
