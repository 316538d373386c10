//! One consumer of a group, on a thread of its own.
//!
//! - An assigned partition is not fetched until [`Consumer::start_at`] says where to begin, so nothing is ever read from
//!   a group offset: only then is the partition assigned inside librdkafka, at that very offset.
//! - A partition's *generation* is the rebalance that brought it here; it keeps it while it stays. The *epoch* is a
//!   number that the caller gives with each start and seek, and finds again in everything fetched since.
//! - For one partition, generation and epoch, ranges follow one another without a gap: each starts where the one before
//!   ended, the first at the offset that was asked for.
//! - librdkafka's own idea of where a partition goes on is never relied on: at every rebalance it pauses all partitions
//!   and resumes them there, so each that stays is sought again, at the end of what was read of it here.
//! - A spent budget, or a pause, stops the taking of records and never the polling, so membership doesn't lapse.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as Cause, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use crate::chunk::Chunk;
use crate::kafka::batch::{Entry, FetchQueue, Record};
use crate::kafka::budget::{Budget, Permit};
use crate::kafka::columns::{Columns, Sizes};
use crate::kafka::config;
use crate::kafka::error::{KafkaError, Kind, kind};
use crate::offsets::{Offset, OffsetRange, Offsets, Partition};

/// How long one round waits: the delay of a command or a rebalance at most, and 20 rounds a second when idle.
const ROUND: Duration = Duration::from_millis(50);
/// How long a revoke waits for the caller; below it, `max.poll.interval.ms` (5 min) would put us out of the group.
const REVOKE_WAIT: Duration = Duration::from_secs(30);
/// How long a seek may be refused while librdkafka still starts the partition.
const SEEK_WAIT: Duration = Duration::from_secs(30);
/// How often a broker is asked for once a connection failed, and how long that may take.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Events of the main queue served in one round, so that a flood of errors can't hold up the records.
const EVENTS_PER_ROUND_MAX: usize = 100;
/// Arrow's binary columns count bytes in 31 bits; one record of up to 1 GiB may come on top.
const CHUNK_BYTES_LIMIT: usize = 512 << 20;

/// What a consumer is started with.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// The topic to read.
    pub topic: String,
    /// The consumer group, which only balances partitions.
    pub group: String,
    /// Whether aborted and open transactions stay hidden.
    pub read_committed: bool,
    /// The most records that one poll takes.
    pub max_poll_records: usize,
    /// A chunk is closed once its columns hold this many bytes; one record more may still be inside.
    pub chunk_bytes_max: usize,
    /// librdkafka properties; those that exactly-once owns are overridden.
    pub client: BTreeMap<String, String>,
}

/// What happened at Kafka.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is a chunk: a box would be made for each"
)]
pub enum KafkaEvent {
    /// Partitions came to this consumer; each waits for [`Consumer::start_at`]. Empty where a rebalance brought none.
    Assigned {
        /// The rebalance that brought them.
        generation: u64,
        /// Only those that are new here, ascending.
        partitions: Vec<Partition>,
    },
    /// Partitions are about to leave; they do once `ack` is answered or dropped, or after 30 seconds.
    Revoked {
        /// Ascending.
        partitions: Vec<Partition>,
        /// Whether they are gone already (session expired), so that nobody waits for us.
        lost: bool,
        /// To answer when what was read of them is committed or dropped. Group commits sent before are done first.
        ack: mpsc::SyncSender<()>,
    },
    /// Records, or only a position that moved.
    Fetched {
        /// The rebalance that brought the partition.
        generation: u64,
        /// The epoch of the start or seek that this follows from.
        epoch: u64,
        /// The records.
        chunk: Chunk,
        /// Its share of the budget: keep it until the rows are encoded.
        permit: Permit,
    },
    /// Everything in the partition has been fetched, as of now.
    Caught {
        /// The rebalance that brought the partition.
        generation: u64,
        /// The epoch of the start or seek that this follows from.
        epoch: u64,
        /// Which one.
        partition: Partition,
        /// Its end: the last stable offset where only committed records are read.
        at: Offset,
    },
    /// The offset to read next isn't in the topic any more (retention, or the topic was made anew).
    OffsetsGone {
        /// Where.
        partition: Partition,
        /// The offset that was to be read, if the partition is still ours.
        wanted: Option<Offset>,
    },
    /// The topic isn't there. librdkafka goes on looking for it.
    TopicMissing,
    /// No broker answers; librdkafka goes on trying. Sent once until [`KafkaEvent::Reachable`].
    Unreachable {
        /// librdkafka's words.
        error: String,
    },
    /// A broker answers again.
    Reachable,
    /// A broker denies us: credentials, TLS or rights. librdkafka goes on trying.
    Refused {
        /// librdkafka's words.
        error: String,
    },
    /// The group takes no member that is configured like this one; librdkafka goes on trying.
    Unfit {
        /// librdkafka's words.
        error: String,
    },
    /// This consumer can't go on; a new one is needed.
    Failed {
        /// librdkafka's words.
        error: String,
    },
    /// The thread has ended and left the group; nothing follows.
    Stopped,
}

