//! Memory and lines under load: many partition values, many dead letters, several lines in one window.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog};
use crate::servers::Kafka;

/// A pipeline file of one table, named like its topic.
fn workspace(kafka: &Kafka, topic: &str, source: &str, rest: &str) -> Workspace {
    let brokers = kafka.brokers();
    Workspace::new(&format!(
        "partitionedTables:\n  - name: {topic}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      format: json\n{source}{rest}"
    ))
}

/// What the run used, in MiB: at its peak by the operating system, and as counted.
///
/// # Panics
/// If it used more than it was allowed, or the report contradicts itself.
fn assert_within(outcome: &Outcome, limit_mib: u64) -> (u64, u64) {
    let report = outcome.report();
    let memory = &report["memory"];
    let number = |key: &str| memory[key].as_i64().unwrap_or_else(|| panic!("no `{key}` in {memory}"));
    assert_eq!(number("limit"), i64::try_from(limit_mib << 20).expect("a small limit"));
    assert_eq!(number("headroom"), number("limit") - number("peakResident"), "{memory}");
    assert!(number("headroom") > 0, "more than `--memory` was used: {memory}");
    assert!(number("peakCounted") > 0, "{memory}");
    let mib = |key| number(key).unsigned_abs() >> 20;
    (mib("peakResident"), mib("peakCounted"))
}

fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder that was just seen") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_backlog_over_two_thousand_values_is_few_files_within_the_memory() {
    const VALUES: u64 = 2_000;
    // For more than CI has time for: `APERIO_LOAD_RECORDS=5000000 cargo test … load::a_backlog -- --nocapture`.
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let records = set("APERIO_LOAD_RECORDS").unwrap_or(400_000);
    let memory_mib = set("APERIO_LOAD_MIB").unwrap_or(256);
    let (kafka, topic) = (Kafka::shared(), "load_values");
    produce::create_topic(kafka, topic, 4, &[]);
    let record = |n: u64| {
        let (shop, amount) = (n * 7_919 % VALUES, n % 1_000);
        let text = format!(
            r#"{{"id":{n},"shop":{shop},"amount":{amount}.25,"kind":"k{}","note":"{:040x}","a":{amount},"b":{n},"c":true,"d":"{n:012}"}}"#,
            n % 7,
            n * 0x9e37_79b9
        );
        Record::of(text).partition((n % 4) as i32)
    };
    produce::produce(kafka, topic, (0..records).map(record));
    // Closed by size alone, and by one line, however fast the machine is.
    let source = "      batchWindow: 1h\n";
    let work = workspace(kafka, topic, source, "    materialize: {partition: [shop]}\n");
    let memory = format!("{memory_mib}MiB");
    let outcome = work
        .start_once(&["--output", "json", "--lines", "1", "--memory", &memory])
        .wait()
        .expect_code(0);
    let (resident_mib, counted_mib) = assert_within(&outcome, memory_mib);
    let report = outcome.report();
    let table = &report["tables"][0];
    let windows = table["windows"].as_array().map_or(0, Vec::len) as u64;
    assert_eq!(table["rowsWritten"], records);
    assert_eq!(windows, records.div_ceil(1_000_000), "windows of `batchSize`");
    // Some 50 chunks hold every value each. In a quarter of a GiB not all values may keep their file open.
    let files = table["filesWritten"].as_u64().unwrap_or(0);
    println!(
        "{records} records, {memory_mib} MiB: peak {resident_mib} MiB, counted {counted_mib} MiB, {files} files, {} bytes, \
         {windows} windows, {} ms",
        table["bytesWritten"], table["millis"]
    );
    assert!(
        (VALUES * windows..=2 * VALUES * windows).contains(&files),
        "{files} files of {VALUES} values in {windows} windows"
    );
    let columns = "count(*) as n, count(distinct id) as ids, sum(id)::bigint as id_sum, count(distinct shop) as shops, \
        count(distinct (_kafka_partition, _kafka_offset)) as offsets";
    let found = readers::select(&Catalog::sql(&work.warehouse()), &format!("default.{topic}"), columns);
    let expected = json!({
        "n": records, "ids": records, "id_sum": records * (records - 1) / 2, "shops": VALUES, "offsets": records
    });
    assert_eq!(found, [expected]);
}

