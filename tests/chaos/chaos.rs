//! Chaos: four services share two tables, which share a data path and a dead-letter table, while they are killed, frozen and
//! stopped, their broker dies, their catalog lies, Spark compacts and expires, partitions and columns are added. At the end
//! each table equals its topic, and the letters are the records that can become no row.
//!
//! `make chaos`, or `cargo bench --profile dev --features failpoints --bench chaos -- [MINUTES] [SEED] [--catalog
//! sql|rest] [--keep] [--spoil WHAT]`: 60 minutes unless given, a seed of this moment, SQLite for even seeds and REST for
//! odd ones; with `--keep` the folder with the tables and all logs stays, which it else does on failure only. A seed gives
//! the same acts in the same order; when each happens to strike is up to the machine.
//!
//! `--spoil` shows that the comparison sees something: before it, Spark deletes a `letter` or a `row`, stores a letter or a
//! row again (`letter-twice`, `row-twice`), or gives a letter to the other pipeline (`letter-moved`). It must fail then.
//!
//! Everything is on loopback and ends with this process. It prints a line for each act, one each minute, the figures, and
//! one line of JSON. Exit code 1: something was lost, doubled, or ended as it may not; what is left of it is kept, and said
//! where. 130: it was interrupted.

#![allow(
    dead_code,
    unused_imports,
    reason = "modules are shared with the end-to-end tests and the simulation, which use more of them"
)]

#[path = "../e2e/aperio.rs"]
mod aperio;
#[path = "../sim/dice.rs"]
mod dice;
#[path = "../e2e/produce.rs"]
mod produce;
#[path = "../e2e/proxy.rs"]
mod proxy;
#[path = "../e2e/readers.rs"]
mod readers;
#[path = "../e2e/servers.rs"]
mod servers;
#[path = "../e2e/setup.rs"]
mod setup;

/// Prints a line with the time since the start.
macro_rules! say {
    ($($text:tt)*) => { println!("{:>7.1} s  {}", $crate::since_start().as_secs_f64(), format_args!($($text)*)) };
}
use say;

mod acts;
mod feed;
mod instances;
mod neighbour;
mod reports;
mod verdict;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use acts::Acts;
use feed::Feed;
use instances::Instances;
use neighbour::Neighbour;
use produce::Record;
use readers::{Catalog, Spark};
use servers::{Kafka, Proxy, RestCatalog};
use verdict::{Stored, Truth, Verdict};

/// A table and what feeds it.
struct Table {
    name: &'static str,
    full_name: &'static str,
    topic: &'static str,
    /// The lowest number of its events: no two tables have one in common.
    first: i64,
}

const TABLES: [Table; 2] = [
    Table {
        name: "events",
        full_name: "default.events",
        topic: "chaos-events",
        first: 0,
    },
    Table {
        name: "clicks",
        full_name: "default.clicks",
        topic: "chaos-clicks",
        first: 1_000_000_000,
    },
];
/// The dead-letter table that they share.
const LETTERS: &str = "default.dead_letters";
/// The directory that they keep their data in.
const SHARED: &str = "shared";
const PARTITIONS: i32 = 6;
const INSTANCES: usize = 4;
/// As long as the pipeline file may take: a longer one leaves more than a test should on a disk.
const MINUTES_MAX: u64 = 240;
/// What the start and the end may take besides; after that somebody waits for ever.
const BESIDES: Duration = Duration::from_secs(25 * 60);

/// What comes before the tables in the pipeline file.
const DEFAULTS: &str = r#"
defaults:
  source:
    type: kafka
    brokers: "{brokers}"
    format: json
    batchWindow: 2s
    maxPollRecords: 50
    consumerConfig:
      session.timeout.ms: "3000"
      heartbeat.interval.ms: "500"
      topic.metadata.refresh.interval.ms: "1000"
  materialize:
    partition: [kind]
    tableProperties:
      write.data.path: "{shared}"
      write.metadata.previous-versions-max: "50"
      commit.manifest.min-count-to-merge: "20"
  errors: {maxRejected: 1000, deadLetter: {table: dead_letters}}