#[derive(Debug)]
enum Command {
    Start {
        generation: u64,
        epoch: u64,
        offsets: Offsets,
    },
    Seek {
        partition: Partition,
        offset: Offset,
        epoch: u64,
    },
    Pause,
    Resume,
    CommitGroup(Offsets),
    Stop,
}

/// A consumer at work; dropping it stops it without waiting.
#[derive(Debug)]
pub struct Consumer {
    commands: mpsc::Sender<Command>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Consumer {
    /// Joins the group on a new thread. What happens from then on arrives in `events`, first an assignment.
    ///
    /// # Errors
    /// [`KafkaError::Configuration`] if librdkafka refuses a property. Brokers that can't be reached are no error here:
    /// they become [`KafkaEvent::Unreachable`].
    pub fn start(
        settings: ConsumerSettings,
        budget: Budget,
        events: UnboundedSender<KafkaEvent>,
    ) -> Result<Consumer, KafkaError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (commands, receiver) = mpsc::channel();
        let context = Membership {
            topic: settings.topic.clone(),
            events: events.clone(),
            state: Mutex::new(State::default()),
            inbox: Mutex::new(Inbox {
                receiver,
                kept: VecDeque::new(),
            }),
        };
        let failed = |cause| KafkaError::of("joining the group", &settings.topic, &cause);
        let client: BaseConsumer<Membership> = client_config(&settings).create_with_context(context).map_err(failed)?;
        info!(topic = settings.topic, group = settings.group, "joining the group");
        client.subscribe(&[&settings.topic]).map_err(failed)?;
        let queue = FetchQueue::new(Arc::new(client), settings.max_poll_records);
        let name = format!("kafka-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let builder = thread::Builder::new().name(name);
        let reader = Reader::new(queue, settings, budget);
        let thread = builder
            .spawn(move || {
                let farewell = Farewell(events);
                reader.run();
                drop(farewell);
            })
            .map_err(|cause| KafkaError::Failed {
                doing: "starting a thread".to_owned(),
                reason: cause.to_string(),
            })?;
        Ok(Consumer {
            commands,
            thread: Some(thread),
        })
    }

    /// Starts reading partitions of `generation` at `offsets`; those that are read already are sought there.
    ///
    /// Partitions that have left since, or came back in a later generation, are passed over.
    pub fn start_at(&self, generation: u64, epoch: u64, offsets: Offsets) {
        self.send(Command::Start {
            generation,
            epoch,
            offsets,
        });
    }

    /// Goes on reading `partition` at `offset`; passed over where it isn't read here.
    pub fn seek(&self, partition: Partition, offset: Offset, epoch: u64) {
        self.send(Command::Seek {
            partition,
            offset,
            epoch,
        });
    }

    /// Stops taking records, of all partitions; a few that were taken already may still come.
    pub fn pause(&self) {
        self.send(Command::Pause);
    }

    /// Goes on after [`Consumer::pause`].
    pub fn resume(&self) {
        self.send(Command::Resume);
    }

    /// Publishes group offsets, for lag tools, of the partitions that are this consumer's, those that are about to leave
    /// among them; others are passed over. A failure is logged and that is all.
    pub fn commit_group(&self, offsets: Offsets) {
        self.send(Command::CommitGroup(offsets));
    }

    /// Leaves the group and waits for the thread to end. Blocks; nobody is asked about the partitions that leave.
    pub fn stop(mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // The thread's farewell has sent `Failed`.
            warn!("the Kafka thread panicked");
        }
    }

