//! How often a run asks the schema registry, and what it does while that is away, slow, or not itself: records wait, none is
//! rejected, and what a run that gave up left is read by the next.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::aperio::{Aperio, Workspace};
use super::encode;
use super::produce::{self, Record};
use super::proxy::Fault;
use super::readers::{self, Catalog, Engine};
use super::registry::{Registry, RegistryProxy};
use super::servers::Kafka;
use super::setup;
use super::topic_table::{self, avro_record as record, produce_avro, rows, table};

fn pipeline(topic: &str, proxy: &RegistryProxy, more: &str) -> String {
    topic_table::pipeline(
        topic,
        "avro",
        &format!("      schemaRegistry: \"{}\"\n{more}", proxy.url()),
    )
}

/// A schema of `id` and a field of its own.
fn schema(n: usize) -> Value {
    record(
        "R",
        json!([{"name": "id", "type": "long"}, {"name": format!("f{n}"), "type": ["null", "long"], "default": null}]),
    )
}

fn values(n: usize, ids: std::ops::Range<i64>) -> Vec<Value> {
    ids.map(|id| json!({"id": id, format!("f{n}"): id})).collect()
}

/// A record of [`schema`], whichever, with its second field null; as its specification says, and faster than the library.
fn framed(schema: i32, id: i64) -> Vec<u8> {
    let mut value = vec![0];
    value.extend(schema.to_be_bytes());
    let mut rest = id as u64 * 2;
    while rest >= 0x80 {
        value.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    value.extend([rest as u8, 0]);
    value
}

#[test]
fn a_million_records_of_three_schemas_are_three_requests() {
    const RECORDS: i64 = 1_000_000;
    let topic = "registry-million";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let subject = format!("{topic}-value");
    let register = |n| Registry::shared().register(&subject, "AVRO", &schema(n).to_string(), &[]);
    let ids = [0, 1, 2].map(register);
    assert_eq!(
        framed(ids[0], 300),
        encode::avro(Some(ids[0]), &schema(0), [json!({"id": 300, "f0": null})])[0]
    );
    // Each partition has all three, in turn.
    let records = (0..RECORDS).map(|id| Record::of(framed(ids[(id / 3 % 3) as usize], id)).partition((id % 3) as i32));
    produce::produce(Kafka::shared(), topic, records);
    let proxy = RegistryProxy::start(Registry::shared());
    let yaml = pipeline(topic, &proxy, "");
    let yaml = yaml.replace("      batchSize: 100\n      maxPollRecords: 20\n", "");
    let work = Workspace::new(&yaml);
    let started = Instant::now();
    work.start_once(&["--lines", "2"]).wait().expect_code(0);
    println!("{RECORDS} records in {:.1} s", started.elapsed().as_secs_f32());
    let mut asked = proxy.requests();
    asked.sort();
    let mut expect = ids.map(|id| format!("GET /schemas/ids/{id}")).to_vec();
    expect.sort();
    assert_eq!(asked, expect);
    let catalog = Catalog::sql(&work.warehouse());
    let name = format!("default.{}", table(topic));
    let found = readers::select(
        &catalog,
        &name,
        "count(*) n, count(distinct id) ids, min(id) least, max(id) most",
    );
    let expect = json!({"n": RECORDS, "ids": RECORDS, "least": 0, "most": RECORDS - 1});
    assert_eq!(found[0], expect);
}

#[test]
fn a_registry_that_is_down_for_half_a_minute_costs_a_service_nothing_but_time() {
    let topic = "registry-half-minute";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    produce_avro(topic, &schema(0), values(0, 0..300));
    let proxy = RegistryProxy::start(Registry::shared());
    let work = Workspace::new(&pipeline(topic, &proxy, "      batchWindow: 1s\n"));
    // As long as it takes by itself: there is no `--retry-for`.
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    let wait_for_rows = |count: usize| {
        let mut found = 0;
        let complete = setup::wait_until(setup::PATIENCE, || {
            assert!(!service.ended(), "{:#?}", service.printed());
            found = match service.has_printed("committed") {
                true => rows(Engine::DuckDb, &work, topic).len(),
                false => 0,
            };
            found >= count
        });
        assert!(complete, "{found} rows of {count}: {:#?}", service.printed());
    };
    wait_for_rows(300);
    proxy.close();
    produce_avro(topic, &schema(1), values(1, 300..600));
    produce_avro(topic, &schema(0), values(0, 600..700));
    std::thread::sleep(Duration::from_secs(30));
    assert!(!service.ended(), "{:#?}", service.printed());
    assert!(service.has_printed("asking again"), "{:#?}", service.printed());
    proxy.open();
    wait_for_rows(700);
    let told = service.signal(libc::SIGTERM).expect_code(0);
    assert!(!told.stderr.contains(": rejected table="), "{}", told.stderr);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["rejected"], 0, "{report:#}");
    let found = rows(Engine::DuckDb, &work, topic);
    let ids: Vec<_> = found.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids, (0..700).collect::<Vec<_>>());
    assert_eq!((&found[450]["f0"], &found[450]["f1"]), (&Value::Null, &json!(450)));
}

