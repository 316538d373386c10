//! Avro topics through a real schema registry: schemas that change while runs are killed, every type value by value, and a
//! registry that is away, refuses, or lacks what records name. Records are written by fastavro.

use std::time::Duration;

use serde_json::{Value, json};

use super::aperio::{Aperio, Workspace};
use super::encode;
use super::produce::{self, Record};
use super::proxy::Fault;
use super::readers::{self, Catalog, Engine};
use super::registry::{Registry, RegistryProxy};
use super::servers::Kafka;
use super::topic_table::{self, avro_record as record, produce_avro as produce, rows, without_nulls};

fn pipeline(topic: &str, registry: &str, more: &str) -> String {
    topic_table::pipeline(topic, "avro", &format!("      schemaRegistry: \"{registry}\"\n{more}"))
}

fn produce_as(topic: &str, id: i32, schema: &Value, values: Vec<Value>) {
    topic_table::produce(topic, encode::avro(Some(id), schema, values));
}

/// What version a row was written with, and so what is expected of it, once all four are known.
fn expected(id: i64, version: usize) -> Value {
    let n = id as f64;
    // What a record lacks is null, or the default of the newest schema.
    json!({
        "id": id,
        "user": {
            "name": format!("u{id}"),
            "email": if version >= 2 && id % 2 == 0 { json!(format!("u{id}@x")) } else { Value::Null },
        },
        "total": if version >= 2 { id << 33 } else { id },
        "note": if version <= 2 { json!(format!("n{id}")) } else { Value::Null },
        "ratio": if version == 4 { n / 3.0 } else { f64::from(n as f32 / 4.0) },
        "country": if version >= 3 { format!("c{id}") } else { "XX".to_owned() },
        "tags": if version == 4 { json!(["a", null, format!("t{id}")]) } else { Value::Null },
    })
}

/// The four schemas: a field inside another, wider numbers, a renamed and a dropped field, other orders.
fn versions() -> [Value; 4] {
    let user = |fields: Value| json!({"type": "record", "name": "User", "fields": fields});
    let (name, email) = (
        json!({"name": "name", "type": "string"}),
        json!({"name": "email", "type": ["null", "string"], "default": null}),
    );
    let country = json!({"name": "country", "type": "string", "default": "XX"});
    let total = json!({"name": "total", "aliases": ["amount"], "type": "long"});
    [
        record(
            "Order",
            json!([{"name": "id", "type": "int"}, {"name": "user", "type": user(json!([name]))}, {"name": "amount", "type": "int"}, {"name": "note", "type": "string"}, {"name": "ratio", "type": "float"}]),
        ),
        record(
            "Order",
            json!([{"name": "id", "type": "long"}, {"name": "user", "type": user(json!([email, name]))}, {"name": "amount", "type": "long"}, {"name": "note", "type": ["null", "string"]}, {"name": "ratio", "type": "float"}]),
        ),
        record(
            "Order",
            json!([country, {"name": "id", "type": "long"}, {"name": "user", "type": user(json!([name, email]))}, total, {"name": "ratio", "type": "float"}]),
        ),
        record(
            "Order",
            json!([{"name": "id", "type": "long"}, {"name": "user", "type": ["null", user(json!([name, email]))], "default": null}, total, country, {"name": "ratio", "type": "double"}, {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "string"]}], "default": null}]),
        ),
    ]
}

fn value(id: i64, version: usize) -> Value {
    let expect = expected(id, version);
    let mut user = json!({"name": expect["user"]["name"]});
    if version >= 2 {
        user["email"] = expect["user"]["email"].clone();
    }
    let mut value = json!({"id": id, "user": user, "ratio": expect["ratio"]});
    let amount = if version <= 2 { "amount" } else { "total" };
    value[amount] = expect["total"].clone();
    for (name, from, to) in [("note", 1, 2), ("country", 3, 4), ("tags", 4, 4)] {
        if (from..=to).contains(&version) {
            value[name] = expect[name].clone();
        }
    }
    value
}

