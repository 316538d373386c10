//! A whole `aperio run --once` over a topic on a real broker, and its stages alone: records/s, CPU, memory.
//!
//! - `make bench`, or `cargo bench --bench whole_process -- [RECORDS]` (5 million unless given): everything, three times.
//!   What each table holds afterwards is counted and summed by DuckDB, else nothing is printed.
//! - `… -- path [RECORDS]`: decode, place and write alone, in memory; no broker. The one to profile.
//! - `… -- instructions [RECORDS]`: the ratio of the whole to its stages once more, in instructions (400,000 records unless
//!   given; needs valgrind). It says nothing of caches and of the kernel, and is the same on a noisy machine.
//! - `… -- commits [COMMITS]`: what the 50th, the 500th and the last commit cost (5,000 unless given); no broker.
//!
//! It prints a table, and one line of JSON at its end. The broker runs on the same machine, so records/s is a lower bound;
//! CPU is aperio's alone.

#![allow(
    dead_code,
    unused_imports,
    reason = "the modules are the end-to-end tests', which use more of them"
)]

mod commits;
mod events;
mod instructions;
mod process;
#[path = "../../tests/e2e/produce.rs"]
mod produce;
#[path = "../../tests/e2e/proxy.rs"]
mod proxy;
#[path = "../../tests/e2e/readers.rs"]
mod readers;
#[path = "../../tests/e2e/servers.rs"]
mod servers;
#[path = "../../tests/e2e/setup.rs"]
mod setup;
mod stages;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use events::{CENTS, EVENT_BYTES, PARTITIONS, cents, event};
use process::Used;
use produce::Record;
use servers::Kafka;
use tempfile::TempDir;

const RECORDS: u64 = 5_000_000;
/// How often the whole is measured: these figures follow what else a machine does.
const ROUNDS: usize = 3;
/// The commits whose cost is told.
const COMMITS: [usize; 3] = [50, 500, 5000];
const TOPIC: &str = "bench-events";
const PIPELINE: &str = r#"
partitionedTables:
  - name: events
    source:
      type: kafka
      brokers: "{brokers}"
      topic: bench-events
      format: json
      eventTimeField: timestamp
      eventTimeFormat: epoch_millis
    materialize:
      partition: [date, hour]
"#;

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse().expect("the number of records");
    match *words {
        [] => whole(RECORDS, &COMMITS),
        ["commits"] => drop(commits::commits(&COMMITS)),
        ["commits", last] => drop(commits::commits(&[50, 500, number(last) as usize])),
        ["instructions"] => instructions::ratio(400_000),
        ["instructions", records] => instructions::ratio(number(records)),
        // What of the instructions of `path` isn't the stages'.
        ["chunks", records] => stages::chunks(number(records)).for_each(|chunk| drop(black_box(chunk))),
        ["path"] => path(RECORDS),
        ["path", records] => path(number(records)),
        // Of their own, so that what they use can be told from the rest.
        ["consume", brokers, records] => stages::consume(brokers, TOPIC, number(records)),
        [records] => whole(number(records), &COMMITS),
        _ => panic!("the number of records, or `path` and that number, or `commits` and theirs: {words:?}"),
    }
}

/// One run, and right after it the stages alone.
struct Round {
    run: Used,
    consume: Used,
    path: stages::Path,
}

impl Round {
    /// CPU seconds of the stages.
    fn bare_s(&self) -> f64 {
        self.consume.cpu_s + self.path.decode_s + self.path.write_s
    }

    fn ratio(&self) -> f64 {
        self.run.cpu_s / self.bare_s()
    }
}

fn whole(records: u64, marks: &[usize]) {
    let kafka = filled(records);
    let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&kafka, records)).collect();
    drop(kafka);
    let per_record = |seconds: f64| seconds * 1e6 / records as f64;
    for (number, round) in rounds.iter().enumerate() {
        println!("\nround {}", number + 1);
        print_wall("whole process", &round.run, records);
        print_wall("bare consume", &round.consume, records);
        let (run, bare) = (per_record(round.run.cpu_s), per_record(round.bare_s()));
        println!(
            "CPU-µs per record: {run:.3}, and {bare:.3} for bare consume + decode + write: {:.2}",
            round.ratio()
        );
    }
    rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let Round { run, consume, path } = &rounds[rounds.len() / 2];
    println!("\nthe middle one, CPU-µs per record");
    for (name, seconds) in run.by_thread.iter().filter(|(_, seconds)| *seconds >= 0.01) {
        println!("  thread {name:<18} {:>6.3}", per_record(*seconds));
    }
    for (name, seconds) in [
        ("all threads", run.cpu_s),
        ("bare consume", consume.cpu_s),
        ("bare decode", path.decode_s),
        ("place", path.place_s),
        ("bare write", path.write_s),
    ] {
        println!("  {name:<25} {:>6.3}", per_record(seconds));
    }
    let all = |figure: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(|round| rounded(figure(round))).collect() };
    let figures = json!({
        "records": records,
        "cpu_ratio": all(Round::ratio),
        "seconds": all(|round| round.run.seconds),
        "cpu_s": all(|round| round.run.cpu_s),
        "bare_cpu_s": all(Round::bare_s),
        "peak_rss_mib": all(|round| round.run.peak_kib as f64 / 1024.0),
        "commits": commits::commits(marks),
    });
    println!("{figures}");
}

