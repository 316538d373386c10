//! A whole `aperio run --once` over a topic on a real broker, and its stages alone: records/s, CPU, memory.
//!
//! - `make bench`, or `cargo bench --bench whole_process`: everything, each format three times, 5 million records.
//!   What each table holds afterwards is counted and summed by DuckDB, else nothing is printed.
//! - `… -- [json|avro|protobuf] [RECORDS]`: one format, or so many records. Avro and Protobuf have their schema in a registry,
//!   a real one too.
//! - `… -- path FORMAT [RECORDS]`: decode, place and write alone, in memory; no broker. The one to profile.
//! - `… -- instructions FORMAT [RECORDS]`: the ratio of the whole to its stages once more, in instructions (400,000 records
//!   unless given; needs valgrind). It says nothing of caches and of the kernel, and is the same on a noisy machine.
//! - `… -- commits [COMMITS]`: what the 50th, the 500th and the last commit cost (5,000 unless given); no broker.
//!
//! It prints tables, and a line of JSON for each format. The broker runs on the same machine, so records/s is a lower bound;
//! CPU is aperio's alone.

#![allow(
    dead_code,
    unused_imports,
    reason = "the modules are the end-to-end tests', which use more of them"
)]

mod commits;
#[path = "../../tests/e2e/encode.rs"]
mod encode;
mod events;
mod instructions;
mod process;
#[path = "../../tests/e2e/produce.rs"]
mod produce;
#[path = "../../tests/e2e/proxy.rs"]
mod proxy;
#[path = "../../tests/e2e/readers.rs"]
mod readers;
#[path = "../../tests/e2e/registry.rs"]
mod registry;
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

use aperio::schema::SchemaLanguage;
use events::{CENTS, Events, FIRST_MS, Format, PARTITIONS, Sums, sums};
use process::Used;
use produce::Record;
use registry::Registry;
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
      format: {format}
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
    let format = |word: &str| {
        let mut formats = Format::ALL.into_iter();
        let found = formats.find(|format| format.name() == word);
        found.unwrap_or_else(|| panic!("json, avro or protobuf, not {word}"))
    };
    let events = |name: &str, records: u64| Events {
        format: format(name),
        schema_id: 1,
        total: records,
    };
    match *words {
        [] => {
            Format::ALL.into_iter().for_each(|format| whole(format, RECORDS));
            println!("{}", json!({"commits": commits::commits(&COMMITS)}));
        }
        [word] if word.parse::<u64>().is_ok() => {
            Format::ALL.into_iter().for_each(|format| whole(format, number(word)));
        }
        ["commits"] => drop(commits::commits(&COMMITS)),
        ["commits", last] => drop(commits::commits(&[50, 500, number(last) as usize])),
        ["instructions", name] => instructions::ratio(format(name), 400_000),
        ["instructions", name, records] => instructions::ratio(format(name), number(records)),
        // What of the instructions of `path` isn't the stages'.
        ["chunks", name, records] => {
            stages::chunks(events(name, number(records))).for_each(|chunk| drop(black_box(chunk)));
        }
        ["path", name] => path(events(name, RECORDS)),
        ["path", name, records] => path(events(name, number(records))),
        // Of their own, so that what they use can be told from the rest.
        ["consume", brokers, records, bytes] => stages::consume(brokers, TOPIC, number(records), number(bytes)),
        [name] => whole(format(name), RECORDS),
        [name, records] => whole(format(name), number(records)),
        _ => panic!(
            "a format and a number of records, behind `path` or `instructions` or nothing, or `commits`: {words:?}"
        ),
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

fn whole(format: Format, records: u64) {
    let bench = Bench::start(format, records);
    let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| bench.round()).collect();
    let bytes = bench.bytes as f64 / records as f64;
    drop(bench);
    let per_record = |seconds: f64| seconds * 1e6 / records as f64;
    for (number, round) in rounds.iter().enumerate() {
        println!("\n{}, round {}", format.name(), number + 1);
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
        "format": format.name(),
        "records": records,
        "record_bytes": rounded(bytes),
        "cpu_ratio": all(Round::ratio),
        "seconds": all(|round| round.run.seconds),
        "cpu_s": all(|round| round.run.cpu_s),
        "bare_cpu_s": all(Round::bare_s),
        "peak_rss_mib": all(|round| round.run.peak_kib as f64 / 1024.0),
    });
    println!("{figures}");
}

/// A broker whose topic holds events, and a registry that has their schema.
struct Bench {
    kafka: Kafka,
    registry: Option<Registry>,
    events: Events,
    /// What the values have together.
    bytes: u64,
}

