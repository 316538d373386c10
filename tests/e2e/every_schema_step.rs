//! `kill -9` at every step of a run whose records bring a new schema again and again: new, wider, optional and renamed fields.
//! Then the same command again, and the table holds what was produced, value by value, in columns whose ids never changed.
//! And two instances that change the columns of one table in the same moment.

#![cfg(feature = "failpoints")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use aperio::kill_points::{Effect, KillPoint, Place};
use serde_json::{Value, json};

use super::aperio::{Aperio, Workspace};
use super::encode;
use super::every_step::with_failpoints::every_point;
use super::produce::{self, Record};
use super::readers::{self, Catalog};
use super::registry::Registry;
use super::servers::{Kafka, RestCatalog};
use super::setup;
use super::topic_table::{avro_record as record, payload, table, without_nulls};

/// The subject of all topics here.
const SUBJECT: &str = "every-schema-step";

/// The versions of a record, each with what the one before lacks: new fields and a wider one; a field of another name, one that
/// may be null, and one that is gone; a record in the record and another wider field.
fn versions() -> [Value; 4] {
    let id = json!({"name": "id", "type": "long"});
    let email = json!({"name": "email", "type": ["null", "string"], "default": null});
    let total = json!({"name": "total", "aliases": ["amount"], "type": "long"});
    let note = json!({"name": "note", "type": ["null", "string"], "default": null});
    let user = json!({"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]});
    [
        json!([id, {"name": "amount", "type": "int"}, {"name": "note", "type": "string"}, {"name": "ratio", "type": "float"}]),
        json!([id, email, {"name": "coupon", "type": "string"}, {"name": "amount", "type": "long"}, {"name": "note", "type": "string"}, {"name": "ratio", "type": "float"}]),
        json!([note, id, email, total, {"name": "ratio", "type": "float"}]),
        json!([id, total, note, email, {"name": "ratio", "type": "double"}, {"name": "user", "type": ["null", user], "default": null}]),
    ]
    .map(|fields| record("Order", fields))
}

/// The columns that take all versions.
fn columns() -> BTreeSet<(String, String)> {
    let columns = [
        ("id", "long"),
        ("total", "long"),
        ("note", "string"),
        ("ratio", "double"),
        ("email", "string"),
        ("coupon", "string"),
        ("user.name", "string"),
    ];
    let owned = columns.map(|(name, of)| (name.to_owned(), of.to_owned()));
    owned.into()
}

/// The row of a record, nulls left out.
fn row(id: i64, version: usize) -> Value {
    let mut row = json!({
        "id": id,
        "total": if version == 1 { id } else { id << 33 },
        "ratio": if version == 4 { id as f64 / 3.0 } else { f64::from(id as f32 / 4.0) },
    });
    if version < 3 || id % 2 == 0 {
        row["note"] = json!(format!("n{id}"));
    }
    if version > 1 && id % 3 > 0 {
        row["email"] = json!(format!("é{id}@x"));
    }
    if version == 2 {
        row["coupon"] = json!(format!("c{id}"));
    }
    if version == 4 && id % 5 > 0 {
        row["user"] = json!({"name": format!("u{id}")});
    }
    row
}

/// A record as its version has it.
fn value(id: i64, version: usize) -> Value {
    let mut value = row(id, version);
    if version < 3 {
        value["amount"] = value["total"].take();
        value.as_object_mut().expect("a record").remove("total");
    }
    value
}

/// Encoded records, and the rows that they are.
struct Written {
    records: Vec<Vec<u8>>,
    rows: Vec<Value>,
}

/// Encodes records with ascending ids, so many of each version in turn.
fn write(first: i64, batches: &[(usize, i64)]) -> Written {
    let registry = Registry::shared();
    let mut written = Written {
        records: Vec::new(),
        rows: Vec::new(),
    };
    let mut next = first;
    // In their order, so that the ids of the registry ascend.
    let schemas = versions().map(|schema| (registry.register(SUBJECT, "AVRO", &schema.to_string(), &[]), schema));
    for (version, count) in batches {
        let (id, schema) = &schemas[version - 1];
        let ids = next..next + count;
        next += count;
        let values = ids.clone().map(|id| value(id, *version));
        written.records.extend(encode::avro(Some(*id), schema, values));
        written.rows.extend(ids.map(|id| row(id, *version)));
    }
    written
}

fn produce(topic: &str, records: &[Vec<u8>], partitions: i32) {
    let records = records.iter().cloned().zip((0..partitions).cycle());
    let records = records.map(|(value, partition)| Record::of(value).partition(partition));
    produce::produce(Kafka::shared(), topic, records);
}

fn yaml(topic: &str, rest: Option<&RestCatalog>, source: &str) -> String {
    let catalog = rest.map_or(String::new(), |rest| {
        format!(
            "catalog: {{type: rest, uri: \"{}\", warehouse: \"\"}}\nstateDir: state\n",
            rest.uri()
        )
    });
    format!(
        "{catalog}partitionedTables:\n  - name: {}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      format: avro\n      \
         schemaRegistry: {{url: \"{}\", subject: {SUBJECT}}}\n      batchWindow: 20s\n      maxPollRecords: 10\n      \
         consumerConfig: {{session.timeout.ms: \"2000\", heartbeat.interval.ms: \"400\"}}\n{source}",
        table(topic),
        Kafka::shared().brokers(),
        Registry::shared().url(),
    )
}

fn place(work: &Workspace, rest: Option<&RestCatalog>, topic: &str) -> (Catalog, String, PathBuf) {
    let (catalog, state) = match rest {
        Some(rest) => (Catalog::Rest { uri: rest.uri() }, "state/default"),
        None => (Catalog::sql(&work.warehouse()), "warehouse/.aperio/default"),
    };
    let points = work.path().join(state).join("sync_points.parquet");
    (catalog, format!("default.{}", table(topic)), points)
}

/// Every record once with its values; each column once, and under one id in every schema that the table ever had.
fn check(what: &str, state: &Value, expect: &[&Value]) {
    let rows = payload(state["rows"].as_array().expect("rows").clone());
    let rows: Vec<Value> = rows.iter().map(without_nulls).collect();
    let ids: Vec<_> = rows.iter().map(|row| &row["id"]).collect();
    let wanted: Vec<_> = expect.iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, wanted, "{what}: each record once");
    for (found, expect) in rows.iter().zip(expect) {
        assert_eq!(found, *expect, "{what}");
    }
    assert_eq!(state["ledger"], state["sync_points"], "{what}: sync points");
    let fields = |schema: &Value| -> Vec<(i64, String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let fields = schema.as_array().expect("columns").iter();
        let fields = fields.map(|field| (field[0].as_i64().expect("an id"), text(&field[1]), text(&field[2])));
        fields.filter(|(_, name, _)| !name.starts_with("_kafka")).collect()
    };
    let now = fields(&state["columns"]).into_iter();
    let now = now.filter(|(_, _, of)| !of.starts_with("struct"));
    let now: Vec<(String, String)> = now.map(|(_, name, of)| (name, of)).collect();
    assert_eq!(now.len(), columns().len(), "{what}: {now:?}");
    assert_eq!(now.into_iter().collect::<BTreeSet<_>>(), columns(), "{what}");
    let mut names: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    let mut ids: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for schema in state["schemas"].as_array().expect("schemas") {
        for (id, name, _) in fields(schema) {
            names.entry(id).or_default().insert(name.clone());
            ids.entry(name).or_default().insert(id);
        }
    }
    assert!(
        ids.values().all(|ids| ids.len() == 1),
        "{what}: a name is one column: {ids:?}"
    );
    assert_eq!(ids["amount"], ids["total"], "{what}: it was renamed");
    let several: Vec<_> = names.values().filter(|names| names.len() > 1).collect();
    assert_eq!(several.len(), 1, "{what}: {names:?}");
}

/// A place, and how often it is passed before.
#[derive(Clone, Copy, Debug)]
struct Kill {
    point: KillPoint,
    passed: u32,
}

/// How often a run that changes the columns comes by a place; 0 where it doesn't: its table is there with its start, nothing is
/// rejected, dropped, taken away or held up, and it has one window.
fn passes(point: KillPoint) -> u32 {
    match point {
        KillPoint::Before(effect) | KillPoint::After(effect) => match effect {
            Effect::ResolveStart | Effect::Discard | Effect::Drop => 0,
            Effect::Pause | Effect::Resume | Effect::AckRevoke => 0,
            Effect::Take => 3,
            Effect::Load => 2,
            _ => 1,
        },
        KillPoint::Inside(place) => match place {
            Place::TableWritten | Place::TableCreated | Place::LettersStored => 0,
            Place::FilePublished | Place::FilesPublished | Place::FileDeleted | Place::RevokeHeard => 0,
            Place::ChunkTaken => 3,
            Place::ColumnsUnseen | Place::ColumnsAdded => 2,
            // Of the changes of the columns, and of the window.
            Place::MetadataWritten | Place::Swapped => 3,
            _ => 1,
        },
    }
}

#[test]
fn killed_at_every_step_while_schemas_change_nothing_is_lost_or_doubled_and_ids_stay() {
    let before = write(0, &[(1, 30)]);
    // Old producers still run.
    let more = write(30, &[(2, 20), (1, 10), (3, 20), (4, 20), (2, 10)]);
    let kills: Vec<Kill> = every_point()
        .into_iter()
        .flat_map(|point| (0..passes(point)).map(move |passed| Kill { point, passed }))
        .collect();
    let played = setup::play_all(&kills, |number, kill| {
        let topic = format!("schema-steps-{number}");
        produce::create_topic(Kafka::shared(), &topic, 3, &[]);
        produce(&topic, &before.records, 3);
        let work = Workspace::new(&yaml(&topic, None, ""));
        work.start_once(&[]).wait().expect_code(0);
        produce(&topic, &more.records, 3);
        let failpoints = match kill.passed {
            0 => format!("{:?}=return", kill.point),
            passed => format!("{:?}={passed}*off->return", kill.point),
        };
        let args = ["run", "--once", "pipeline.yaml"];
        let killed = Aperio::start_with(work.path(), &args, &[("FAILPOINTS", &failpoints)]).wait();
        assert!(matches!(killed.code, None | Some(0)), "{kill:?}: {killed:#?}");
        work.start_once(&[]).wait().expect_code(0);
        (kill, topic, work, killed.signal)
    });
    let unreached: Vec<_> = played
        .iter()
        .filter(|(.., signal)| signal.is_none())
        .map(|(kill, ..)| kill)
        .collect();
    assert!(unreached.is_empty(), "not reached: {unreached:?}");
    let places: Vec<_> = played
        .iter()
        .map(|(_, topic, work, _)| place(work, None, topic))
        .collect();
    let expect: Vec<&Value> = before.rows.iter().chain(&more.rows).collect();
    for ((kill, ..), state) in played.iter().zip(readers::read_whole(&places)) {
        check(&format!("{kill:?}"), &state, &expect);
    }
    println!("{} kills", played.len());
}

// --- two at once ----------------------------------------------------------------------------------------------------------

/// Two services, of one partition each, meet different new schemas, and both want to change the columns in the same moment.
fn two_at_once(topic: &str, rest: Option<&RestCatalog>) {
    const LIMIT: Duration = setup::PATIENCE;
    let kafka = Kafka::shared();
    let before = write(0, &[(1, 30)]);
    let [second, fourth] = [(30, 2), (60, 4)].map(|(first, version)| write(first, &[(version, 30)]));
    let late = write(90, &[(3, 10), (1, 10)]);
    produce::create_topic(kafka, topic, 2, &[]);
    produce(topic, &before.records, 2);
    let work = Workspace::new(&yaml(topic, rest, "").replace("batchWindow: 20s", "batchWindow: 1s"));
    work.start_once(&[]).wait().expect_code(0);
    // Each has made its change, and then the other's turns out to be there first.
    let wait = [("FAILPOINTS", "Inside(ColumnsUnseen)=1*sleep(2000)")];
    let services = [(); 2].map(|()| Aperio::start_with(work.path(), &["run", "pipeline.yaml"], &wait));
    let both = setup::wait_until(LIMIT, || {
        let held = services
            .iter()
            .filter(|service| service.printed()[1].contains("partitions assigned"));
        held.count() == 2 && members_are_settled(kafka, topic)
    });
    assert!(both, "{:#?}", services.each_ref().map(Aperio::printed));
    std::thread::sleep(Duration::from_secs(3));
    let of = |written: &Written, partition: i32| {
        let records = written.records.iter().cloned();
        records
            .map(|value| Record::of(value).partition(partition))
            .collect::<Vec<_>>()
    };
    let all = [of(&second, 0), of(&fourth, 1)].concat();
    produce::produce(kafka, topic, all);
    let expect: Vec<&Value> = [&before, &second, &fourth, &late]
        .into_iter()
        .flat_map(|written| &written.rows)
        .collect();
    let wait_for = |count: usize| {
        let found = setup::wait_until(LIMIT, || {
            let ended = services.iter().any(Aperio::ended);
            assert!(!ended, "{:#?}", services.each_ref().map(Aperio::printed));
            let state = &readers::read_states(&[place(&work, rest, topic)])[0];
            state["ids"].as_array().is_some_and(|ids| ids.len() >= count)
        });
        assert!(found, "{count} rows: {:#?}", services.each_ref().map(Aperio::printed));
    };
    wait_for(90);
    let changed = services
        .iter()
        .filter(|service| service.has_printed("added or widened columns"));
    let again = services
        .iter()
        .filter(|service| service.has_printed("changing the columns is tried again"));
    assert_eq!(
        (changed.count(), again.count()),
        (2, 1),
        "{:#?}",
        services.each_ref().map(Aperio::printed)
    );
    produce(topic, &late.records, 2);
    wait_for(110);
    for service in services {
        service.signal(libc::SIGTERM).expect_code(0);
    }
    work.start_once(&[]).wait().expect_code(0);
    check(topic, &readers::read_whole(&[place(&work, rest, topic)])[0], &expect);
}

/// Says whether both members of the topic's group are in it.
fn members_are_settled(kafka: &Kafka, topic: &str) -> bool {
    produce::group_members(kafka, &format!("aperio-{}", table(topic))).len() == 2
}

#[test]
fn two_instances_change_the_columns_of_a_table_in_sqlite_at_once() {
    two_at_once("schema-two", None);
}

#[test]
fn two_instances_change_the_columns_of_a_table_in_a_rest_catalog_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    two_at_once("schema-two-rest", Some(&rest));
}