#[test]
fn many_tables_of_one_process_share_its_memory() {
    const TABLES: usize = 12;
    const RECORDS: u64 = 40_000;
    let kafka = Kafka::shared();
    let mut yaml = "partitionedTables:\n".to_owned();
    for table in 0..TABLES {
        let topic = format!("load_many_{table}");
        produce::create_topic(kafka, &topic, 2, &[]);
        let record = |n: u64| Record::of(format!(r#"{{"id":{n},"text":"{n:0200}"}}"#)).partition((n % 2) as i32);
        produce::produce(kafka, &topic, (0..RECORDS).map(record));
        let brokers = kafka.brokers();
        yaml.push_str(&format!(
            "  - name: {topic}\n    source: {{brokers: \"{brokers}\", topic: {topic}, format: json}}\n"
        ));
    }
    let work = Workspace::new(&yaml);
    let refused = work.start_once(&["--memory", "128MiB"]).wait().expect_code(2);
    assert!(
        refused.stderr.contains("too little for 12 tables"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("it takes 160.0 MiB at least"),
        "{}",
        refused.stderr
    );

    let outcome = work
        .start_once(&["--output", "json", "--memory", "192MiB"])
        .wait()
        .expect_code(0);
    let (resident_mib, counted_mib) = assert_within(&outcome, 192);
    println!("{TABLES} tables, 192 MiB: peak {resident_mib} MiB, counted {counted_mib} MiB");
    let report = outcome.report();
    let tables = report["tables"].as_array().expect("tables");
    assert!(tables.iter().all(|table| table["rowsWritten"] == RECORDS), "{report:#}");
}

#[test]
fn dead_letters_beyond_the_memory_close_their_windows_early() {
    const RECORDS: u64 = 150_000;
    let (kafka, topic) = (Kafka::shared(), "load_letters");
    produce::create_topic(kafka, topic, 2, &[]);
    let record = |n: u64| {
        let text = match n % 100 {
            0 => format!(r#"{{"id":{n}}}"#),
            _ => format!("{n} is no JSON {:01000}", 0),
        };
        Record::of(text).partition((n % 2) as i32)
    };
    produce::produce(kafka, topic, (0..RECORDS).map(record));
    let columns = "    columns: [{name: id, type: long}]\n";
    let work = workspace(kafka, topic, "", columns);
    let arguments = ["--output", "json", "--memory", "256MiB"];
    let refused = work.start_once(&arguments).wait().expect_code(3);
    assert!(refused.stderr.contains("too many records"), "{}", refused.stderr);
    assert_within(&refused, 256);

    work.rewrite(&format!(
        "{}    errors: {{maxRejected: 100%}}\n",
        std::fs::read_to_string(work.path().join("pipeline.yaml")).expect("the pipeline file")
    ));
    let outcome = work.start_once(&arguments).wait().expect_code(0);
    assert_within(&outcome, 256);
    let report = outcome.report();
    let table = &report["tables"][0];
    let reasons: Vec<&Value> = table["windows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|window| &window["reason"])
        .collect();
    assert!(reasons.contains(&&json!("memory")), "{reasons:?}");
    assert_eq!(table["rejected"], RECORDS / 100 * 99);
    let catalog = Catalog::sql(&work.warehouse());
    let letters = readers::select(
        &catalog,
        &format!("default.{topic}_dead_letters"),
        "count(*) as n, count(distinct (partition, \"offset\")) as offsets",
    );
    assert_eq!(
        letters,
        [json!({"n": RECORDS / 100 * 99, "offsets": RECORDS / 100 * 99})]
    );
    let rows = readers::select(
        &catalog,
        &format!("default.{topic}"),
        "count(*) as n, sum(id)::bigint as ids",
    );
    let ids: u64 = (0..RECORDS).step_by(100).sum();
    assert_eq!(rows, [json!({"n": RECORDS / 100, "ids": ids})]);
}

#[test]
fn several_lines_fill_a_window_once_they_are_behind_also_while_columns_are_added() {
    const RECORDS: u64 = 400_000;
    let (kafka, topic) = (Kafka::shared(), "load_lines");
    produce::create_topic(kafka, topic, 6, &[]);
    let record = |n: u64| {
        // New fields in the middle of windows, in several Kafka partitions at about the same time.
        let more = match n / 50_000 {
            0 => String::new(),
            block => format!(r#","f{block}":{n}"#),
        };
        Record::of(format!(r#"{{"id":{n},"text":"{n:080}","side":{}{more}}}"#, n % 3)).partition((n % 6) as i32)
    };
    produce::produce(kafka, topic, (0..RECORDS).map(record));
    let source = "      batchSize: 60000\n";
    let work = workspace(kafka, topic, source, "    materialize: {partition: [side]}\n");
    let arguments = [
        "run",
        "--once",
        "--output",
        "json",
        "--memory",
        "96MiB",
        "--lines",
        "3",
        "pipeline.yaml",
    ];
    // Lines so slow that reading waits for them, however fast this machine decodes.
    let slow = [("FAILPOINTS", "Inside(ChunkTaken)=20*sleep(500)")];
    let outcome = Aperio::start_with(work.path(), &arguments, &slow).wait().expect_code(0);
    let files = parquet_files(&work.warehouse());
    // The second line's number ends the stem of its files: `{run}-{window}-1-{unique}-{file}.parquet`.
    let of_second = files.iter().filter(|file| {
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.split('-').nth_back(2) == Some("1"))
    });
    assert!(of_second.count() > 0, "no second line took part: {outcome:#?}");
    let columns = "count(*) as n, count(distinct id) as ids, sum(id)::bigint as id_sum, count(f1) as f1, count(f7) as f7, \
        sum(f3)::bigint as f3, count(distinct (_kafka_partition, _kafka_offset)) as offsets";
    let found = readers::select(&Catalog::sql(&work.warehouse()), &format!("default.{topic}"), columns);
    let expected = json!({
        "n": RECORDS, "ids": RECORDS, "id_sum": RECORDS * (RECORDS - 1) / 2, "f1": 50_000, "f7": 50_000,
        "f3": (150_000..200_000_u64).sum::<u64>(), "offsets": RECORDS
    });
    assert_eq!(found, [expected]);
}

/// A line of an ordinary structured log, some 1.5 KB.
fn log_line(n: u64) -> Record {
    let text = format!(
        r#"{{"id":{n},"level":"INFO","service":"checkout-{}","host":"node-{}.eu-west-1.internal","trace":"{:032x}","message":"{}","labels":"{}"}}"#,
        n % 5,
        n % 40,
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        "request handled without an error by the upstream service ".repeat(12),
        "team=payments,tier=backend,zone=a;".repeat(18),
    );
    Record::of(text).partition((n % 16) as i32)
}

fn one_letter(n: u64) -> Record {
    Record::of(format!(r#"{{"id":{n},"text":"{}"}}"#, "a".repeat(500_000))).partition((n % 16) as i32)
}

#[test]
fn what_is_packed_well_stays_within_the_memory_once_unpacked() {
    type Make = fn(u64) -> Record;
    let kafka = Kafka::shared();
    let topics: [(&str, &str, Make, u64, &[u64]); 3] = [
        ("load_logs_zstd", "zstd", log_line, 160_000, &[128, 256]),
        ("load_logs_lz4", "lz4", log_line, 80_000, &[128]),
        ("load_one_letter", "zstd", one_letter, 1_600, &[256, 512]),
    ];
    for (topic, codec, make, records, runs) in topics {
        produce::create_topic(kafka, topic, 16, &[]);
        produce::produce_packed(kafka, topic, codec, (0..records).map(make));
        for memory_mib in runs {
            let work = workspace(kafka, topic, "", "");
            let memory = format!("{memory_mib}MiB");
            let outcome = work
                .start_once(&["--output", "json", "--memory", &memory])
                .wait()
                .expect_code(0);
            let report = outcome.report();
            println!("{topic}, {memory}: {}, {} ms", report["memory"], report["millis"]);
            assert_within(&outcome, *memory_mib);
            assert_eq!(report["tables"][0]["rowsWritten"], records);
        }
    }
}

#[test]
fn a_batch_that_is_larger_than_the_memory_says_so() {
    let (kafka, topic) = (Kafka::shared(), "load_batch");
    produce::create_topic(kafka, topic, 1, &[]);
    let letters = format!(r#"{{"id":1,"text":"{}"}}"#, "a".repeat(60_000_000));
    produce::produce_packed(kafka, topic, "zstd", [Record::of(r#"{"id":0}"#)]);
    produce::produce_packed(kafka, topic, "zstd", [Record::of(letters)]);
    let columns = "    columns: [{name: id, type: long}, {name: text, type: string}]\n";
    let work = workspace(kafka, topic, "", columns);
    let refused = work
        .start_once(&["--output", "json", "--memory", "128MiB"])
        .wait()
        .expect_code(2);
    let told = format!("a batch of {topic}/0 can't be unpacked within `--memory 128.0 MiB`");
    assert!(refused.stderr.contains(&told), "{refused:#?}");
    assert!(refused.stderr.contains("reading stopped at offset 1"), "{refused:#?}");
    assert_within(&refused, 128);
    let outcome = work
        .start_once(&["--output", "json", "--memory", "1GiB"])
        .wait()
        .expect_code(0);
    assert_eq!(outcome.report()["tables"][0]["rowsWritten"], 1);
}

#[test]
fn without_a_limit_many_tables_get_the_memory_that_they_take() {
    const TABLES: u64 = 60;
    let (kafka, topic) = (Kafka::shared(), "load_default");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(kafka, topic, [Record::of(r#"{"id":0}"#)]);
    let mut yaml = "partitionedTables:\n".to_owned();
    for table in 0..TABLES {
        let brokers = kafka.brokers();
        yaml.push_str(&format!(
            "  - name: load_default_{table}\n    source: {{brokers: \"{brokers}\", topic: {topic}, format: json}}\n"
        ));
    }
    let work = Workspace::new(&yaml);
    let outcome = work.start_once(&["--output", "json"]).wait().expect_code(0);
    assert_within(&outcome, 64 + 8 * TABLES);
    assert!(
        outcome.stderr.contains("`--memory` isn't set: 544.0 MiB"),
        "{}",
        outcome.stderr
    );
}