    fn send(&self, command: Command) {
        // A thread that has ended said so with `Stopped`: nothing is left to command.
        let _ = self.commands.send(command);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

/// Says how the thread ended, even if it panicked.
struct Farewell(UnboundedSender<KafkaEvent>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(KafkaEvent::Failed {
                error: "the Kafka thread panicked".to_owned(),
            });
        }
        let _ = self.0.send(KafkaEvent::Stopped);
    }
}

fn client_config(settings: &ConsumerSettings) -> rdkafka::ClientConfig {
    let mut client = settings.client.clone();
    // One queue for all partitions; librdkafka's 64 MiB would be an eighth of the whole process.
    client
        .entry("queued.max.messages.kbytes".to_owned())
        .or_insert_with(|| "32768".to_owned());
    // How long a partition isn't fetched once the queue was full; librdkafka's second would let it run dry in between.
    client
        .entry("fetch.queue.backoff.ms".to_owned())
        .or_insert_with(|| "20".to_owned());
    config::consumer(
        &settings.brokers,
        settings.read_committed,
        &client,
        Some(&settings.group),
    )
}

/// What this consumer does with one partition of its own.
#[derive(Debug, Clone, Copy)]
struct Reading {
    generation: u64,
    epoch: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nobody has said yet where to begin; librdkafka doesn't know that the partition is ours.
    Waiting,
    /// `position` is the end of the last chunk that was made.
    Reading { position: Offset },
    /// librdkafka must still be told; what comes in until then is stale.
    Seeking { to: Offset, since: Instant },
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    partitions: BTreeMap<Partition, Reading>,
    reason: String,
    stopping: bool,
}

impl State {
    /// Makes every partition that is read be sought at its own position.
    ///
    /// Whatever comes of it until then is stale. Resuming after a rebalance, librdkafka 2.12.1 starts at the application's
    /// position (rdkafka_partition.c, `rd_kafka_toppar_pause_resume`), which a marker of a transaction moves even if it was
    /// fetched before a seek (rdkafka_op.c, `rd_kafka_op_handle_std` looks at no version): records would be skipped.
    /// It pauses only where it then calls back (rdkafka_cgrp.c:1260, 1380), so this covers every pause.
    fn seek_where_read(&mut self) {
        for reading in self.partitions.values_mut() {
            if let Phase::Reading { position } = reading.phase {
                reading.phase = Phase::Seeking {
                    to: position,
                    since: Instant::now(),
                };
            }
        }
    }
}

struct Inbox {
    receiver: mpsc::Receiver<Command>,
    /// Commands met while a revoke looked for group commits, in order.
    kept: VecDeque<Command>,
}