/// Starts a broker whose topic holds `records` events.
fn filled(records: u64) -> Kafka {
    let kafka = Kafka::start();
    produce::create_topic(&kafka, TOPIC, PARTITIONS as i32, &[("compression.type", "zstd")]);
    let start = Instant::now();
    produce::produce(&kafka, TOPIC, (0..records).map(|n| record(n, records)));
    let seconds = start.elapsed().as_secs_f64();
    println!("produced {records} events of {EVENT_BYTES} bytes in {seconds:.1} s");
    // What the broker has written isn't ours to wait for.
    // SAFETY: no memory involved.
    unsafe { libc::sync() };
    kafka
}

/// A folder with a pipeline file for the topic.
fn workspace(kafka: &Kafka) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let yaml = PIPELINE.replace("{brokers}", &kafka.brokers());
    std::fs::write(dir.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
    dir
}

/// A run into a new table, whose rows are counted, and the stages alone.
fn round(kafka: &Kafka, records: u64) -> Round {
    let dir = workspace(kafka);
    let mut command = Command::new(env!("CARGO_BIN_EXE_aperio"));
    command.current_dir(dir.path()).args(["run", "--once", "pipeline.yaml"]);
    command.stdin(Stdio::null());
    let run = process::run(command);
    check(dir.path(), records);

    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["consume", &kafka.brokers(), &records.to_string()]);
    // At the same time, as in the run: a core that shares its caches and its memory with a busy one does less.
    let (consume, path) = std::thread::scope(|threads| {
        let consume = threads.spawn(|| process::run(command));
        let path = stages::path(records);
        (consume.join().expect("bare consume works"), path)
    });
    Round { run, consume, path }
}

/// Measures decode, place and write alone, and prints them.
fn path(records: u64) {
    let path = stages::path(records);
    let per_record = |seconds: f64| seconds * 1e6 / records as f64;
    println!("  decode                    {:>6.3}", per_record(path.decode_s));
    println!("  place                     {:>6.3}", per_record(path.place_s));
    println!("  write                     {:>6.3}", per_record(path.write_s));
    let bytes = path.file_bytes as f64 / records as f64;
    println!("  ({bytes:.1} bytes a record in {} files)", path.files);
}

fn print_wall(name: &str, used: &Used, records: u64) {
    let per_second = records as f64 / used.seconds;
    let peak_mib = used.peak_kib as f64 / 1024.0;
    let (seconds, threads) = (used.seconds, used.threads);
    println!("{name}: {per_second:.0} records/s ({seconds:.1} s), {peak_mib:.0} MiB at its peak, {threads} threads");
}

/// Reads the table with an engine that we didn't write: every record once, and nothing else.
///
/// # Panics
/// If the table holds anything else.
fn check(dir: &Path, records: u64) {
    let catalog = readers::Catalog::sql(&dir.join("warehouse"));
    let columns = "count(*) as n, count(distinct id) as ids, sum(id)::bigint as id_sum, \
        sum(round(amount * 100))::bigint as cents, count(distinct (_kafka_partition, _kafka_offset)) as offsets";
    let found = readers::select(&catalog, "default.events", columns);
    let expected = json!([{
        "n": records,
        "ids": records,
        "id_sum": records * records.saturating_sub(1) / 2,
        "cents": (0..records).map(cents).sum::<u64>(),
        "offsets": records,
    }]);
    assert_eq!(Value::from(found), expected, "what DuckDB reads in the table");
    const { assert!(CENTS == 100) };
}

/// The `n`-th event in its Kafka partition.
fn record(n: u64, records: u64) -> Record {
    let mut text = String::new();
    event(n, records, &mut text);
    Record::of(text).partition((n % PARTITIONS) as i32)
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
