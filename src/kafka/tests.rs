//! Against rdkafka's mock cluster: what a foreign system does, in this process. Every wait has a bound.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::admin::Admin;
use super::budget::{Budget, Permit};
use super::consumer::{Consumer, ConsumerSettings, KafkaEvent};
use super::error::KafkaError;
use super::producer::{DeadLetterRecord, DeadLetterTopic};
use crate::chunk::Chunk;
use crate::memory::{Memory, Purpose};
use crate::offsets::{Offset, Offsets, Partition, Position};

const TOPIC: &str = "orders";
const WAIT: Duration = Duration::from_secs(30);
const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

fn budget_of(bytes: usize) -> Budget {
    Budget::new(bytes, &Memory::new(1 << 30))
}

struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, 2, 1).expect("a topic");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        World {
            cluster,
            runtime: runtime.expect("a runtime"),
        }
    }

    /// Appends `count` records to a partition, each value being its number.
    fn produce(&self, partition: Partition, from: usize, count: usize) {
        use rdkafka::producer::{FutureProducer, FutureRecord};
        let producer: FutureProducer = super::config::base(&self.cluster.bootstrap_servers(), &BTreeMap::new())
            .set("linger.ms", "5")
            .create()
            .expect("a producer");
        self.runtime.block_on(async {
            let sends = (from..from + count).map(|number| {
                let producer = &producer;
                async move {
                    let (key, value) = (format!("k{number}"), format!("v{number}"));
                    let mut record: FutureRecord<'_, str, str> = FutureRecord::to(TOPIC).partition(partition.0);
                    record = record.timestamp(1_700_000_000_000 + i64::try_from(number).expect("small"));
                    record = record.key(&key).payload(&value);
                    producer.send(record, WAIT).await.expect("delivered");
                }
            });
            futures::future::join_all(sends).await;
        });
    }

    fn letters(&self) -> DeadLetterTopic {
        DeadLetterTopic::new(&self.cluster.bootstrap_servers(), TOPIC, &BTreeMap::new()).expect("a producer")
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.cluster.bootstrap_servers(), true, &BTreeMap::new(), WAIT).expect("an admin client")
    }

    fn member(&self, budget: &Budget) -> Member {
        let settings = ConsumerSettings {
            meter: std::sync::Arc::default(),
            brokers: self.cluster.bootstrap_servers(),
            topic: TOPIC.to_owned(),
            group: "aperio-orders".to_owned(),
            read_committed: true,
            max_poll_records: 64,
            chunk_bytes_max: 1 << 20,
            answer_bytes_max: 4 << 20,
            client: [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let (sender, events) = unbounded_channel();
        let consumer = Consumer::start(settings, budget.clone(), sender).expect("started");
        Member { consumer, events }
    }
}

struct Member {
    consumer: Consumer,
    events: UnboundedReceiver<KafkaEvent>,
}

impl Member {
    /// Waits for the next event that `pick` wants; others are dropped.
    #[track_caller]
    fn wait<T>(&mut self, world: &World, what: &str, mut pick: impl FnMut(KafkaEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = world
                .runtime
                .block_on(async { tokio::time::timeout(left, self.events.recv()).await });
            let event = {
                let Ok(event) = next else { panic!("no {what} in time") };
                event
            }
            .expect("the thread lives");
            assert!(
                !matches!(event, KafkaEvent::Failed { .. }),
                "{event:?} while waiting for {what}"
            );
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    fn assigned(&mut self, world: &World) -> (u64, Vec<Partition>) {
        self.wait(world, "assignment", |event| match event {
            KafkaEvent::Assigned { generation, partitions } if !partitions.is_empty() => Some((generation, partitions)),
            _ => None,
        })
    }

    #[track_caller]
    fn chunk(&mut self, world: &World) -> (u64, Chunk, Permit) {
        self.wait(world, "chunk", |event| match event {
            KafkaEvent::Fetched {
                epoch, chunk, permit, ..
            } => Some((epoch, chunk, permit)),
            _ => None,
        })
    }

    /// Takes chunks of `epoch` until `ends` are reached; panics where ranges don't follow one another.
    #[track_caller]
    fn read_to(&mut self, world: &World, epoch: u64, starts: &Offsets, ends: &Offsets) -> Vec<Chunk> {
        let mut at = starts.clone();
        let mut chunks = Vec::new();
        while !at.reaches(ends) {
            let (found, chunk, _permit) = self.chunk(world);
            if found != epoch {
                continue;
            }
            at.advance(&[(chunk.partition, chunk.range)].into_iter().collect())
                .expect("contiguous");
            chunks.push(chunk);
        }
        chunks
    }

    fn revoked(&mut self, world: &World) -> (Vec<Partition>, SyncSender<()>) {
        self.wait(world, "revoke", |event| match event {
            KafkaEvent::Revoked { partitions, ack, .. } => Some((partitions, ack)),
            _ => None,
        })
    }
}

fn offsets(of: &[(Partition, i64)]) -> Offsets {
    of.iter()
        .map(|(partition, offset)| (*partition, Offset::new(*offset)))
        .collect()
}

/// Nothing is known of what comes before them.
fn positions(of: &Offsets) -> BTreeMap<Partition, Position> {
    of.iter().map(|(partition, at)| (partition, at.into())).collect()
}

fn values(chunks: &[Chunk], partition: Partition) -> Vec<String> {
    let of_partition = chunks.iter().filter(|chunk| chunk.partition == partition);
    let all = of_partition.flat_map(|chunk| chunk.values.iter().map(|value| value.expect("not null").to_vec()));
    all.map(|value| String::from_utf8(value).expect("text")).collect()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("v{number}")).collect()
}

#[test]
fn a_position_past_what_its_leader_wrote_is_told_and_one_at_its_end_is_not() {
    let world = World::new();
    world.produce(P0, 0, 300);
    world.produce(P1, 0, 100);
    let mut member = world.member(&budget_of(64 << 20));
    let (generation, _) = member.assigned(&world);
    let (starts, ends) = (offsets(&[(P0, 0), (P1, 0)]), offsets(&[(P0, 300), (P1, 100)]));
    member.consumer.start_at(generation, 1, positions(&starts));
    let chunks = member.read_to(&world, 1, &starts, &ends);
    let epochs: Vec<_> = chunks.iter().map(|chunk| chunk.range.leader_epoch()).collect();
    let epoch = epochs[0].expect("the mock numbers its leaders");
    assert!(epochs.iter().all(|of_chunk| *of_chunk == Some(epoch)), "{epochs:?}");

    let at = |offset: i64, leader_epoch| Position {
        offset: Offset::new(offset),
        leader_epoch,
    };
    let admin = world.admin();
    let diverged = |p0, p1| admin.diverged(TOPIC, &[(P0, p0), (P1, p1)].into()).expect("an answer");
    assert_eq!(diverged(at(300, Some(epoch)), at(50, Some(epoch))), BTreeMap::new());
    assert_eq!(
        diverged(at(301, Some(epoch)), at(100, Some(epoch))),
        [(P0, Some(Offset::new(300)))].into()
    );
    assert_eq!(diverged(at(301, None), at(0, Some(epoch))), BTreeMap::new());

    // Read on there, it is told as an offset that is gone; the neighbour is read.
    world.produce(P1, 100, 1);
    member.consumer.seek(P0, at(301, Some(epoch)), 2);
    member.consumer.seek(P1, at(100, Some(epoch)), 2);
    let (mut gone, mut read) = (false, false);
    while !(gone && read) {
        member.wait(&world, "word of both", |event| match event {
            KafkaEvent::OffsetsGone { partition, .. } => {
                gone |= partition == P0;
                Some(())
            }
            KafkaEvent::Fetched { epoch: 2, chunk, .. } => {
                read |= chunk.partition == P1;
                Some(())
            }
            _ => None,
        });
    }
}

#[test]
fn chunks_follow_one_another_and_hold_every_record() {
    let world = World::new();
    world.produce(P0, 0, 300);
    world.produce(P1, 0, 100);
    let mut member = world.member(&budget_of(64 << 20));
    let (generation, partitions) = member.assigned(&world);
    assert_eq!(partitions, [P0, P1]);

    let (starts, ends) = (offsets(&[(P0, 10), (P1, 0)]), offsets(&[(P0, 300), (P1, 100)]));
    member.consumer.start_at(generation, 1, positions(&starts));
    let chunks = member.read_to(&world, 1, &starts, &ends);
    assert_eq!(values(&chunks, P0), numbers(10, 300));
    assert_eq!(values(&chunks, P1), numbers(0, 100));
    let first = chunks.iter().find(|chunk| chunk.partition == P0).expect("there is one");
    assert_eq!(first.keys.value(0), b"k10");
    assert_eq!(first.offset(0), Offset::new(10));
    assert_eq!(first.timestamp_ms(0), Some(1_700_000_000_010));
    assert!(first.headers.is_none());

    // Back, and only what follows the seek carries its epoch.
    member.consumer.seek(P0, Offset::new(295).into(), 2);
    let chunks = member.read_to(&world, 2, &offsets(&[(P0, 295)]), &offsets(&[(P0, 300)]));
    assert_eq!(values(&chunks, P0), numbers(295, 300));
    let at = member.wait(&world, "end", |event| match event {
        KafkaEvent::Caught {
            partition: P0,
            epoch: 2,
            at,
            ..
        } => Some(at),
        _ => None,
    });
    assert_eq!(at, Offset::new(300));

    // After an end, the very next record isn't skipped.
    world.produce(P0, 300, 1);
    let chunks = member.read_to(&world, 2, &offsets(&[(P0, 300)]), &offsets(&[(P0, 301)]));
    assert_eq!(values(&chunks, P0), numbers(300, 301));

    // Nor is one across a pause.
    member.consumer.pause();
    world.produce(P0, 301, 5);
    member.consumer.resume();
    let chunks = member.read_to(&world, 2, &offsets(&[(P0, 301)]), &offsets(&[(P0, 306)]));
    assert_eq!(values(&chunks, P0), numbers(301, 306));

    member.consumer.commit_group(ends.clone());
    member.consumer.stop();
    assert_eq!(world.admin().group_offsets("aperio-orders", TOPIC), Ok(ends));
}

#[test]
fn nulls_and_headers_arrive_as_they_were_sent() {
    let world = World::new();
    let plain = DeadLetterRecord {
        key: Some(b"a".to_vec()),
        value: Some(Vec::new()),
        ..Default::default()
    };
    let rich = DeadLetterRecord {
        key: None,
        value: None,
        headers: vec![("h".to_owned(), Some(vec![0, 255])), ("h".to_owned(), None)],
        error_headers: vec![("error".to_owned(), "no such field".to_owned())],
    };
    // One at a time: a record without a key may go to any partition.
    let letters = world.letters();
    world.runtime.block_on(letters.send(&[plain])).expect("delivered");
    world.runtime.block_on(letters.send(&[rich])).expect("delivered");
    let ends = world.admin().ends(TOPIC).expect("ends");

    let mut member = world.member(&budget_of(1 << 20));
    let (generation, _) = member.assigned(&world);
    let starts = offsets(&[(P0, 0), (P1, 0)]);
    member.consumer.start_at(generation, 0, positions(&starts));
    let chunks = member.read_to(&world, 0, &starts, &ends);
    let mut seen = 0;
    for chunk in &chunks {
        for row in 0..chunk.len() {
            seen += 1;
            if chunk.keys.is_valid(row) {
                assert_eq!(
                    (chunk.keys.value(row), chunk.values.is_valid(row)),
                    (&b"a"[..], true),
                    "empty isn't null"
                );
                continue;
            }
            assert!(chunk.values.is_null(row));
            let headers = chunk.headers.as_ref().expect("there are some").value(row);
            let headers = headers.as_struct();
            let names: Vec<_> = headers
                .column(0)
                .as_string::<i32>()
                .iter()
                .map(|name| name.expect("a name"))
                .collect();
            let bytes: Vec<_> = headers.column(1).as_binary::<i32>().iter().collect();
            assert_eq!(names, ["h", "h", "error"]);
            assert_eq!(bytes, [Some(&[0, 255][..]), None, Some(b"no such field")]);
        }
    }
    assert_eq!(seen, 2);
    member.consumer.stop();
}

#[test]
fn a_partition_leaves_only_once_its_revoke_is_acknowledged() {
    let world = World::new();
    world.produce(P0, 0, 50);
    world.produce(P1, 0, 50);
    let budget = budget_of(1 << 20);
    let mut one = world.member(&budget);
    let (generation, partitions) = one.assigned(&world);
    assert_eq!(partitions, [P0, P1]);
    let starts = offsets(&[(P0, 0), (P1, 0)]);
    one.consumer.start_at(generation, 0, positions(&starts));
    one.read_to(&world, 0, &starts, &offsets(&[(P0, 50), (P1, 50)]));

    let mut two = world.member(&budget);
    let (leaving, ack) = one.revoked(&world);
    assert_eq!(leaving.len(), 1, "cooperative: one stays where it is");
    one.consumer.commit_group(offsets(&[(leaving[0], 40)]));
    ack.send(()).expect("the thread waits");
    let (generation, came) = two.assigned(&world);
    assert_eq!(came, leaving);
    // The commit was sent before the partition left. The mock refuses it now and then, in the middle of its rebalance: then
    // the group offset, a copy, waits for the next owner's.
    let committed = world.admin().group_offsets("aperio-orders", TOPIC).expect("an answer");
    assert!(committed.get(leaving[0]).is_none_or(|offset| offset == Offset::new(40)));
    two.consumer
        .start_at(generation, 0, positions(&offsets(&[(came[0], 40)])));
    let chunks = two.read_to(&world, 0, &offsets(&[(came[0], 40)]), &offsets(&[(came[0], 50)]));
    assert_eq!(values(&chunks, came[0]), numbers(40, 50));

    // The partition that stayed goes on in its old generation.
    let stayed = if came[0] == P0 { P1 } else { P0 };
    world.produce(stayed, 50, 3);
    let chunks = one.read_to(&world, 0, &offsets(&[(stayed, 50)]), &offsets(&[(stayed, 53)]));
    assert_eq!(values(&chunks, stayed), numbers(50, 53));

    // When its neighbour stops, the first gets the partition back, in a new generation.
    two.consumer.stop();
    let (generation, back) = one.assigned(&world);
    assert_eq!(back, came);
    one.consumer
        .start_at(generation, 7, positions(&offsets(&[(back[0], 45)])));
    let chunks = one.read_to(&world, 7, &offsets(&[(back[0], 45)]), &offsets(&[(back[0], 50)]));
    assert_eq!(values(&chunks, back[0]), numbers(45, 50));
    one.consumer.stop();
}

/// What a table would hold: everything that owners of partitions read, each range where the one before ended.
struct Truth {
    at: Offsets,
    ends: Offsets,
    /// By partition: the member that reads it, with the generation and epoch of its start.
    owners: BTreeMap<Partition, (usize, u64, u64)>,
    epoch: u64,
}

impl Truth {
    /// Takes in what happened at a member, as a run would; says whether it was a rebalance.
    fn hear(&mut self, number: usize, member: &mut Member, event: KafkaEvent) -> bool {
        match event {
            KafkaEvent::Assigned { generation, partitions } => {
                self.epoch += 1;
                let mut starts = Offsets::default();
                for partition in partitions {
                    starts.set(partition, self.at.get(partition).expect("a known partition"));
                    self.owners.insert(partition, (number, generation, self.epoch));
                }
                member.consumer.start_at(generation, self.epoch, positions(&starts));
                true
            }
            KafkaEvent::Revoked { partitions, ack, .. } => {
                self.owners.retain(|partition, _| !partitions.contains(partition));
                ack.send(()).expect("the thread waits");
                true
            }
            KafkaEvent::Fetched {
                generation,
                epoch,
                chunk,
                ..
            } => {
                let partition = chunk.partition;
                if self.owners.get(&partition) == Some(&(number, generation, epoch)) {
                    let range = chunk.range;
                    self.at
                        .advance(&[(partition, range)].into_iter().collect())
                        .expect("contiguous");
                    let (start, end) = (range.start().get() as usize, range.end().get() as usize);
                    assert_eq!(values(&[chunk], partition), numbers(start, end));
                }
                false
            }
            KafkaEvent::Failed { error } => panic!("{error}"),
            KafkaEvent::OffsetsGone { partition, wanted } => panic!("{partition} has no {wanted:?}"),
            _ => false,
        }
    }
}

#[test]
fn rebalances_while_reading_skip_and_double_nothing() {
    const ROUND: usize = 500;
    let world = World::new();
    let budget = budget_of(1 << 20);
    let mut truth = Truth {
        at: offsets(&[(P0, 0), (P1, 0)]),
        ends: offsets(&[(P0, 0), (P1, 0)]),
        owners: BTreeMap::new(),
        epoch: 0,
    };
    let mut members = vec![(0, world.member(&budget))];
    let (mut rebalances, mut rounds) = (0, 0);
    let deadline = Instant::now() + 3 * WAIT;
    // A neighbour comes and goes, at the end of the topic and in the middle of it.
    while rebalances < 6 || !truth.at.reaches(&truth.ends) {
        assert!(
            Instant::now() < deadline,
            "{rebalances} rebalances, at {:?} of {:?}",
            truth.at,
            truth.ends
        );
        let mut quiet = true;
        for (number, member) in &mut members {
            while let Ok(event) = member.events.try_recv() {
                quiet = false;
                rebalances += usize::from(truth.hear(*number, member, event));
            }
        }
        if truth.owners.len() == 2 && truth.at.reaches(&truth.ends) && rebalances < 6 {
            let from = rounds * ROUND;
            rounds += 1;
            [P0, P1]
                .into_iter()
                .for_each(|partition| world.produce(partition, from, ROUND));
            truth.ends = offsets(&[P0, P1].map(|partition| (partition, (rounds * ROUND) as i64)));
            // In every second round the change comes while these are read, else after them.
            if rounds % 2 == 0 {
                if members.len() == 1 {
                    members.push((rounds, world.member(&budget)));
                } else if let Some((number, member)) = members.pop() {
                    truth.owners.retain(|_, (owner, _, _)| *owner != number);
                    member.consumer.stop();
                }
            }
        } else if quiet {
            std::thread::yield_now();
        }
    }
    members.into_iter().for_each(|(_, member)| member.consumer.stop());
}

#[test]
fn a_spent_budget_holds_records_back_and_keeps_the_membership() {
    let world = World::new();
    world.produce(P0, 0, 200);
    let budget = budget_of(64);
    let mut member = world.member(&budget);
    let (generation, _) = member.assigned(&world);
    member.consumer.start_at(generation, 0, positions(&offsets(&[(P0, 0)])));
    let (_, chunk, permit) = member.chunk(&world);
    assert_eq!(budget.available(), 0, "a chunk larger than the budget takes all of it");

    // Longer than the session timeout of 6 s: what is being shown is that time passes without harm.
    let silence = Instant::now() + Duration::from_secs(8);
    world.runtime.block_on(async {
        let until = tokio::time::Instant::from_std(silence);
        if let Ok(event) = tokio::time::timeout_at(until, member.events.recv()).await {
            panic!("nothing may come while the budget is spent, got {event:?}");
        }
    });
    drop(permit);
    let starts = offsets(&[(P0, chunk.range.end().get())]);
    let rest = member.read_to(&world, 0, &starts, &offsets(&[(P0, 200)]));
    assert_eq!(values(&[vec![chunk], rest].concat(), P0), numbers(0, 200));
    member.consumer.stop();
}

#[test]
fn an_offset_that_is_gone_is_said_and_not_jumped_over() {
    let world = World::new();
    world.produce(P0, 0, 5);
    let mut member = world.member(&budget_of(1 << 20));
    let (generation, _) = member.assigned(&world);
    member
        .consumer
        .start_at(generation, 0, positions(&offsets(&[(P0, 1000)])));
    let wanted = member.wait(&world, "an outcome", |event| match event {
        KafkaEvent::OffsetsGone { partition: P0, wanted } => Some(wanted),
        KafkaEvent::Fetched { chunk, .. } => panic!("jumped to {}", chunk.range),
        _ => None,
    });
    assert_eq!(wanted, Some(Offset::new(1000)));
    member.consumer.stop();
}

#[test]
fn brokers_answer_about_topics() {
    let world = World::new();
    world.produce(P0, 0, 20);
    world.produce(P1, 0, 10);
    let admin = world.admin();
    assert_eq!(admin.partitions(TOPIC), Ok(vec![P0, P1]));
    assert_eq!(admin.beginnings(TOPIC), Ok(offsets(&[(P0, 0), (P1, 0)])));
    assert_eq!(admin.ends(TOPIC), Ok(offsets(&[(P0, 20), (P1, 10)])));
    // The mock cluster answers every time with the end.
    assert_eq!(
        admin.offsets_for_time(TOPIC, crate::units::Millis(5)),
        Ok(offsets(&[(P0, 20), (P1, 10)]))
    );
    assert!(admin.cluster_id(TOPIC).expect("an answer").is_some());
    assert_eq!(
        admin.topic_id(TOPIC),
        Ok(None),
        "the mock cluster has no controller to ask"
    );
    assert_eq!(
        admin.partitions("missing"),
        Err(KafkaError::TopicMissing {
            topic: "missing".to_owned()
        })
    );
    assert!(admin.topics().expect("topics").contains(&TOPIC.to_owned()));
    assert_eq!(admin.group_offsets("nobody", TOPIC), Ok(Offsets::default()));

    let samples = admin.samples(TOPIC, 4, 1 << 20).expect("samples");
    let mut samples: Vec<_> = samples.into_iter().filter_map(|sample| sample.value).collect();
    samples.sort_unstable();
    let expect = ["v0", "v0", "v1", "v1", "v18", "v19", "v8", "v9"].map(|value| value.as_bytes().to_vec());
    assert_eq!(samples, expect);
}

#[test]
fn a_property_that_does_not_exist_is_refused_by_name() {
    let client = [("fetch.mim.bytes".to_owned(), "secret".to_owned())].into();
    let Err(KafkaError::Configuration { reason }) = Admin::new("localhost:1", true, &client, WAIT) else {
        panic!("a misspelt property must be refused");
    };
    assert!(
        reason.contains("fetch.mim.bytes") && !reason.contains("secret"),
        "{reason}"
    );
}

#[test]
fn a_budget_is_returned_on_drop_and_never_overdrawn() {
    let budget = budget_of(10);
    let held = budget.acquire(8, Duration::ZERO).expect("there are 10");
    assert!(budget.acquire(3, Duration::ZERO).is_none());
    let rest = budget.acquire(2, Duration::ZERO).expect("there are 2");
    drop(held);
    assert_eq!(budget.available(), 8);
    drop(rest);
    assert_eq!(budget.acquire(1000, Duration::ZERO).expect("alone").bytes(), 10);
    assert_eq!(budget.available(), 10);
}

#[test]
fn letters_take_of_the_budget_and_are_told_when_they_alone_are_in_the_way() {
    let memory = Memory::new(1 << 30);
    let budget = Budget::new(10, &memory);
    let mut letters = memory.hold(Purpose::Letters);
    letters.set(6);
    assert_eq!(budget.available(), 4);
    let chunk = budget.acquire(4, Duration::ZERO).expect("what letters leave");
    assert!(budget.acquire(1, Duration::ZERO).is_none());
    assert!(
        !budget.is_held_by_letters(),
        "a chunk is on its way, whose end gives bytes back"
    );
    drop(chunk);
    assert!(budget.acquire(5, Duration::ZERO).is_none());
    assert!(budget.is_held_by_letters());
    drop(letters);
    assert!(!budget.is_held_by_letters());
    assert_eq!(budget.acquire(5, Duration::ZERO).map(|permit| permit.bytes()), Some(5));
}