/// Follows the group's rebalances.
///
/// Mutexes, since rdkafka hands callbacks a shared reference. The callbacks run inside `poll` on the one thread that
/// also holds the locks elsewhere, never across a poll: nobody ever waits for them.
struct Membership {
    topic: String,
    events: UnboundedSender<KafkaEvent>,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        config::log(level, facility, line);
    }

    /// Keeps the words; the code comes back from the poll that calls this.
    fn error(&self, _error: Cause, reason: &str) {
        reason.clone_into(&mut held(&self.state).reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for Membership {
    fn rebalance(&self, client: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let mut partitions: Vec<Partition> = partitions
            .elements_for_topic(&self.topic)
            .iter()
            .map(|element| Partition(element.partition()))
            .collect();
        partitions.sort_unstable();
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(client, partitions);
        } else {
            self.revoked(client, partitions);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(%error, topic = %self.topic, "group offsets weren't committed");
        }
    }
}

impl Membership {
    fn assigned(&self, client: &BaseConsumer<Self>, partitions: Vec<Partition>) {
        // An empty assignment ends the rebalance; the partitions follow when it is known where to begin.
        self.expect_done(client.incremental_assign(&TopicPartitionList::new()));
        let mut state = held(&self.state);
        state.seek_where_read();
        state.generation += 1;
        let generation = state.generation;
        for partition in &partitions {
            state.partitions.insert(
                *partition,
                Reading {
                    generation,
                    epoch: 0,
                    phase: Phase::Waiting,
                },
            );
        }
        drop(state);
        info!(topic = %self.topic, generation, ?partitions, "partitions assigned");
        self.emit(KafkaEvent::Assigned { generation, partitions });
    }

    fn revoked(&self, client: &BaseConsumer<Self>, partitions: Vec<Partition>) {
        let lost = client.assignment_lost();
        info!(topic = %self.topic, ?partitions, lost, "partitions revoked");
        if !held(&self.state).stopping {
            let (ack, answer) = mpsc::sync_channel(1);
            self.emit(KafkaEvent::Revoked {
                partitions: partitions.clone(),
                lost,
                ack,
            });
            if answer.recv_timeout(REVOKE_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                warn!(topic = %self.topic, ?partitions, "nobody answered a revoke; the partitions leave all the same");
            }
            self.commit_before_leaving(client);
        }
        let mut state = held(&self.state);
        let mut leaving = TopicPartitionList::new();
        for partition in partitions {
            let known = state.partitions.remove(&partition);
            if known.is_some_and(|reading| !matches!(reading.phase, Phase::Waiting)) {
                leaving.add_partition(&self.topic, partition.0);
            }
        }
        state.seek_where_read();
        drop(state);
        self.expect_done(client.incremental_unassign(&leaving));
    }

    /// Does the group commits that were sent before the revoke was acknowledged, while the partitions are still ours.
    fn commit_before_leaving(&self, client: &BaseConsumer<Self>) {
        let mut inbox = held(&self.inbox);
        while let Ok(command) = inbox.receiver.try_recv() {
            match command {
                Command::CommitGroup(offsets) => self.commit(client, &offsets),
                other => inbox.kept.push_back(other),
            }
        }
    }

    fn commit(&self, client: &BaseConsumer<Self>, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        let state = held(&self.state);
        for (partition, offset) in offsets
            .iter()
            .filter(|(partition, _)| state.partitions.contains_key(partition))
        {
            add(&mut list, &self.topic, partition, offset);
        }
        drop(state);
        if list.count() > 0
            && let Err(error) = client.commit(&list, CommitMode::Async)
        {
            warn!(%error, topic = %self.topic, "group offsets weren't committed");
        }
    }

    fn expect_done(&self, result: KafkaResult<()>) {
        if let Err(error) = result {
            self.emit(KafkaEvent::Failed {
                error: format!("the assignment couldn't be changed: {error}"),
            });
        }
    }

    fn emit(&self, event: KafkaEvent) {
        // Nobody listens any more only when the run is over; `Stop` follows.
        let _ = self.events.send(event);
    }
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: Partition, offset: Offset) {
    list.add_partition_offset(topic, partition.0, rdkafka::Offset::Offset(offset.get()))
        .expect("an offset of ours is never negative, so librdkafka takes it");
}

/// Something fetched that hasn't been sent yet.
struct Outgoing {
    generation: u64,
    epoch: u64,
    partition: Partition,
    what: What,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every one is a chunk: a box would be made for each"
)]
enum What {
    Chunk(Chunk, usize),
    Caught(Offset),
}

