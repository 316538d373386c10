//! What is done to the services and to what they stand on, one act after the other, by dice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::feed::Flow;
use crate::instances::Instances;
use crate::servers::{Fault, Kafka, Proxy};
use crate::{INSTANCES, PARTITIONS, TABLES, produce, say, setup};

/// Partitions that are added to a topic at most.
const PARTITIONS_MORE: i64 = 3;
/// Fields that appear in a topic's records at most.
const FIELDS_MAX: i64 = 5;
/// What a catalog's commit meets.
const FAULTS: [Fault; 12] = [
    Fault::SwallowAnswer,
    Fault::SwallowAnswer,
    Fault::LieAfter(500),
    Fault::LieAfter(503),
    Fault::LieAfter(409),
    Fault::Refuse(500),
    Fault::Refuse(503),
    Fault::Refuse(409),
    Fault::Refuse(429),
    Fault::Refuse(401),
    Fault::Cut,
    Fault::Hang,
];

/// One kind of act.
#[derive(Clone, Copy)]
enum Act {
    Kill,
    Freeze,
    Stop,
    Once,
    Broker,
    Partition,
    Field,
    Fault,
    Storm,
    Lock,
}

/// Each kind, by how many of its kind are among as many acts as the sum, and whether it needs a REST catalog (`true`), a
/// SQLite one (`false`), or either.
const KINDS: [(Act, &str, u64, Option<bool>); 10] = [
    (Act::Kill, "kills", 8, None),
    (Act::Freeze, "freezes", 8, None),
    (Act::Stop, "stops", 5, None),
    (Act::Once, "once_runs", 3, None),
    (Act::Broker, "broker_kills", 2, None),
    (Act::Partition, "partitions_added", 1, None),
    (Act::Field, "fields_added", 1, None),
    (Act::Fault, "catalog_faults", 6, Some(true)),
    (Act::Storm, "catalog_storms", 2, Some(true)),
    (Act::Lock, "catalog_locks", 3, Some(false)),
];

/// Who does it all.
pub struct Acts {
    dice: Dice,
    kafka: Arc<Kafka>,
    proxy: Option<Proxy>,
    /// One for each of [`TABLES`].
    flows: Vec<Arc<Flow>>,
    dir: PathBuf,
    next: Instant,
    broker: Option<(Instant, JoinHandle<()>)>,
    /// Until when the catalog's answers are spoiled.
    storm: Arc<Mutex<Instant>>,
    lock: Option<Child>,
    /// How many acts there were of each kind.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Acts {
    /// Acts that are all told by `seed`; `proxy` stands before the catalog if that is REST.
    pub fn new(seed: u64, kafka: Arc<Kafka>, proxy: Option<Proxy>, flows: Vec<Arc<Flow>>, dir: &Path) -> Self {
        let storm = Arc::new(Mutex::new(Instant::now()));
        if let Some(proxy) = &proxy {
            let (until, mut dice) = (Arc::clone(&storm), Dice(seed ^ 0x570_0213));
            proxy.guard(move |request| {
                let blows = Instant::now() < *until.lock().expect("no panic holds it");
                match blows && dice.once_in(if request.is_commit() { 2 } else { 4 }) {
                    true => FAULTS[dice.index(FAULTS.len())],
                    false => Fault::Pass,
                }
            });
        }
        Self {
            dice: Dice(seed),
            kafka,
            proxy,
            flows,
            dir: dir.to_owned(),
            next: Instant::now() + Duration::from_secs(10),
            broker: None,
            storm,
            lock: None,
            counts: BTreeMap::new(),
        }
    }

    /// Does what is due, and has the instances do the same.
    pub fn look_after(&mut self, instances: &mut Instances) {
        if self.broker.as_ref().is_some_and(|(_, thread)| thread.is_finished()) {
            self.await_broker(instances);
        }
        if self
            .lock
            .as_mut()
            .is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
        {
            self.lock = None;
        }
        instances.look_after(self.broker.is_some());
        if self.next > Instant::now() {
            return;
        }
        self.next = Instant::now() + Duration::from_millis(500 + self.dice.roll(6000));
        let fits = |needs: Option<bool>| needs.is_none_or(|rest| rest == self.proxy.is_some());
        let kinds: Vec<_> = KINDS.into_iter().filter(|kind| fits(kind.3)).collect();
        let mut at = self.dice.roll(kinds.iter().map(|kind| kind.2).sum());
        let drawn = kinds.into_iter().find(|kind| {
            let this = at < kind.2;
            at = at.saturating_sub(kind.2);
            this
        });
        let (act, name, ..) = drawn.expect("below the sum");
        if let Some(told) = self.play(act, instances) {
            say!("{told}");
            *self.counts.entry(name).or_default() += 1;
        }
    }

