//! Many tables in one process: what they share of their catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access::{expect_each_once, pipeline, produce};
use crate::aperio::{Aperio, Workspace};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog};
use crate::setup;

const TABLES: usize = 12;

fn pipelines(kafka: &Kafka, prefix: &str) -> (Vec<String>, String) {
    let names: Vec<_> = (0..TABLES).map(|n| format!("{prefix}_{n}")).collect();
    let yaml = names
        .iter()
        .map(|name| pipeline(kafka, name, ", batchWindow: 1s"))
        .collect();
    for name in &names {
        produce(kafka, &name.replace('_', "-"), 0..30);
    }
    (names, yaml)
}

fn expect_all(catalog: &Catalog, names: &[String]) {
    let tables: Vec<_> = names.iter().map(|name| format!("default.{name}")).collect();
    let reads: Vec<_> = tables.iter().map(|table| (Engine::PyIceberg, &**table, None)).collect();
    for read in readers::read_many(catalog, &reads) {
        expect_each_once(&read.rows, 0..30);
    }
}

#[test]
fn tables_of_a_process_ask_a_rest_catalog_for_one_token_and_its_settings_once() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let proxy = Proxy::start(rest.address());
    let asked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = Arc::clone(&asked);
    proxy.guard(move |request| {
        for (of, count) in ["/oauth/tokens", "/v1/config"].iter().zip(counted.iter()) {
            count.fetch_add(usize::from(request.target().contains(of)), Ordering::Relaxed);
        }
        Fault::Pass
    });
    let (names, yaml) = pipelines(kafka, "shared");
    let work = Workspace::new(&format!(
        "catalog: {{type: rest, uri: \"{}\", properties: {{credential: \"us:secret\"}}}}\nstateDir: ./state\npartitionedTables:\n{yaml}",
        proxy.uri()
    ));
    work.start_once(&["--memory", "2GiB"]).wait().expect_code(0);
    let asked = asked.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(asked, [1, 1], "tokens and settings");
    expect_all(&Catalog::Rest { uri: rest.uri() }, &names);

    // A catalog that is away is away for all at once, not for one after the other.
    proxy.guard(|_| Fault::Hang);
    let since = std::time::Instant::now();
    let args = ["--memory", "2GiB", "--retry-for", "3s"];
    work.start_once(&args).wait().expect_code(4);
    assert!(
        since.elapsed().as_secs() < 45,
        "{:?} for one request of 10 s",
        since.elapsed()
    );
}

#[test]
fn tables_of_a_process_share_the_connections_to_a_sqlite_file() {
    let kafka = Kafka::shared();
    let (names, yaml) = pipelines(kafka, "pooled");
    let work = Workspace::new(&format!("partitionedTables:\n{yaml}"));
    let service = Aperio::start(
        work.path(),
        &["run", "pipeline.yaml", "--memory", "2GiB", "--listen", "127.0.0.1:0"],
    );
    let mut most = 0;
    let committed = setup::wait_until(setup::PATIENCE, || {
        assert!(!service.ended(), "{:#?}", service.printed());
        most = most.max(service.threads().iter().filter(|name| name.starts_with("sqlx")).count());
        names.iter().all(|name| {
            let of = format!("committed table=default.{name} ");
            service.printed()[1].contains(&of)
        })
    });
    assert!(committed, "{:#?}", service.printed());
    assert!(
        (1..=4).contains(&most),
        "{most} threads of SQLite: {:?}",
        service.threads()
    );
    service.signal(libc::SIGTERM).expect_code(0);
    work.start_once(&["--memory", "2GiB"]).wait().expect_code(0);
    expect_all(&Catalog::sql(&work.warehouse()), &names);
}
