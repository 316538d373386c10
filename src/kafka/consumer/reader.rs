//! The thread's rounds: commands, rebalances and errors, seeks, the probe of a broker that is gone, and fetching.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError as Cause, RDKafkaErrorCode};
use tracing::{debug, warn};

use super::assembly::{Assembly, Outgoing, What};
use super::membership::{Membership, held};
use super::state::{Phase, Reading};
use super::{Command, ConsumerSettings, FETCH_BYTES_MAX, KafkaEvent};
use crate::kafka::batch::{Entry, FetchQueue, limit_fetch};
use crate::kafka::budget::Budget;
use crate::kafka::columns::Sizes;
use crate::kafka::error::{Kind, kind};
use crate::kafka::fetch_size::FetchSize;
use crate::kafka::positions;
use crate::memory::{Held, Purpose};
use crate::offsets::{Partition, Position};
use crate::resident::{give_back, resident};

/// How long one round waits: the delay of a command or a rebalance at most, and 20 rounds a second when idle.
const ROUND: Duration = Duration::from_millis(50);
/// How long a seek may be refused while librdkafka still starts the partition.
const SEEK_WAIT: Duration = Duration::from_secs(30);
/// How often a broker is asked for once a connection failed, and how long that may take.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Events of the main queue served in one round, so that a flood of errors can't hold up the records.
const EVENTS_PER_ROUND_MAX: usize = 100;

/// The thread's own: takes records, makes chunks, obeys commands.
pub(super) struct Reader {
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
    /// Since records were denied to us, the time when they were last asked for again.
    denied: Option<Instant>,
    fetch_size: FetchSize,
    /// What waits in librdkafka's queue.
    queued: Held,
}

impl Reader {
    pub(super) fn new(queue: FetchQueue<Membership>, settings: ConsumerSettings, budget: Budget) -> Self {
        let most = settings.client.get("fetch.max.bytes");
        let most = most.and_then(|most| most.parse().ok()).unwrap_or(FETCH_BYTES_MAX);
        let fetch_size = FetchSize::new(most, settings.answer_bytes_max);
        limit_fetch(queue.consumer(), fetch_size.bytes());
        Reader {
            fetch_size,
            queued: budget.memory().hold(Purpose::Queues),
            queue,
            settings,
            budget,
            outgoing: VecDeque::new(),
            sizes: Sizes::default(),
            paused: false,
            unreachable: None,
            told: false,
            denied: None,
        }
    }

