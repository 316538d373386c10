//! `aperio schema check` against the real registry.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::aperio::{Aperio, Outcome};
use super::registry::{Registry, RegistryProxy};

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#)
}

fn check(dir: &Path, url: &str, arguments: &[&str]) -> Outcome {
    let mut all = vec!["schema", "check", "--registry", url, "--output", "json"];
    all.extend(arguments);
    Aperio::run(dir, &all)
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file is written");
}

#[test]
fn files_are_compared_with_what_is_registered() {
    let (registry, dir) = (Registry::shared(), tempfile::tempdir().expect("a directory"));
    let (dir, url) = (dir.path(), registry.url());
    let id = r#"{"name":"id","type":"long"}"#;
    let (file, subject) = ("schema-check-orders.avsc", "schema-check-orders-value");
    write(dir, file, &record(id));
    let report = check(dir, &url, &[file]).expect_code(0).report();
    let new = &report["files"][0]["comparisons"][0];
    assert_eq!(
        (&new["with"], &new["verdict"]),
        (&json!(subject), &json!("new")),
        "{report:#}"
    );

    registry.register(subject, "AVRO", &record(r#"{"name":"id","type":"string"}"#), &[]);
    registry.register(subject, "AVRO", &record(id), &[]);
    let report = check(dir, &url, &[file]).expect_code(0).report();
    let same = &report["files"][0]["comparisons"][0];
    assert_eq!(
        (&same["verdict"], &same["versions"]),
        (&json!("compatible"), &json!(["version 2"])),
        "{report:#}"
    );
    // Apicurio asks for nothing unless it is told to; a check is one all the same.
    assert_eq!(
        (&same["mode"], &same["level"]),
        (&json!("backward"), &json!("NONE")),
        "{report:#}"
    );

    let added = record(&format!(r#"{id},{{"name":"note","type":"string"}}"#));
    write(dir, file, &added);
    let report = check(dir, &url, &[file]).expect_code(3).report();
    let finding = &report["files"][0]["comparisons"][0]["findings"][0];
    assert_eq!(
        (&finding["path"], &finding["rule"]),
        (&json!("$.note"), &json!("default")),
        "{report:#}"
    );
    for (mode, code) in [("none", 0), ("forward", 0), ("full", 3), ("forward_transitive", 3)] {
        check(dir, &url, &["--compatibility", mode, file]).expect_code(code);
    }

    // The subject's own level decides, and the registry is asked too.
    for (level, code) in [("FORWARD", 0), ("BACKWARD", 3), ("FULL", 3), ("FORWARD_TRANSITIVE", 3)] {
        let (status, answer) = registry.send("PUT", &format!("/config/{subject}"), &json!({"compatibility": level}));
        assert_eq!(status, 200, "{answer}");
        let report = check(dir, &url, &[file]).expect_code(code).report();
        let found = &report["files"][0]["comparisons"][0];
        assert_eq!(
            found["mode"].as_str().map(str::to_uppercase).as_deref(),
            Some(level),
            "{report:#}"
        );
        let said = found["registryMessages"].as_array().expect("a list");
        assert_eq!(said.is_empty(), code == 0, "{report:#}");
    }
    // Another subject, as named.
    let report = check(dir, &url, &["--subject", "schema-check-none", file])
        .expect_code(0)
        .report();
    assert_eq!(report["files"][0]["comparisons"][0]["verdict"], "new", "{report:#}");
}

#[test]
fn a_file_may_name_what_its_newest_version_refers_to() {
    let (registry, dir) = (Registry::shared(), tempfile::tempdir().expect("a directory"));
    let (dir, url) = (dir.path(), registry.url());
    let car = |of: &str| {
        format!(
            r#"{{"type":"record","name":"Car","fields":[{{"name":"color","type":"Color"}},{{"name":"n","type":"{of}"}}]}}"#
        )
    };
    let color = r#"{"type":"enum","name":"Color","symbols":["red"]}"#;
    let size = "syntax = \"proto3\"; message Size { int32 n = 1; }";
    let shoe =
        |of: &str| format!("syntax = \"proto3\"; import \"size.proto\"; message Shoe {{ Size size = 1; {of}; }}");
    let point = r#"{"type":"object","properties":{"x":{"type":"number"}}}"#;
    let line = |of: &str| {
        format!(
            r#"{{"type":"object","properties":{{"from":{{"$ref":"point.json"}},"n":{{"type":"{of}"}}}},"additionalProperties":false}}"#
        )
    };
    for (language, ending, name, inner, old, wider, narrower) in [
        ("AVRO", "avsc", "Color", color, car("int"), car("long"), car("string")),
        (
            "PROTOBUF",
            "proto",
            "size.proto",
            size,
            shoe("int32 x = 2"),
            shoe("int32 x = 2; int32 y = 3"),
            shoe("string x = 2"),
        ),
        (
            "JSON",
            "json",
            "point.json",
            point,
            line("integer"),
            line("number"),
            line("string"),
        ),
    ] {
        let (file, subject) = (format!("check-outer.{ending}"), format!("check-{language}"));
        write(dir, &file, &wider);
        let told = check(dir, &url, &["--subject", &subject, &file]);
        // Without a version nobody says what the name stands for.
        assert_eq!((told.code, told.stderr.is_empty()), (Some(2), true), "{told:#?}");
        registry.register(&format!("check-{language}-inner"), language, inner, &[]);
        registry.register(
            &subject,
            language,
            &old,
            &[(name, &format!("check-{language}-inner"), 1)],
        );
        let (status, answer) = registry.send(
            "PUT",
            &format!("/config/{subject}"),
            &json!({"compatibility": "BACKWARD"}),
        );
        assert_eq!(status, 200, "{answer}");
        let report = check(dir, &url, &["--subject", &subject, &file])
            .expect_code(0)
            .report();
        assert_eq!(
            report["files"][0]["comparisons"][0]["verdict"], "compatible",
            "{report:#}"
        );
        write(dir, &file, &narrower);
        let report = check(dir, &url, &["--subject", &subject, &file])
            .expect_code(3)
            .report();
        let found = &report["files"][0]["comparisons"][0];
        assert_eq!(found["findings"][0]["rule"], "type", "{report:#}");
        // Apicurio doesn't look at references of these two when it is asked, and fails; of Protobuf it knows the reason.
        let said = (
            found["registryMessages"] == json!([]),
            found["registryFailed"].is_null(),
        );
        assert_eq!(said, (language != "PROTOBUF", language == "PROTOBUF"), "{report:#}");
    }
}

#[test]
fn a_registry_that_is_down_or_refuses_us_is_told() {
    let (registry, dir) = (Registry::shared(), tempfile::tempdir().expect("a directory"));
    let dir = dir.path();
    write(dir, "schema-check-a.avsc", "\"long\"");
    write(dir, "schema-check-b.avsc", "\"long\"");
    let proxy = RegistryProxy::start(registry);
    let files = ["schema-check-a.avsc", "schema-check-b.avsc"];
    proxy.close();
    check(dir, &proxy.url(), &files).expect_code(4);
    proxy.open();
    proxy.demand("Basic dTpw");
    let report = check(dir, &proxy.url(), &files).expect_code(4).report();
    assert!(
        report["files"][0]["errors"][0].to_string().contains("status 401"),
        "{report:#}"
    );
    // Asked once, not for each file.
    assert_eq!(proxy.requests().len(), 1, "{:?}", proxy.requests());
    let url = proxy.url().replace("http://", "http://u:p@");
    check(dir, &url, &files).expect_code(0);
    let keys = ["--registry-config", "username=u", "--registry-config", "password=p"];
    check(dir, &proxy.url(), &[&files[..], &keys].concat()).expect_code(0);
}
