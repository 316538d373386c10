//! What the command line prints and which code it ends with, as people and their scripts see it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in `directory`, off a terminal.
fn aperio(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aperio"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("COLUMNS")
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

/// Everything that a person sees of a command: its code and what it prints where.
fn seen(directory: &Path, arguments: &[&str]) -> String {
    let output = aperio(directory, arguments);
    let code = output.status.code().expect("no signal ended it");
    let mut text = format!("$ aperio {}\n", arguments.join(" "));
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let printed = String::from_utf8(bytes).expect("the program prints UTF-8");
        if !printed.is_empty() {
            text.push_str(&format!("--- {name}\n{printed}"));
        }
    }
    format!("{text}--- exit code {code}")
}

fn directory_with(name: &str, text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(name), text).expect("a file is written");
    directory
}

const GOOD: &str = "
partitionedTables:
  - name: orders
    schema: sales
    source: {brokers: \"127.0.0.1:1\", topic: orders, format: json}
";

const BAD: &str = "
catalog: {type: rset, wharehouse: ./w}
defaults:
  source: {brokers: \"127.0.0.1:9092\", format: json, batchWindow: 60}
partitionedTables:
  - name: orders
    source: {topic: orders, batchSzie: 100, mode: ktable, consumerConfig: {enable.auto.commit: \"true\"}}
    materialize: {partition: [date, \"buckt(4, id)\"], lateness: {threshold: 2 hours, action: drop}}
  - name: orders
    source: {topic: \"a b\", startOffset: timestamp, eventTimeFormat: epoch_milis}
    errors: {maxRejected: 120%}
";

#[test]
fn help() {
    let directory = tempfile::tempdir().expect("a directory");
    let commands = [
        "run",
        "validate",
        "check",
        "discover",
        "schema",
        "status",
        "sync-points",
        "demo",
    ];
    let mut text = seen(directory.path(), &["--help"]);
    for command in commands {
        text.push_str("\n\n");
        text.push_str(&seen(directory.path(), &[command, "--help"]));
    }
    for command in [["sync-points", "reset"], ["schema", "check"]] {
        text.push_str("\n\n");
        text.push_str(&seen(directory.path(), &[command[0], command[1], "--help"]));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_command_line_that_is_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let lines: [&[&str]; 5] = [
        &["rnu"],
        &["run"],
        &["run", "a.yaml", "--memory", "512"],
        &["run", "a.yaml", "--retry-for", "60"],
        &["validate", "missing.yaml"],
    ];
    let texts = lines.map(|line| seen(directory.path(), line));
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn validate_tells_every_problem_with_its_line() {
    let directory = directory_with("bad.yaml", BAD);
    insta::assert_snapshot!(seen(directory.path(), &["validate", "bad.yaml"]));
}

#[test]
fn validate_tells_what_a_good_file_does() {
    let directory = directory_with("good.yaml", GOOD);
    insta::assert_snapshot!(seen(directory.path(), &["validate", "good.yaml"]));
}

#[test]
fn a_run_without_a_right_file_still_gives_a_report() {
    let directory = directory_with("good.yaml", GOOD);
    for (arguments, error) in [
        (
            ["run", "--once", "good.yaml", "--output", "json", "--table", "order"],
            "no table is named `order`",
        ),
        (
            ["run", "--once", "gone.yaml", "--output", "json", "--table", "order"],
            "gone.yaml: can't be read",
        ),
    ] {
        let output = aperio(directory.path(), &arguments);
        assert_eq!(output.status.code(), Some(2));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert_eq!(report["exitCode"], 2);
        assert_eq!(report["tables"], serde_json::json!([]));
        let run = report["run"].as_str().expect("a run has an id");
        assert!(uuid::Uuid::parse_str(run).is_ok(), "{run}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(error), "{told}");
    }
}

#[test]
fn sync_points_that_are_not_there_yet() {
    let directory = directory_with("good.yaml", GOOD);
    insta::assert_snapshot!(seen(directory.path(), &["sync-points", "show", "good.yaml"]));
}

#[test]
fn the_schema_of_the_pipeline_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = aperio(directory.path(), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let keys: Vec<_> = schema["properties"].as_object().expect("an object").keys().collect();
    insta::assert_debug_snapshot!(keys);
}