#[test]
fn a_topic_evolves_through_four_versions_while_runs_are_killed() {
    let topic = "avro-versions";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let work = Workspace::new(&pipeline(topic, &Registry::shared().url(), ""));
    let versions = versions();
    let mut wanted: Vec<(i64, usize)> = Vec::new();
    let mut ids = Vec::new();
    for (at, schema) in versions.iter().enumerate() {
        let version = at + 1;
        let first = wanted.len() as i64;
        let mut of_version: Vec<(i64, usize)> = (first..first + 300).map(|id| (id, version)).collect();
        // The newest first, then an old producer that still runs, in the same windows.
        if version > 1 {
            of_version.extend((first + 300..first + 400).map(|id| (id, version - 1)));
        }
        let values = |version: usize| {
            let of = of_version.iter().filter(|(_, other)| *other == version);
            of.map(|(id, version)| value(*id, *version)).collect::<Vec<_>>()
        };
        ids.push(produce(topic, schema, values(version)));
        if version > 1 {
            produce_as(topic, ids[at - 1], &versions[at - 1], values(version - 1));
        }
        wanted.extend(of_version);
        for round in 0..6 {
            work.start_once(&[])
                .kill_after(Duration::from_millis(250 + 130 * round));
        }
        work.start_once(&[]).wait().expect_code(0);
    }
    let expect: Vec<Value> = wanted.iter().map(|(id, version)| expected(*id, *version)).collect();
    // A row that was written before the table had the column has none of its default.
    let as_expected = |row: &Value, expect: &Value| -> bool {
        let mut row = row.clone();
        if row["country"].is_null() {
            row["country"] = json!("XX");
        }
        // Spark's JSON leaves out what is null.
        without_nulls(&row) == without_nulls(expect)
    };
    for engine in [Engine::PyIceberg, Engine::Spark] {
        let found = rows(engine, &work, topic);
        assert_eq!(found.len(), expect.len(), "{engine:?}: rows");
        for (found, expect) in found.iter().zip(&expect) {
            assert!(as_expected(found, expect), "{engine:?}: {found} is not {expect}");
        }
    }
    // The column was renamed: its id is the one it had as `amount`.
    let metadata = work.metadata("avro_versions");
    let schemas = metadata["schemas"].as_array().expect("schemas");
    let id_of = |name: &str| {
        let fields = schemas
            .iter()
            .flat_map(|schema| schema["fields"].as_array().expect("fields"));
        fields
            .filter(|field| field["name"] == name)
            .map(|field| field["id"].clone())
            .next()
    };
    assert_eq!(id_of("amount"), id_of("total"));
    assert!(id_of("amount").is_some(), "{schemas:#?}");
}

