//! Whole files through [`load`](super::load): what is accepted, what several files have wrong together, secrets.

use super::*;
use crate::units::Millis;

const PASSWORD: &str = "hunter2";

fn load_text(text: &str) -> Result<Vec<Pipeline>, Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.yaml"), text).expect("a file");
    load_in(directory.path(), &["a.yaml"])
}

fn load_in(directory: &Path, names: &[&str]) -> Result<Vec<Pipeline>, Vec<String>> {
    let variable = |name: &str| match name {
        "KAFKA_PASSWORD" => Some(PASSWORD.to_owned()),
        "SIZE" => Some("250".to_owned()),
        _ => None,
    };
    let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
    let prefix = format!("{}/", directory.display());
    load_with(&paths, &variable).map_err(|problems| {
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&prefix, ""))
            .collect()
    })
}

/// Checks the problems of a whole file.
pub(super) fn check(text: &str, expect: &[&str]) {
    let found = load_text(text).err().unwrap_or_default();
    assert_eq!(found, expect, "\n{text}");
}

/// Puts `keys` into a table whose `name` and `source.topic`, `source.brokers` are fine; `keys` begin in line 4.
pub(super) fn table(keys: &str) -> String {
    let mut text =
        "defaults: {source: {brokers: \"b:9092\", topic: t}}\npartitionedTables:\n  - name: one\n".to_owned();
    for line in keys.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// Checks the problems of such a table, without `a.yaml:` and `partitionedTables[0].`.
pub(super) fn check_table(keys: &str, expect: &[&str]) {
    let found = load_text(&table(keys)).err().unwrap_or_default();
    let found: Vec<String> = found
        .iter()
        .map(|problem| {
            problem
                .replacen("a.yaml:", "", 1)
                .replacen("partitionedTables[0].", "", 1)
        })
        .collect();
    assert_eq!(found, expect, "\n{keys}");
}

pub(super) fn one(keys: &str) -> Pipeline {
    load_text(&table(keys)).expect("a good file").remove(0)
}

#[test]
fn defaults_are_applied() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.yaml"), table("")).expect("a file");
    let found = load_in(directory.path(), &["a.yaml"]).expect("a good file").remove(0);
    let here = directory.path().display();
    let expect = Pipeline {
        name: "one".to_owned(),
        schema: "default".to_owned(),
        catalog: CatalogConfig {
            kind: CatalogKind::Sql,
            name: "aperio".to_owned(),
            uri: format!("sqlite://{here}/warehouse/catalog.db"),
            warehouse: format!("{here}/warehouse"),
            properties: BTreeMap::new(),
        },
        state_dir: Some(format!("{here}/warehouse/.aperio")),
        max_lag: None,
        source: KafkaSource {
            format: ValueFormat::Json,
            validate: false,
            key_format: KeyFormat::Of(ValueFormat::Bytes),
            envelope: None,
            schema_file: None,
            message_type: None,
            brokers: "b:9092".to_owned(),
            topic: "t".to_owned(),
            group: "aperio-one".to_owned(),
            start: StartOffset::Earliest,
            batch_size: 1_000_000,
            batch_window: Millis(60_000),
            max_poll_records: 8192,
            read_committed: true,
            event_time: None,
            include: vec![KafkaColumn::Partition, KafkaColumn::Offset, KafkaColumn::Timestamp],
            flatten: false,
            registry: None,
            client: BTreeMap::new(),
        },
        columns: None,
        materialize: Materialize {
            format: TableFormat::Iceberg,
            partition: vec![],
            evolution: Evolution::Evolve,
            format_version: 2,
            properties: BTreeMap::new(),
        },
        errors: Errors {
            on_missing_schema: MissingSchema::Fail,
            on_incompatible_schema: IncompatibleSchema::Fail,
            on_decode_error: OnDecodeError::DeadLetter {
                topic: None,
                table: Some("one_dead_letters".to_owned()),
            },
            max_rejected: MaxRejected::Share(0.01),
        },
    };
    assert_eq!(found, expect);
}

#[test]
fn the_shipped_pipeline_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/events.yaml");
    let found = load(&[path]).expect("the shipped file is good").remove(0);
    assert_eq!(
        found.materialize.partition,
        [PartitionField::Date, PartitionField::Hour]
    );
    assert_eq!(
        found.source.event_time,
        Some(EventTime {
            path: vec!["ts".to_owned()],
            format: EventTimeFormat::Default
        })
    );
    assert_eq!(
        (found.source.brokers.as_str(), found.source.topic.as_str()),
        ("127.0.0.1:9092", "events")
    );
}

