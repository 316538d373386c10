//! The conductor's side of Kafka: joins the group, reads where the run says, and hears what comes of it.
//!
//! Chunks come in here. So does what Kafka says of the group, the topic and itself: how long it may stay away, or hold
//! partitions back, is looked at with every tick.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::error::{Exit, Failure};
use crate::kafka::budget::Budget;
use crate::kafka::consumer::{Consumer, ConsumerSettings, KafkaEvent};
use crate::kill_points::{self, KillPoint, Place};
use crate::memory::Shares;
use crate::offsets::{Offsets, Partition, Position};
use crate::run::{Event, Outcome};
use crate::shell::conductor::Conductor;
use crate::shell::conductor::answers::Answer;
use crate::shell::now;
use crate::shell::report::TableReport;
use crate::units::Millis;

/// How long a member waits for its first partitions before it says so, and asks whether its group can be talked to.
const ASSIGNMENT_WAIT: Millis = Millis(15_000);

/// A chunk's size: large enough for columns to pay, small enough that several are on their way at once. With little memory it
/// is half of what chunks may hold.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// librdkafka's own limits that together keep its queues within `bytes`, as far as it has any.
///
/// Half is for what records hold, half for librdkafka's entry of each, some 400 bytes (2.12.1, `rd_kafka_op_t`). A fetch goes on
/// until either is reached, and what one answer brings comes on top: the size of fetches follows from what it becomes, see
/// `kafka::fetch_size`, and from statistics, which tell of each partition.
///
/// - `batch`: what one batch may come to, which librdkafka holds to for zstd; for others it is what an answer may have.
fn queue_limits(shares: &Shares, batch: usize, partitions: usize) -> [(&'static str, usize); 5] {
    let bytes = shares.queues;
    // Statistics take a client near a million instructions, whatever it does, and more with each partition.
    let statistics_ms = (20 * shares.pipelines).clamp(100, 1_000).max(partitions.min(2_000));
    [
        ("receive.message.max.bytes", batch),
        ("statistics.interval.ms", statistics_ms),
        ("queued.max.messages.kbytes", (bytes / 2 / 1024).max(1024)),
        ("queued.min.messages", (bytes / 2 / 512).clamp(1_000, 10_000_000)),
        ("fetch.max.bytes", (bytes / 16).clamp(1 << 20, 50 << 20)),
    ]
}

impl Conductor {
    pub(super) fn join(&mut self, report: &mut TableReport) -> Option<Outcome> {
        let source = &self.world.pipeline.source;
        let mut client = source.client.clone();
        let partitions = self.run.ledger().map_or(0, |ledger| ledger.offsets.len());
        // librdkafka refuses an answer of fewer bytes than a fetch asks for.
        let asked = ["fetch.max.bytes", "message.max.bytes"].map(|key| client.get(key)?.parse().ok());
        let asked: usize = asked.into_iter().flatten().max().unwrap_or_default();
        let batch = self.shares.batch().max(asked.saturating_add(512));
        for (key, value) in queue_limits(&self.shares, batch, partitions) {
            if key == "fetch.max.bytes" && client.contains_key("message.max.bytes") {
                continue; // librdkafka refuses one that is below the other.
            }
            client.entry(key.into()).or_insert(value.to_string());
        }
        let settings = ConsumerSettings {
            brokers: source.brokers.clone(),
            topic: source.topic.clone(),
            group: source.group.clone(),
            read_committed: source.read_committed,
            max_poll_records: source.max_poll_records as usize,
            chunk_bytes_max: CHUNK_BYTES_MAX.min(self.shares.chunks / 2),
            answer_bytes_max: self.shares.queues / 2,
            client,
            meter: self.counters.table.metrics.consumer.clone(),
        };
        let budget = Budget::new(self.shares.chunks, &self.memory);
        self.budget = Some(budget.clone());
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
    pub(super) fn read(&mut self, epoch: u64, positions: Vec<(Partition, Position)>) {
        let Some(consumer) = &self.consumer else { return };
        let mut starts: BTreeMap<u64, BTreeMap<Partition, Position>> = BTreeMap::new();
        for (partition, at) in positions {
            if self.started.insert(partition) {
                let generation = self.generations.get(&partition).copied().unwrap_or_default();
                starts.entry(generation).or_default().insert(partition, at);
            } else {
                consumer.seek(partition, at, epoch);
            }
        }
        for (generation, positions) in starts {
            consumer.start_at(generation, epoch, positions);
        }
    }

    pub(super) fn heard(&mut self, event: KafkaEvent, report: &mut TableReport) -> Option<Outcome> {
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
                self.count_fetched(&chunk);
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
            KafkaEvent::Damaged {
                partition,
                at,
                unpackable: true,
                reason,
            } => Event::Unreadable(self.world.too_large(partition, at, &reason, &self.shares, self.memory.limit())),
            KafkaEvent::Damaged {
                partition, at, reason, ..
            } => {
                let world = self.world.clone();
                self.spawn(async move { Answer::Event(Event::Unreadable(world.damage(partition, at, reason).await)) });
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

    pub(super) fn ticked(&mut self, report: &mut TableReport) -> Option<Outcome> {
        if let Some(failure) = self.watch() {
            return self.tell(Event::Failed(failure), None, report);
        }
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
        if let (true, Some(window)) = (
            self.budget.as_ref().is_some_and(Budget::is_held_by_letters),
            self.run.filling(),
        ) {
            // Nothing more can be read until letters are stored, and those of an open window are only once it is closed.
            return self.tell(Event::Crowded(window), None, report);
        }
        self.tell(Event::Tick, None, report)
    }

    /// Says whether the lines are what reading waits for: half of what may be on its way waits for them.
    pub(super) fn behind(&self) -> bool {
        self.budget.as_ref().is_some_and(Budget::is_half_taken)
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

    /// Brings the group offsets to what was published: a copy for lag tools, never waited for and never read back.
    pub(super) fn commit_group(&self, offsets: Offsets) {
        kill_points::pass(KillPoint::Inside(Place::PointsPublished));
        if let Some(consumer) = &self.consumer {
            consumer.commit_group(offsets);
        }
    }
}
