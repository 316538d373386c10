//! Instructions per record, counted by callgrind.

use std::process::{Command, Stdio};

use super::{CHUNK_RECORDS, CHUNKS, PAIRS, print_pair};

/// Rounds of the two runs whose difference is counted: what comes before the first record is in both.
const ROUNDS: [u64; 2] = [1, 3];

/// Prints what each decoder takes.
///
/// # Panics
/// If valgrind is missing.
pub fn print() {
    println!("instructions per record");
    for pair in PAIRS {
        let [ours, others] = [pair.format, pair.other].map(per_record);
        print_pair(&pair, ours, others);
    }
}

fn per_record(name: &str) -> f64 {
    let [few, many] = ROUNDS.map(|rounds| instructions(name, rounds));
    (many - few) as f64 / ((ROUNDS[1] - ROUNDS[0]) * (CHUNKS * CHUNK_RECORDS) as u64) as f64
}

/// Runs one decoder under callgrind and returns the instructions outside of the kernel.
fn instructions(name: &str, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args([name, &rounds.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("valgrind is installed (Debian, Ubuntu: `apt-get install valgrind`)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    let counted = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = counted.unwrap_or_else(|| panic!("callgrind says what it counted: {said}"));
    count.trim().parse().expect("a number")
}