/// The thread's own: takes records, makes chunks, obeys commands.
struct Reader {
    queue: FetchQueue<Membership>,
    settings: ConsumerSettings,
    budget: Budget,
    outgoing: VecDeque<Outgoing>,
    /// What the last chunk came to: the next is made that large at once.
    sizes: Sizes,
    paused: bool,
    /// Since a connection failed, the time of the last probe.
    unreachable: Option<Instant>,
    /// Somebody was told that Kafka can't be reached.
    told: bool,
}

impl Reader {
    fn new(queue: FetchQueue<Membership>, settings: ConsumerSettings, budget: Budget) -> Self {
        Reader {
            queue,
            settings,
            budget,
            outgoing: VecDeque::new(),
            sizes: Sizes::default(),
            paused: false,
            unreachable: None,
            told: false,
        }
    }

    /// One round after another until told to stop; each lasts about [`ROUND`] at most.
    fn run(mut self) {
        while self.obey() {
            self.serve(Duration::ZERO);
            self.seek_again();
            self.probe();
            if !self.outgoing.is_empty() {
                self.send_on();
            } else if self.paused || !self.reads_any() {
                self.serve(ROUND);
            } else {
                self.fetch();
            }
        }
        held(&self.membership().state).stopping = true;
        // Dropping the queue and its client closes the consumer, which leaves the group.
    }

    fn membership(&self) -> &Membership {
        self.queue.consumer().context()
    }

    fn reads_any(&self) -> bool {
        let state = held(&self.membership().state);
        state
            .partitions
            .values()
            .any(|reading| !matches!(reading.phase, Phase::Waiting))
    }

