//! `aperio schema check` in a git repository, and without one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What git asks for before it commits; nothing of the machine's own settings counts.
const IDENTITY: [(&str, &str); 6] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "a"),
    ("GIT_AUTHOR_EMAIL", "a@example.com"),
    ("GIT_COMMITTER_NAME", "a"),
    ("GIT_COMMITTER_EMAIL", "a@example.com"),
];

/// Keeps a command, and the git that it runs, from repositories around the test's.
fn alone(command: &mut Command) {
    command
        .envs(IDENTITY)
        .env("GIT_CEILING_DIRECTORIES", std::env::temp_dir());
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
}

/// A repository with one file, `schemas/sales/orders.avsc`.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().expect("a directory"));
        fs::create_dir_all(repository.0.path().join("schemas/sales")).expect("a directory");
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.0.path());
        alone(&mut command);
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Writes the file with these fields, each a name and the rest of its JSON.
    fn write(&self, fields: &[(&str, &str)]) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, rest)| format!(r#"{{"name":"{name}",{rest}}}"#))
            .collect();
        let schema = format!(r#"{{"type":"record","name":"Order","fields":[{}]}}"#, fields.join(","));
        fs::write(self.0.path().join(FILE), schema).expect("a file is written");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "m"]);
    }

    /// Runs the check; returns its code, and what it prints, ids of commits made alike.
    fn check(&self, arguments: &[&str]) -> (i32, String, String) {
        check_in(self.0.path(), arguments)
    }
}

const FILE: &str = "schemas/sales/orders.avsc";
const ID: &str = r#""type":"long""#;

fn check_in(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aperio"));
    command.args(["schema", "check"]).args(arguments).current_dir(directory);
    alone(&mut command);
    let output = command.output().expect("the program starts");
    let printed = [output.stdout, output.stderr].map(|bytes| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        let mut parts = text.split("commit ");
        let mut all = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
            all.push_str(if rest.len() < part.len() {
                "commit …"
            } else {
                "commit "
            });
            all.push_str(rest);
        }
        all
    });
    let [stdout, stderr] = printed;
    (output.status.code().expect("no signal ended it"), stdout, stderr)
}

