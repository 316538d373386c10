//! Whole files through [`load`](super::load): what is accepted, and every refusal with its line.

use super::*;
use crate::schema::KafkaColumn;
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
    load_with(&paths, &variable)
        .map_err(|problems| problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}

/// Checks the problems of a whole file.
fn check(text: &str, expect: &[&str]) {
    let found = load_text(text).err().unwrap_or_default();
    assert_eq!(found, expect, "\n{text}");
}

/// Puts `keys` into a table whose `name` and `source.topic`, `source.brokers` are fine; `keys` begin in line 4.
fn table(keys: &str) -> String {
    let mut text =
        "defaults: {source: {brokers: \"b:9092\", topic: t}}\npartitionedTables:\n  - name: one\n".to_owned();
    for line in keys.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// Checks the problems of such a table, without `a.yaml:` and `partitionedTables[0].`.
fn check_table(keys: &str, expect: &[&str]) {
    let found = load_text(&table(keys)).err().unwrap_or_default();
    let found: Vec<String> = found
        .iter()
        .map(|problem| problem.replacen("a.yaml:", "", 1).replacen("partitionedTables[0].", "", 1))
        .collect();
    assert_eq!(found, expect, "\n{keys}");
}

fn one(keys: &str) -> Pipeline {
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
            client: BTreeMap::new(),
        },
        columns: None,
        materialize: Materialize {
            partition: vec![],
            evolution: Evolution::Evolve,
            format_version: 2,
            properties: BTreeMap::new(),
        },
        errors: Errors {
            on_decode_error: OnDecodeError::DeadLetter { topic: None, table: Some("one_dead_letters".to_owned()) },
            max_rejected: MaxRejected::Share(0.01),
        },
    };
    assert_eq!(found, expect);
}

#[test]
fn the_shipped_pipeline_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/events.yaml");
    let found = load(&[path]).expect("the shipped file is good").remove(0);
    assert_eq!(found.materialize.partition, [PartitionField::Date, PartitionField::Hour]);
    assert_eq!(
        found.source.event_time,
        Some(EventTime { path: vec!["ts".to_owned()], format: EventTimeFormat::Default })
    );
    assert_eq!((found.source.brokers.as_str(), found.source.topic.as_str()), ("127.0.0.1:9092", "events"));
}

