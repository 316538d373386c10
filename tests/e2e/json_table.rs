//! A JSON topic becomes a table, exactly once: the main job, on real servers, read by engines we didn't write.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record, Transaction};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog};

/// 2024-01-15T10:00:00Z
const MORNING_MS: i64 = 1_705_312_800_000;

fn pipeline(kafka: &Kafka, topic: &str, catalog: &str, more: &str) -> String {
    format!(
        "{catalog}partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      format: json\n      \
         batchSize: 200\n      consumerConfig: {{session.timeout.ms: \"6000\"}}\n      maxPollRecords: 50\n      eventTimeField: at\n    materialize: {{partition: [date, hour]}}\n{more}",
        name = topic.replace('-', "_"),
        brokers = kafka.brokers(),
    )
}

fn event(n: i64) -> Record {
    let at = MORNING_MS + n * 10_000;
    let value = format!(
        r#"{{"id":{n},"at":{at},"user":{{"name":"u{}","tags":["a","b"]}},"price":{}.5}}"#,
        n % 7,
        n
    );
    Record::of(value).key(format!("k{n}")).partition((n % 3) as i32)
}

/// The ids that a table holds, each with how often.
fn ids(rows: &[Value]) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for row in rows {
        *found.entry(row["id"].as_i64().expect("an id")).or_default() += 1;
    }
    found
}

fn expect_each_once(rows: &[Value], ids_wanted: impl IntoIterator<Item = i64>) {
    let wanted: BTreeMap<i64, usize> = ids_wanted.into_iter().map(|id| (id, 1)).collect();
    let found = ids(rows);
    let wrong: Vec<_> = found
        .iter()
        .filter(|(id, times)| wanted.get(id) != Some(times))
        .take(10)
        .collect();
    let missing: Vec<_> = wanted.keys().filter(|id| !found.contains_key(id)).take(10).collect();
    assert!(
        wrong.is_empty() && missing.is_empty(),
        "doubled or foreign: {wrong:?}; missing: {missing:?}"
    );
}

#[test]
fn a_topic_becomes_a_table_that_others_read() {
    let (kafka, topic) = (Kafka::shared(), "orders-plain");
    produce::create_topic(kafka, topic, 3, &[]);
    produce::produce(kafka, topic, (0..1000).map(event));
    let work = Workspace::new(&pipeline(kafka, topic, "", ""));
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    let table = &report["tables"][0];
    assert_eq!(table["recordsRead"], 1000, "{report:#}");
    assert!(
        table["windows"].as_array().is_some_and(|windows| windows.len() >= 3),
        "{report:#}"
    );
    let catalog = Catalog::sql(&work.warehouse());
    for engine in [Engine::PyIceberg, Engine::DuckDb, Engine::Spark] {
        let rows = readers::read(engine, &catalog, "default.orders_plain", None);
        expect_each_once(&rows, 0..1000);
        let row = rows.iter().find(|row| row["id"] == 8).expect("id 8");
        assert_eq!(row["user"]["name"], "u1", "{engine:?}: {row}");
        assert_eq!(row["price"], 8.5, "{engine:?}: {row}");
        assert_eq!(row["_kafka_partition"], 2, "{engine:?}: {row}");
    }
    let filtered = readers::read(Engine::PyIceberg, &catalog, "default.orders_plain", Some("id >= 990"));
    expect_each_once(&filtered, 990..1000);

    // Nothing new: done, and nothing is written.
    let again = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(again["tables"][0]["snapshots"], serde_json::json!([]), "{again:#}");
    // More: only the new ones are added.
    produce::produce(kafka, topic, (1000..1100).map(event));
    work.start_once(&[]).wait().expect_code(0);
    expect_each_once(
        &readers::read(Engine::DuckDb, &catalog, "default.orders_plain", None),
        0..1100,
    );
}

#[test]
fn killed_at_random_and_resumed_nothing_is_lost_or_doubled() {
    let (kafka, topic) = (Kafka::shared(), "orders-killed");
    produce::create_topic(kafka, topic, 3, &[]);
    produce::produce(kafka, topic, (0..6000).map(event));
    let work = Workspace::new(&pipeline(kafka, topic, "", ""));
    for round in 0..12_u64 {
        work.start_once(&[])
            .kill_after(Duration::from_millis(300 + round * 170));
    }
    for line in ["sealed", "committed", "created the table", "inferred"] {
        work.start_once(&[]).kill_when(line);
    }
    work.start_once(&[]).wait().expect_code(0);
    let rows = readers::read(
        Engine::PyIceberg,
        &Catalog::sql(&work.warehouse()),
        "default.orders_killed",
        None,
    );
    expect_each_once(&rows, 0..6000);
}

#[test]
fn aborted_records_never_show_and_a_tail_of_markers_is_passed() {
    let (kafka, topic) = (Kafka::shared(), "orders-transactions");
    produce::create_topic(kafka, topic, 3, &[]);
    for round in 0..5 {
        let aborted = Transaction::begin(kafka, "orders-aborted");
        aborted.send(topic, (round * 100..round * 100 + 50).map(|n| event(n + 1_000_000)));
        aborted.abort();
        let committed = Transaction::begin(kafka, "orders-committed");
        committed.send(topic, (round * 100..round * 100 + 100).map(event));
        committed.commit();
    }
    let last = Transaction::begin(kafka, "orders-last");
    last.send(topic, [event(2_000_000)]);
    last.abort();
    let work = Workspace::new(&pipeline(kafka, topic, "", ""));
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["lag"], 0, "{report:#}");
    let catalog = Catalog::sql(&work.warehouse());
    expect_each_once(
        &readers::read(Engine::DuckDb, &catalog, "default.orders_transactions", None),
        0..500,
    );
}

