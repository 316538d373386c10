//! The tools of the other tests, tried on themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aperio::Aperio;
use crate::produce::{self, Record, Transaction};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog, SeenCommit};

fn values(records: &[produce::Read]) -> Vec<&str> {
    let text = |bytes| str::from_utf8(bytes).expect("text");
    records
        .iter()
        .map(|record| record.value.as_deref().map_or("", text))
        .collect()
}

#[test]
fn a_transaction_shows_when_it_commits_and_never_when_it_aborts() {
    let (kafka, topic) = (Kafka::shared(), "smoke-transactions");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(
        kafka,
        topic,
        [Record::of("plain").key("k").header("h", "v").at(1_700_000_000_000)],
    );
    let aborted = Transaction::begin(kafka, "smoke-aborted");
    aborted.send(topic, [Record::of("aborted")]);
    aborted.abort();
    let committed = Transaction::begin(kafka, "smoke-committed");
    committed.send(topic, [Record::of("committed"), Record::tombstone("k")]);
    committed.commit();

    let seen = produce::read_all(kafka, topic, "read_committed");
    assert_eq!(values(&seen), ["plain", "committed", ""]);
    assert_eq!(seen[0].headers, [("h".to_owned(), Some(b"v".to_vec()))]);
    assert_eq!(
        (seen[0].timestamp_ms, seen[0].key.as_deref()),
        (Some(1_700_000_000_000), Some(&b"k"[..]))
    );
    assert_eq!(
        (seen[2].offset, &seen[2].value),
        (4, &None),
        "after plain, aborted, its marker, committed"
    );
    assert_eq!(values(&produce::read_all(kafka, topic, "read_uncommitted")).len(), 4);
    assert_eq!(
        produce::ends(kafka, topic),
        [(0, 6)].into(),
        "four records and two markers"
    );
}

#[test]
fn a_killed_broker_comes_back_with_its_records() {
    let (kafka, topic) = (Kafka::start(), "smoke-restart");
    produce::create_topic(&kafka, topic, 2, &[]);
    produce::produce(
        &kafka,
        topic,
        (0..100).map(|n| Record::of(n.to_string()).partition(n % 2)),
    );
    kafka.restart();
    assert_eq!(produce::read_all(&kafka, topic, "read_committed").len(), 100);
    assert_eq!(produce::ends(&kafka, topic), [(0, 50), (1, 50)].into());
}

#[test]
fn pyiceberg_and_duckdb_read_a_table_of_a_sqlite_catalog() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let catalog = Catalog::sql(dir.path());
    let rows = readers::create_small_table(&catalog, "default.small");
    assert_eq!(rows.len(), 3);
    for engine in [Engine::PyIceberg, Engine::DuckDb] {
        assert_eq!(
            readers::read(engine, &catalog, "default.small", None),
            rows,
            "{engine:?}"
        );
        let two = readers::read(engine, &catalog, "default.small", Some("id >= 2"));
        assert_eq!(two, rows[1..], "{engine:?}");
    }
}

#[test]
fn spark_reads_a_table_of_a_sqlite_catalog() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let catalog = Catalog::sql(dir.path());
    readers::create_small_table(&catalog, "default.small");
    let mut rows = readers::read(Engine::Spark, &catalog, "default.small", None);
    rows.sort_by_key(|row| row["id"].as_i64());
    // Spark leaves a null out of its JSON.
    assert_eq!(
        rows,
        [
            json!({"id": 1, "name": "a"}),
            json!({"id": 2, "name": "b"}),
            json!({"id": 3})
        ]
    );
}

#[test]
fn the_rest_catalog_serves_tables_through_the_proxy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let server = RestCatalog::start(dir.path());
    let proxy = Proxy::start(server.address());
    let (status, config) = send(&proxy, "GET", "/v1/config", "").expect("an answer");
    assert!(status == 200 && config["endpoints"].is_array(), "{status} {config}");

    let catalog = Catalog::Rest { uri: proxy.uri() };
    let rows = readers::create_small_table(&catalog, "default.small");
    for engine in [Engine::PyIceberg, Engine::DuckDb] {
        assert_eq!(
            readers::read(engine, &catalog, "default.small", None),
            rows,
            "{engine:?}"
        );
    }
    assert_eq!(
        proxy.commits(),
        [SeenCommit {
            fault: Fault::Pass,
            upstream_status: Some(200)
        }]
    );
}

#[test]
fn the_proxy_loses_and_falsifies_the_answers_it_is_told_to() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let server = RestCatalog::start(dir.path());
    let proxy = Proxy::start(server.address());
    readers::create_small_table(&Catalog::Rest { uri: server.uri() }, "default.small");
    for (n, fault) in [
        (1, Fault::SwallowAnswer),
        (2, Fault::Refuse(409)),
        (3, Fault::Refuse(500)),
        (4, Fault::LieAfter(500)),
    ] {
        proxy.on_commit(n, fault);
    }
    let table = "/v1/namespaces/default/tables/small";
    let set = |n: u32| {
        let update = json!({"action": "set-properties", "updates": {"n": n.to_string()}});
        send(
            &proxy,
            "POST",
            table,
            &json!({"requirements": [], "updates": [update]}).to_string(),
        )
    };
    let stored = || send(&proxy, "GET", table, "").expect("an answer").1["metadata"]["properties"]["n"].clone();

    assert_eq!(set(1), None, "the answer is swallowed");
    assert_eq!(stored(), "1", "the commit happened");
    assert_eq!(set(2).expect("an answer").0, 409);
    assert_eq!(set(3).expect("an answer").0, 500);
    assert_eq!(stored(), "1", "neither commit reached the catalog");
    assert_eq!(set(4).expect("an answer").0, 500);
    assert_eq!(stored(), "4", "the commit happened");
    assert_eq!(set(5).expect("an answer").0, 200);
    let upstream: Vec<_> = proxy.commits().iter().map(|commit| commit.upstream_status).collect();
    assert_eq!(upstream, [Some(200), None, None, Some(200), Some(200)]);
}

#[test]
fn a_run_of_the_binary_is_captured_and_can_be_killed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let outcome = Aperio::start(dir.path(), &["schema"]).kill_after(Duration::from_secs(5));
    assert!(outcome.code.is_some() != outcome.signal.is_some(), "{outcome:?}");
}

/// Sends a request; `None` if the connection closes without an answer.
fn send(proxy: &Proxy, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let uri = proxy.uri();
    let address = uri.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {length}\r\n\r\n{body}").expect("the proxy reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the proxy answers or closes");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().expect("a status");
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}
