//! Keys by their format, and change events inside their envelopes: what the source has is what the table holds, also where
//! events are sent again and runs are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::aperio::Workspace;
use super::encode;
use super::produce::{self, Record};
use super::readers::{self, Catalog, Engine};
use super::registry::Registry;
use super::servers::Kafka;

/// A pipeline of one table; JSON is YAML.
fn pipeline(topic: &str, source: Value, columns: Value) -> String {
    let mut all = json!({
        "brokers": Kafka::shared().brokers(), "topic": topic, "batchSize": 100, "maxPollRecords": 20,
        "consumerConfig": {"session.timeout.ms": "6000"},
    });
    for (key, value) in source.as_object().expect("an object") {
        all[key] = value.clone();
    }
    let mut table = json!({"name": topic.replace('-', "_"), "source": all});
    if columns != Value::Null {
        table["columns"] = columns;
    }
    json!({"partitionedTables": [table]}).to_string()
}

fn read(engine: Engine, work: &Workspace, topic: &str) -> Vec<Value> {
    let table = format!("default.{}", topic.replace('-', "_"));
    let mut rows = readers::read(engine, &Catalog::sql(&work.warehouse()), &table, None);
    rows.sort_by_key(|row| (row["_kafka_partition"].as_i64(), row["_kafka_offset"].as_i64()));
    rows
}

fn run(work: &Workspace) -> Value {
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    report["tables"][0].clone()
}

fn produce(topic: &str, values: Vec<Vec<u8>>) {
    let records = values.into_iter().map(|value| Record::of(value).partition(0));
    produce::produce(Kafka::shared(), topic, records);
}

/// A key, and what its column holds.
type Keyed = (Vec<u8>, Value);

