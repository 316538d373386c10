//! A whole `aperio run --once` over a topic on a real broker: records/s, CPU per record, peak memory.
//!
//! `make bench`, or `cargo bench --bench whole_process -- [RECORDS]` (5 million unless given). It prints one line of
//! JSON at its end. The broker runs on the same machine, so records/s is a lower bound; the CPU is aperio's alone.

#![allow(dead_code, reason = "the modules are the end-to-end tests', which use more of them")]

#[path = "../tests/e2e/produce.rs"]
mod produce;
#[path = "../tests/e2e/servers.rs"]
mod servers;
#[path = "../tests/e2e/setup.rs"]
mod setup;

use std::fmt::Write as _;
use std::io;
use std::mem::MaybeUninit;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use produce::Record;
use servers::Kafka;

const RECORDS: u64 = 5_000_000;
const RECORD_BYTES: usize = 200;
const PARTITIONS: i32 = 4;
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

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let records = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(RECORDS);
    let kafka = Kafka::start();
    produce::create_topic(&kafka, TOPIC, PARTITIONS, &[("compression.type", "zstd")]);
    let start = Instant::now();
    produce::produce(&kafka, TOPIC, (0..records).map(event));
    println!(
        "produced {records} events of {RECORD_BYTES} bytes in {:.1} s",
        start.elapsed().as_secs_f64()
    );

    let dir = tempfile::tempdir().expect("a temporary folder");
    let yaml = PIPELINE.replace("{brokers}", &kafka.brokers());
    std::fs::write(dir.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_aperio"));
    command
        .current_dir(dir.path())
        .args(["run", "--once", "pipeline.yaml"])
        .stdin(Stdio::null());
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 reaps it and says what it used")]
    let child = setup::spawn(command);
    let id = child.id();
    let sampler = std::thread::spawn(move || peak_kib(id));
    let (status, usage) = wait_with_usage(id).expect("the child can be waited for");
    let seconds = start.elapsed().as_secs_f64();
    if status != 0 {
        eprintln!("aperio ended with wait status {status:#x}: nothing is measured");
        return ExitCode::FAILURE;
    }
    let cpu_s = time_s(usage.ru_utime) + time_s(usage.ru_stime);
    let per_second = records as f64 / seconds;
    let cpu_us = cpu_s * 1e6 / records as f64;
    let peak_mib = sampler.join().expect("the sampler doesn't panic") as f64 / 1024.0;
    println!("{per_second:.0} records/s, {cpu_us:.3} CPU-µs per record, {peak_mib:.0} MiB at its peak");
    println!(
        r#"{{"records": {records}, "seconds": {seconds:.3}, "records_per_s": {per_second:.0}, "cpu_us_per_record": {cpu_us:.4}, "peak_rss_mib": {peak_mib:.1}}}"#
    );
    ExitCode::SUCCESS
}

/// The `n`-th event: the same in every run, of exactly [`RECORD_BYTES`], spread over a day and all partitions.
fn event(n: u64) -> Record {
    let mixed = n
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let country = ["DE", "FR", "US", "JP", "BR", "IN", "GB", "CA"][(mixed % 8) as usize];
    let kind = ["view", "click", "order", "search"][(mixed >> 8) as usize % 4];
    let timestamp = 1_700_000_000_000 + n * 86_400_000 / RECORDS;
    let mut text = String::with_capacity(RECORD_BYTES + 16);
    write!(
        text,
        r#"{{"id":{n},"user_id":{},"type":"{kind}","country":"{country}","amount":{}.{:02},"timestamp":{timestamp},"session":"{mixed:016x}","ok":{},"note":""#,
        mixed % 1_000_000,
        mixed % 500,
        (mixed >> 16) % 100,
        mixed.is_multiple_of(3),
    )
    .expect("a string takes everything");
    let mut filler = mixed;
    while text.len() < RECORD_BYTES - 2 {
        text.push(char::from(b'a' + (filler % 26) as u8));
        filler = filler.rotate_right(5);
    }
    text.push_str("\"}");
    Record::of(text).partition((n % PARTITIONS as u64) as i32)
}

/// The peak resident memory of a process, in KiB, as last seen before it ended.
///
/// Not `ru_maxrss`: that counts what the forked child shared with this process before it became aperio.
fn peak_kib(id: u32) -> u64 {
    let mut peak = 0;
    // Ends with the process: one that is gone has no file, one that is dead but not reaped no such line.
    while let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()) else {
            break;
        };
        peak = kib;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    peak
}

/// Waits for a child and says what it used: `getrusage` for exactly that one.
fn wait_with_usage(id: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::zeroed();
    // SAFETY: both pointers are to live values of the right types; rusage is plain integers, valid when zeroed.
    let (waited, usage) = unsafe {
        let waited = libc::wait4(
            i32::try_from(id).expect("process ids are small"),
            &mut status,
            0,
            usage.as_mut_ptr(),
        );
        (waited, usage.assume_init())
    };
    if waited < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok((status, usage))
    }
}

fn time_s(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}
