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
//! Along the way of a record: [`kafka`] brings chunks, [`lines`] deals them out, [`line`](mod@line) takes sealed windows back, [`actions`]
//! hands out what the run says, [`answers`] takes in what came of it, [`counts`] notes it for the report.

mod actions;
mod answers;
mod counts;
mod kafka;
mod line;
mod lines;
mod overdue;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::catalog::LoadedTable;
use crate::chunk::Chunk;
use crate::config::{KafkaColumn, MaxRejected, OnDecodeError, Pipeline, ValueFormat};
use crate::decode::framed::Framing;
use crate::decode::transcoded::Holds;
use crate::error::{Exit, Failure, chain};
use crate::kafka::budget::{Budget, Permit};
use crate::kafka::consumer::{Consumer, KafkaEvent};
use crate::kill_points::{self, Effect, KillPoint, Place};
use crate::line::{Encoding, KeyEncoding, LineError, LineSettings, LineWindow, NewSinks, Reply, SinkMaker};
use crate::memory::{Memory, Shares};
use crate::observe::Phase;
use crate::offsets::{Offset, OffsetRanges, Offsets, Partition, RecordAt};
use crate::run::deadline::{Deadlines, Patience};
use crate::run::window::{RejectLimit, SealReason};
use crate::run::{Event, Outcome, Run, RunConfig};
use crate::shell::conductor::answers::Answer;
pub(in crate::shell) use crate::shell::conductor::counts::close;
use crate::shell::conductor::lines::Lines;
use crate::shell::horizon::EventsAhead;
use crate::shell::open::{Clients, Topic, World};
use crate::shell::perform::Aside;
use crate::shell::probe::probe;
use crate::shell::report::{Counters, OffsetSpan, TableReport};
use crate::shell::tables::TableForm;
use crate::shell::{RunOptions, now};
use crate::store::{Store, UploadSinks};
use crate::sync_points::SyncPoints;
use crate::table::admit::source_of;
use crate::table::{TableView, WindowId};
use crate::units::Millis;

/// How often the run is told that time has passed.
const TICK: Duration = Duration::from_millis(100);

/// How often a service looks again at a topic that was empty and whose columns nobody declared.
const EMPTY_TOPIC_WAIT: Duration = Duration::from_secs(2);

/// How long a stop waits for the window under way: Kubernetes kills after 30 s.
const GRACE: Millis = Millis(25_000);

/// How long leaving the group may hold up the end of a run; after a stop, what of it is left since then, and no less
/// than the second: a stop that used its grace up must end before those 30 s too.
const LEAVE_WAIT: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(2));

/// Runs one pipeline from its first look at the world to its report.
pub(super) async fn conduct(
    pipeline: Pipeline,
    options: RunOptions,
    clients: Arc<Clients>,
    shares: Shares,
    counters: Arc<Counters>,
    stop: watch::Receiver<bool>,
) -> TableReport {
    let started = now();
    let mut report = TableReport::new(pipeline.full_name());
    let outcome = match play(pipeline, options, &clients, shares, &counters, stop, &mut report).await {
        Ok(outcome) => outcome,
        Err(failure) => Outcome::Failed(failure),
    };
    close(&mut report, &outcome, now().since(started));
    if let Outcome::Failed(Failure { what, detail, hint, .. }) = &outcome
        && shares.pipelines > 1
    {
        // Told at the end of the process too, which may be days away.
        let (detail, hint) = (detail.as_deref(), hint.as_deref());
        error!(
            table = report.table,
            error = what,
            detail,
            hint,
            "this table's run has ended; the others go on"
        );
    }
    counters.table.enters(match &outcome {
        Outcome::Done | Outcome::Stopped => Phase::Done,
        Outcome::Failed(failure) => Phase::Failed(failure.to_string()),
    });
    report
}

