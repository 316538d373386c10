//! Instructions of a whole run over those of its stages, counted by callgrind.

use std::process::{Command, Stdio};

use super::Bench;
use super::events::Format;

/// Prints what a run over `records` events takes, and what the stages alone do.
///
/// # Panics
/// If valgrind is missing, or the run doesn't write every record.
pub fn ratio(format: Format, records: u64) {
    let bench = Bench::start(format, records);
    let dir = bench.workspace();
    let run = instructions(
        env!("CARGO_BIN_EXE_aperio"),
        &["run", "--once", "pipeline.yaml"],
        dir.path(),
    );
    bench.check(dir.path());
    let this = std::env::current_exe().expect("this program has a path");
    let this = this.to_str().expect("a path in UTF-8");
    let alone = |words: &[&str]| instructions(this, words, dir.path());
    let (name, number) = (format.name(), records.to_string());
    let bytes = bench.bytes.to_string();
    let consume = alone(&["consume", &bench.kafka.brokers(), &number, &bytes]);
    let path = alone(&["path", name, &number]) - alone(&["chunks", name, &number]);

    let per_record = |count: u64| count / records;
    println!("\ninstructions per record, {records} records, {name}");
    println!("  a whole run, its start included {:>7}", per_record(run));
    println!("  bare consume                    {:>7}", per_record(consume));
    println!("  bare decode + place + write     {:>7}", per_record(path));
    println!(
        "  the first over the others       {:>7.2}",
        run as f64 / (consume + path) as f64
    );
}

/// Runs a program under callgrind and returns the instructions of all its threads, outside of the kernel.
fn instructions(program: &str, arguments: &[&str], dir: &std::path::Path) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", program])
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("valgrind is installed (Debian, Ubuntu: `apt-get install valgrind`)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let counted = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = counted.unwrap_or_else(|| panic!("callgrind says what it counted: {said}"));
    count.trim().parse().expect("a number")
}