#[test]
fn a_registry_that_stays_away_or_talks_nonsense_ends_the_run_and_nothing_is_lost() {
    let topic = "registry-nonsense";
    produce::create_topic(Kafka::shared(), topic, 3, &[]);
    let registry = Registry::start();
    let subject = format!("{topic}-value");
    let proxy = RegistryProxy::start(&registry);
    let errors = "    errors: {onMissingSchema: deadLetter, maxRejected: 1000}\n";
    let work = Workspace::new(&pipeline(topic, &proxy, errors));
    let mut next = 0;
    // Each time a schema that nobody knows by heart.
    let mut bring = |n: usize| {
        let id = registry.register(&subject, "AVRO", &schema(n).to_string(), &[]);
        topic_table::produce(topic, encode::avro(Some(id), &schema(n), values(n, next..next + 30)));
        next += 30;
    };
    let give_up = |words: &str| {
        let told = work.start_once(&["--retry-for", "2s"]).wait().expect_code(4);
        for word in ["the schema registry can't be used", words] {
            assert!(told.stderr.contains(word), "no `{word}`: {}", told.stderr);
        }
    };
    let complete = |more: &[&str], count: usize| {
        let args = [&["--output", "json"], more].concat();
        let report = work.start_once(&args).wait().expect_code(0).report();
        assert_eq!(report["tables"][0]["rejected"], 0, "{report:#}");
        let found = rows(Engine::DuckDb, &work, topic);
        let ids: Vec<_> = found.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
        assert_eq!(ids, (0..count as i64).collect::<Vec<_>>());
    };
    bring(0);
    // Before there is a table, and then each time in the middle of a window.
    proxy.fail(Fault::Page);
    give_up("can't be read");
    proxy.pass();
    complete(&[], 30);
    bring(1);
    proxy.fail(Fault::Page);
    give_up("can't be read");
    proxy.pass();
    proxy.close();
    give_up("can't be reached");
    proxy.open();
    proxy.fail(Fault::Cut);
    give_up("can't be reached");
    // Without a word: nobody is at the path.
    proxy.fail(Fault::Refuse(405));
    give_up("405");
    proxy.fail(Fault::Refuse(503));
    give_up("503");
    proxy.pass();
    // Slow, and at last a page, a cut and an error in the way of the answer.
    proxy.fail_next(1, Fault::Page);
    proxy.fail_next(1, Fault::Cut);
    proxy.fail_next(1, Fault::Refuse(500));
    proxy.fail_next(5, Fault::Delay(1500));
    complete(&[], 60);
    // Frozen: connections are taken, and nothing comes; then it goes on.
    bring(2);
    registry.pause();
    let frozen = Instant::now();
    let told = work.start_once(&["--retry-for", "2s"]).wait().expect_code(4);
    assert!(
        told.stderr.contains("the schema registry can't be used"),
        "{}",
        told.stderr
    );
    println!("given up after {:.1} s", frozen.elapsed().as_secs_f32());
    registry.resume();
    complete(&[], 90);
    // A schema that the registry has and then has no more is missing, not gone with its records.
    let letters = readers::read(
        Engine::DuckDb,
        &Catalog::sql(&work.warehouse()),
        &format!("default.{}", table(topic)),
        Some("id is null"),
    );
    assert_eq!(letters, Vec::<Value>::new());
}