impl Bench {
    fn start(format: Format, records: u64) -> Self {
        let kafka = Kafka::start();
        let registry = format.schema().map(|_| Registry::start());
        let mut schema_id = 0;
        if let (Some((language, text)), Some(registry)) = (format.schema(), &registry) {
            let language = match language {
                SchemaLanguage::Protobuf => "PROTOBUF",
                _ => "AVRO",
            };
            schema_id = registry.register(&format!("{TOPIC}-value"), language, text, &[]);
        }
        let events = Events {
            format,
            schema_id,
            total: records,
        };
        produce::create_topic(&kafka, TOPIC, PARTITIONS as i32, &[("compression.type", "zstd")]);
        let start = Instant::now();
        let mut bytes = 0;
        let all = (0..records).map(|n| {
            let mut value = Vec::new();
            events.write(n, &mut value);
            bytes += value.len() as u64;
            Record::of(value).partition((n % PARTITIONS) as i32)
        });
        produce::produce(&kafka, TOPIC, all);
        println!(
            "\nproduced {records} events in {}, {:.1} bytes each, in {:.1} s",
            format.name(),
            bytes as f64 / records as f64,
            start.elapsed().as_secs_f64()
        );
        // What the broker has written isn't ours to wait for.
        // SAFETY: no memory involved.
        unsafe { libc::sync() };
        Bench {
            kafka,
            registry,
            events,
            bytes,
        }
    }

    /// A folder with a pipeline file for the topic.
    fn workspace(&self) -> TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut yaml = PIPELINE.replace("{brokers}", &self.kafka.brokers());
        let mut format = self.events.format.name().to_owned();
        if let Some(registry) = &self.registry {
            format += &format!("\n      schemaRegistry: \"{}\"", registry.url());
        }
        yaml = yaml.replace("{format}", &format);
        std::fs::write(dir.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
        dir
    }

    /// A run into a new table, whose rows are counted, and the stages alone.
    fn round(&self) -> Round {
        let dir = self.workspace();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aperio"));
        command.current_dir(dir.path()).args(["run", "--once", "pipeline.yaml"]);
        command.stdin(Stdio::null());
        let run = process::run(command);
        self.check(dir.path());

        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["consume", &self.kafka.brokers()]);
        command.args([self.events.total.to_string(), self.bytes.to_string()]);
        // At the same time, as in the run: a core that shares its caches and its memory with a busy one does less.
        let (consume, path) = std::thread::scope(|threads| {
            let consume = threads.spawn(|| process::run(command));
            let path = stages::path(self.events);
            (consume.join().expect("bare consume works"), path)
        });
        Round { run, consume, path }
    }

    /// Reads the table with an engine that we didn't write: every record once, and nothing else.
    ///
    /// # Panics
    /// If the table holds anything else.
    fn check(&self, dir: &Path) {
        let records = self.events.total;
        let milliseconds = match self.events.format {
            Format::Json => "timestamp",
            Format::Avro | Format::Protobuf => "epoch_ms(timestamp)",
        };
        let columns = format!(
            "count(*) as n, count(distinct id) as ids, count(distinct (_kafka_partition, _kafka_offset)) as offsets, \
             sum(id)::bigint as id_sum, sum(user_id)::bigint as users, sum(round(amount * 100))::bigint as cents, \
             sum({milliseconds} - {FIRST_MS})::bigint as milliseconds, count(*) filter (ok) as ok, \
             sum(length(note))::bigint as notes, count(distinct session) as sessions, \
             count(*) filter (type = 'search') as searches, count(*) filter (country = 'JP') as from_japan"
        );
        let catalog = readers::Catalog::sql(&dir.join("warehouse"));
        let found = readers::select(&catalog, "default.events", &columns);
        let sums = sums(records);
        let expected = json!([{
            "n": records,
            "ids": records,
            "offsets": records,
            "id_sum": sums.ids,
            "users": sums.users,
            "cents": sums.cents,
            "milliseconds": sums.milliseconds,
            "ok": sums.ok,
            "notes": sums.notes,
            "sessions": records,
            "searches": sums.searches,
            "from_japan": sums.from_japan,
        }]);
        assert_eq!(Value::from(found), expected, "what DuckDB reads in the table");
        const { assert!(CENTS == 100) };
    }
}

/// Measures decode, place and write alone, and prints them.
fn path(events: Events) {
    let path = stages::path(events);
    let per_record = |seconds: f64| seconds * 1e6 / events.total as f64;
    println!("  decode                    {:>6.3}", per_record(path.decode_s));
    println!("  place                     {:>6.3}", per_record(path.place_s));
    println!("  write                     {:>6.3}", per_record(path.write_s));
    let bytes = path.file_bytes as f64 / events.total as f64;
    println!("  ({bytes:.1} bytes a record in {} files)", path.files);
}

fn print_wall(name: &str, used: &Used, records: u64) {
    let per_second = records as f64 / used.seconds;
    let peak_mib = used.peak_kib as f64 / 1024.0;
    let (seconds, threads) = (used.seconds, used.threads);
    println!("{name}: {per_second:.0} records/s ({seconds:.1} s), {peak_mib:.0} MiB at its peak, {threads} threads");
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
