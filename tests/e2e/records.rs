//! What becomes of each kind of record: columns declared and inferred, schemas that change, rejects, partitions, sort
//! order. Every test writes to real Kafka, runs the program and reads back with engines we didn't write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::aperio::{Outcome, Workspace};
use crate::produce::{self, Record};
use crate::readers::Engine::{DuckDb, PyIceberg};
use crate::readers::{self, Catalog, ReadTable};
use crate::servers::Kafka;

/// A pipeline file of these tables: JSON is YAML.
fn file(kafka: &Kafka, defaults: Value, tables: Value) -> String {
    let mut defaults = defaults;
    let source = json!({
        "brokers": kafka.brokers(), "format": "json", "maxPollRecords": 50,
        "consumerConfig": {"session.timeout.ms": "6000"},
    });
    for (key, value) in source.as_object().expect("an object") {
        defaults["source"][key] = value.clone();
    }
    json!({"defaults": defaults, "partitionedTables": tables}).to_string()
}

fn rewrite(work: &Workspace, yaml: &str) {
    fs::write(work.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
}

/// Runs once; returns how it ended, and the report of each table by its name.
fn run(work: &Workspace, code: i32) -> (Outcome, BTreeMap<String, Value>) {
    let outcome = work.start_once(&["--output", "json"]).wait().expect_code(code);
    let report = outcome.report();
    let tables = report["tables"].as_array().expect("tables").iter();
    let tables = tables.map(|table| (table["table"].as_str().expect("a name").to_owned(), table.clone()));
    let tables = tables.collect();
    (outcome, tables)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn ids(rows: &[Value]) -> Vec<i64> {
    let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

fn row(rows: &[Value], id: i64) -> &Value {
    let mut found = rows.iter().filter(|row| row["id"] == id);
    let row = found.next().unwrap_or_else(|| panic!("no row {id} in {rows:?}"));
    assert!(found.next().is_none(), "row {id} is there twice");
    row
}

/// Reads each table with both engines.
fn read_both(work: &Workspace, reads: &[(&str, Option<&str>)]) -> Vec<[ReadTable; 2]> {
    let both = reads
        .iter()
        .flat_map(|(table, filter)| [(PyIceberg, *table, *filter), (DuckDb, *table, *filter)]);
    let both: Vec<_> = both.collect();
    let found = readers::read_many(&Catalog::sql(&work.warehouse()), &both);
    for ((engine, table, filter), read) in both.iter().zip(&found) {
        if *engine == PyIceberg && filter.is_none() {
            assert_eq!(read.total, read.rows.len() as u64, "the summary of `{table}`");
        }
    }
    let mut found = found.into_iter();
    let pairs = reads
        .iter()
        .map(|_| [found.next().expect("read"), found.next().expect("read")]);
    pairs.collect()
}

#[test]
fn declared_columns_of_every_type_are_read_back_and_may_change() {
    let (kafka, topic) = (Kafka::shared(), "records-types");
    produce::create_topic(kafka, topic, 2, &[]);
    let columns = |int: &str, more: &[Value]| {
        let mut columns = json!([
            {"name": "id", "from": "payload.ID", "type": "long", "required": true},
            {"name": "b", "type": "boolean"}, {"name": "i", "type": int}, {"name": "l", "type": "long"},
            {"name": "f", "type": "float"}, {"name": "d", "type": "double"},
            {"name": "n", "type": "decimal(10, 2)"}, {"name": "big", "type": "decimal(38, 10)"},
            {"name": "day", "type": "date"}, {"name": "t", "type": "time"},
            {"name": "ts", "type": "timestamp"}, {"name": "tz", "type": "timestamptz"},
            {"name": "s", "type": "string"}, {"name": "u", "type": "uuid"},
            {"name": "bin", "type": "binary"}, {"name": "fix", "type": "fixed(4)"},
            {"name": "st", "type": "struct<a: int, in: struct<x: string>>"},
            {"name": "li", "type": "list<int>"}, {"name": "ma", "type": "map<string, double>"},
            {"name": "lm", "type": "list<map<string, struct<v: int>>>"},
        ]);
        columns.as_array_mut().expect("a list").extend_from_slice(more);
        let table = json!([{
            "name": "types", "columns": columns, "source": {"topic": topic},
            "errors": {"maxRejected": "50%"}
        }]);
        file(kafka, json!({}), table)
    };
    let full = json!({
        "b": true, "i": -2147483648_i64, "l": i64::MAX, "f": 0.5, "d": 1e300, "n": "12345678.90",
        "big": "1234567890123456789012345678.0123456789", "day": "2024-02-29", "t": "10:30:00.123456",
        "ts": "2024-01-15T10:30:00.123456", "tz": "2024-01-15T10:30:00+00:00", "s": "ü✓", "bin": "AAEC/w==",
        "fix": "3q2+7w==", "st": {"a": 1, "in": {"x": "y"}}, "li": [1, null, 3],
    });
    let mut first = full.clone();
    first["payload"] = json!({"ID": 7});
    first["tz"] = "2024-01-15T12:30:00+02:00".into();
    first["u"] = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".into();
    first["ma"] = json!({"k": 1.5, "z": null});
    first["lm"] = json!([{"k": {"v": 1}}]);
    produce::produce(
        kafka,
        topic,
        [
            Record::of(first.to_string()).partition(0),
            Record::of(r#"{"payload":{"ID":8},"s":null}"#).partition(1),
            Record::of(
                r#"{"payload":{"id":9},"i":1e2,"ts":1705314600000,"tz":1705314600000,"n":1.5,"s":{"a":1},"bin":"_-8","other":1}"#,
            )
            .partition(1),
            Record::of(r#"{"payload":{}}"#).key("required").partition(0),
            Record::of(r#"{"payload":{"ID":10},"i":3000000000}"#).key("wide").partition(0),
        ],
    );
    let work = Workspace::new(&columns("int", &[]));
    let (_, tables) = run(&work, 0);
    assert_eq!(tables["default.types"]["fieldsDropped"], 0, "{tables:#?}");
    let uuid_bytes = BASE64_STANDARD.encode(hex("f81d4fae7dec11d0a76500a0c91e6bf6"));
    let [found, letters] = &read_both(&work, &[("default.types", None), ("default.types_dead_letters", None)])[..]
    else {
        panic!("two tables are read");
    };
    for (engine, ReadTable { rows, .. }) in ["PyIceberg", "DuckDB"].iter().zip(found) {
        assert_eq!(ids(rows), [7, 8, 9], "{engine}");
        let seven = row(rows, 7);
        for (name, value) in full.as_object().expect("an object") {
            assert_eq!(&seven[name], value, "{engine}: {name}");
        }
        assert_eq!(seven["ma"], json!([["k", 1.5], ["z", null]]), "{engine}");
        assert_eq!(seven["lm"], json!([[["k", {"v": 1}]]]), "{engine}");
        let uuid = text(&seven["u"]);
        assert!(uuid == text(&first["u"]) || uuid == uuid_bytes, "{engine}: {uuid}");
        let eight = row(rows, 8).as_object().expect("an object");
        // PyIceberg 0.12 shows a null list as an empty one.
        let given: Vec<_> = eight
            .iter()
            .filter(|(name, value)| !value.is_null() && **value != json!([]) && !name.starts_with('_'))
            .collect();
        assert_eq!(given.len(), 1, "{engine}: {given:?}");
        let nine = row(rows, 9);
        assert_eq!(
            json!([nine["i"], nine["ts"], nine["tz"], nine["n"], nine["s"], nine["bin"]]),
            json!([
                100,
                "2024-01-15T10:30:00",
                "2024-01-15T10:30:00+00:00",
                "1.50",
                "{\"a\":1}",
                "/+8="
            ]),
            "{engine}"
        );
    }
    let mut reasons: Vec<_> = letters[1].rows.iter().map(|letter| text(&letter["error"])).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            "column `i` is int, the value 3000000000 is not; `- {name: i, type: long}` would take it",
            "column `id` is required and has no value; `- {name: id, from: payload.ID, type: long}` would take it",
        ]
    );

    // The declaration may grow as Iceberg allows, and only so; what it requires counts whatever the table allows.
    rewrite(&work, &columns("string", &[]));
    let (refused, _) = run(&work, 2);
    assert!(
        refused
            .stderr
            .contains("column `i` is int in the table, but string here"),
        "{refused:#?}"
    );
    rewrite(
        &work,
        &columns(
            "long",
            &[json!({"name": "extra", "type": "decimal(5, 1)", "required": true})],
        ),
    );
    produce::produce(
        kafka,
        topic,
        [
            Record::of(r#"{"payload":{"ID":11},"i":3000000000,"extra":2.5}"#).partition(0),
            Record::of(r#"{"payload":{"ID":12}}"#).partition(0),
        ],
    );
    let (_, tables) = run(&work, 0);
    assert_eq!(tables["default.types"]["rejected"], 1, "{tables:#?}");
    for ReadTable { rows, .. } in &read_both(&work, &[("default.types", None)])[0] {
        assert_eq!(ids(rows), [7, 8, 9, 11]);
        assert_eq!(
            json!([
                row(rows, 7)["i"],
                row(rows, 11)["i"],
                row(rows, 11)["extra"],
                row(rows, 7)["extra"]
            ]),
            json!([-2147483648_i64, 3_000_000_000_i64, "2.5", null])
        );
    }
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn columns_are_inferred_from_every_partition_shown_and_extended() {
    let kafka = Kafka::shared();
    let (topic, flat) = ("records-inferred", "records-flat");
    produce::create_topic(kafka, topic, 3, &[]);
    produce::create_topic(kafka, flat, 1, &[]);
    produce::produce(
        kafka,
        topic,
        [
            (
                0,
                r#"{"id":0,"a":null,"m":1,"n":{"x":1},"only":null,"e":{},"arr":[],"big":1}"#,
            ),
            (1, r#"{"id":1,"a":5,"m":"x","big":18446744073709551616}"#),
            (
                2,
                r#"{"id":2,"a":null,"m":[true],"n":{"y":[{"z":true}]},"f":1,"Case":1}"#,
            ),
            (2, r#"{"id":3,"f":2.5}"#),
        ]
        .map(|(partition, value)| Record::of(value).partition(partition)),
    );
    produce::produce(
        kafka,
        flat,
        [Record::of(r#"{"id":1,"a":{"b":1,"c":{"d":"x"}},"l":[{"e":1}]}"#)],
    );
    let tables = json!([
        {"name": "inferred", "source": {"topic": topic}, "materialize": {"partition": ["bucket(4, id)", "date"]}},
        {"name": "flat", "source": {"topic": flat, "nested": "flatten"}},
    ]);
    let work = Workspace::new(&file(kafka, json!({}), tables));
    let (outcome, _) = run(&work, 0);
    let printed = &outcome.stderr;
    let shown =
        printed.find("creating table `default.inferred`, partitioned by [bucket(4, id), day(_kafka_timestamp)]");
    let created = printed.find("created the table table=default.inferred");
    assert!(shown.is_some() && shown < created, "{printed}");
    for line in [
        "{name: a, type: long}",
        "{name: m, type: string}",
        "{name: f, type: double}",
        "{name: big, type: string}",
    ] {
        assert!(printed.contains(&format!("\n  - {line}\n")), "{line}: {printed}");
    }
    assert!(
        !printed.contains("name: only") && !printed.contains("name: e,"),
        "{printed}"
    );

    // What had no type has one now, new fields come at every level, and a name that is taken costs only its own values.
    let later = (4..304).map(|id| {
        let value = format!(
            r#"{{"id":{id},"only":{{"deep":1}},"e":{{"q":"s"}},"arr":[1.5],"n":{{"y":[{{"z":false,"w":{{"v":"new"}}}}],"k":true}},"n.x":1,"case":7}}"#
        );
        Record::of(value).partition(id % 3)
    });
    produce::produce(kafka, topic, later);
    produce::produce(
        kafka,
        flat,
        [Record::of(r#"{"id":2,"a":{"b":2,"new":2.5,"c":{"more":{"x":true}}}}"#)],
    );
    let (outcome, tables) = run(&work, 0);
    assert_eq!(tables["default.inferred"]["fieldsDropped"], 300, "{tables:#?}");
    let asked = outcome
        .stderr
        .matches("the table can't take these values as it is")
        .count();
    assert_eq!(asked, 1, "the catalog is asked once: {}", outcome.stderr);
    let found = read_both(&work, &[("default.inferred", None), ("default.flat", None)]);
    for ReadTable { rows, .. } in &found[0] {
        assert_eq!(ids(rows), (0..304).collect::<Vec<_>>());
        assert_eq!(
            json!([row(rows, 0)["m"], row(rows, 1)["m"], row(rows, 2)["m"]]),
            json!(["1", "x", "[true]"])
        );
        assert_eq!(
            json!([row(rows, 0)["big"], row(rows, 1)["big"]]),
            json!(["1", "18446744073709551616"])
        );
        assert_eq!(
            json!([
                row(rows, 2)["f"],
                row(rows, 2)["n"]["y"][0]["z"],
                row(rows, 2)["n"]["x"]
            ]),
            json!([1.0, true, null])
        );
        let new = row(rows, 100);
        assert_eq!(
            json!([
                new["only"],
                new["e"],
                new["arr"],
                new["Case"],
                new["n"]["k"],
                new["n"]["y"][0]
            ]),
            json!([{"deep": 1}, {"q": "s"}, [1.5], 7, true, {"z": false, "w": {"v": "new"}}])
        );
    }
    for ReadTable { rows, .. } in &found[1] {
        assert_eq!(
            json!([row(rows, 1)["a_b"], row(rows, 1)["a_c_d"], row(rows, 1)["l"]]),
            json!([1, "x", [{"e": 1}]])
        );
        assert_eq!(
            json!([row(rows, 2)["a_b"], row(rows, 2)["a_new"], row(rows, 2)["a_c_more_x"]]),
            json!([2, 2.5, true])
        );
    }
}

#[test]
fn a_table_of_another_engine_is_widened_ignored_or_kept_strictly() {
    let (kafka, topic) = (Kafka::shared(), "records-wide");
    produce::create_topic(kafka, topic, 3, &[]);
    let table = |name: &str, evolution: &str| {
        json!({
            "name": name, "source": {"topic": topic, "batchSize": 40}, "materialize": {"schemaEvolution": evolution},
            "errors": {"maxRejected": "100%"},
        })
    };
    let names = ["wide_evolve", "wide_ignore", "wide_strict"];
    let tables = json!([
        table(names[0], "evolve"),
        table(names[1], "ignore"),
        table(names[2], "strict")
    ]);
    let work = Workspace::new(&file(kafka, json!({}), tables));
    let catalog = Catalog::sql(&work.warehouse());
    fs::create_dir_all(work.warehouse()).expect("a folder");
    let field = |id: i32, name: &str, of: Value| json!({"id": id, "name": name, "type": of, "required": false});
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        field(1, "id", "long".into()), field(2, "i", "int".into()), field(3, "f", "float".into()),
        field(4, "d", "decimal(4, 2)".into()),
        field(5, "s", json!({"type": "struct", "fields": [field(6, "i", "int".into())]})),
        field(7, "l", json!({"type": "list", "element-id": 8, "element": "int", "element-required": false})),
        field(9, "p", "int".into()),
    ]});
    for name in names {
        let form = json!({
            "schema": schema, "properties": {"commit.manifest.min-count-to-merge": "3"},
            "spec": {"spec-id": 0, "fields": [{"source-id": 9, "field-id": 1000, "transform": "identity", "name": "p"}]},
        });
        readers::make_table(&catalog, &format!("default.{name}"), form);
    }
    let small = |n: i64, more: &str| {
        let value = format!(
            r#"{{"id":{n},"i":{n},"f":0.5,"d":1.25,"s":{{"i":{n}}},"l":[{n}],"p":{}{more}}}"#,
            n % 2
        );
        Record::of(value).partition((n % 3) as i32)
    };
    produce::produce(kafka, topic, (0..100).map(|n| small(n, "")));
    run(&work, 0);
    produce::produce(kafka, topic, (100..130).map(|n| small(n, r#","extra":1"#)));
    let wide = (130..230_i64).map(|n| {
        let large = 3_000_000_000 + n;
        let value = format!(
            r#"{{"id":{n},"i":{large},"f":1e300,"d":{n}456.25,"s":{{"i":{large}}},"l":[1,{large}],"p":{}}}"#,
            n % 2
        );
        Record::of(value).partition((n % 3) as i32)
    });
    produce::produce(kafka, topic, wide);
    produce::produce(
        kafka,
        topic,
        [
            Record::of(r#"{"id":230,"p":3000000000}"#).partition(0),
            Record::of(r#"{"id":231,"i":1.5}"#).partition(0),
        ],
    );
    let (outcome, tables) = run(&work, 3);
    let [evolve, ignore, strict] = names.map(|name| &tables[&format!("default.{name}")]);
    assert_eq!(
        json!([evolve["exitCode"], evolve["rowsWritten"], evolve["rejected"]]),
        json!([0, 130, 2]),
        "{outcome:#?}"
    );
    assert_eq!(
        json!([
            ignore["exitCode"],
            ignore["rowsWritten"],
            ignore["rejected"],
            ignore["fieldsDropped"]
        ]),
        json!([0, 30, 102, 30]),
        "{outcome:#?}"
    );
    assert_eq!(strict["exitCode"], 3, "{outcome:#?}");
    let error = text(&strict["error"]);
    assert!(
        error.contains("strict") && error.contains("- {name: extra, type: long}"),
        "{error}"
    );

    let reads = [
        ("default.wide_evolve", None),
        ("default.wide_evolve", Some("i > 2147483647 and f > 1000.5")),
        ("default.wide_evolve", Some("i < 50 and d < 2")),
        ("default.wide_ignore", None),
        ("default.wide_ignore_dead_letters", None),
        ("default.wide_evolve_dead_letters", None),
        ("default.wide_strict", None),
    ];
    let found = read_both(&work, &reads);
    let schema = &found[0][0].schema;
    assert_eq!(
        json!([schema["i"], schema["f"], schema["d"], schema["p"], schema["extra"]]),
        json!(["long", "double", "decimal(8, 2)", "int", "long"]),
        "{schema:?}"
    );
    for (engine, read) in found[0].iter().enumerate() {
        let rows = &read.rows;
        assert_eq!(ids(rows), (0..230).collect::<Vec<_>>());
        let (low, high) = (row(rows, 50), row(rows, 200));
        assert_eq!(
            json!([low["i"], low["f"], low["d"], low["s"]["i"], low["l"]]),
            json!([50, 0.5, "1.25", 50, [50]])
        );
        assert_eq!(
            json!([high["i"], high["f"], high["d"], high["s"]["i"], high["l"]]),
            json!([
                3_000_000_200_i64,
                1e300,
                "200456.25",
                3_000_000_200_i64,
                [1, 3_000_000_200_i64]
            ])
        );
        assert_eq!(row(rows, 110)["extra"], 1);
        assert_eq!(ids(&found[1][engine].rows), (130..230).collect::<Vec<_>>());
        assert_eq!(ids(&found[2][engine].rows), (0..50).collect::<Vec<_>>());
        assert_eq!(ids(&found[3][engine].rows), (0..130).collect::<Vec<_>>());
    }
    let reasons = |letters: &ReadTable| -> BTreeSet<String> {
        letters
            .rows
            .iter()
            .map(|letter| text(&letter["error"]).to_owned())
            .collect()
    };
    assert_eq!(
        reasons(&found[5][1]),
        [
            "column `i` is long, the value 1.5 is not; `- {name: i, type: double}` would take it".to_owned(),
            "column `p` is int, the value 3000000000 is not; `- {name: p, type: long}` would take it".to_owned(),
        ]
        .into()
    );
    let ignored = reasons(&found[4][1]);
    let line = "column `i` is int, the value 3000000131 is not; `- {name: i, type: long}` would take it";
    assert!(ignored.len() == 102 && ignored.contains(line), "{ignored:?}");
    // The window that met the new field isn't stored, and nothing behind it.
    let kept = ids(&found[6][1].rows);
    assert!(kept.len() >= 100 && kept.iter().all(|id| *id < 130), "{kept:?}");
}

#[test]
fn rejects_go_where_they_are_told_or_end_the_run() {
    let (kafka, topic) = (Kafka::shared(), "records-rejects");
    produce::create_topic(kafka, topic, 2, &[]);
    for letters in ["records-letters-only", "records-letters-both"] {
        produce::create_topic(kafka, letters, 1, &[]);
    }
    let good = |from: i32, to: i32| (from..to).map(|id| Record::of(format!(r#"{{"id":{id}}}"#)).partition(id % 2));
    let huge = format!(r#"{{"id": "{}"#, "x".repeat(5_000_000));
    let mut poison = Record::of("{nonsense")
        .key([0xff, 0x00])
        .header("trace", "t1")
        .at(1_700_000_000_123)
        .partition(0);
    poison.headers.push(("empty".to_owned(), None));
    produce::produce(kafka, topic, good(0, 100));
    produce::produce(
        kafka,
        topic,
        [
            poison,
            Record::of(huge.as_str()).partition(1),
            Record::tombstone("gone").partition(1),
        ],
    );
    produce::produce(kafka, topic, good(100, 200));
    let table = |name: &str, errors: Value| json!({"name": name, "source": {"topic": topic}, "errors": errors});
    let tables = json!([
        table("letters_default", json!({})),
        table(
            "letters_topic",
            json!({"deadLetter": {"topic": "records-letters-only"}})
        ),
        table(
            "letters_both",
            json!({"deadLetter": {"topic": "records-letters-both", "table": "aside"}})
        ),
        table("letters_skipped", json!({"onDecodeError": "skip"})),
        table("letters_fail", json!({"onDecodeError": "fail"})),
    ]);
    let work = Workspace::new(&file(kafka, json!({}), tables));
    let (outcome, tables) = run(&work, 3);
    for (name, table) in &tables {
        if name == "default.letters_fail" {
            assert_eq!(
                json!([table["exitCode"], table["snapshots"].as_array().map(Vec::len)]),
                json!([3, 1]),
                "{table:#}"
            );
            assert!(text(&table["error"]).contains("onDecodeError"), "{table:#}");
        } else {
            let counts = json!([
                table["exitCode"],
                table["rowsWritten"],
                table["rejected"],
                table["filtered"]
            ]);
            assert_eq!(counts, json!([0, 200, 2, 1]), "{table:#}\n{}", outcome.stderr);
        }
    }
    let reads = [
        ("default.letters_default", None),
        ("default.letters_default_dead_letters", None),
        ("default.aside", None),
        ("default.letters_skipped", None),
        ("default.letters_fail", None),
    ];
    let found = read_both(&work, &reads);
    for table in [0, 3] {
        for read in &found[table] {
            assert_eq!(ids(&read.rows), (0..200).collect::<Vec<_>>());
        }
    }
    assert!(found[4].iter().all(|read| read.rows.is_empty()));
    for table in [1, 2] {
        for letters in found[table].iter().map(|read| &read.rows) {
            assert_eq!(letters.len(), 2);
            let letter = letters
                .iter()
                .find(|letter| !letter["key"].is_null())
                .expect("the one with a key");
            assert_eq!(
                json!([
                    letter["topic"],
                    letter["partition"],
                    letter["offset"],
                    letter["key"],
                    letter["value"]
                ]),
                json!([topic, 0, 50, "/wA=", BASE64_STANDARD.encode("{nonsense")])
            );
            assert_eq!(text(&letter["timestamp"]), "2023-11-14T22:13:20.123000+00:00");
            assert_eq!(
                letter["headers"],
                json!([{"key": "trace", "value": BASE64_STANDARD.encode("t1")}, {"key": "empty", "value": null}])
            );
            assert_eq!(letter["stage"], "decode");
            assert!(text(&letter["error"]).contains("is no JSON"), "{letter}");
            let large = letters
                .iter()
                .find(|letter| letter["key"].is_null())
                .expect("the one without a key");
            assert!(
                text(&large["value"]) == BASE64_STANDARD.encode(&huge),
                "the whole value is kept"
            );
        }
    }
    for letters in ["records-letters-only", "records-letters-both"] {
        let sent = produce::read_all(kafka, letters, "read_committed");
        assert_eq!(sent.len(), 2, "{letters}");
        let letter = sent
            .iter()
            .find(|letter| letter.key.is_some())
            .expect("the one with a key");
        assert_eq!(letter.key.as_deref(), Some(&[0xff, 0x00][..]));
        assert_eq!(letter.value.as_deref(), Some(&b"{nonsense"[..]));
        assert_eq!(
            letter.headers[..2],
            [("trace".to_owned(), Some(b"t1".to_vec())), ("empty".to_owned(), None)]
        );
        let errors: BTreeMap<_, _> = letter.headers[2..]
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str(),
                    String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned(),
                )
            })
            .collect();
        assert_eq!(
            (
                errors["aperio.topic"].as_str(),
                errors["aperio.partition"].as_str(),
                errors["aperio.offset"].as_str()
            ),
            (topic, "0", "50")
        );
        assert!(errors["aperio.error"].contains("is no JSON"), "{errors:?}");
        let large = sent
            .iter()
            .find(|letter| letter.key.is_none())
            .expect("the one without a key");
        assert!(
            large.value.as_deref() == Some(huge.as_bytes()),
            "the whole value is kept"
        );
    }
}

#[test]
fn too_many_rejects_end_the_run_before_anything_is_stored() {
    let (kafka, topic) = (Kafka::shared(), "records-too-many");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(kafka, topic, (0..985).map(|id| Record::of(format!(r#"{{"id":{id}}}"#))));
    produce::produce(kafka, topic, (0..15).map(|_| Record::of("nonsense")));
    let table =
        |name: &str, limit: Value| json!({"name": name, "source": {"topic": topic}, "errors": {"maxRejected": limit}});
    let tables = json!([
        table("share_over", "1%".into()),
        table("share_at", "1.5%".into()),
        table("count_over", 14.into()),
        table("count_at", 15.into()),
    ]);
    let work = Workspace::new(&file(kafka, json!({}), tables));
    let (outcome, tables) = run(&work, 3);
    for (name, table) in &tables {
        let over = name.ends_with("over");
        assert_eq!(table["exitCode"], if over { 3 } else { 0 }, "{table:#}");
        if over {
            assert_eq!(table["offsets"]["0"]["end"], 0, "{table:#}");
            assert!(text(&table["error"]).contains("15"), "{table:#}");
        }
    }
    let reads = ["share_over", "count_over", "share_at", "count_at"].map(|name| format!("default.{name}"));
    let found = read_both(&work, &reads.each_ref().map(|name| (name.as_str(), None)));
    let rows: Vec<_> = found
        .iter()
        .map(|engines| engines.each_ref().map(|read| read.rows.len()))
        .collect();
    assert_eq!(rows, [[0, 0], [0, 0], [985, 985], [985, 985]]);
    let letters: BTreeSet<_> = fs::read_dir(work.warehouse().join("default"))
        .expect("the namespace's folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with("_dead_letters"))
        .collect();
    let expected = ["count_at_dead_letters", "share_at_dead_letters"].map(str::to_owned);
    assert_eq!(
        letters,
        expected.into(),
        "no letter is stored for a window that isn't: {}",
        outcome.stderr
    );
}

#[test]
fn hostile_values_cost_only_themselves() {
    let (kafka, topic) = (Kafka::shared(), "records-hostile");
    produce::create_topic(kafka, topic, 2, &[]);
    let plain = (100..200).map(|id| Record::of(format!(r#"{{"id":{id},"s":"x","x":1.5}}"#)).partition(id % 2));
    produce::produce(kafka, topic, plain);
    let table = json!([{"name": "hostile", "source": {"topic": topic}, "errors": {"maxRejected": "90%"}}]);
    let work = Workspace::new(&file(kafka, json!({}), table));
    run(&work, 0);
    let deep = |open: &str, close: &str| open.repeat(50_000) + "1" + &close.repeat(50_000);
    let large = "y".repeat(5_000_000);
    let refused: Vec<(&str, Vec<u8>, &str)> = vec![
        ("deep objects", deep("{\"a\":", "}").into(), "nested more than 128 deep"),
        (
            "deep field",
            format!(r#"{{"id":10,"new":{}}}"#, deep("[", "]")).into(),
            "nested more than 128 deep",
        ),
        ("utf8", b"{\"id\":2,\"s\":\"\xff\"}".to_vec(), "no UTF-8"),
        ("surrogate", br#"{"id":3,"s":"\ud800"}"#.to_vec(), "is no JSON"),
        ("escape", br#"{"id":4,"s":"\q"}"#.to_vec(), "is no JSON"),
        ("nan", br#"{"id":5,"x":NaN}"#.to_vec(), "is no JSON"),
        (
            "beyond 64 bits",
            br#"{"id":18446744073709551616}"#.to_vec(),
            "- {name: id, type: \"decimal(38, 0)\"}",
        ),
        (
            "beyond double",
            br#"{"id":7,"x":1e999}"#.to_vec(),
            "- {name: x, type: string}",
        ),
        ("empty", Vec::new(), "the value is empty"),
        ("root", b"[1]".to_vec(), "no JSON object"),
        ("spellings", br#"{"id":9,"ID":9}"#.to_vec(), "two spellings"),
        ("trailing", br#"{"id":13}x"#.to_vec(), "is no JSON"),
    ];
    let taken: [(&str, Vec<u8>); 5] = [
        ("large", format!(r#"{{"id":1,"s":"{large}"}}"#).into()),
        (
            "equal names",
            br#"{"id":5,"id":6,"s":"first","x":"no","s":"last","x":2.5}"#.to_vec(),
        ),
        ("byte-order mark", b"\xef\xbb\xbf{\"id\":8}".to_vec()),
        ("exponent", br#"{"id":5e2,"s":18446744073709551616}"#.to_vec()),
        ("pair", br#"{"id":11,"s":"\ud83d\ude00"}"#.to_vec()),
    ];
    let mut records = Vec::new();
    for (at, (key, value)) in (0..).zip(
        refused
            .iter()
            .map(|(key, value, _)| (key, value))
            .chain(taken.iter().map(|(key, value)| (key, value))),
    ) {
        records.push(Record::of(value.clone()).key(*key).partition(at % 2));
        records.push(Record::of(format!(r#"{{"id":{}}}"#, 1000 + at)).partition(at % 2));
    }
    records.push(Record::tombstone("null").partition(0));
    produce::produce(kafka, topic, records);
    let (_, tables) = run(&work, 0);
    let table = &tables["default.hostile"];
    assert_eq!(
        json!([table["rejected"], table["filtered"], table["lag"]]),
        json!([12, 1, 0]),
        "{table:#}"
    );
    let found = read_both(
        &work,
        &[("default.hostile", None), ("default.hostile_dead_letters", None)],
    );
    let mut expected: Vec<i64> = [1, 6, 8, 11]
        .into_iter()
        .chain(100..200)
        .chain([500])
        .chain(1000..1017)
        .collect();
    expected.sort_unstable();
    for ReadTable { rows, .. } in &found[0] {
        assert_eq!(ids(rows), expected);
        assert!(row(rows, 1)["s"] == large, "5 MB are kept");
        assert_eq!(json!([row(rows, 6)["s"], row(rows, 6)["x"]]), json!(["last", 2.5]));
        assert_eq!(
            json!([row(rows, 11)["s"], row(rows, 500)["s"]]),
            json!(["😀", "18446744073709551616"])
        );
    }
    for ReadTable { rows, .. } in &found[1] {
        assert_eq!(rows.len(), refused.len());
        for (key, value, reason) in &refused {
            let key = BASE64_STANDARD.encode(key);
            let letter = rows.iter().find(|letter| letter["key"] == *key).expect(reason);
            assert!(text(&letter["error"]).contains(reason), "{}", letter["error"]);
            assert!(
                text(&letter["value"]) == BASE64_STANDARD.encode(value),
                "{reason}: the value is kept as it was"
            );
        }
    }
}

const COUNTRIES: [Option<&str>; 11] = [
    Some("de"),
    Some("a/../../b"),
    Some("a#b?c"),
    Some("größe 100%"),
    Some(""),
    None,
    Some(".."),
    Some("a=b&c d\\"),
    Some("null"),
    Some(
        "Grönland: ein Name, der länger ist als ein Verzeichnis, aber nicht länger als ein Wert. Und noch ein Stück, damit er es wird.",
    ),
    Some("deutsch"),
];

/// 2023-12-20T00:00:00Z
const WINTER_MS: i64 = 1_703_030_400_000;
const HOUR_MS: i64 = 3_600_000;

#[test]
fn every_kind_of_partition_is_read_back_filtered() {
    let (kafka, topic) = (Kafka::shared(), "records-partitions");
    produce::create_topic(kafka, topic, 3, &[]);
    let at = |n: i64| WINTER_MS + n * 7 * HOUR_MS;
    let country = |n: i64| COUNTRIES[n as usize % COUNTRIES.len()];
    let record = |n: i64| {
        let value = json!({
            "id": n, "ts": at(n), "tz": at(n), "country": country(n), "flag": n % 2 == 0,
            "day": format!("2024-01-{:02}", n % 28 + 1), "price": (n % 5) as f64 + 0.25,
            "geo": {"zone": format!("z{}", n % 3), "at": at(n)}, "u": format!("00000000-0000-0000-0000-{n:012}"),
        });
        Record::of(value.to_string()).partition((n % 3) as i32)
    };
    produce::produce(kafka, topic, (0..120).map(record));
    produce::produce(kafka, topic, [Record::of(r#"{"id":120,"country":"de"}"#).partition(0)]);
    let column = |name: &str, of: &str| json!({"name": name, "type": of});
    let columns = json!([
        column("id", "long"),
        column("ts", "timestamp"),
        column("tz", "timestamptz"),
        column("country", "string"),
        column("flag", "boolean"),
        column("day", "date"),
        column("price", "decimal(9, 2)"),
        column("geo", "struct<zone: string>"),
        column("u", "uuid"),
    ]);
    let new_year = |n: i64| at(n) >= WINTER_MS + 12 * 24 * HOUR_MS && at(n) < WINTER_MS + 13 * 24 * HOUR_MS;
    let tz = "tz >= '2024-01-01T00:00:00+00:00' and tz < '2024-01-02T00:00:00+00:00'";
    // No column holds `geo.at`: it is read for `_event_time` alone.
    let own_time = tz.replace("tz", "_event_time");
    let ts = "ts >= '2024-01-01T00:00:00' and ts < '2024-01-02T00:00:00'";
    let is = |name: &'static str| move |n: i64| country(n) == Some(name);
    let decade = |n: i64| (30..50).contains(&n);
    type Check<'a> = (&'a str, Value, &'a str, &'a dyn Fn(i64) -> bool);
    let (slashes, signs, none, empty, long) = (
        is("a/../../b"),
        is("a#b?c"),
        |n| country(n).is_none(),
        is(""),
        is(COUNTRIES[9].unwrap_or_default()),
    );
    let long_filter = format!("country = '{}'", COUNTRIES[9].unwrap_or_default());
    let checks: [Check<'_>; 16] = [
        ("by_date", json!(["date"]), tz, &new_year),
        ("by_hour", json!(["date", "hour"]), &own_time, &new_year),
        ("by_country", json!(["country"]), "country = 'a/../../b'", &slashes),
        ("by_country", json!(["country"]), "country = 'a#b?c'", &signs),
        ("by_country", json!(["country"]), "country is null", &none),
        ("by_country", json!(["country"]), "country = ''", &empty),
        ("by_country", json!(["country"]), &long_filter, &long),
        ("by_day", json!(["day(ts)"]), ts, &new_year),
        ("by_month", json!(["month(ts)", "flag"]), ts, &new_year),
        ("by_year", json!(["year(tz)"]), tz, &new_year),
        ("by_hour_of", json!(["hour(ts)"]), ts, &new_year),
        ("by_bucket", json!(["bucket(4, id)"]), "id = 17", &|n| n == 17),
        (
            "by_bucket_text",
            json!(["bucket(8, country)", "bucket(3, u)"]),
            "country = 'a#b?c'",
            &signs,
        ),
        (
            "by_truncate",
            json!(["truncate(2, country)"]),
            "country = 'a/../../b'",
            &slashes,
        ),
        (
            "by_truncate_long",
            json!(["truncate(10, id)"]),
            "id >= 30 and id < 50",
            &decade,
        ),
        (
            "by_many",
            json!(["geo.zone", "price", "day"]),
            "day = '2024-01-05' and price < 2",
            &|n| n % 28 == 4 && n % 5 < 2,
        ),
    ];
    let mut tables: Vec<Value> = Vec::new();
    for (name, partition, _, _) in &checks {
        if tables.iter().any(|table| table["name"] == *name) {
            continue;
        }
        let mut table = json!({"name": name, "source": {"topic": topic}, "materialize": {"partition": partition}});
        match *name {
            "by_date" => table["source"]["eventTimeField"] = "tz".into(),
            "by_hour" => table["source"]["eventTimeField"] = "geo.at".into(),
            _ => {}
        }
        tables.push(table);
    }
    let defaults = json!({"columns": columns, "errors": {"maxRejected": 10}, "source": {}});
    let work = Workspace::new(&file(kafka, defaults, Value::Array(tables)));
    let (_, reports) = run(&work, 0);
    let names: Vec<_> = checks.iter().map(|(name, ..)| format!("default.{name}")).collect();
    let mut reads: Vec<(&str, Option<&str>)> = Vec::new();
    for (name, (_, _, filter, _)) in names.iter().zip(&checks) {
        reads.extend([(name.as_str(), Some(*filter)), (name, None)]);
    }
    reads.push(("default.by_date_dead_letters", None));
    let found = read_both(&work, &reads);
    for ((name, _, filter, wanted), pair) in checks.iter().zip(found.chunks(2)) {
        let by_event_time = *name == "by_date" || *name == "by_hour";
        let last = 121 - i64::from(by_event_time);
        for (filtered, all) in pair[0].iter().zip(&pair[1]) {
            let some: Vec<_> = (0..120).filter(|n| wanted(*n)).collect();
            assert!(!some.is_empty(), "{name}: the filter finds something");
            assert_eq!(ids(&filtered.rows), some, "{name} where {filter}");
            assert_eq!(ids(&all.rows), (0..last).collect::<Vec<_>>(), "{name}");
            for row in all.rows.iter().filter(|row| row["id"].as_i64() < Some(120)) {
                let n = row["id"].as_i64().expect("an id");
                assert_eq!(row["country"], json!(country(n)), "{name}");
                assert_eq!(row["geo"]["zone"], format!("z{}", n % 3), "{name}");
            }
        }
        if *name != "by_year" {
            let (some, all) = (pair[0][0].files, pair[1][0].files);
            assert!(some < all, "{name} where {filter}: {some} of {all} files are read");
        }
        let rejected = i32::from(by_event_time);
        assert_eq!(reports[&format!("default.{name}")]["rejected"], rejected, "{name}");
    }
    let letters = &found.last().expect("the letters")[1].rows;
    assert_eq!(
        json!([letters.len(), letters[0]["stage"], letters[0]["error"]]),
        json!([1, "place", "event time field `tz`: it is null or missing"])
    );
    assert!(
        !work.path().join("b").exists() && !work.warehouse().join("b").exists(),
        "no value leaves its directory"
    );
}

#[test]
fn long_strings_are_found_by_filters_and_a_sort_order_is_kept() {
    let (kafka, topic) = (Kafka::shared(), "records-sorted");
    produce::create_topic(kafka, topic, 1, &[]);
    let prefix = "p".repeat(64);
    let name = |n: i64| match n % 7 {
        0 => Some(format!("{prefix}{n:04}")),
        1 => Some(format!("{prefix}\u{10ffff}{n:04}")),
        2 => Some("\u{10ffff}".repeat(40)),
        3 => Some(format!("short {n}")),
        4 => None,
        5 => Some(format!("{}é{n:04}", "z".repeat(63))),
        _ => Some(String::new()),
    };
    let record = |n: i64| Record::of(json!({"id": n, "name": name(n)}).to_string());
    produce::produce(kafka, topic, (0..3000).map(record));
    let small_groups = json!({"write.parquet.row-group-size-bytes": "16384"});
    let tables = json!([
        {"name": "sorted", "source": {"topic": topic}},
        {"name": "unsorted", "source": {"topic": topic, "batchSize": 500}, "materialize": {"tableProperties": small_groups}},
    ]);
    let work = Workspace::new(&file(kafka, json!({}), tables));
    fs::create_dir_all(work.warehouse()).expect("a folder");
    let catalog = Catalog::sql(&work.warehouse());
    let form = json!({
        "schema": {"type": "struct", "schema-id": 0, "fields": [
            {"id": 1, "name": "id", "type": "long", "required": false},
            {"id": 2, "name": "name", "type": "string", "required": false},
        ]},
        "order": {"order-id": 1, "fields": [
            {"source-id": 2, "transform": "identity", "direction": "desc", "null-order": "nulls-last"},
            {"source-id": 1, "transform": "identity", "direction": "asc", "null-order": "nulls-first"},
        ]},
        "properties": small_groups,
    });
    readers::make_table(&catalog, "default.sorted", form);
    run(&work, 0);
    let exact = format!("name = '{prefix}0700'");
    let above = format!("name >= '{prefix}2900'");
    let between = format!("name > '{prefix}' and name < '{prefix}0100'");
    let highest = format!("name >= '{}'", "\u{10ffff}".repeat(40));
    type Check<'a> = (&'a str, &'a dyn Fn(&str) -> bool);
    let checks: [Check<'_>; 6] = [
        (&exact, &|name| name == format!("{prefix}0700")),
        (&above, &|name| *name >= *format!("{prefix}2900")),
        (&between, &|name| *name > *prefix && *name < *format!("{prefix}0100")),
        (&highest, &|name| *name >= *"\u{10ffff}".repeat(40)),
        ("name >= 'zz'", &|name| name >= "zz"),
        ("name = ''", &str::is_empty),
    ];
    let mut reads = vec![("default.sorted", None), ("default.unsorted", None)];
    for (filter, _) in &checks {
        reads.extend([("default.sorted", Some(*filter)), ("default.unsorted", Some(*filter))]);
    }
    let found = read_both(&work, &reads);
    for (pair, (filter, wanted)) in found[2..].chunks(2).zip(&checks) {
        let expected: Vec<_> = (0..3000)
            .filter(|n| name(*n).is_some_and(|name| wanted(&name)))
            .collect();
        assert!(!expected.is_empty(), "{filter}");
        for read in pair.iter().flatten() {
            assert_eq!(ids(&read.rows), expected, "{filter}");
        }
    }
    assert_eq!((found[0][0].files, found[1][0].files), (1, 6));
    let rows = &found[0][0].rows;
    assert_eq!(rows.len(), 3000);
    let keys: Vec<_> = rows
        .iter()
        .map(|row| (row["name"].as_str(), row["id"].as_i64()))
        .collect();
    for pair in keys.windows(2) {
        let ((before, id_before), (after, id_after)) = (pair[0], pair[1]);
        let falls = match (before, after) {
            (Some(before), Some(after)) => before > after || before == after && id_before < id_after,
            (Some(_), None) => true,
            (None, after) => after.is_none() && id_before < id_after,
        };
        assert!(falls, "{pair:?}");
    }
}