#[test]
fn the_full_example_lacks_only_what_is_not_built() {
    check(
        include_str!("example.yaml"),
        &[
            "a.yaml:21: partitionedTables[0].source.format: `avro` is not supported yet",
            "a.yaml:22: partitionedTables[0].source.keyFormat: `string` is not supported yet",
            "a.yaml:23: partitionedTables[0].source.schemaRegistry: `schemaRegistry` is not supported yet",
            "a.yaml:24: partitionedTables[0].source.schemaFile: `schemaFile` is not supported yet",
            "a.yaml:25: partitionedTables[0].source.messageType: `messageType` is not supported yet",
            "a.yaml:51: partitionedTables[0].materialize.lateness: `lateness` is not supported yet",
            "a.yaml:61: partitionedTables[0].errors.onMissingSchema: `onMissingSchema` is not supported yet",
            "a.yaml:62: partitionedTables[0].errors.onIncompatibleSchema: `onIncompatibleSchema` is not supported yet",
        ],
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for format in ["avro", "protobuf", "string", "bytes", "messagepack"] {
        check_table(
            &format!("source: {{format: {format}}}"),
            &[&format!("4: source.format: `{format}` is not supported yet")],
        );
    }
    for format in ["json", "avro", "protobuf", "string", "messagepack", "int", "long"] {
        check_table(
            &format!("source: {{keyFormat: {format}}}"),
            &[&format!("4: source.keyFormat: `{format}` is not supported yet")],
        );
    }
    check_table("source: {keyFormat: bytes, format: json, mode: kstream, envelope: none}", &[]);
    check_table("source: {mode: ktable, keyField: id}", &["4: source.mode: `ktable` is not supported yet"]);
    check_table("source: {envelope: debezium}", &["4: source.envelope: `debezium` is not supported yet"]);
    check_table(
        "source: {envelope: {type: cdc, apply: rows}}",
        &["4: source.envelope.type: `cdc` is not supported yet"],
    );
    check_table(
        "source: {schemaRegistry: {url: \"http://r\"}}",
        &["4: source.schemaRegistry: `schemaRegistry` is not supported yet"],
    );
    check_table("source:\n  include: [key, schema_id]", &["5: source.include[1]: `schema_id` is not supported yet"]);
    check_table("materialize: {format: parquet}", &["4: materialize.format: `parquet` is not supported yet"]);
    check_table(
        "materialize: {formatVersion: 3}",
        &["4: materialize.formatVersion: `formatVersion: 3` is not supported yet"],
    );
    check_table(
        "materialize: {lateness: {threshold: 2h}}",
        &["4: materialize.lateness: `lateness` is not supported yet"],
    );
    check_table(
        "materialize: {maintenance: {compact: true}}",
        &["4: materialize.maintenance: `maintenance` is not supported yet"],
    );
    check_table("materialize: {maintenance: {}, formatVersion: 2, format: iceberg}", &[]);
    check_table("errors: {onMissingSchema: deadLetter, onIncompatibleSchema: fail}", &[]);
    for kind in ["glue", "s3tables", "hms"] {
        let text = format!("catalog: {{type: {kind}}}\n{}", table(""));
        check(&text, &[&format!("a.yaml:1: catalog.type: `{kind}` is not supported yet")]);
    }
    let text = format!("catalog: {{uri: \"postgres://u:p@h/d\"}}\n{}", table(""));
    check(&text, &["a.yaml:1: catalog.uri: `postgres` is not supported yet"]);
}

#[test]
fn misspelt_and_misplaced_keys_are_pointed_at() {
    check_table(
        "source:\n  batchSzie: 5\n  batch_size: 5",
        &[
            "5: source.batchSzie: unknown key; did you mean `batchSize`?",
            "6: source.batch_size: unknown key; did you mean `batchSize`?",
        ],
    );
    check_table("topic: x", &["4: topic: unknown key; it belongs under `partitionedTables[].source`"]);
    check_table("qwertyuiop: x", &["4: qwertyuiop: unknown key"]);
    check_table(
        "source: {security: {saslMecanism: PLAIN}}",
        &["4: source.security.saslMecanism: unknown key; did you mean `saslMechanism`?"],
    );
    check_table(
        "columns:\n  - {name: a, typ: long}",
        &["5: columns[0].typ: unknown key; did you mean `type`?", "5: columns[0].type: `type` is required"],
    );
    check(
        "health: {maxlag: 5}\ntables: []\n",
        &[
            "a.yaml:1: health.maxlag: unknown key; did you mean `maxLag`?",
            "a.yaml:1: partitionedTables: names no table; add an entry with `name` and `source`",
            "a.yaml:2: tables: unknown key",
        ],
    );
    // A key in `defaults` is reported once, whatever the number of tables.
    check(
        "defaults:\n  source: {brokers: b, topic: t, fromat: json, format: avro}\npartitionedTables:\n  - {name: a}\n  - {name: b}\n",
        &[
            "a.yaml:2: defaults.source.fromat: unknown key; did you mean `format`?",
            "a.yaml:2: partitionedTables[0].source.format: `avro` is not supported yet",
        ],
    );
}

#[test]
fn types_units_and_names_are_checked_all_at_once() {
    check_table(
        "source:\n  batchWindow: 60\n  batchSize: 1m\n  nested: Keep\n  isolationLevel: 3\n  include: partition\n  topic: 2024\nmaterialize: []",
        &[
            "5: source.batchWindow: `60` has no unit; add the unit, like `60s` or `60ms`",
            "6: source.batchSize: is the text `1m`, not a whole number",
            "7: source.nested: `Keep` is not known; did you mean `keep`?",
            "8: source.isolationLevel: is the number `3`, not a text; write one of read_committed, read_uncommitted",
            "9: source.include: is the text `partition`, not a list",
            "10: source.topic: is the number `2024`, not a text; write it in quotes, `\"2024\"`",
            "11: materialize: is a list, not a map",
        ],
    );
    check_table(
        "source: {batchWindow: soon}",
        &["4: source.batchWindow: `soon` is not a duration; write it like `60s`, `1 minute` or `2h`"],
    );
    check_table("source: {batchWindow: 0s}", &["4: source.batchWindow: is not above 0; write it like `60s`"]);
    check_table(
        "source: {batchSize: 0, maxPollRecords: -1}",
        &["4: source.batchSize: `0` is below 1", "4: source.maxPollRecords: `-1` is below 1"],
    );
    check_table("materialize: {formatVersion: 4}", &["4: materialize.formatVersion: `4` is above 3"]);
    check_table(
        "errors: {maxRejected: 1.5}",
        &[
            "4: errors.maxRejected: is the number `1.5`, not a text or a whole number; write a share like `1%` or a whole number of records",
        ],
    );
    check_table("errors: {maxRejected: -1}", &["4: errors.maxRejected: `-1` is below 0"]);
    check_table("errors: {maxRejected: 200%}", &["4: errors.maxRejected: `200%` is not between 0% and 100%"]);
    check(
        "a: b: c\n",
        &[
            "a.yaml:1: is not YAML: mapping values are not allowed in this context; look for a tab, a missing space after `:`, an open quote or a key written twice",
        ],
    );
    check("- 1\n", &["a.yaml:1: is a list, not a map"]);
    check("", &["a.yaml: holds 0 YAML documents instead of 1"]);
}

#[test]
fn contradictions_are_reported() {
    check_table(
        "source: {startOffset: timestamp}",
        &[
            "4: source.startTimestamp: `startOffset: timestamp` needs `startTimestamp`; write it like `\"2024-01-01T00:00:00Z\"`",
        ],
    );
    check_table(
        "source: {startOffset: timestamp, startTimestamp: yesterday}",
        &[
            "4: source.startTimestamp: `yesterday` is not a point in time with its zone; write it like `\"2024-01-01T00:00:00Z\"`",
        ],
    );
    check_table(
        "source: {startOffset: earliest, startTimestamp: \"2024-01-01T00:00:00Z\", keyField: [a, b], orderBy: c}",
        &[],
    );
    check_table(
        "source: {security: {saslMechanism: PLAIN}}",
        &[
            "4: source.security.saslMechanism: `saslMechanism` contradicts `protocol: PLAINTEXT`; write `protocol: SASL_SSL` or leave it out",
        ],
    );
    check_table(
        "source: {security: {protocol: SASL_SSL, saslMechanism: PLAIN, saslUsername: u}}",
        &["4: source.security.saslPassword: `protocol: SASL_SSL` needs `saslPassword`"],
    );
    check_table(
        "source: {security: {protocol: SSL}, consumerConfig: {security.protocol: SSL}}",
        &[
            "4: source.consumerConfig.security.protocol: `security.protocol` is set by `security` too; keep one of the two",
        ],
    );
    check_table(
        "source:\n  consumerConfig:\n    fetch.min.bytes: 5\n    group.id: x\n    auto.offset.reset: latest",
        &[
            "7: source.consumerConfig.group.id: `group.id` is set by aperio; write it as `source.consumerGroup`",
            "8: source.consumerConfig.auto.offset.reset: `auto.offset.reset` is set by aperio; write `source.startOffset` for the first run; later runs start where the table ends",
        ],
    );
    check_table(
        "materialize: {partition: [date, \"buckt(16, a)\", date]}",
        &[
            "4: materialize.partition[1]: `buckt` is not a partition transform; did you mean `bucket`?",
            "4: materialize.partition[2]: `date` is listed twice",
        ],
    );
    check_table(
        "columns: [{name: id, type: long}, {name: ID, type: int}, {name: _kafka_offset, type: long}]\nmaterialize: {partition: [idd, id, _kafka_partition]}",
        &[
            "4: columns[1].name: the column `ID` is declared twice; names match case-insensitively",
            "4: columns[2].name: `include` adds a column `_kafka_offset` too; rename it and name its field in `from`",
            "5: materialize.partition[0]: names a column that `columns` doesn't declare; did you mean `id`?",
        ],
    );
    check_table(
        "errors: {deadLetter: {topic: t}}",
        &[
            "4: errors.deadLetter.topic: is the topic that is read; dead letters would be read again; name another topic",
        ],
    );
    check_table(
        "errors: {deadLetter: {table: one}}",
        &["4: errors.deadLetter.table: is the table itself; name another table"],
    );
    check_table(
        "source: {eventTimeField: a..b, eventTimeFormat: epoch_milis}",
        &[
            "4: source.eventTimeFormat: `epoch_milis` is not a time format; did you mean `epoch_millis`?",
            "4: source.eventTimeField: `a..b` has an empty step; write it like `payload.created_at`",
        ],
    );
    check_table(
        "source: {topic: \"^a.*\"}\nschema: a/b",
        &[
            "4: source.topic: is a pattern; one table reads one topic; write one table per topic",
            "5: schema: `a/b` has a character that a table can't be named with; use letters, digits, `_`, `-` and `.`",
        ],
    );
    check_table("source: {include: [key, key]}", &["4: source.include[1]: is listed twice"]);
    check(
        "partitionedTables:\n  - source: {topic: t}\n  - name: b\n",
        &[
            "a.yaml:2: partitionedTables[0].name: `name` is required",
            "a.yaml:2: partitionedTables[0].source.brokers: `brokers` is required",
            "a.yaml:3: partitionedTables[1].source: `source` is required; add `brokers` and `topic` to it",
        ],
    );
    let text = format!(
        "stateDir: \"{{warehouse}}/x\"\ncatalog: {{type: rest, warehouse: prod, properties: {{uri: x}}}}\n{}",
        table("")
    );
    check(
        &text,
        &[
            "a.yaml:1: stateDir: `{warehouse}` is a catalog's name here, not a path; leave `stateDir` out, or write a path or URI",
            "a.yaml:2: catalog.uri: `uri` is required for a REST catalog; write it like `http://catalog:8181`",
            "a.yaml:2: catalog.properties.uri: `uri` has a place of its own; write it as `catalog.uri`",
        ],
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
    assert_eq!(load_in(directory.path(), &["", "a.yaml"]).expect_err("two problems"), expect);
    assert_eq!(load_in(directory.path(), &["d.yaml"]).expect_err("absent").len(), 1);
    write("b.yml", &format!("{head}  - {{name: one_dead_letters, source: {{topic: u}}}}\n"));
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
        ("source: {mode: \"${KAFKA_PASSWORD}\"}", "4: source.mode: `***` is not known; write one of kstream, ktable"),
        (
            "source: {batchWindow: \"${KAFKA_PASSWORD}\"}",
            "4: source.batchWindow: `***` is not a duration; add the unit, like `60s` or `60ms`",
        ),
        ("source: {batchSize: \"${KAFKA_PASSWORD}\"}", "4: source.batchSize: is the text `***`, not a whole number"),
        (
            "source: {eventTimeField: a, eventTimeFormat: \"${KAFKA_PASSWORD}\"}",
            "4: source.eventTimeFormat: `***` can't be read",
        ),
        ("materialize: {partition: [\"f(${KAFKA_PASSWORD})\"]}", "4: materialize.partition[0]: `***` can't be read"),
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

fn load_with_password(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    read(Path::new("/a.yaml"), text, &|name| (name == "KAFKA_PASSWORD").then(|| PASSWORD.to_owned()), &mut problems);
    problems
}

#[test]
fn paths_are_relative_to_the_file_and_uris_are_kept() {
    let check = |catalog: &str, uri: &str, warehouse: &str, state: Option<&str>| {
        let text = format!("{catalog}\n{}", table(""));
        let mut problems = Vec::new();
        let found = read(Path::new("/etc/p/a.yaml"), &text, &|_| None, &mut problems);
        assert_eq!(problems, vec![], "{catalog}");
        let Pipeline { catalog: found, state_dir, .. } = &found[0].pipeline;
        assert_eq!(
            (found.uri.as_str(), found.warehouse.as_str(), state_dir.as_deref()),
            (uri, warehouse, state),
            "{catalog}"
        );
    };
    let default = "sqlite:///etc/p/warehouse/catalog.db";
    check("catalog: {warehouse: ../w}", default, "/etc/w", Some("/etc/w/.aperio"));
    check("catalog: {warehouse: \"s3://b/p/\"}", default, "s3://b/p/", Some("s3://b/p/.aperio"));
    check(
        "catalog: {uri: \"sqlite:///abs/c.db?mode=rwc\"}",
        "sqlite:///abs/c.db?mode=rwc",
        "/etc/p/warehouse",
        Some("/etc/p/warehouse/.aperio"),
    );
    check("stateDir: state", default, "/etc/p/warehouse", Some("/etc/p/state"));
    check("stateDir: \"{warehouse}/s\"", default, "/etc/p/warehouse", Some("/etc/p/warehouse/s"));
    check("catalog: {type: rest, uri: \"http://c\", warehouse: prod}", "http://c", "prod", None);
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
        (found.source.client["fetch.min.bytes"].as_str(), found.source.client["check.crcs"].as_str()),
        ("5", "true")
    );
    let column = |name: &str, from: &[&str], kind: &str, required| Column {
        name: name.to_owned(),
        from: from.iter().map(|step| (*step).to_owned()).collect(),
        type_text: kind.to_owned(),
        required,
    };
    assert_eq!(
        found.columns,
        Some(vec![column("a", &["p", "A"], "decimal(3, 1)", true), column("b", &["b"], "long", false)])
    );
    assert_eq!(found.materialize.evolution, Evolution::Strict);
    assert_eq!(found.materialize.properties["x"], "1");
    assert_eq!(found.errors.on_decode_error, OnDecodeError::DeadLetter { topic: Some("dlq".to_owned()), table: None });
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
    schema["$defs"].as_object().expect("definitions").values().for_each(described);
    assert!(schema["$defs"]["Defaults"]["properties"]["name"].is_null());
    assert!(schema["$defs"]["Table"]["properties"]["name"].is_object());
}