    /// Obeys what was commanded; false once that was to stop.
    fn obey(&mut self) -> bool {
        loop {
            let mut inbox = held(&self.membership().inbox);
            let next = inbox.kept.pop_front().map_or_else(|| inbox.receiver.try_recv(), Ok);
            drop(inbox);
            match next {
                Ok(Command::Start {
                    generation,
                    epoch,
                    offsets,
                }) => self.start(generation, epoch, &offsets),
                Ok(Command::Seek {
                    partition,
                    offset,
                    epoch,
                }) => self.seek(partition, offset, epoch),
                Ok(Command::Pause) => self.paused = true,
                Ok(Command::Resume) => self.paused = false,
                Ok(Command::CommitGroup(offsets)) => self.membership().commit(self.queue.consumer(), &offsets),
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
                Err(mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    fn start(&mut self, generation: u64, epoch: u64, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        let mut late = Vec::new();
        for (partition, offset) in offsets.iter() {
            let mut state = held(&self.membership().state);
            let Some(reading) = state
                .partitions
                .get_mut(&partition)
                .filter(|held| held.generation == generation)
            else {
                debug!(%partition, generation, "a start for a partition that has left");
                continue;
            };
            if !matches!(reading.phase, Phase::Waiting) {
                drop(state);
                self.seek(partition, offset, epoch);
                continue;
            }
            *reading = Reading {
                generation,
                epoch,
                phase: Phase::Reading { position: offset },
            };
            drop(state);
            add(&mut list, &self.settings.topic, partition, offset);
            if !self.queue.divert(&self.settings.topic, partition) {
                late.push(partition);
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.queue.consumer().incremental_assign(&list) {
            self.emit(KafkaEvent::Failed {
                error: format!("partitions couldn't be started: {error}"),
            });
        }
        for partition in late {
            // Now librdkafka knows the partition; what slipped into the other queue before is sought again by `serve`.
            self.queue.divert(&self.settings.topic, partition);
        }
    }

    fn seek(&mut self, partition: Partition, offset: Offset, epoch: u64) {
        let mut state = held(&self.membership().state);
        if let Some(reading) = state.partitions.get_mut(&partition)
            && !matches!(reading.phase, Phase::Waiting)
        {
            reading.epoch = epoch;
            reading.phase = Phase::Seeking {
                to: offset,
                since: Instant::now(),
            };
        }
    }

    /// Tells librdkafka of the seeks that it hasn't taken yet: it refuses while it starts a partition.
    fn seek_again(&mut self) {
        let seeks: Vec<(Partition, Offset, Instant)> = held(&self.membership().state)
            .partitions
            .iter()
            .filter_map(|(partition, reading)| match reading.phase {
                Phase::Seeking { to, since } => Some((*partition, to, since)),
                Phase::Waiting | Phase::Reading { .. } => None,
            })
            .collect();
        for (partition, to, since) in seeks {
            let target = rdkafka::Offset::Offset(to.get());
            // Waits for librdkafka's own thread, not for the network. The seek also makes all that was queued stale.
            match self
                .queue
                .consumer()
                .seek(&self.settings.topic, partition.0, target, PROBE_PERIOD)
            {
                Ok(()) => {
                    if let Some(reading) = held(&self.membership().state).partitions.get_mut(&partition) {
                        reading.phase = Phase::Reading { position: to };
                    }
                }
                Err(error) if since.elapsed() > SEEK_WAIT => {
                    self.emit(KafkaEvent::Failed {
                        error: format!("couldn't seek {partition} to {to}: {error}"),
                    });
                }
                Err(error) => debug!(%partition, %to, %error, "not sought yet"),
            }
        }
    }

    /// Serves the consumer's own queue: rebalances, in their callback, and errors.
    fn serve(&mut self, timeout: Duration) {
        let mut timeout = timeout;
        for _ in 0..EVENTS_PER_ROUND_MAX {
            let (partition, error) = match self.queue.consumer().poll(timeout) {
                None => return,
                Some(Ok(record)) => (Partition(rdkafka::Message::partition(&record)), None),
                Some(Err(Cause::PartitionEOF(partition))) => (Partition(partition), None),
                Some(Err(error)) => (Partition(-1), Some(error)),
            };
            timeout = Duration::ZERO;
            match error {
                Some(error) => self.report(&error),
                None => self.read_again(partition),
            }
        }
    }

    /// Something of `partition` came past our queue: it is diverted once more and read again from its position.
    fn read_again(&mut self, partition: Partition) {
        self.queue.divert(&self.settings.topic, partition);
        let mut state = held(&self.membership().state);
        if let Some(reading) = state.partitions.get_mut(&partition)
            && let Phase::Reading { position } = reading.phase
        {
            reading.phase = Phase::Seeking {
                to: position,
                since: Instant::now(),
            };
        }
    }

    fn report(&mut self, error: &Cause) {
        let reason = std::mem::take(&mut held(&self.membership().state).reason);
        let reason = if reason.is_empty() { error.to_string() } else { reason };
        match (error, error.rdkafka_error_code()) {
            (Cause::MessageConsumptionFatal(_), _) => self.emit(KafkaEvent::Failed { error: reason }),
            (_, Some(code)) => self.report_code(code, reason),
            (_, None) => warn!(topic = %self.settings.topic, "{reason}"),
        }
    }

    fn report_code(&mut self, code: RDKafkaErrorCode, reason: String) {
        match kind(code) {
            Kind::TopicMissing => self.emit(KafkaEvent::TopicMissing),
            Kind::Unfit => self.emit(KafkaEvent::Unfit { error: reason }),
            Kind::Refused => {
                if !matches!(
                    code,
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed
                ) {
                    // Metadata is given to whoever may log in, so the probe tells when that works again. Rights on topic
                    // and group show by records and assignments only.
                    self.unreachable.get_or_insert_with(Instant::now);
                    self.told = true;
                }
                self.emit(KafkaEvent::Refused { error: reason });
            }
            Kind::Unreachable if code == RDKafkaErrorCode::AllBrokersDown => {
                self.unreachable.get_or_insert_with(Instant::now);
                self.tell_unreachable(reason);
            }
            // One broker of several, which librdkafka goes round, or all: it doesn't say the latter for certain (2.12.1 with
            // one broker that was killed says only this), so the probe finds out.
            Kind::Unreachable => {
                debug!(topic = %self.settings.topic, ?code, "{reason}");
                self.unreachable.get_or_insert_with(Instant::now);
            }
            Kind::Other => warn!(topic = %self.settings.topic, ?code, "{reason}"),
        }
    }

    /// Once a connection failed, asks from time to time whether any broker answers: a topic without new records would
    /// never tell, and a partition that is fetched from a broker that is gone neither.
    fn probe(&mut self) {
        if self.unreachable.is_some_and(|last| last.elapsed() >= PROBE_PERIOD) {
            self.unreachable = Some(Instant::now());
            let answer = self
                .queue
                .consumer()
                .fetch_metadata(Some(&self.settings.topic), PROBE_PERIOD);
            match answer {
                Ok(_) => self.reachable(),
                Err(error) => self.tell_unreachable(error.to_string()),
            }
        }
    }

    fn tell_unreachable(&mut self, error: String) {
        if !self.told {
            self.told = true;
            self.emit(KafkaEvent::Unreachable { error });
        }
    }

    fn reachable(&mut self) {
        self.unreachable = None;
        if std::mem::take(&mut self.told) {
            self.emit(KafkaEvent::Reachable);
        }
    }

    /// Takes what has been fetched and makes a chunk or more of each partition in it.
    fn fetch(&mut self) {
        let context = Arc::clone(self.queue.consumer().context());
        let mut assembly = Assembly {
            open: opened(&held(&context.state)),
            current: 0,
            chunk_bytes_max: self.settings.chunk_bytes_max.clamp(1, CHUNK_BYTES_LIMIT),
            sizes: self.sizes,
            out: VecDeque::new(),
        };
        let mut errors = Vec::new();
        // No lock is held meanwhile: librdkafka may call back.
        self.queue.drain(ROUND, |entry| match entry {
            Entry::Record(record) => assembly.push(&record),
            Entry::End { partition, at } => assembly.end(partition, at),
            Entry::Error {
                partition,
                code,
                reason,
            } => errors.push((partition, code, reason)),
        });
        assembly.close();
        let mut state = held(&context.state);
        for open in &assembly.open {
            if let Some(reading) = state.partitions.get_mut(&open.partition) {
                let at = open.position;
                reading.phase = Phase::Reading { position: at };
            }
        }
        drop(state);
        self.sizes = assembly.sizes;
        self.outgoing = assembly.out;
        if !self.outgoing.is_empty() {
            self.reachable();
        }
        for (partition, code, reason) in errors {
            match code {
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                    let reading = held(&context.state).partitions.get(&partition).copied();
                    let wanted = reading.and_then(|reading| match reading.phase {
                        Phase::Reading { position } => Some(position),
                        Phase::Waiting | Phase::Seeking { .. } => None,
                    });
                    warn!(topic = %self.settings.topic, %partition, ?wanted, "{reason}");
                    self.emit(KafkaEvent::OffsetsGone { partition, wanted });
                }
                code => self.report_code(code, reason),
            }
        }
    }

    /// Sends what was fetched as far as the budget lets it, waiting up to [`ROUND`] for the first that doesn't fit.
    fn send_on(&mut self) {
        while let Some(next) = self.outgoing.pop_front() {
            let Outgoing {
                generation,
                epoch,
                partition,
                ..
            } = next;
            let reading = held(&self.membership().state).partitions.get(&partition).copied();
            if reading.is_none_or(|now| (now.generation, now.epoch) != (generation, epoch)) {
                continue; // It left, or was sought elsewhere, while this waited.
            }
            match next.what {
                What::Caught(at) => self.emit(KafkaEvent::Caught {
                    generation,
                    epoch,
                    partition,
                    at,
                }),
                What::Chunk(chunk, bytes) => match self.budget.acquire(bytes, ROUND) {
                    Some(permit) => self.emit(KafkaEvent::Fetched {
                        generation,
                        epoch,
                        chunk,
                        permit,
                    }),
                    None => {
                        let what = What::Chunk(chunk, bytes);
                        self.outgoing.push_front(Outgoing {
                            generation,
                            epoch,
                            partition,
                            what,
                        });
                        return;
                    }
                },
            }
        }
    }

    fn emit(&self, event: KafkaEvent) {
        self.membership().emit(event);
    }
}

/// Fetched entries on their way into chunks.
struct Assembly {
    /// The partitions that are being read, ascending.
    open: Vec<Open>,
    /// The one that the last entry was of: records come in runs of one partition.
    current: usize,
    chunk_bytes_max: usize,
    sizes: Sizes,
    out: VecDeque<Outgoing>,
}

/// One partition of an [`Assembly`].
struct Open {
    partition: Partition,
    generation: u64,
    epoch: u64,
    /// The end of the last chunk that was made.
    position: Offset,
    /// The offset after the last record in `columns`; `position` without any.
    end: Offset,
    columns: Option<Columns>,
}

fn opened(state: &State) -> Vec<Open> {
    let reading = state.partitions.iter().filter_map(|(partition, reading)| {
        let Phase::Reading { position } = reading.phase else {
            return None;
        };
        Some(Open {
            partition: *partition,
            generation: reading.generation,
            epoch: reading.epoch,
            position,
            end: position,
            columns: None,
        })
    });
    reading.collect()
}

impl Assembly {
    /// Finds the partition; `None` if what comes of it is stale: it left, or is sought elsewhere.
    fn find(&mut self, partition: Partition) -> Option<usize> {
        if self
            .open
            .get(self.current)
            .is_none_or(|open| open.partition != partition)
        {
            self.current = self.open.binary_search_by_key(&partition, |open| open.partition).ok()?;
        }
        Some(self.current)
    }

    fn push(&mut self, record: &Record<'_>) {
        let Some(at) = self.find(record.partition()) else {
            return;
        };
        let open = &mut self.open[at];
        if record.offset() < open.end {
            return; // Stale: fetched before a seek.
        }
        let columns = open.columns.get_or_insert_with(|| Columns::new(self.sizes));
        columns.push(record);
        open.end = record.offset().next();
        if columns.bytes() >= self.chunk_bytes_max {
            self.close_one(at, None);
        }
    }

    fn end(&mut self, partition: Partition, at: Offset) {
        if let Some(index) = self.find(partition) {
            self.close_one(index, Some(at));
        }
    }

    /// Closes the chunk of a partition. At its end the range reaches past markers and aborted records, up to `caught`.
    fn close_one(&mut self, index: usize, caught: Option<Offset>) {
        let open = &mut self.open[index];
        let Open {
            partition,
            generation,
            epoch,
            position,
            ..
        } = *open;
        let columns = open.columns.take();
        let end = caught.map_or(open.end, |at| at.max(open.end));
        let outgoing = |what| Outgoing {
            generation,
            epoch,
            partition,
            what,
        };
        if end > position {
            (open.position, open.end) = (end, end);
            let columns = columns.unwrap_or_else(|| Columns::new(Sizes::default()));
            let bytes = columns.bytes();
            if bytes > 0 {
                self.sizes = columns.sizes();
            }
            let chunk = columns.finish(partition, OffsetRange::new(position, end));
            self.out.push_back(outgoing(What::Chunk(chunk, bytes)));
        }
        // An end below the position is stale: it was fetched before a seek.
        if let Some(at) = caught.filter(|at| *at >= position) {
            self.out.push_back(outgoing(What::Caught(at)));
        }
    }

    fn close(&mut self) {
        (0..self.open.len()).for_each(|index| self.close_one(index, None));
    }
}