#[test]
fn a_change_is_compared_with_what_is_committed() {
    let repository = Repository::new();
    repository.write(&[("id", ID)]);
    // Nothing is committed yet; then this file isn't; then it is.
    let new = format!("{FILE}: new, `HEAD` has no version of it; 1 column\n");
    assert_eq!(repository.check(&[FILE]), (0, new.clone(), String::new()));
    fs::write(repository.0.path().join("other"), "").expect("a file");
    repository.git(&["add", "other"]);
    repository.git(&["commit", "--quiet", "--message", "m"]);
    assert_eq!(repository.check(&[FILE]), (0, new, String::new()));
    repository.commit();
    let same = format!("{FILE}: compatible, backward, with commit … of `HEAD`; 1 column\n");
    assert_eq!(repository.check(&[FILE]), (0, same.clone(), String::new()));

    repository.write(&[("id", ID), ("note", r#""type":"string""#)]);
    let (code, stdout, stderr) = repository.check(&[FILE]);
    assert_eq!((code, stderr.as_str()), (3, ""));
    insta::assert_snapshot!(stdout);
    repository.write(&[("id", ID), ("note", r#""type":"string","default":"""#)]);
    let wider = same.replace("1 column", "2 columns");
    assert_eq!(repository.check(&[FILE]), (0, wider, String::new()));
    // A directory further in, where the path is another.
    let (code, stdout, _) = check_in(&repository.0.path().join("schemas"), &["sales/orders.avsc"]);
    assert_eq!(
        (code, stdout.contains("compatible, backward, with commit")),
        (0, true),
        "{stdout}"
    );
}

#[test]
fn every_mode_and_every_version() {
    let repository = Repository::new();
    let versions: [&[(&str, &str)]; 3] = [
        &[("id", ID), ("note", r#""type":"string""#)],
        &[("id", ID), ("note", r#""type":"string","default":"""#)],
        &[("id", ID)],
    ];
    for version in versions {
        repository.write(version);
        repository.commit();
    }
    // What may follow the last version may not follow the first.
    repository.write(&[("id", ID), ("note", r#""type":"bytes","default":"""#)]);
    for (mode, code) in [
        ("none", 0),
        ("backward", 0),
        ("backward_transitive", 0),
        ("forward", 0),
        ("forward-transitive", 0),
        ("FULL", 0),
        ("full_transitive", 0),
    ] {
        let (found, stdout, stderr) = repository.check(&["--compatibility", mode, FILE]);
        assert_eq!(found, code, "{mode}: {stdout}{stderr}");
    }
    repository.write(&[("id", ID), ("note", r#""type":"long","default":0"#)]);
    for (mode, code) in [
        ("backward", 0),
        ("backward_transitive", 3),
        ("forward", 0),
        ("forward_transitive", 3),
        ("full", 0),
        ("full_transitive", 3),
    ] {
        let (found, stdout, stderr) = repository.check(&["--compatibility", mode, FILE]);
        assert_eq!(found, code, "{mode}: {stdout}{stderr}");
    }
    let (_, stdout, _) = repository.check(&["--compatibility", "full_transitive", FILE]);
    insta::assert_snapshot!(stdout);
    // An older commit, and a file that was not there then.
    let (code, stdout, _) = repository.check(&["--against", "HEAD~2", FILE]);
    assert_eq!((code, stdout.contains("`HEAD~2`")), (3, true), "{stdout}");
    fs::copy(
        repository.0.path().join(FILE),
        repository.0.path().join("schemas/b.avsc"),
    )
    .expect("a copy");
    let (code, stdout, _) = repository.check(&["--against", "main", "schemas/b.avsc"]);
    assert_eq!(code, 0);
    assert_eq!(stdout, "schemas/b.avsc: new, `main` has no version of it; 2 columns\n");
}

#[test]
fn a_program_reads_json() {
    let repository = Repository::new();
    repository.write(&[("id", ID)]);
    repository.commit();
    repository.write(&[("id", r#""type":"int""#)]);
    let (code, stdout, _) = repository.check(&["--output", "json", FILE]);
    let mut report: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(code, 3);
    report["files"][0]["comparisons"][0]["versions"] = json!([]);
    report["files"][0]["comparisons"][0]["findings"][0]["version"] = json!("");
    let finding = json!({
        "version": "", "direction": "backward", "path": "$.id", "rule": "type", "new": "`int`", "old": "`long`",
        "hint": "keep the type or widen it, or add a field of another name",
    });
    let comparison = json!({
        "kind": "git", "with": "HEAD", "mode": "backward", "verdict": "incompatible", "versions": [], "findings": [finding],
        "registryMessages": [],
    });
    let file = json!({
        "file": FILE, "ok": false, "exitCode": 3, "columns": 1, "comparisons": [comparison], "errors": [],
    });
    assert_eq!(report, json!({"exitCode": 3, "files": [file]}));
}

#[test]
fn what_is_no_schema_is_told_and_the_others_are_checked() {
    let repository = Repository::new();
    repository.write(&[("id", ID)]);
    repository.commit();
    repository.write(&[("id", r#""type":"int""#)]);
    for (name, text) in [
        ("a.avsc", "{"),
        (
            "b.avsc",
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"sales.Gone"}]}"#,
        ),
        (
            "c.avsc",
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int","default":"x"}]}"#,
        ),
        ("d.json", r#"{"type":"string"}"#),
        (
            "e.proto",
            "syntax = \"proto3\"; import \"gone.proto\"; message M { Gone g = 1; }",
        ),
        ("f.txt", ""),
    ] {
        fs::write(repository.0.path().join(name), text).expect("a file is written");
    }
    let files = [
        "a.avsc",
        "b.avsc",
        "c.avsc",
        "d.json",
        "e.proto",
        "f.txt",
        "gone.avsc",
        FILE,
    ];
    let (code, stdout, stderr) = repository.check(&files);
    // The smallest code of all.
    assert_eq!(code, 2);
    insta::assert_snapshot!(format!("{stdout}--- stderr\n{stderr}"));
}

#[test]
fn what_there_is_nothing_to_compare_with_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.avsc"), "\"long\"").expect("a file is written");
    let (code, stdout, stderr) = check_in(directory.path(), &["a.avsc"]);
    assert_eq!((code, stdout.as_str()), (2, "a.avsc: FAILED, see below\n"));
    assert!(
        stderr.contains("`a.avsc` isn't in a git repository") && stderr.contains("--registry"),
        "{stderr}"
    );

    let repository = Repository::new();
    repository.write(&[("id", ID)]);
    repository.commit();
    for reference in ["origin/main", "--output=x", "main:schemas"] {
        let (code, _, stderr) = repository.check(&[&format!("--against={reference}"), FILE]);
        assert_eq!(code, 2);
        let expect = format!("error: the git repository has no commit `{reference}`");
        assert!(
            stderr.contains(&expect) && stderr.contains("fetch-depth: 0"),
            "{stderr}"
        );
    }
    repository.commit_again();
    let shallow = tempfile::tempdir().expect("a directory");
    let (from, to) = (
        format!("file://{}", repository.0.path().display()),
        shallow.path().display().to_string(),
    );
    repository.git(&["clone", "--quiet", "--depth", "1", &from, &to]);
    assert_eq!(check_in(shallow.path(), &[FILE]).0, 0);
    let (code, _, stderr) = check_in(shallow.path(), &["--compatibility", "full_transitive", FILE]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("history is cut off") && stderr.contains("--unshallow"),
        "{stderr}"
    );
}

impl Repository {
    /// Commits once more, so that there is history to cut off.
    fn commit_again(&self) {
        self.write(&[("id", ID), ("n", r#""type":"int","default":0"#)]);
        self.commit();
    }
}

#[test]
fn command_lines_that_are_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.avsc"), "\"long\"").expect("a file is written");
    for (arguments, expect) in [
        (
            &["a.avsc", "--compatibility", "sideways"][..],
            "it is one of none, backward,",
        ),
        (&["a.avsc", "--subject", "s"], "--registry"),
        (
            &["a.avsc", "b.avsc", "--registry", "http://r", "--subject", "s"],
            "`--subject` names one subject, for 2 files",
        ),
        (
            &["a.avsc", "--registry", "r:8081"],
            "`--registry` is not an HTTP address",
        ),
        (
            &["a.avsc", "--registry", "http://u:${NO_SUCH}@r"],
            "the environment variable `NO_SUCH` is not set",
        ),
        (
            &["a.avsc", "--registry", "http://r", "--registry-config", "pasword=x"],
            "`--registry-config pasword` is no such key (did you mean `password`?)",
        ),
        (&[], "<FILE>"),
    ] {
        let (code, stdout, stderr) = check_in(directory.path(), arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains(expect), "{arguments:?}: {stderr}");
    }
    // Nothing listens: the registry is asked once, not for each file.
    let (code, _, stderr) = check_in(
        directory.path(),
        &["a.avsc", "a.avsc", "--registry", "http://127.0.0.1:1"],
    );
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("can't be reached"), "{stderr}");
}