async fn play(
    pipeline: Pipeline,
    options: RunOptions,
    clients: &Clients,
    shares: Shares,
    counters: &Arc<Counters>,
    mut stop: watch::Receiver<bool>,
    report: &mut TableReport,
) -> Result<Outcome, Failure> {
    let world = Arc::new(World::new(pipeline, options.retry_for, clients)?);
    let _probes = options
        .observed
        .then(|| AbortOnDrop(tokio::spawn(probe(world.clone(), counters.table.clone()))));
    let opening = async {
        // Ends: a topic that stays empty is looked at until the service is stopped.
        loop {
            let topic = world.topic().await?;
            kill_points::pass(KillPoint::Inside(Place::TopicSeen));
            counters.table.stir();
            let found = world.table().await?;
            counters.table.stir();
            match found {
                Some((table, view)) => {
                    if let Some(ledger) = &view.ledger {
                        world.continues(ledger, &topic).await?;
                    }
                    return Ok(Some((topic, table, view)));
                }
                None if options.once => return Ok(None),
                None => {
                    counters.table.enters(Phase::Waiting);
                    tokio::time::sleep(EMPTY_TOPIC_WAIT).await;
                }
            }
        }
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        _ = stop.wait_for(|stop| *stop) => return Ok(Outcome::Stopped),
    };
    let Some((mut topic, table, view)) = opened else {
        info!(
            topic = world.pipeline.source.topic,
            "the topic is empty and no columns are declared: no table yet"
        );
        return Ok(Outcome::Done);
    };
    if let Some(ledger) = &view.ledger {
        topic.source.know(&source_of(ledger));
    }
    Conductor::new(world, options, shares, counters.clone(), &topic, table)?
        .play(topic, view, stop, report)
        .await
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A window whose files are being completed.
struct Sealing {
    ranges: OffsetRanges,
    reason: SealReason,
    /// When the lines were asked.
    since: Millis,
    /// Lines that haven't answered yet.
    lines_open: usize,
    /// What the others filled.
    sealed: Option<LineWindow>,
}

struct Conductor {
    world: Arc<World>,
    run: Run,
    once: bool,
    memory: Memory,
    shares: Shares,
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
    lines: Lines,
    /// The chunks on their way, once there is a consumer.
    budget: Option<Budget>,
    /// One change of the table's schema at a time: the next line to ask may find what it needs.
    evolving: Arc<tokio::sync::Mutex<()>>,
    /// `idempotent`: the events of partitions that no line has asked for yet.
    events_ahead: Arc<EventsAhead>,
    /// The rebalance that brought each partition, and whether it has been started in librdkafka.
    generations: BTreeMap<Partition, u64>,
    started: BTreeSet<Partition>,
    revoke: Option<mpsc::SyncSender<()>>,
    sealing: HashMap<WindowId, Sealing>,
    /// Windows that wait for their commit, or for its end.
    sealed: HashMap<WindowId, (LineWindow, SealReason)>,
    /// The windows of the commit under way.
    committing: Vec<WindowId>,
    /// What stores their letters, while that may go on.
    preparing: Option<AbortHandle>,
    /// The records of theirs whose letters are to be taken back, until they are committed or dropped.
    stale: BTreeSet<RecordAt>,
    /// Of what the table's ledger says is to be taken back, what was.
    taken_back: BTreeSet<RecordAt>,
    unreachable_since: Option<(Millis, String)>,
    /// Since when this member waits for its first assignment, or was last told that its group is well.
    unassigned_since: Option<Millis>,
    /// The form of the table that the line was last given a plan for.
    planned: TableForm,
    deadlines: Deadlines,
    /// What the deadlines' clock counts from.
    born: Instant,
    /// When the commit under way was first tried.
    commit_began: Option<Instant>,
    /// When the state was last shown to those who watch, and what it was.
    shown: Option<Instant>,
    held: Offsets,
    overdue: bool,
    /// Somebody looks already why Kafka says that the topic, or offsets in it, are gone.
    diagnosing: bool,
}

impl Conductor {
    fn new(
        world: Arc<World>,
        options: RunOptions,
        shares: Shares,
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
        // Whoever knows events again must have seen all that came before, and lines take turns at a partition.
        let idempotent = source.envelope.is_some_and(|envelope| envelope.horizon.is_some());
        let lines_max = match idempotent {
            true => 1,
            false => options.lines.clamp(1, topic.partitions.len().max(1)),
        };
        // Counted by itself: its letters take the place of its own chunks, and its lines share one memory.
        let memory = options.memory.part();
        let settings = LineSettings {
            number: 0,
            lines: lines_max,
            topic: source.topic.clone(),
            encoding: match (source.format, &source.registry) {
                (ValueFormat::Json, None) if source.validate => Encoding::Transcoded(Holds::Bare),
                (ValueFormat::Json, None) => Encoding::Json,
                (ValueFormat::Json, Some(_)) => Encoding::Transcoded(Holds::Framed),
                (ValueFormat::MessagePack, _) => Encoding::Transcoded(Holds::MessagePack),
                (ValueFormat::String | ValueFormat::Bytes, _) => Encoding::Raw,
                (ValueFormat::Avro | ValueFormat::Protobuf, None) => Encoding::Framed(Framing::File),
                (ValueFormat::Avro, Some(_)) => Encoding::Framed(Framing::Registry { indexes: false }),
                (ValueFormat::Protobuf, Some(_)) => Encoding::Framed(Framing::Registry { indexes: true }),
            },
            keys: source.include.contains(&KafkaColumn::Key).then_some(KeyEncoding {
                format: source.key_format,
                registry: source.registry.is_some(),
            }),
            envelope: source.envelope,
            event_time: source.event_time.clone(),
            rows_per_file_max: source.batch_size,
            memory: memory.clone(),
            open_bytes_max: shares.files,
            letters_bytes_max: shares.chunks / 2,
            keeps_rejects: matches!(world.pipeline.errors.on_decode_error, OnDecodeError::DeadLetter { .. }),
        };
        let store = Arc::new(table.store.clone());
        let (handle, line_store) = (Handle::current(), table.store.clone());
        let sinks = || -> SinkMaker {
            let sinks = (line_store.clone(), handle.clone());
            Box::new(move || {
                let (store, handle) = sinks.clone();
                NewSinks {
                    unique: Uuid::new_v4(),
                    sinks: Box::new(UploadSinks { store, handle }),
                }
            })
        };
        let (outbox, replies) = unbounded_channel();
        let lines = Lines::start(lines_max, &settings, &world.line_plan(&table)?, sinks, &outbox).map_err(|error| {
            let exit = match &error {
                LineError::Thread(_) => Exit::Remote,
                _ => Exit::Config,
            };
            Failure::new(exit, format!("table `{}` can't be written", world.ident)).detail(chain(&error))
        })?;
        let points = world.sync_points(Some(&table))?.expect("the table's location is known");
        let aside = Aside::open(&world, world.origin(&table, &topic.source))?;
        Ok(Conductor {
            run: Run::new(config),
            once: options.once,
            events_ahead: Arc::new(EventsAhead::new(&memory)),
            memory,
            shares,
            counters,
            store,
            points: Arc::new(points),
            aside: Arc::new(aside),
            topic_id: topic.source.topic_id.clone(),
            consumer: None,
            kafka: unbounded_channel(),
            answers: unbounded_channel(),
            replies,
            lines,
            budget: None,
            evolving: Arc::default(),
            generations: BTreeMap::new(),
            started: BTreeSet::new(),
            revoke: None,
            sealing: HashMap::new(),
            sealed: HashMap::new(),
            committing: Vec::new(),
            preparing: None,
            stale: BTreeSet::new(),
            taken_back: BTreeSet::new(),
            unreachable_since: None,
            unassigned_since: None,
            deadlines: Deadlines::new(
                Patience {
                    batch_window: source.batch_window,
                    retry_for: options.retry_for,
                },
                Millis(0),
            ),
            born: Instant::now(),
            commit_began: None,
            shown: None,
            held: Offsets::default(),
            overdue: false,
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
        if let Some(at) = view.ledger_at {
            self.counters.table.metrics.last_commit.set(at.0 as f64 / 1e3);
        }
        self.counters.table.enters(Phase::Running);
        let opened = Event::Opened {
            view,
            partitions: topic.partitions,
            ends,
        };
        let mut finished = self.tell(opened, None, report);
        let mut tick = tokio::time::interval(TICK);
        let mut stopping: Option<Instant> = None;
        // Ends: the run finishes, or is stopped.
        while finished.is_none() {
            finished = tokio::select! {
                biased;
                changed = stop.wait_for(|stop| *stop), if stopping.is_none() => {
                    stopping = Some(Instant::now());
                    self.counters.table.enters(Phase::Stopping);
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
            let left = tokio::task::spawn_blocking(move || consumer.stop());
            let (most, least) = LEAVE_WAIT;
            let wait = stopping.map_or(most, |since| most.saturating_sub(since.elapsed()).max(least));
            if tokio::time::timeout(wait, left).await.is_err() {
                warn!(table = %self.world.ident, "the group isn't left in time; it finds out by its session timeout");
            }
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