partitionedTables:
"#;

/// What `--spoil` takes, and the statements of it. The letter is of what the first partition begins with.
const SPOILS: [(&str, &str); 5] = [
    (
        "letter",
        "DELETE FROM dead_letters WHERE pipeline = 'default.events' AND partition = 0 AND offset = 1",
    ),
    (
        "letter-twice",
        "INSERT INTO dead_letters SELECT * FROM dead_letters WHERE pipeline = 'default.events' AND partition = 0 AND offset = 1",
    ),
    (
        "letter-moved",
        "UPDATE dead_letters SET pipeline = 'default.clicks' WHERE pipeline = 'default.events' AND partition = 0 AND offset = 1",
    ),
    (
        "row",
        "DELETE FROM clicks WHERE _kafka_partition = 0 AND _kafka_offset = 0",
    ),
    (
        "row-twice",
        "INSERT INTO clicks SELECT * FROM clicks WHERE _kafka_partition = 0 AND _kafka_offset = 0",
    ),
];

/// Asked to end by Ctrl-C or SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The time since the start.
fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    minutes: f64,
    seed: u64,
    rest: bool,
    keep: bool,
    /// The statement that spoils the tables before they are compared.
    spoil: Option<&'static str>,
}

impl Asked {
    fn read() -> Self {
        // Cargo adds `--bench`.
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        let (mut numbers, mut rest, mut keep, mut spoil) = (Vec::new(), None, false, None);
        while let Some(word) = words.next() {
            if word == "--catalog" {
                rest = match words.next().as_deref() {
                    Some("sql") => Some(false),
                    Some("rest") => Some(true),
                    other => panic!("--catalog is sql or rest, not {other:?}"),
                };
            } else if word == "--keep" {
                keep = true;
            } else if word == "--spoil" {
                let asked = words.next().unwrap_or_default();
                let known = SPOILS.iter().find(|(name, _)| *name == asked);
                spoil = Some(
                    known
                        .unwrap_or_else(|| panic!("--spoil takes none of {SPOILS:?} as `{asked}`"))
                        .1,
                );
            } else {
                numbers.push(word);
            }
        }
        assert!(
            numbers.len() <= 2,
            "[MINUTES] [SEED] [--catalog sql|rest] [--keep] [--spoil WHAT], not {numbers:?}"
        );
        let minutes: f64 = numbers
            .first()
            .map_or(60.0, |word| word.parse().expect("a number of minutes"));
        assert!(
            minutes > 0.0 && minutes <= MINUTES_MAX as f64,
            "1 to {MINUTES_MAX} minutes, not {minutes}"
        );
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = numbers.get(1).map_or_else(
            || now().expect("it is after 1970").as_secs() % 1_000_000,
            |word| word.parse().expect("a seed is a number"),
        );
        let rest = rest.unwrap_or(seed % 2 == 1);
        Self {
            minutes,
            seed,
            rest,
            keep,
            spoil,
        }
    }
}

fn main() -> ExitCode {
    since_start();
    let asked = Asked::read();
    catch_signals();
    let limit = Duration::from_secs_f64(asked.minutes * 60.0) + BESIDES;
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        say!("it doesn't end: something waits for ever");
        // The kernel kills what was started along with this process.
        std::process::exit(1);
    });
    let catalog = if asked.rest { "rest" } else { "sql" };
    println!(
        "chaos for {} minutes, seed {}, catalog {catalog}",
        asked.minutes, asked.seed
    );
    let dir = tempfile::Builder::new()
        .prefix("aperio-chaos-")
        .tempdir()
        .expect("a temporary folder");
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| play(asked, dir.path())));
    let failed = match played {
        Ok(Some(differences)) if differences.is_empty() => None,
        Ok(None) => return ExitCode::from(130),
        Ok(Some(differences)) => Some(differences.join("\n  ")),
        Err(_) => Some("what is said above".to_owned()),
    };
    let Some(failed) = failed else {
        println!("the tables equal the topics, and the letters what can become no row");
        if asked.keep {
            println!("kept: {}", dir.keep().display());
        }
        return ExitCode::SUCCESS;
    };
    println!("FAILED, seed {}, catalog {catalog}:\n  {failed}", asked.seed);
    println!("kept: {}", dir.keep().display());
    ExitCode::FAILURE
}