#[test]
fn tables_are_compared_within_and_across_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    let head = "defaults: {source: {brokers: \"b:1, a:1\", topic: t}}\npartitionedTables:\n";
    write("a.yaml", &format!("{head}  - {{name: one}}\n  - name: one\n"));
    write(
        "b.yml",
        &format!(
            "{head}  - {{name: two, source: {{brokers: \"a:1,b:1\", consumerGroup: aperio-one}}}}\n  - {{name: one, schema: other, source: {{topic: u}}}}\n"
        ),
    );
    write("c.txt", "not YAML: [");
    let expect = [
        "a.yaml:4: partitionedTables[1].name: the table `one` is declared twice; the other is a.yaml:3",
        "b.yml:1: partitionedTables[0].source.consumerGroup: shares its consumer group on this topic with the table `one`; give one of them another `consumerGroup`; the other is a.yaml:1",
    ];
    assert_eq!(
        load_in(directory.path(), &["", "a.yaml"]).expect_err("two problems"),
        expect
    );
    assert_eq!(load_in(directory.path(), &["d.yaml"]).expect_err("absent").len(), 1);
    write(
        "b.yml",
        &format!("{head}  - {{name: one_dead_letters, source: {{topic: u}}}}\n"),
    );
    write("a.yaml", &format!("{head}  - {{name: one}}\n"));
    assert_eq!(
        load_in(directory.path(), &["a.yaml", "b.yml"]).expect_err("a clash"),
        [
            "a.yaml:3: partitionedTables[0].errors.deadLetter.table: is a table that is declared itself; name another table; the other is b.yml:3"
        ]
    );
    assert_eq!(load_in(directory.path(), &["b.yml"]).expect("one table").len(), 1);
}

#[test]
fn values_come_from_the_environment_and_are_never_printed() {
    let found = one(
        "source:\n  batchSize: ${SIZE}\n  security: {protocol: SASL_SSL, saslMechanism: SCRAM-SHA-512, saslUsername: u, saslPassword: \"${KAFKA_PASSWORD}\", ca: ca.pem}",
    );
    assert_eq!(found.source.batch_size, 250);
    assert_eq!(found.source.client["sasl.password"], PASSWORD);
    assert_eq!(found.source.client["sasl.mechanism"], "SCRAM-SHA-512");
    assert!(found.source.client["ssl.ca.location"].starts_with('/'));
    assert!(!format!("{found:?}").contains(PASSWORD));
    let secrets = [
        (
            "source: {mode: \"${KAFKA_PASSWORD}\"}",
            "4: source.mode: `***` is not known; write one of kstream, ktable",
        ),
        (
            "source: {batchWindow: \"${KAFKA_PASSWORD}\"}",
            "4: source.batchWindow: `***` is not a duration; add the unit, like `60s` or `60ms`",
        ),
        (
            "source: {batchSize: \"${KAFKA_PASSWORD}\"}",
            "4: source.batchSize: is the text `***`, not a whole number",
        ),
        (
            "source: {eventTimeField: a, eventTimeFormat: \"${KAFKA_PASSWORD}\"}",
            "4: source.eventTimeFormat: `***` can't be read",
        ),
        (
            "materialize: {partition: [\"f(${KAFKA_PASSWORD})\"]}",
            "4: materialize.partition[0]: `***` can't be read",
        ),
        (
            "source: {topic: \"${KAFKA_PASSWORD} \"}",
            "4: source.topic: `***` can't be a topic's name; topics have up to 249 letters, digits, `.`, `_` and `-`",
        ),
        (
            "source: {security: {saslPassword: 5}}",
            "4: source.security.saslPassword: is the number `***`, not a text; write it in quotes, `\"***\"`",
        ),
        (
            "source: {topic: \"${ABSENT}\"}",
            "4: source.topic: the environment variable `ABSENT` is not set; set it, or write `${ABSENT:-default}`",
        ),
    ];
    for (keys, expect) in secrets {
        check_table(keys, &[expect]);
        let problems = load_with_password(&table(keys));
        assert!(!format!("{problems:?}").contains(PASSWORD), "{keys}");
    }
}

#[test]
fn a_catalog_prints_no_secret() {
    let text = format!(
        "catalog: {{type: rest, uri: \"http://u:hunter2@c/x\", properties: {{credential: \"id:hunter2\"}}}}\n{}",
        table("")
    );
    let found = load_text(&text).expect("a good file").remove(0).catalog;
    assert_eq!(
        (found.kind, found.properties["credential"].as_str()),
        (CatalogKind::Rest, "id:hunter2")
    );
    let printed = format!("{found:?}");
    assert!(
        printed.contains("http://***@c/x") && !printed.contains(PASSWORD),
        "{printed}"
    );
}