    /// One round after another until told to stop; each lasts about [`ROUND`] at most.
    pub(super) fn run(mut self) {
        while self.obey() {
            self.serve(Duration::ZERO);
            self.size_fetches();
            self.ask_again();
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
            match self.membership().next_command() {
                Ok(Command::Start {
                    generation,
                    epoch,
                    positions,
                }) => self.start(generation, epoch, positions),
                Ok(Command::Seek { partition, to, epoch }) => self.seek(partition, to, epoch),
                Ok(Command::Pause) => self.paused = true,
                Ok(Command::Resume) => self.paused = false,
                Ok(Command::CommitGroup(offsets)) => self.membership().commit(self.queue.consumer(), &offsets),
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
                Err(mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    fn start(&mut self, generation: u64, epoch: u64, positions: BTreeMap<Partition, Position>) {
        let mut started = Vec::new();
        let mut late = Vec::new();
        for (partition, at) in positions {
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
                self.seek(partition, at, epoch);
                continue;
            }
            // librdkafka compares a position with the log only where it is sought.
            let phase = match at.leader_epoch {
                Some(_) => Phase::Seeking {
                    to: at,
                    since: Instant::now(),
                },
                None => Phase::Reading { position: at },
            };
            *reading = Reading {
                generation,
                epoch,
                phase,
            };
            drop(state);
            started.push((partition, at));
            if !self.queue.divert(&self.settings.topic, partition) {
                late.push(partition);
            }
        }
        if started.is_empty() {
            return;
        }
        let list = positions::list(&self.settings.topic, started);
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

    fn seek(&mut self, partition: Partition, to: Position, epoch: u64) {
        let mut state = held(&self.membership().state);
        if let Some(reading) = state.partitions.get_mut(&partition)
            && !matches!(reading.phase, Phase::Waiting)
        {
            reading.epoch = epoch;
            reading.phase = Phase::Seeking {
                to,
                since: Instant::now(),
            };
        }
    }

    /// Tells librdkafka of the seeks that it hasn't taken yet: it refuses while it starts a partition.
    fn seek_again(&mut self) {
        let seeks: BTreeMap<Partition, (Position, Instant)> = held(&self.membership().state)
            .partitions
            .iter()
            .filter_map(|(partition, reading)| match reading.phase {
                Phase::Seeking { to, since } => Some((*partition, (to, since))),
                Phase::Waiting | Phase::Reading { .. } => None,
            })
            .collect();
        if seeks.is_empty() {
            return;
        }
        // Without a right to the topic the log isn't compared, and nothing says so: only a fetch that is refused does.
        let asks = self.denied.is_none();
        let targets = seeks.iter().map(|(partition, (to, _))| match asks {
            true => (*partition, *to),
            false => (*partition, to.offset.into()),
        });
        let list = positions::list(&self.settings.topic, targets);
        // Waits for librdkafka's own thread, not for the network. The seek also makes all that was queued stale.
        let answers: Vec<(Partition, Result<(), Cause>)> =
            match self.queue.consumer().seek_partitions(list, PROBE_PERIOD) {
                Ok(list) => {
                    let elements = list.elements();
                    let answers = elements
                        .iter()
                        .map(|element| (Partition(element.partition()), element.error()));
                    answers.collect()
                }
                Err(error) => seeks.keys().map(|partition| (*partition, Err(error.clone()))).collect(),
            };
        for (partition, answer) in answers {
            let Some((to, since)) = seeks.get(&partition).copied() else {
                continue;
            };
            match answer {
                Ok(()) => {
                    if let Some(reading) = held(&self.membership().state).partitions.get_mut(&partition) {
                        reading.phase = Phase::Reading { position: to };
                    }
                }
                Err(error) if since.elapsed() > SEEK_WAIT => {
                    self.emit(KafkaEvent::Failed {
                        error: format!("couldn't seek {partition} to {}: {error}", to.offset),
                    });
                }
                Err(error) => debug!(%partition, to = %to.offset, %error, "not sought yet"),
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
        self.settings.meter.failed();
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
                if code == RDKafkaErrorCode::TopicAuthorizationFailed {
                    self.denied.get_or_insert_with(Instant::now);
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
            // It came past our queue, and nobody says of which partition: whatever it was is met again where reading goes on.
            Kind::Damaged => {
                debug!(topic = %self.settings.topic, ?code, "{reason}");
                held(&self.membership().state).seek_where_read();
            }
            Kind::Other => warn!(topic = %self.settings.topic, ?code, "{reason}"),
        }
    }

    /// Makes fetches as large as what they brought lately lets them be, and as small as can be while the process comes close to
    /// what it may hold.
    fn size_fetches(&mut self) {
        let before = self.fetch_size.bytes();
        let queued = self.queue.len().saturating_mul(self.fetch_size.entry_bytes());
        self.queued.set(queued);
        self.fetch_size.queued(queued);
        let received = held(&self.membership().state).received.take();
        if let Some(received) = received {
            self.fetch_size.follow(received);
            let (limit, now) = (
                self.budget.memory().limit(),
                resident().map_or(0, |resident| resident.now),
            );
            if now > limit / 4 * 3 {
                give_back();
            }
            if now > limit / 8 * 7 {
                // Reading goes on: only what is read and committed makes room.
                self.fetch_size.shrink();
            }
        }
        if self.fetch_size.bytes() != before {
            limit_fetch(self.queue.consumer(), self.fetch_size.bytes());
        }
    }

    /// Once records were denied, seeks from time to time where it reads: librdkafka tells of a right that is missing once
    /// only, and nothing at all when it is there again and no record is new; after a seek it tells either.
    fn ask_again(&mut self) {
        if self.denied.is_some_and(|last| last.elapsed() >= PROBE_PERIOD) {
            self.denied = Some(Instant::now());
            held(&self.membership().state).seek_where_read();
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
        let mut assembly = Assembly::new(&held(&context.state), self.settings.chunk_bytes_max, self.sizes);
        let (mut errors, mut records, checks) = (Vec::new(), 0, self.settings.checks());
        // No lock is held meanwhile: librdkafka may call back.
        self.queue.drain(ROUND, |entry| match entry {
            Entry::Record(record) => {
                records += 1;
                assembly.push(&record);
            }
            Entry::End {
                partition,
                at,
                leader_epoch,
            } => {
                let at = Position {
                    offset: at,
                    leader_epoch,
                };
                assembly.end(partition, at);
            }
            Entry::Error {
                partition,
                code,
                reason,
                ..
            } if kind(code) == Kind::Damaged => {
                // What isn't compared with its checksum may just as well be damaged.
                let unpackable = code == RDKafkaErrorCode::BadCompression && checks;
                assembly.halt(partition, unpackable, reason);
            }
            Entry::Error {
                partition,
                code,
                reason,
                ..
            } => errors.push((partition, code, reason)),
        });
        assembly.close();
        if self.denied.is_some() && !(assembly.out.is_empty() && assembly.halted.is_empty()) {
            // The right is there again. What came was sought without being compared with the log: now it can be.
            self.denied = None;
            held(&context.state).seek_where_read();
            self.reachable();
            return;
        }
        self.settings.meter.polled(records);
        let mut state = held(&context.state);
        for open in &assembly.open {
            if let Some(reading) = state.partitions.get_mut(&open.partition) {
                let position = Position {
                    offset: open.position,
                    leader_epoch: open.leader_epoch,
                };
                reading.phase = Phase::Reading { position };
            }
        }
        for halted in &assembly.halted {
            if let Some(reading) = state.partitions.get_mut(&halted.partition) {
                reading.phase = Phase::Waiting;
            }
        }
        drop(state);
        self.sizes = assembly.sizes;
        self.outgoing = assembly.out;
        let damaged: Vec<Partition> = assembly.halted.iter().map(|halted| halted.partition).collect();
        self.leave(&assembly.halted);
        self.outgoing.extend(assembly.halted);
        if !self.outgoing.is_empty() {
            self.reachable();
        }
        for (partition, code, reason) in errors {
            self.settings.meter.failed();
            match code {
                // Behind damage at the end of a log librdkafka asks for what isn't there; the damage tells all.
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
                    if damaged.contains(&partition) =>
                {
                    debug!(topic = %self.settings.topic, %partition, "{reason}");
                }
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                    let reading = held(&context.state).partitions.get(&partition).copied();
                    let wanted = reading.and_then(|reading| match reading.phase {
                        Phase::Reading { position } => Some(position.offset),
                        Phase::Waiting | Phase::Seeking { .. } => None,
                    });
                    warn!(topic = %self.settings.topic, %partition, ?wanted, "{reason}");
                    self.emit(KafkaEvent::OffsetsGone { partition, wanted });
                }
                code => self.report_code(code, reason),
            }
        }
    }

    /// Has librdkafka forget partitions that can't be read on: it would fetch the same again, as fast as it can.
    fn leave(&self, halted: &[Outgoing]) {
        if halted.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for Outgoing { partition, .. } in halted {
            self.settings.meter.failed();
            list.add_partition(&self.settings.topic, partition.0);
        }
        if let Err(error) = self.queue.consumer().incremental_unassign(&list) {
            self.emit(KafkaEvent::Failed {
                error: format!("partitions couldn't be left: {error}"),
            });
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
                What::Damaged { at, unpackable, reason } => {
                    warn!(topic = %self.settings.topic, %partition, %at, "{reason}");
                    self.emit(KafkaEvent::Damaged {
                        partition,
                        at,
                        unpackable,
                        reason,
                    });
                }
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
