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

mod assembly;
mod membership;
mod reader;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use self::membership::Membership;
use self::reader::Reader;
use crate::chunk::Chunk;
use crate::kafka::batch::FetchQueue;
use crate::kafka::budget::{Budget, Permit};
use crate::kafka::config;
use crate::kafka::error::KafkaError;
use crate::kafka::meter::Meter;
use crate::offsets::{Offset, Offsets, Partition, Position};

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
    /// What one answer of a broker may come to in memory once it is unpacked; of one batch, [`Shares::batch`] bounds it.
    ///
    /// [`Shares::batch`]: crate::memory::Shares::batch
    pub answer_bytes_max: usize,
    /// librdkafka properties; those that exactly-once owns are overridden.
    pub client: BTreeMap<String, String>,
    /// Where it counts what it does.
    pub meter: Arc<Meter>,
}

impl ConsumerSettings {
    /// Says whether batches are compared with their checksums.
    fn checks(&self) -> bool {
        let set = self.client.get(config::CHECK_CRCS);
        set.is_none_or(|set| matches!(set.as_str(), "true" | "t" | "1"))
    }
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
    /// The offset to read next isn't in the topic any more (retention, or the topic was made anew), or isn't the same any more:
    /// the log was truncated before it.
    OffsetsGone {
        /// Where.
        partition: Partition,
        /// The offset that was to be read, if the partition is still ours.
        wanted: Option<Offset>,
    },
    /// The partition can't be read on, and isn't any more: what comes next isn't what was written. All before it was sent.
    Damaged {
        /// Where.
        partition: Partition,
        /// The offset to read next.
        at: Offset,
        /// It came as it was written, and can't be unpacked: there is no room, or it was packed wrongly.
        unpackable: bool,
        /// librdkafka's words.
        reason: String,
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
        positions: BTreeMap<Partition, Position>,
    },
    Seek {
        partition: Partition,
        to: Position,
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
        let context = Membership::new(
            settings.topic.clone(),
            Arc::clone(&settings.meter),
            events.clone(),
            receiver,
        );
        let failed = |cause| KafkaError::of("joining the group", &settings.topic, &cause);
        let client: BaseConsumer<Membership> = client_config(&settings).create_with_context(context).map_err(failed)?;
        info!(topic = settings.topic, group = settings.group, "joining the group");
        if !settings.checks() {
            warn!(
                topic = settings.topic,
                "`consumerConfig` switches `check.crcs` off: records that were damaged are taken as they are, or skipped"
            );
        }
        client.subscribe(&[&settings.topic]).map_err(failed)?;
        let queue = FetchQueue::new(
            Arc::new(client),
            settings.max_poll_records,
            settings.chunk_bytes_max.saturating_mul(CHUNKS_TAKEN),
        );
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

    /// Starts reading partitions of `generation` at `positions`; those that are read already are sought there.
    ///
    /// Partitions that have left since, or came back in a later generation, are passed over. One whose log was truncated
    /// before its position becomes [`KafkaEvent::OffsetsGone`].
    pub fn start_at(&self, generation: u64, epoch: u64, positions: BTreeMap<Partition, Position>) {
        self.send(Command::Start {
            generation,
            epoch,
            positions,
        });
    }

    /// Goes on reading `partition` there; passed over where it isn't read here.
    pub fn seek(&self, partition: Partition, to: Position, epoch: u64) {
        self.send(Command::Seek { partition, to, epoch });
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

/// How many chunks' bytes one poll takes: they lie beside what librdkafka holds of them until there is room for them.
const CHUNKS_TAKEN: usize = 2;

/// The most that one fetch asks for, in bytes, unless `fetch.max.bytes` says otherwise.
const FETCH_BYTES_MAX: usize = 1 << 20;

fn client_config(settings: &ConsumerSettings) -> rdkafka::ClientConfig {
    let mut client = settings.client.clone();
    // What the size of fetches follows from.
    client
        .entry("statistics.interval.ms".to_owned())
        .or_insert_with(|| "100".to_owned());
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