#[test]
fn a_bad_record_goes_aside_once_and_costs_only_itself() {
    let (kafka, topic) = (Kafka::shared(), "orders-poison");
    produce::create_topic(kafka, topic, 3, &[]);
    produce::produce(kafka, topic, (0..300).map(event));
    produce::produce(
        kafka,
        topic,
        [Record::of(r#"{"id": 7, "at": nonsense"#)
            .key("poison")
            .header("h", "v")
            .partition(0)],
    );
    produce::produce(kafka, topic, (300..600).map(event));
    let work = Workspace::new(&pipeline(kafka, topic, "", ""));
    work.start_once(&[]).kill_when("committed");
    work.start_once(&[]).wait().expect_code(0);
    let catalog = Catalog::sql(&work.warehouse());
    expect_each_once(
        &readers::read(Engine::DuckDb, &catalog, "default.orders_poison", None),
        0..600,
    );
    let letters = readers::read(Engine::PyIceberg, &catalog, "default.orders_poison_dead_letters", None);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["stage"], "decode", "{letters:?}");
}

#[test]
fn a_new_field_becomes_a_column() {
    let (kafka, topic) = (Kafka::shared(), "orders-evolving");
    produce::create_topic(kafka, topic, 3, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = Workspace::new(&pipeline(kafka, topic, "", ""));
    work.start_once(&[]).wait().expect_code(0);
    let newer = (100..200).map(|n| {
        let value = format!(r#"{{"id":{n},"at":{MORNING_MS},"user":{{"name":"x","age":{n}}},"color":"red"}}"#);
        Record::of(value).partition(n % 3)
    });
    produce::produce(kafka, topic, newer);
    work.start_once(&[]).wait().expect_code(0);
    let rows = readers::read(
        Engine::DuckDb,
        &Catalog::sql(&work.warehouse()),
        "default.orders_evolving",
        None,
    );
    expect_each_once(&rows, 0..200);
    let row = rows.iter().find(|row| row["id"] == 150).expect("id 150");
    assert_eq!(
        (&row["color"], &row["user"]["age"]),
        (&Value::from("red"), &Value::from(150)),
        "{row}"
    );
}

#[test]
fn a_rest_catalog_that_loses_answers_or_lies_doubles_nothing() {
    let (kafka, topic) = (Kafka::shared(), "orders-rest");
    produce::create_topic(kafka, topic, 3, &[]);
    let warehouse = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(warehouse.path());
    let proxy = Proxy::start(rest.address());
    let catalog = format!("catalog: {{type: rest, uri: \"{}\", warehouse: \"\"}}\n", proxy.uri());
    let state = tempfile::tempdir().expect("a temporary folder");
    let yaml = format!(
        "stateDir: \"{}\"\n{}",
        state.path().display(),
        pipeline(kafka, topic, &catalog, "")
    );
    let work = Workspace::new(&yaml);
    let faults = [
        Fault::SwallowAnswer,
        Fault::Refuse(500),
        Fault::LieAfter(503),
        Fault::Refuse(409),
        Fault::SwallowAnswer,
    ];
    // Every run commits at least once: the first one its start, each later one its records.
    for (round, fault) in (0..).zip(faults) {
        proxy.on_commit(1, fault);
        produce::produce(kafka, topic, (round * 400..(round + 1) * 400).map(event));
        work.start_once(&[]).wait().expect_code(0);
    }
    let met: Vec<_> = proxy
        .commits()
        .iter()
        .map(|seen| seen.fault)
        .filter(|fault| *fault != Fault::Pass)
        .collect();
    assert_eq!(met, faults);
    let catalog = Catalog::Rest { uri: rest.uri() };
    expect_each_once(
        &readers::read(Engine::PyIceberg, &catalog, "default.orders_rest", None),
        0..2000,
    );
}

#[test]
fn a_service_goes_on_through_a_broker_restart_and_stops_when_told() {
    let (kafka, topic) = (Kafka::start(), "orders-service");
    produce::create_topic(&kafka, topic, 3, &[]);
    produce::produce(&kafka, topic, (0..500).map(event));
    let yaml = pipeline(&kafka, topic, "", "").replace("batchSize: 200", "batchSize: 200\n      batchWindow: 1s");
    let work = Workspace::new(&yaml);
    let mut service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "5m"]);
    assert!(service.wait_for("committed"), "the service commits");
    kafka.restart();
    produce::produce(&kafka, topic, (500..900).map(event));
    let catalog = Catalog::sql(&work.warehouse());
    let complete = crate::setup::wait_until(crate::setup::PATIENCE, || {
        readers::read(Engine::DuckDb, &catalog, "default.orders_service", None).len() >= 900
    });
    let ended = service.signal(libc::SIGTERM);
    assert!(complete, "{ended:#?}");
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    expect_each_once(
        &readers::read(Engine::DuckDb, &catalog, "default.orders_service", None),
        0..900,
    );
}