#[test]
fn keys_are_columns_of_their_own_type() {
    let registry = Registry::shared();
    let key_schema = |more: &str| {
        format!(r#"{{"type":"record","name":"Key","namespace":"shop","fields":[{{"name":"id","type":"long"}}{more}]}}"#)
    };
    let avro = |topic: &str, more: &str, value: Value| {
        let schema = key_schema(more);
        let id = registry.register(&format!("{topic}-key"), "AVRO", &schema, &[]);
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        encode::avro(Some(id), &schema, [value]).remove(0)
    };
    let proto = "syntax = \"proto3\";\nmessage Other {}\nmessage Key { int64 id = 1; optional string region = 2; }\n";
    let cases: Vec<(&str, Vec<Keyed>)> = vec![
        (
            "string",
            vec![(b"k\xC3\xA9".to_vec(), json!("ké")), (Vec::new(), json!(""))],
        ),
        ("int", vec![((-5i32).to_be_bytes().to_vec(), json!(-5))]),
        ("long", vec![(i64::MIN.to_be_bytes().to_vec(), json!(i64::MIN))]),
        ("bytes", vec![(vec![0xFF, 1], json!(STANDARD.encode([0xFF, 1])))]),
        (
            "json",
            vec![
                (br#"{"id":1}"#.to_vec(), json!({"id": 1, "region": null})),
                (br#"{"id":2,"region":"eu"}"#.to_vec(), json!({"id": 2, "region": "eu"})),
            ],
        ),
        (
            "avro",
            vec![
                (
                    avro("keys-avro", "", json!({"id": 1})),
                    json!({"id": 1, "region": null}),
                ),
                (
                    avro(
                        "keys-avro",
                        r#",{"name":"region","type":["null","string"],"default":null}"#,
                        json!({"id": 2, "region": "eu"}),
                    ),
                    json!({"id": 2, "region": "eu"}),
                ),
            ],
        ),
        ("protobuf", {
            let id = registry.register("keys-protobuf-key", "PROTOBUF", proto, &[]);
            let keys = [json!({"id": "1"}), json!({"id": "2", "region": "eu"})];
            let keys = encode::protobuf(Some(id), &[("key.proto", proto)], "Key", keys);
            let expect = [json!({"id": 1, "region": null}), json!({"id": 2, "region": "eu"})];
            keys.into_iter().zip(expect).collect()
        }),
    ];
    for (format, keys) in cases {
        let topic = &format!("keys-{format}");
        produce::create_topic(Kafka::shared(), topic, 1, &[]);
        let source = json!({
            "format": "json", "keyFormat": format, "include": ["partition", "offset", "key"],
            "schemaRegistry": registry.url(), "batchSize": 1,
        });
        let work = Workspace::new(&pipeline(topic, source, Value::Null));
        // The second key comes when the table is there: its column follows.
        for (at, (key, _)) in keys.iter().enumerate() {
            let value = json!({"n": at}).to_string();
            produce::produce(
                Kafka::shared(),
                topic,
                [Record::of(value).key(key.clone()).partition(0)],
            );
            run(&work);
        }
        produce(topic, vec![br#"{"n":100}"#.to_vec()]);
        run(&work);
        let found = read(Engine::PyIceberg, &work, topic);
        let mut expect: Vec<Value> = keys.into_iter().map(|(_, expect)| expect).collect();
        expect.push(Value::Null);
        let found_keys: Vec<Value> = found.iter().map(|row| row["_kafka_key"].clone()).collect();
        assert_eq!(found_keys, expect, "{format}");
    }
    // A key that isn't what it should be is a dead letter, and costs no other record.
    let topic = "keys-int";
    let source = json!({"format": "json", "keyFormat": "int", "include": ["partition", "offset", "key"]});
    let work = Workspace::new(&pipeline(topic, source, Value::Null));
    produce::produce(Kafka::shared(), topic, [Record::of(r#"{"n":7}"#).key("x").partition(0)]);
    let report = run(&work);
    assert_eq!(
        (&report["rejected"], &report["rowsWritten"]),
        (&json!(1), &json!(2)),
        "{report:#}"
    );
}

/// Which offsets of a partition make rows: an event's first, and those that come more than `horizon` after the last that did.
fn new_events(ids: &[Option<String>], horizon: i64) -> Vec<i64> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut rows = Vec::new();
    for (at, id) in (0i64..).zip(ids) {
        match id {
            Some(id) if last.get(id.as_str()).is_some_and(|before| at - before <= horizon) => continue,
            Some(id) => drop(last.insert(id, at)),
            None => {}
        }
        rows.push(at);
    }
    rows
}

#[test]
fn events_that_are_sent_again_make_no_second_row_while_runs_are_killed() {
    const HORIZON: i64 = 60;
    const PARTITIONS: i32 = 2;
    for (topic, apply) in [("cdc-rows", "rows"), ("cdc-events", "events")] {
        produce::create_topic(Kafka::shared(), topic, PARTITIONS, &[]);
        let source = json!({
            "envelope": {"type": "cdc", "apply": apply, "idempotent": true, "horizon": HORIZON},
            "eventTimeField": "commit_ts_utc", "eventTimeFormat": "epoch_micros",
        });
        let work = Workspace::new(&pipeline(topic, source, Value::Null));
        let mut ids: Vec<Vec<Option<String>>> = vec![Vec::new(); PARTITIONS as usize];
        let mut dice = 7u64;
        let mut throw = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % sides
        };
        for round in 0..5 {
            let mut values = Vec::new();
            for number in 0..300 {
                let partition = number % PARTITIONS;
                let of = &mut ids[partition as usize];
                let at = of.len() as u64;
                // A third are sent again: mostly of late, some from beyond the horizon.
                let id = match throw(3) {
                    0 if at > 0 => of[(at - 1 - throw(at.min(2 * HORIZON as u64))) as usize].clone(),
                    _ => Some(format!("{partition}-{at}")),
                };
                let event = json!({
                    "event_id": id, "tx_id": at / 5, "commit_ts_utc": 1_700_000_000_000_000i64 + i64::try_from(at).expect("small"),
                    "schema_id": 1, "table_id": 9, "row_id": format!("r{at}"), "operation": if at.is_multiple_of(2) { "INSERT" } else { "UPDATE" },
                    "payload_before": null, "payload_after": {"n": at, "name": format!("é{at}")},
                });
                of.push(id);
                values.push((event, partition));
            }
            let (events, partitions): (Vec<Value>, Vec<i32>) = values.into_iter().unzip();
            let records = encode::msgpack(events).into_iter().zip(partitions);
            let records = records.map(|(value, partition)| Record::of(value).partition(partition));
            produce::produce(Kafka::shared(), topic, records);
            for kill in 0..3u64 {
                work.start_once(&[])
                    .kill_after(Duration::from_millis(300 + 200 * kill + 70 * round));
            }
            run(&work);
        }
        let engines = if apply == "rows" {
            vec![Engine::PyIceberg, Engine::Spark]
        } else {
            vec![Engine::PyIceberg]
        };
        for engine in engines {
            let found = read(engine, &work, topic);
            let mut at: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for row in &found {
                let (partition, offset) = (row["_kafka_partition"].as_i64(), row["_kafka_offset"].as_i64());
                at.entry(partition.expect("a number"))
                    .or_default()
                    .push(offset.expect("a number"));
                let row = if apply == "rows" { row } else { &row["payload_after"] };
                assert_eq!(
                    (&row["n"], &row["name"]),
                    (&json!(offset), &json!(format!("é{}", offset.expect("a number"))))
                );
            }
            for (partition, ids) in (0i64..).zip(&ids) {
                assert_eq!(
                    at[&partition],
                    new_events(ids, HORIZON),
                    "{engine:?}, {apply}, partition {partition}"
                );
            }
        }
    }
}

#[test]
fn debezium_events_become_rows() {
    let registry = Registry::shared();
    let topic = "debezium-json";
    produce::create_topic(Kafka::shared(), topic, 1, &[]);
    let event = |op: &str, before: Value, after: Value, ts: i64| {
        json!({"before": before, "after": after, "op": op, "ts_ms": ts, "transaction": null,
               "source": {"connector": "postgresql", "ts_ms": ts, "table": "t"}})
    };
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    let events = [
        event("r", Value::Null, row(1, "a"), 1_700_000_000_000),
        event("c", Value::Null, row(2, "b"), 1_700_000_001_000),
        event("u", row(2, "b"), row(2, "c"), 1_700_000_002_000),
        event("d", row(1, "a"), Value::Null, 1_700_000_003_000),
    ];
    let plain = events.iter().map(|event| event.to_string().into_bytes());
    let with_schema = events.iter().map(|event| {
        json!({"schema": {"type": "struct"}, "payload": event})
            .to_string()
            .into_bytes()
    });
    let flat = [
        json!({"id": 3, "name": "f", "__deleted": "false"}),
        json!({"id": 3, "name": "f", "__deleted": "true"}),
    ];
    let flat = flat.iter().map(|row| row.to_string().into_bytes());
    produce(topic, plain.chain(with_schema).chain(flat).collect());
    let source = json!({"format": "json", "envelope": "debezium", "eventTimeField": "source.ts_ms"});
    let work = Workspace::new(&pipeline(topic, source, Value::Null));
    // The flattened form has no time: rejects by the event time alone, so none is asked for.
    work.rewrite(&pipeline(
        topic,
        json!({"format": "json", "envelope": "debezium"}),
        Value::Null,
    ));
    let report = run(&work);
    assert_eq!(
        (&report["rowsWritten"], &report["filtered"], &report["rejected"]),
        (&json!(7), &json!(3), &json!(0)),
        "{report:#}"
    );
    let found = read(Engine::PyIceberg, &work, topic);
    let columns = found[0].as_object().expect("a row").keys();
    let own: Vec<_> = columns.filter(|name| !name.starts_with("_kafka")).collect();
    assert_eq!(
        own,
        ["__deleted", "id", "name"],
        "of the event around the row there is no column"
    );
    let names: Vec<Value> = found.iter().map(|row| row["name"].clone()).collect();
    assert_eq!(json!(names), json!(["a", "b", "c", "a", "b", "c", "f"]));

    // Kept as events, the same topic has another table.
    let work = Workspace::new(&pipeline(
        topic,
        json!({"format": "json", "envelope": {"type": "debezium", "apply": "events"}}),
        Value::Null,
    ));
    let report = run(&work);
    assert_eq!(report["rowsWritten"], 10, "{report:#}");
    let found = read(Engine::PyIceberg, &work, topic);
    assert_eq!(
        (&found[3]["op"], &found[3]["before"]["name"], &found[7]["op"]),
        (&json!("d"), &json!("a"), &json!("d"))
    );

    // Avro, whose rows get a field; the time of the source is the event time, though it is around the row.
    let topic = "debezium-avro";
    produce::create_topic(Kafka::shared(), topic, 1, &[]);
    let schema = |more: &str| {
        format!(
            r#"{{"type":"record","name":"Envelope","namespace":"db.t","fields":[
              {{"name":"before","type":["null",{{"type":"record","name":"Value","fields":[
                {{"name":"id","type":"long"}},{{"name":"name","type":["null","string"],"default":null}}{more}]}}],"default":null}},
              {{"name":"after","type":["null","Value"],"default":null}},
              {{"name":"source","type":{{"type":"record","name":"Source","fields":[{{"name":"ts_ms","type":"long"}}]}}}},
              {{"name":"op","type":"string"}}]}}"#
        )
    };
    let source = json!({
        "format": "avro", "schemaRegistry": registry.url(), "envelope": "debezium", "eventTimeField": "source.ts_ms",
    });
    let mut yaml: Value = serde_json::from_str(&pipeline(topic, source, Value::Null)).expect("JSON");
    yaml["partitionedTables"][0]["materialize"] = json!({"partition": ["date"]});
    let work = Workspace::new(&yaml.to_string());
    for (version, more) in ["", r#",{"name":"city","type":["null","string"],"default":null}"#]
        .into_iter()
        .enumerate()
    {
        let text = schema(more);
        let id = registry.register(&format!("{topic}-value"), "AVRO", &text, &[]);
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        let mut row = row(version as i64, "x");
        if version > 0 {
            row["city"] = json!("Delft");
        }
        let source = |day: i64| json!({"ts_ms": 1_700_000_000_000i64 + day * 86_400_000});
        let values = [
            json!({"before": null, "after": row, "source": source(version as i64), "op": "c"}),
            json!({"before": row, "after": null, "source": source(5), "op": "d"}),
        ];
        produce(topic, encode::avro(Some(id), &parsed, values));
        let report = run(&work);
        assert_eq!(
            (&report["rowsWritten"], &report["filtered"]),
            (&json!(1), &json!(1)),
            "{report:#}"
        );
    }
    let found = read(Engine::Spark, &work, topic);
    let cities: Vec<_> = found
        .iter()
        .map(|row| (row["id"].as_i64(), row["city"].as_str()))
        .collect();
    assert_eq!(cities, [(Some(0), None), (Some(1), Some("Delft"))]);
    let days: Vec<_> = found
        .iter()
        .map(|row| row["_event_time"].as_str().map(|time| time[..10].to_owned()))
        .collect();
    assert_eq!(days, [Some("2023-11-14".to_owned()), Some("2023-11-15".to_owned())]);
}

#[test]
fn events_of_schema_changes_and_audits_are_rows_of_their_own_tables() {
    let ddl = json!({
        "event_id": "d1", "event_type": "ALTER", "commit_ts_utc": 1_700_000_000_000_000i64, "ddl_sql": "ALTER TABLE t ADD c int",
        "object_ids": [7, 8],
    });
    let audit = json!({"event_id": "a1", "user": "root", "action": {"kind": "login", "ok": true}});
    for (topic, event) in [("cdc-ddl", ddl), ("cdc-audit", audit)] {
        produce::create_topic(Kafka::shared(), topic, 1, &[]);
        produce(topic, encode::msgpack([event.clone()]));
        let source = json!({"envelope": {"type": "cdc", "apply": "events"}});
        let work = Workspace::new(&pipeline(topic, source, Value::Null));
        assert_eq!(run(&work)["rowsWritten"], 1);
        let found = read(Engine::PyIceberg, &work, topic);
        for (name, value) in event.as_object().expect("fields") {
            assert_eq!(found[0][name], *value, "{topic}: {name}");
        }
    }
    // Asked for rows, such an event is a dead letter that says what would take it.
    let source = json!({"envelope": "cdc"});
    let work = Workspace::new(&pipeline("cdc-ddl", source, Value::Null));
    let report = run(&work);
    assert_eq!(
        (&report["rejected"], &report["rowsWritten"]),
        (&json!(1), &json!(0)),
        "{report:#}"
    );
}

#[test]
fn the_events_of_many_partitions_are_read_by_few_scans() {
    const PARTITIONS: i32 = 100;
    let topic = "cdc-wide";
    produce::create_topic(Kafka::shared(), topic, PARTITIONS, &[]);
    let source = json!({"format": "json", "envelope": {"type": "cdc", "idempotent": true}});
    let work = Workspace::new(&pipeline(topic, source, Value::Null));
    // Each round sends what the round before sent, and one new event for each partition.
    for round in 0..3 {
        let event = |partition: i32, at: i32| {
            let event = json!({
                "event_id": format!("{partition}-{at}"), "operation": "INSERT",
                "payload_before": null, "payload_after": {"n": at},
            });
            Record::of(event.to_string()).partition(partition)
        };
        let events = (0..PARTITIONS).flat_map(|partition| (0..=round).map(move |at| event(partition, at)));
        produce::produce(Kafka::shared(), topic, events);
        let ended = work.start_once(&[]).wait().expect_code(0);
        let scans = ended.stderr.matches("events that the table holds").count();
        let expected = if round == 0 { 0..=0 } else { 1..=2 };
        assert!(expected.contains(&scans), "round {round}: {scans} scans: {ended:#?}");
        let mut found: Vec<_> = read(Engine::PyIceberg, &work, topic)
            .iter()
            .map(|row| (row["_kafka_partition"].as_i64(), row["n"].as_i64()))
            .collect();
        found.sort_unstable();
        let expected =
            (0..i64::from(PARTITIONS)).flat_map(|of| (0..=i64::from(round)).map(move |n| (Some(of), Some(n))));
        assert_eq!(found, expected.collect::<Vec<_>>(), "round {round}");
    }
}