/// Ctrl-C ends it in order; the second one at once.
fn catch_signals() {
    extern "C" fn interrupted(signal: libc::c_int) {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            // SAFETY: _exit is async-signal-safe.
            unsafe { libc::_exit(128 + signal) };
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler touches an atomic and `_exit` only.
        unsafe { libc::signal(signal, interrupted as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Plays it; returns what differs at the end, or `None` if it was interrupted.
fn play(asked: Asked, dir: &Path) -> Option<Vec<String>> {
    let kafka = Arc::new(Kafka::start());
    let rest = asked.rest.then(|| RestCatalog::start(&dir.join("rest")));
    let proxy = rest.as_ref().map(|rest| Proxy::start(rest.address()));
    let (catalog, sync_points) = match &rest {
        Some(rest) => (Catalog::Rest { uri: rest.uri() }, "state/default"),
        None => (Catalog::sql(&dir.join("warehouse")), "warehouse/.aperio/default"),
    };
    let shared = dir.join(SHARED);
    prepare(&kafka, proxy.as_ref(), dir, &shared);

    let feeds: Vec<_> = TABLES
        .iter()
        .map(|table| Feed::start(kafka.brokers(), table, i64::from(PARTITIONS), asked.seed))
        .collect();
    let flows: Vec<_> = feeds.iter().map(|feed| Arc::clone(&feed.flow)).collect();
    let mut instances = Instances::start(dir, INSTANCES);
    let neighbour = Neighbour::start(catalog.clone(), asked.seed);
    let mut acts = Acts::new(asked.seed, Arc::clone(&kafka), proxy, flows.clone(), dir);
    let end = Duration::from_secs_f64(asked.minutes * 60.0) + since_start();
    let mut next_status = since_start() + Duration::from_secs(60);
    while since_start() < end {
        if INTERRUPTED.load(Ordering::Relaxed) {
            say!("interrupted");
            return None;
        }
        feeds.iter().for_each(Feed::expect_alive);
        neighbour.expect_alive();
        acts.look_after(&mut instances);
        if since_start() >= next_status {
            next_status += Duration::from_secs(60);
            let delivered: u64 = flows.iter().map(|flow| flow.delivered.load(Ordering::Relaxed)).sum();
            let ((rows, letters), commits) = (neighbour.seen(), instances.commits());
            let acts = acts.counts.values().sum::<u64>();
            say!(
                "-- {rows} rows, {letters} letters, {delivered} records delivered besides transactions, {commits} commits, \
                 {acts} acts"
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    say!("no more acts: everything is started again");
    acts.end(&mut instances);
    instances.all_up();
    std::thread::sleep(Duration::from_secs(10));
    let spark = neighbour.stop();
    // So that the newest commit is one of ours again.
    std::thread::sleep(Duration::from_secs(5));
    feeds.into_iter().for_each(Feed::stop);
    say!("no more records; the services stop");
    instances.stop_all();
    let before = Stored::count(&catalog);
    TABLES.iter().for_each(|table| produce_last(&kafka, table));
    say!("the last records; one `--once` runs");
    let last = instances.last_once();
    let after = Stored::count(&catalog);
    if let Some(statement) = asked.spoil {
        say!("Spark spoils it: {statement}");
        Spark::start(&catalog).try_sql(statement).expect("Spark takes it");
    }
    let truths: Vec<_> = TABLES.iter().map(|table| Truth::read(&kafka, table)).collect();
    let points = dir.join(sync_points).join("sync_points.parquet");
    let mut verdict = Verdict::reach(&truths, &catalog, &points, &shared);
    verdict.judge_reports(&truths, &instances.seen.reports.sums);
    verdict.judge_last(&before, &after, &last);
    report(asked, &acts.counts, &spark, &instances, &flows, &verdict);
    Some(verdict.differences)
}

/// Makes the topics, with what each partition begins with, the pipeline file, and by a first run the tables.
fn prepare(kafka: &Kafka, proxy: Option<&Proxy>, dir: &Path, shared: &Path) {
    for table in &TABLES {
        produce::create_topic(kafka, table.topic, PARTITIONS, &[]);
        let first = (0..PARTITIONS).flat_map(|partition| {
            let number = table.first + i64::from(partition);
            let event = format!(r#"{{"id":{number},"kind":"first","name":"first"}}"#);
            // A number that is a text would make the inferred column one of text.
            [event, "{no JSON".to_owned()].map(|value| Record::of(value).partition(partition))
        });
        produce::produce(kafka, table.topic, first);
    }
    let catalog = proxy.map_or(String::new(), |proxy| {
        format!(
            "catalog: {{type: rest, uri: \"{}\", warehouse: \"\"}}\nstateDir: state\n",
            proxy.uri()
        )
    });
    let defaults = DEFAULTS
        .replace("{brokers}", &kafka.brokers())
        .replace("{shared}", &shared.display().to_string());
    let tables = TABLES
        .each_ref()
        .map(|Table { name, topic, .. }| format!("  - {{name: {name}, source: {{topic: {topic}}}}}\n"));
    let yaml = format!("{catalog}{defaults}{}", tables.concat());
    std::fs::write(dir.join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
    aperio::Aperio::run(dir, &["run", "--once", "pipeline.yaml"]).expect_code(0);
}

/// What a topic ends with: events and rejects for a run that is alone.
fn produce_last(kafka: &Kafka, table: &Table) {
    let numbers = table.first + i64::from(PARTITIONS)..table.first + feed::NUMBERS_APART;
    let last = numbers.map(|number| {
        let value = match number % 10 {
            0 => feed::reject(number),
            _ => format!(r#"{{"id":{number},"kind":"last","name":"last"}}"#),
        };
        Record::of(value).partition((number % i64::from(PARTITIONS)) as i32)
    });
    produce::produce(kafka, table.topic, last);
}

fn report(
    asked: Asked,
    acts: &BTreeMap<&'static str, u64>,
    spark: &BTreeMap<String, u64>,
    instances: &Instances,
    flows: &[Arc<feed::Flow>],
    verdict: &Verdict,
) {
    let ended = |end: usize| -> u64 {
        let of = |flow: &Arc<feed::Flow>| flow.transactions[end].load(Ordering::Relaxed);
        flows.iter().map(of).sum()
    };
    let [committed, aborted, left] = [0, 1, 2].map(ended);
    println!(
        "\nacts           {acts:?}\nSpark          {spark:?}\nseen in logs   {:?}",
        instances.seen.lines
    );
    println!("ends           {:?}", instances.seen.ends);
    println!("transactions   {committed} committed, {aborted} aborted, {left} left open");
    println!("seconds        {:.0}\n", since_start().as_secs_f64());
    println!("{}\n", verdict.counts.join("\n"));
    let figures = json!({
        "seed": asked.seed, "catalog": if asked.rest { "rest" } else { "sql" }, "minutes": asked.minutes,
        "seconds": since_start().as_secs(), "acts": acts, "spark": spark, "logs": instances.seen.lines,
        "ends": instances.seen.ends,
        "transactions": {"committed": committed, "aborted": aborted, "left_open": left},
        "stored": verdict.figures, "equal": verdict.differences.is_empty(),
    });
    println!("{figures}");
}