#[test]
fn values_of_every_type_are_as_they_were_written() {
    let topic = "avro-types";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    let schema = record(
        "All",
        json!([
            {"name": "id", "type": "long"},
            {"name": "yes", "type": "boolean"},
            {"name": "small", "type": "int"},
            {"name": "half", "type": "float"},
            {"name": "whole", "type": "double"},
            {"name": "raw", "type": "bytes"},
            {"name": "text", "type": "string"},
            {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}},
            {"name": "four", "type": {"type": "fixed", "name": "Four", "size": 4}},
            {"name": "date", "type": logical("int", "date")},
            {"name": "time_ms", "type": logical("int", "time-millis")},
            {"name": "time_us", "type": logical("long", "time-micros")},
            {"name": "at_ms", "type": logical("long", "timestamp-millis")},
            {"name": "at_us", "type": logical("long", "timestamp-micros")},
            {"name": "at_ns", "type": logical("long", "timestamp-nanos")},
            {"name": "local_ms", "type": logical("long", "local-timestamp-millis")},
            {"name": "local_us", "type": logical("long", "local-timestamp-micros")},
            {"name": "uuid", "type": logical("string", "uuid")},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "fixed_price", "type": {"type": "fixed", "name": "P", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 4}},
            {"name": "span", "type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}},
            {"name": "maybe", "type": ["null", "string"]},
            {"name": "either", "type": ["null", "long", "string", {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}]},
            {"name": "numbers", "type": {"type": "array", "items": ["null", "int"]}},
            {"name": "points", "type": {"type": "array", "items": "Point"}},
            {"name": "counts", "type": {"type": "map", "values": "long"}},
            {"name": "tree", "type": {"type": "record", "name": "Tree", "fields": [{"name": "v", "type": "int"}, {"name": "kids", "type": {"type": "array", "items": "Tree"}}]}},
            {"name": "empty", "type": {"type": "record", "name": "Empty", "fields": []}},
            {"name": "nothing", "type": "null"},
        ]),
    );
    let full = |id: i64| {
        json!({
            "id": id, "yes": id % 2 == 0, "small": -7 - id, "half": 1.5, "whole": 0.1, "raw": {"$bytes": "AAH/"},
            "text": "é\u{1F600}\"\n", "color": "BLUE", "four": {"$fixed": "AQIDBA=="},
            "date": {"$date": "1969-12-31"}, "time_ms": {"$time": "10:30:00.500"}, "time_us": {"$time": "23:59:59.999999"},
            "at_ms": {"$datetime": "2024-01-15T10:30:00.123+00:00"}, "at_us": {"$datetime": "1969-12-31T23:59:59.999999+00:00"},
            "at_ns": -1, "local_ms": {"$datetime": "2024-01-15T10:30:00.123"}, "local_us": {"$datetime": "2024-01-15T10:30:00.123456"},
            "uuid": {"$uuid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}, "price": {"$decimal": "-1234567890.12"},
            "fixed_price": {"$decimal": "12345678901234.5678"}, "span": {"$duration": [1, 2, 3]}, "maybe": "x",
            "either": {"$union": ["shop.Point", {"x": 9}]}, "numbers": [1, null, 3], "points": [{"x": 1}, {"x": 2}],
            "counts": {"a": 1, "b": 2}, "tree": {"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]},
            "empty": {}, "nothing": null,
        })
    };
    let mut least = full(1);
    for (name, value) in [
        ("maybe", Value::Null),
        ("either", Value::Null),
        ("numbers", json!([])),
        ("points", json!([])),
        ("counts", json!({})),
        ("text", json!("")),
        ("raw", json!({"$bytes": ""})),
    ] {
        least[name] = value;
    }
    let mut other = full(2);
    other["either"] = json!("s");
    produce(topic, &schema, vec![full(0), least, other]);
    let work = Workspace::new(&pipeline(topic, &Registry::shared().url(), ""));
    work.start_once(&[]).wait().expect_code(0);
    let expect = json!({
        "id": 0, "yes": true, "small": -7, "half": 1.5, "whole": 0.1, "raw": "AAH/",
        "text": "é\u{1F600}\"\n", "color": "BLUE", "four": "AQIDBA==",
        "date": "1969-12-31", "time_ms": "10:30:00.500000", "time_us": "23:59:59.999999",
        "at_ms": "2024-01-15T10:30:00.123000+00:00", "at_us": "1969-12-31T23:59:59.999999+00:00",
        "at_ns": "1969-12-31T23:59:59.999999+00:00", "local_ms": "2024-01-15T10:30:00.123000", "local_us": "2024-01-15T10:30:00.123456",
        "uuid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "price": "-1234567890.12",
        "fixed_price": "12345678901234.5678", "span": "AQAAAAIAAAADAAAA", "maybe": "x",
        "either": {"long": null, "string": null, "Point": {"x": 9}}, "numbers": [1, null, 3], "points": [{"x": 1}, {"x": 2}],
        "counts": [["a", 1], ["b", 2]], "tree": {"v": 1, "kids": ["{\"v\":2,\"kids\":[]}", "{\"v\":3,\"kids\":[{\"v\":4,\"kids\":[]}]}"]},
        "empty": "{}",
    });
    let found = rows(Engine::PyIceberg, &work, topic);
    assert_eq!(found[0], expect);
    assert_eq!((&found[1]["maybe"], &found[1]["either"]), (&Value::Null, &Value::Null));
    assert_eq!(found[1]["numbers"], json!([]));
    assert_eq!(
        (&found[1]["counts"], &found[1]["text"], &found[1]["raw"]),
        (&json!([]), &json!(""), &json!(""))
    );
    assert_eq!(found[2]["either"], json!({"long": null, "string": "s", "Point": null}));
    // Spark refuses a table with a time of day as a whole: the same without.
    let topic = "avro-spark";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let mut schema = schema;
    let fields = schema["fields"].as_array_mut().expect("fields");
    fields.retain(|field| !field["name"].as_str().is_some_and(|name| name.starts_with("time_")));
    let mut value = full(0);
    let times: Vec<_> = ["time_ms", "time_us"].map(str::to_owned).into();
    times
        .iter()
        .for_each(|name| drop(value.as_object_mut().expect("a record").remove(name)));
    produce(topic, &schema, vec![value]);
    let work = Workspace::new(&pipeline(topic, &Registry::shared().url(), ""));
    work.start_once(&[]).wait().expect_code(0);
    let spark = readers::spark_sql(
        &Catalog::sql(&work.warehouse()),
        &["select id, yes, small, half, whole, text, color, cast(date as string) date, cast(price as string) price, uuid, maybe, either.Point.x x, numbers, counts['b'] b, tree.kids[1] kid, cast(at_ms as string) at_ms, cast(at_ns as string) at_ns, cast(local_us as string) local_us from avro_spark order by id".to_owned()],
    );
    let row = &spark[0][0];
    assert_eq!(row["x"], 9, "{row}");
    assert_eq!(
        (&row["b"], &row["price"]),
        (&json!(2), &json!("-1234567890.12")),
        "{row}"
    );
    assert_eq!(row["uuid"], "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "{row}");
    assert_eq!(row["kid"], "{\"v\":3,\"kids\":[{\"v\":4,\"kids\":[]}]}", "{row}");
    assert_eq!(
        (&row["date"], &row["numbers"]),
        (&json!("1969-12-31"), &json!([1, null, 3])),
        "{row}"
    );
}

#[test]
fn three_schemas_are_three_requests_and_an_outage_is_waited_for() {
    let topic = "avro-requests";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let schemas: Vec<Value> = (0..3)
        .map(|n| record("R", json!([{"name": "id", "type": "long"}, {"name": format!("f{n}"), "type": ["null", "long"], "default": null}])))
        .collect();
    let values = |n: i64| -> Vec<Value> {
        (0..3000)
            .map(|id| json!({"id": n * 3000 + id, format!("f{n}"): id}))
            .collect()
    };
    let mut ids = Vec::new();
    for (n, schema) in (0..).zip(&schemas) {
        ids.push(produce(topic, schema, values(n)));
    }
    let proxy = RegistryProxy::start(Registry::shared());
    let yaml = pipeline(topic, &proxy.url(), "")
        .replace("batchSize: 100", "batchSize: 2000")
        .replace("maxPollRecords: 20", "maxPollRecords: 500");
    let work = Workspace::new(&yaml);
    proxy.close();
    let mut run = work.start_once(&["--retry-for", "120s"]);
    assert!(run.wait_for("asking again"), "it waits for the registry");
    std::thread::sleep(Duration::from_secs(5));
    assert!(!run.ended(), "a registry that is away is waited for");
    proxy.open();
    run.wait().expect_code(0);
    let found = rows(Engine::DuckDb, &work, topic);
    assert_eq!(found.len(), 9000);
    assert_eq!((&found[3000]["f0"], &found[3000]["f1"]), (&Value::Null, &json!(0)));
    let asked: Vec<usize> = ids
        .iter()
        .map(|id| proxy.count(&format!("/schemas/ids/{id}")))
        .collect();
    assert_eq!(
        (asked, proxy.requests().len()),
        (vec![1, 1, 1], 3),
        "{:?}",
        proxy.requests()
    );

    // In the middle of a run: a fourth schema, and the registry answers with errors for longer than is waited.
    let more = record(
        "R",
        json!([{"name": "id", "type": "long"}, {"name": "late", "type": "string"}]),
    );
    produce(topic, &more, vec![json!({"id": 9000, "late": "x"})]);
    proxy.fail(Fault::Refuse(500));
    let out = work.start_once(&["--retry-for", "3s"]).wait().expect_code(4);
    assert!(
        out.stderr.contains("the schema registry can't be used"),
        "{}",
        out.stderr
    );
    proxy.fail(Fault::Refuse(401));
    let out = work.start_once(&["--retry-for", "3s"]).wait().expect_code(4);
    assert!(out.stderr.contains("401"), "{}", out.stderr);
    let check = || Aperio::run(work.path(), &["check", "--output", "json", "pipeline.yaml"]);
    let schemas = |report: Value| {
        let checks = report["tables"][0]["checks"].as_array().expect("checks").clone();
        checks
            .into_iter()
            .find(|check| check["subject"] == "schemas")
            .expect("the registry is asked")
    };
    let refused = schemas(check().expect_code(4).report());
    assert!(
        refused["error"].as_str().is_some_and(|error| error.contains("401")),
        "{refused:#}"
    );
    proxy.pass();
    let found = schemas(check().expect_code(0).report());
    assert!(
        found["found"]
            .as_str()
            .is_some_and(|found| found.contains("avro-requests-value`, version 4")),
        "{found:#}"
    );
    work.start_once(&[]).wait().expect_code(0);
    let found = rows(Engine::DuckDb, &work, topic);
    assert_eq!((found.len(), &found[9000]["late"]), (9001, &json!("x")));
}

#[test]
fn a_missing_schema_and_one_that_does_not_fit_end_the_run_or_cost_just_their_records() {
    let topic = "avro-missing";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let good = record(
        "R",
        json!([{"name": "id", "type": "long"}, {"name": "s", "type": "string"}]),
    );
    let other = record(
        "R",
        json!([{"name": "id", "type": "long"}, {"name": "s", "type": "int"}]),
    );
    produce(topic, &good, (0..50).map(|id| json!({"id": id, "s": "x"})).collect());
    let work = Workspace::new(&pipeline(topic, &Registry::shared().url(), ""));
    work.start_once(&[]).wait().expect_code(0);
    // A schema that nobody registered.
    produce_as(
        topic,
        999_999,
        &good,
        (50..60).map(|id| json!({"id": id, "s": "x"})).collect(),
    );
    let out = work.start_once(&[]).wait().expect_code(3);
    assert!(
        out.stderr
            .contains("name schema 999999, which the registry doesn't have"),
        "{}",
        out.stderr
    );
    let policy = |errors: &str| {
        let file = work.path().join("good.avsc");
        std::fs::write(&file, good.to_string()).expect("written");
        let more = format!("      schemaFile: good.avsc\n    errors: {{maxRejected: 100, {errors}}}\n");
        work.rewrite(&pipeline(topic, &Registry::shared().url(), &more));
    };
    policy("onMissingSchema: default");
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(rows(Engine::DuckDb, &work, topic).len(), 60);
    policy("onMissingSchema: deadLetter");
    produce_as(
        topic,
        999_999,
        &good,
        (60..70).map(|id| json!({"id": id, "s": "x"})).collect(),
    );
    produce_as(topic, 0, &good, vec![]);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["rejected"], 10, "{report:#}");
    // A string became an int.
    produce(topic, &other, (70..80).map(|id| json!({"id": id, "s": 1})).collect());
    let out = work.start_once(&[]).wait().expect_code(3);
    assert!(
        out.stderr
            .contains("column `s` is string in the table, but int in the schema"),
        "{}",
        out.stderr
    );
    policy("onIncompatibleSchema: deadLetter");
    work.start_once(&[]).wait().expect_code(0);
    let catalog = Catalog::sql(&work.warehouse());
    assert_eq!(rows(Engine::DuckDb, &work, topic).len(), 60);
    let letters = readers::read(Engine::DuckDb, &catalog, "default.avro_missing_dead_letters", None);
    assert_eq!(letters.len(), 20, "each once");
    assert!(
        letters.iter().all(|letter| letter["schema_id"].is_i64()),
        "{:#?}",
        letters[0]
    );
}

#[test]
fn a_schema_file_stands_for_a_registry_and_event_times_are_found() {
    let topic = "avro-file";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let meta = json!({"type": "record", "name": "Meta", "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]});
    let fields = json!([{"name": "id", "type": "long"}, {"name": "meta", "type": ["null", meta]}]);
    let first = record("R", fields.clone());
    let mut more = fields;
    more.as_array_mut()
        .expect("fields")
        .push(json!({"name": "name", "type": "string", "default": ""}));
    let second = record("R", more);
    let send = |schema: &Value, ids: std::ops::Range<i64>, named: bool| {
        let values = ids.map(|id| {
            let mut value =
                json!({"id": id, "meta": {"at": {"$datetime": format!("2024-01-15T{:02}:30:00+00:00", id % 3)}}});
            if named {
                value["name"] = json!(format!("n{id}"));
            }
            value
        });
        topic_table::produce(topic, encode::avro(None, schema, values));
    };
    let yaml = |more: &str| {
        pipeline(
            topic,
            "-",
            &format!("      eventTimeField: meta.at\n{more}    materialize: {{partition: [date, hour]}}\n"),
        )
        .replace("schemaRegistry: \"-\"", "schemaFile: schemas/r.avsc")
    };
    let work = Workspace::new(&yaml(""));
    std::fs::create_dir(work.path().join("schemas")).expect("a folder");
    let write =
        |schema: &Value| std::fs::write(work.path().join("schemas/r.avsc"), schema.to_string()).expect("written");
    write(&first);
    send(&first, 0..30, false);
    work.start_once(&[]).wait().expect_code(0);
    write(&second);
    send(&second, 30..60, true);
    work.start_once(&[]).wait().expect_code(0);
    let found = rows(Engine::DuckDb, &work, topic);
    assert_eq!(found.len(), 60);
    assert_eq!((&found[29]["name"], &found[59]["name"]), (&Value::Null, &json!("n59")));
    // Columns that leave the event time out: it is found all the same.
    work.rewrite(&yaml("").replace(
        "    materialize:",
        "    columns: [{name: id, type: long}]\n    materialize:",
    ));
    send(&second, 60..90, true);
    work.start_once(&[]).wait().expect_code(0);
    let found = rows(Engine::PyIceberg, &work, topic);
    assert_eq!((found.len(), &found[89]["name"]), (90, &Value::Null));
    for row in &found {
        let hour = row["id"].as_i64().expect("an id") % 3;
        assert_eq!(row["_event_time"], format!("2024-01-15T{hour:02}:30:00+00:00"), "{row}");
    }
    // Bytes that are another schema's, and a file that holds none.
    produce::produce(Kafka::shared(), topic, [Record::of(vec![0xFF; 3])]);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["rejected"], 1, "{report:#}");
    std::fs::write(work.path().join("schemas/r.avsc"), "{").expect("written");
    let out = work.start_once(&[]).wait().expect_code(2);
    assert!(out.stderr.contains("schemas/r.avsc` can't be used"), "{}", out.stderr);
}