fn load_with_password(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    read(
        Path::new("/a.yaml"),
        text,
        &|name| (name == "KAFKA_PASSWORD").then(|| PASSWORD.to_owned()),
        &mut problems,
    );
    problems
}

#[test]
fn paths_are_relative_to_the_file_and_uris_are_kept() {
    let check = |catalog: &str, uri: &str, warehouse: &str, state: Option<&str>| {
        let text = format!("{catalog}\n{}", table(""));
        let mut problems = Vec::new();
        let found = read(Path::new("/etc/p/a.yaml"), &text, &|_| None, &mut problems);
        assert_eq!(problems, vec![], "{catalog}");
        let Pipeline {
            catalog: found,
            state_dir,
            ..
        } = &found[0].pipeline;
        assert_eq!(
            (found.uri.as_str(), found.warehouse.as_str(), state_dir.as_deref()),
            (uri, warehouse, state),
            "{catalog}"
        );
    };
    let default = "sqlite:///etc/p/warehouse/catalog.db";
    check("catalog: {warehouse: ../w}", default, "/etc/w", Some("/etc/w/.aperio"));
    check(
        "catalog: {warehouse: \"s3://b/p/\"}",
        default,
        "s3://b/p/",
        Some("s3://b/p/.aperio"),
    );
    check(
        "catalog: {uri: \"sqlite:///abs/c.db?mode=rwc\"}",
        "sqlite:///abs/c.db?mode=rwc",
        "/etc/p/warehouse",
        Some("/etc/p/warehouse/.aperio"),
    );
    check("stateDir: state", default, "/etc/p/warehouse", Some("/etc/p/state"));
    check(
        "stateDir: \"{warehouse}/s\"",
        default,
        "/etc/p/warehouse",
        Some("/etc/p/warehouse/s"),
    );
    check(
        "catalog: {type: rest, uri: \"http://c\", warehouse: prod}",
        "http://c",
        "prod",
        None,
    );
    check("catalog: {type: rest, uri: \"http://c\"}", "http://c", "", None);
}

#[test]
fn what_is_written_arrives() {
    let found = one(
        "schema: sales\nsource: {startOffset: timestamp, startTimestamp: \"1970-01-01T00:00:01Z\", nested: flatten, isolationLevel: read_uncommitted, include: [headers], consumerConfig: {fetch.min.bytes: 5, check.crcs: true}}\ncolumns: [{name: a, from: p.A, type: \"decimal(3, 1)\", required: true}, {name: b, type: long}]\nmaterialize: {partition: [\"bucket(16, a)\"], schemaEvolution: strict, tableProperties: {x: 1}}\nerrors: {deadLetter: {topic: dlq}, maxRejected: 20}",
    );
    assert_eq!(found.schema, "sales");
    assert_eq!(found.source.start, StartOffset::Timestamp(Millis(1000)));
    assert!(found.source.flatten && !found.source.read_committed);
    assert_eq!(found.source.include, [KafkaColumn::Headers]);
    assert_eq!(
        (
            found.source.client["fetch.min.bytes"].as_str(),
            found.source.client["check.crcs"].as_str()
        ),
        ("5", "true")
    );
    let column = |name: &str, from: &[&str], kind: &str, required| Column {
        name: name.to_owned(),
        from: from.iter().map(|step| (*step).to_owned()).collect(),
        of: types::parse(kind).expect(kind),
        required,
    };
    assert_eq!(
        found.columns,
        Some(vec![
            column("a", &["p", "A"], "decimal(3, 1)", true),
            column("b", &["b"], "long", false)
        ])
    );
    assert_eq!(found.materialize.evolution, Evolution::Strict);
    assert_eq!(found.materialize.properties["x"], "1");
    assert_eq!(
        found.errors.on_decode_error,
        OnDecodeError::DeadLetter {
            topic: Some("dlq".to_owned()),
            table: None
        }
    );
    assert_eq!(found.errors.max_rejected, MaxRejected::Count(20));
}

#[test]
fn the_schema_describes_every_key_for_editors() {
    fn described(schema: &serde_json::Value) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "`{key}` has no description");
        }
    }
    let schema = json_schema();
    described(&schema);
    schema["$defs"]
        .as_object()
        .expect("definitions")
        .values()
        .for_each(described);
    assert!(schema["$defs"]["Defaults"]["properties"]["name"].is_null());
    assert!(schema["$defs"]["Table"]["properties"]["name"].is_object());
}
