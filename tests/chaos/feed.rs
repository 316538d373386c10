//! What flows into a topic meanwhile: numbered events, records that can become no row, transactions that are committed,
//! aborted, or left open by a producer that is gone.
//!
//! Nothing here is believed at the end: the truth is what the broker then serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::dice::Dice;
use crate::{Table, say};

/// Records a second outside of transactions, to each topic.
const RATE: u64 = 100;
/// Of so many records one is a reject: enough for the services to meet in the dead-letter table every second.
const POISON: u64 = 100;
/// Of so many transactions one is left open, and a third aborted.
const LEFT_OPEN: u64 = 30;
/// A table's first numbers aren't the feed's: they are of what the topic begins and ends with.
pub const NUMBERS_APART: i64 = 1_000;
/// How often the steady producer sends.
const BEAT: Duration = Duration::from_millis(100);
/// The most that anything asked of the broker takes, which may be down for a while.
const LIMIT: Duration = Duration::from_secs(30);

/// What the producers and those who watch them share.
#[derive(Default)]
pub struct Flow {
    stopped: AtomicBool,
    next: AtomicI64,
    /// Partitions of the topic, by which records are spread.
    pub partitions: AtomicI64,
    /// Fields that records hold besides the first ones.
    pub fields: AtomicI64,
    /// Records outside of transactions that the broker has said yes to.
    pub delivered: AtomicU64,
    /// Those that it hasn't, though it may have them.
    pub undelivered: AtomicU64,
    /// Transactions that were committed, aborted, and left alone.
    pub transactions: [AtomicU64; 3],
}

impl Flow {
    /// The next record and the partition that it goes to.
    fn record(&self, dice: &mut Dice) -> (i32, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let partition = number % self.partitions.load(Ordering::Relaxed);
        let partition = i32::try_from(partition).expect("few partitions");
        if dice.once_in(POISON) {
            return (partition, reject(number));
        }
        let kind = ["view", "order"][(number % 2) as usize];
        let mut value = format!(r#"{{"id":{number},"kind":"{kind}","name":"n{number}""#);
        for field in 0..self.fields.load(Ordering::Relaxed) {
            value.push_str(&format!(r#","more_{field}":{number}"#));
        }
        value.push('}');
        (partition, value)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What can become no row, whatever the table has become: it is no JSON, no object, or its number is a text.
pub fn reject(number: i64) -> String {
    match number % 3 {
        0 => format!(r#"{{"id":{number}, no JSON}}"#),
        1 => format!("[{number}]"),
        _ => format!(r#"{{"id":"no. {number}","kind":"view","name":"n{number}"}}"#),
    }
}

/// The producers at work; dropped, they are told to stop.
pub struct Feed {
    /// What they share with others.
    pub flow: Arc<Flow>,
    producers: Vec<JoinHandle<()>>,
}

impl Feed {
    /// Starts them on the topic of a table, which is there.
    pub fn start(brokers: String, table: &Table, partitions: i64, seed: u64) -> Self {
        let flow = Arc::new(Flow::default());
        flow.partitions.store(partitions, Ordering::Relaxed);
        flow.next.store(table.first + NUMBERS_APART, Ordering::Relaxed);
        let (topic, seed) = (table.topic, seed ^ table.first.cast_unsigned());
        let (own, servers, dice) = (Arc::clone(&flow), brokers.clone(), Dice(seed ^ 0xFEED));
        let steady = std::thread::spawn(move || steady(&own, &servers, topic, dice));
        let (own, dice) = (Arc::clone(&flow), Dice(seed ^ 0x7A_115A));
        let transactions = std::thread::spawn(move || transactions(&own, &brokers, topic, dice));
        Self {
            flow,
            producers: vec![steady, transactions],
        }
    }

    /// Panics if a producer has.
    pub fn expect_alive(&self) {
        let ended = self.producers.iter().any(JoinHandle::is_finished);
        assert!(!ended, "a producer ended");
    }

    /// Stops them, and waits until the broker has said yes or no to everything; no transaction is open then.
    pub fn stop(mut self) {
        self.flow.stopped.store(true, Ordering::Relaxed);
        for producer in self.producers.drain(..) {
            producer.join().expect("a producer ends by itself");
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.flow.stopped.store(true, Ordering::Relaxed);
    }
}

/// Counts what the broker says to each record.
struct Counting(Arc<Flow>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            &self.0.delivered
        } else {
            &self.0.undelivered
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("linger.ms", "20");
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    config
}

fn steady(flow: &Arc<Flow>, brokers: &str, topic: &str, mut dice: Dice) {
    let context = Counting(Arc::clone(flow));
    let producer: BaseProducer<Counting> = config(brokers).create_with_context(context).expect("a producer");
    while !flow.stopped() {
        for _ in 0..RATE * BEAT.as_millis() as u64 / 1000 {
            let (partition, value) = flow.record(&mut dice);
            let record = BaseRecord::<(), String>::to(topic).partition(partition).payload(&value);
            if producer.send(record).is_err() {
                // A partition that it doesn't know yet, or a full queue: this number is never in the topic.
                flow.undelivered.fetch_add(1, Ordering::Relaxed);
            }
        }
        producer.poll(BEAT);
        std::thread::sleep(BEAT);
    }
    producer.flush(LIMIT).expect("the broker takes all");
}

fn transactions(flow: &Flow, brokers: &str, topic: &str, mut dice: Dice) {
    let mut producer = None;
    // Ends: when told to, after one transaction at most.
    while !flow.stopped() {
        std::thread::sleep(Duration::from_millis(200 + dice.roll(2000)));
        match transaction(&mut producer, flow, brokers, topic, &mut dice) {
            Ok(end) => {
                flow.transactions[end].fetch_add(1, Ordering::Relaxed);
            }
            // Whether it was committed is for the broker to say. The next producer ends it in any case.
            Err(_) => producer = None,
        }
    }
    // A new one of the same name ends what is open; by now the broker is up.
    drop(producer);
    begin(brokers, topic).expect("the broker starts transactions");
}

fn begin(brokers: &str, topic: &str) -> Result<BaseProducer, KafkaError> {
    let producer: BaseProducer = config(brokers)
        .set("transactional.id", topic)
        .set("transaction.timeout.ms", "10000")
        .create()?;
    producer.init_transactions(LIMIT)?;
    Ok(producer)
}

/// One transaction; returns whether it was committed (0), aborted (1) or left alone (2).
fn transaction(
    known: &mut Option<BaseProducer>,
    flow: &Flow,
    brokers: &str,
    topic: &str,
    dice: &mut Dice,
) -> Result<usize, KafkaError> {
    let producer = match known {
        Some(producer) => producer,
        None => known.insert(begin(brokers, topic)?),
    };
    producer.begin_transaction()?;
    for _ in 0..=dice.roll(20) {
        let (partition, value) = flow.record(dice);
        let record = BaseRecord::<(), String>::to(topic).partition(partition).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    match dice.roll(LEFT_OPEN) {
        0 => {
            *known = None;
            // Its records hold back what readers of committed records see, until it times out or is ended.
            let seconds = dice.roll(15);
            say!("a producer is gone and leaves a transaction open in {topic}, for {seconds} s at most");
            for _ in 0..seconds * 10 {
                if !flow.stopped() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            Ok(2)
        }
        end if end <= LEFT_OPEN / 3 => producer.abort_transaction(LIMIT).map(|()| 1),
        _ => producer.commit_transaction(LIMIT).map(|()| 0),
    }
}