    /// Does one; returns what was done, or `None` if it can't be now.
    fn play(&mut self, act: Act, instances: &mut Instances) -> Option<String> {
        let index = self.dice.index(INSTANCES);
        match act {
            Act::Kill => instances.kill(index, &mut self.dice),
            Act::Freeze => instances.freeze(index, &mut self.dice),
            Act::Stop => instances.stop(index),
            Act::Once if self.broker.is_none() => instances.once(),
            Act::Broker if self.broker.is_none() => Some(self.kill_broker()),
            Act::Partition if self.broker.is_none() => self.add_partition(),
            Act::Field => {
                let at = self.dice.index(TABLES.len());
                let (flow, topic) = (&self.flows[at], TABLES[at].topic);
                let fields = flow.fields.load(Ordering::Relaxed);
                (fields < FIELDS_MAX).then(|| {
                    flow.fields.store(fields + 1, Ordering::Relaxed);
                    format!("records of {topic} have a field more: `more_{fields}`")
                })
            }
            Act::Fault => {
                let (nth, fault) = (1 + self.dice.index(4), FAULTS[self.dice.index(FAULTS.len())]);
                self.proxy.as_ref()?.on_commit(nth, fault);
                Some(format!("the catalog's commit {nth} from now: {fault:?}"))
            }
            Act::Storm => {
                let long = Duration::from_millis(2000 + self.dice.roll(13_000));
                *self.storm.lock().expect("no panic holds it") = Instant::now() + long;
                Some(format!(
                    "the catalog's answers are spoiled for {:.1} s",
                    long.as_secs_f64()
                ))
            }
            Act::Lock if self.lock.is_none() => {
                let seconds = 1 + self.dice.roll(4);
                let mut command = Command::new(setup::part("python").join("bin/python"));
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/hold_sqlite.py"));
                command
                    .arg(self.dir.join("warehouse/catalog.db"))
                    .args([&seconds.to_string(), "1"]);
                self.lock = Some(setup::spawn(command));
                Some(format!("the catalog's file is locked for {seconds} s"))
            }
            Act::Once | Act::Broker | Act::Partition | Act::Lock => None,
        }
    }

    fn kill_broker(&mut self) -> String {
        let away = Duration::from_millis(self.dice.roll(10_000));
        let kafka = Arc::clone(&self.kafka);
        let thread = std::thread::spawn(move || {
            kafka.kill();
            std::thread::sleep(away);
            kafka.start_again();
        });
        self.broker = Some((Instant::now(), thread));
        format!(
            "kill -9 of the broker, away for {:.1} s and its start",
            away.as_secs_f64()
        )
    }

    fn add_partition(&mut self) -> Option<String> {
        let at = self.dice.index(TABLES.len());
        let (flow, topic) = (&self.flows[at], TABLES[at].topic);
        let partitions = flow.partitions.load(Ordering::Relaxed);
        if partitions >= i64::from(PARTITIONS) + PARTITIONS_MORE {
            return None;
        }
        produce::add_partitions(&self.kafka, topic, partitions as usize + 1);
        flow.partitions.store(partitions + 1, Ordering::Relaxed);
        Some(format!("{topic} has a partition more: {partitions}"))
    }

    fn await_broker(&mut self, instances: &mut Instances) {
        let Some((since, thread)) = self.broker.take() else {
            return;
        };
        thread.join().expect("the broker starts again");
        say!("the broker is back after {:.1} s", since.elapsed().as_secs_f64());
        instances.outage(since.elapsed());
    }

    /// Brings back what is away; nothing is spoiled any more.
    pub fn end(&mut self, instances: &mut Instances) {
        self.await_broker(instances);
        if let Some(proxy) = &self.proxy {
            proxy.pass();
        }
        if let Some(mut child) = self.lock.take() {
            setup::kill_group(&mut child);
        }
    }
}

impl Drop for Acts {
    fn drop(&mut self) {
        if let Some(child) = &mut self.lock {
            setup::kill_group(child);
        }
        if let Some((_, thread)) = self.broker.take() {
            // Else it would start a broker after its folder is gone.
            let _ = thread.join();
        }
    }
}
