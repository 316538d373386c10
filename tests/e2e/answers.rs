//! Answers that are no catalog's: a request is sent elsewhere, a portal shows a page, half of an answer is missing, or it never
//! ends. Whatever such an answer looks like, nothing counts as stored that the table doesn't show.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::access::{expect_each_once, pipeline, produce};
use crate::aperio::{Aperio, Workspace};
use crate::faults::{gave_up, read, rest_table};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog};

/// Patience of the runs that are meant to lose it.
const IMPATIENT: [&str; 2] = ["--retry-for", "3s"];

/// Spoils every request that `spoils` names.
fn spoil(proxy: &Proxy, fault: Fault, spoils: impl Fn(&crate::proxy::Request) -> bool + Send + 'static) {
    proxy.guard(move |request| if spoils(request) { fault } else { Fault::Pass });
}

/// Lines that tell of a commit.
fn committed(text: &str) -> usize {
    text.lines().filter(|line| line.contains("committed table=")).count()
}

#[test]
fn a_commit_that_somebody_else_answers_is_not_believed() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let cases = [
        ("sent301", Fault::Redirect(301)),
        ("sent302", Fault::Redirect(302)),
        ("sent303", Fault::Redirect(303)),
        ("sent307", Fault::Redirect(307)),
        ("sent308", Fault::Redirect(308)),
        ("sentpage", Fault::Page),
        ("sentlost", Fault::Lost),
        ("sentendless", Fault::Endless),
        // The commit is made, and the table shows it.
        ("senthalf", Fault::Half),
    ];
    std::thread::scope(|scope| {
        for (table, fault) in cases {
            let rest = &rest;
            scope.spawn(move || {
                let (work, proxy) = rest_table(kafka, table, rest, "");
                produce(kafka, table, 100..300);
                let before = proxy.commits().len();
                spoil(&proxy, fault, crate::proxy::Request::is_commit);
                let outcome = work.start_once(&IMPATIENT).wait();
                let told = match fault {
                    Fault::Half => {
                        outcome.expect_code(0);
                        return;
                    }
                    Fault::Redirect(status) => format!("status {status} points to `{}`", proxy.uri()),
                    Fault::Page => "no JSON".to_owned(),
                    Fault::Lost => "status 404, not in the words of a catalog".to_owned(),
                    _ => "and 268435456 are taken at most".to_owned(),
                };
                assert_eq!(committed(&outcome.stderr), 0, "{outcome:#?}");
                gave_up(outcome, &["--retry-for", &told]);
                let seen = proxy.commits().split_off(before);
                assert!(seen.len() > 1 && seen.len() < 30, "{seen:?}");
                assert!(seen.iter().all(|seen| seen.upstream_status.is_none()), "{seen:?}");
                // The next attempt is spoiled, and the one after it isn't: the same run goes on.
                let met = AtomicUsize::new(0);
                spoil(&proxy, fault, move |request| {
                    request.is_commit() && met.fetch_add(1, Ordering::Relaxed) == 0
                });
                work.start_once(&[]).wait().expect_code(0);
            });
        }
    });
    let catalog = Catalog::Rest { uri: rest.uri() };
    let names = cases.map(|(table, _)| format!("default.{table}"));
    let reads: Vec<_> = names.iter().map(|table| (Engine::PyIceberg, &**table, None)).collect();
    for (table, read) in names.iter().zip(readers::read_many(&catalog, &reads)) {
        println!("{table}");
        expect_each_once(&read.rows, 0..300);
    }
}

#[test]
fn letters_columns_and_resets_that_somebody_else_answers_are_not_believed() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let catalog = Catalog::Rest { uri: rest.uri() };
    let (table, letters) = ("sentaside", "sentaside_dead_letters");
    let (work, proxy) = rest_table(kafka, table, &rest, "");

    // Only the letters' commits are answered so: a window whose letters aren't stored isn't committed.
    let bad = |n: i64| Record::of(format!("no json {n}")).partition((n % 3) as i32);
    produce::produce(kafka, table, (0..5).map(bad));
    produce(kafka, table, 100..200);
    let offset = |work: &Workspace| {
        let status = Aperio::run(work.path(), &["status", "pipeline.yaml", "--output", "json"]).expect_code(0);
        status.report()
    };
    let before = offset(&work);
    spoil(&proxy, Fault::Redirect(302), |request| {
        request.is_commit() && request.target().contains("_dead_letters")
    });
    gave_up(
        work.start_once(&IMPATIENT).wait(),
        &["dead letters", "status 302 points to"],
    );
    assert_eq!(
        in_table(&before),
        in_table(&offset(&work)),
        "offsets moved past letters that aren't stored"
    );
    proxy.pass();
    work.start_once(&[]).wait().expect_code(0);
    let stored = read(&catalog, letters);
    let mut values: Vec<_> = stored
        .iter()
        .map(|row| format!("{}/{}", row["partition"], row["offset"]))
        .collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!((stored.len(), values.len()), (5, 5), "{stored:#?}");

    // New columns.
    let wide = |id: i64| Record::of(format!(r#"{{"id":{id},"name":"n{id}","more":{id}}}"#)).partition((id % 3) as i32);
    produce::produce(kafka, table, (200..300).map(wide));
    spoil(&proxy, Fault::Redirect(303), |request| {
        request.is_commit() && request.text().contains("add-schema")
    });
    gave_up(
        work.start_once(&IMPATIENT).wait(),
        &["the columns of table", "status 303 points to"],
    );
    proxy.pass();
    work.start_once(&[]).wait().expect_code(0);
    let rows = read(&catalog, table);
    expect_each_once(&rows, 0..300);
    assert_eq!(rows.iter().filter(|row| row["more"] == row["id"]).count(), 100);

    // A reset.
    let before = offset(&work);
    let reset = [
        "sync-points",
        "reset",
        "pipeline.yaml",
        "--table",
        table,
        "--to",
        "earliest",
        "--yes",
    ];
    for fault in [Fault::Redirect(302), Fault::Page] {
        spoil(&proxy, fault, crate::proxy::Request::is_commit);
        let outcome = Aperio::run(work.path(), &reset).expect_code(4);
        assert!(
            outcome.stderr.contains("it isn't known whether the offsets"),
            "{outcome:#?}"
        );
    }
    proxy.pass();
    assert_eq!(in_table(&before), in_table(&offset(&work)), "a reset that wasn't made");
}

/// The offsets that the table holds, as `aperio status` tells them.
fn in_table(status: &Value) -> Vec<i64> {
    let partitions = status["tables"][0]["partitions"].as_array().expect("partitions");
    partitions
        .iter()
        .map(|partition| partition["table"].as_i64().expect("an offset"))
        .collect()
}

#[test]
fn a_table_is_made_once_and_never_taken_for_gone_whoever_answers() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let cases = [
        ("made302", Fault::Redirect(302)),
        ("madepage", Fault::Page),
        ("madehalf", Fault::Half),
        ("madelost", Fault::Lost),
    ];
    std::thread::scope(|scope| {
        for (table, fault) in cases {
            let rest = &rest;
            scope.spawn(move || {
                let proxy = Proxy::start(rest.address());
                let work = Workspace::new(&format!(
                    "catalog: {{type: rest, uri: \"{}\"}}\nstateDir: ./state\npartitionedTables:\n{}",
                    proxy.uri(),
                    pipeline(kafka, table, "")
                ));
                produce(kafka, table, 0..100);
                let creates = |request: &crate::proxy::Request| {
                    request.method() == "POST" && request.target().ends_with("/tables")
                };
                // Every creation, and then the first only.
                spoil(&proxy, fault, creates);
                match (fault, work.start_once(&IMPATIENT).wait()) {
                    (Fault::Half, outcome) => drop(outcome.expect_code(0)),
                    (_, outcome) => gave_up(outcome, &["the catalog at"]),
                }
                let met = Arc::new(AtomicUsize::new(0));
                spoil(&proxy, fault, move |request| {
                    creates(request) && met.fetch_add(1, Ordering::Relaxed) == 0
                });
                work.start_once(&[]).wait().expect_code(0);
                // Loads: a page is no word on whether there is a table, and offsets are kept.
                produce(kafka, table, 100..200);
                spoil(&proxy, fault, |request| {
                    request.method() == "GET" && request.target().contains("/tables/")
                });
                gave_up(work.start_once(&IMPATIENT).wait(), &["the catalog at"]);
                let met = Arc::new(AtomicUsize::new(0));
                spoil(&proxy, fault, move |request| {
                    let loads = request.method() == "GET" && request.target().contains("/tables/");
                    loads && met.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
                });
                work.start_once(&[]).wait().expect_code(0);
            });
        }
    });
    let catalog = Catalog::Rest { uri: rest.uri() };
    for (table, _) in cases {
        expect_each_once(&read(&catalog, table), 0..200);
    }
}

#[test]
fn a_catalog_whose_warehouse_is_elsewhere_gets_at_no_local_file() {
    let (kafka, table) = (Kafka::shared(), "sentlocal");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let pipeline = pipeline(kafka, table, "");
    let yaml = |properties: &str| {
        format!(
            "catalog: {{type: rest, uri: \"{}\", warehouse: \"s3://lake/w\"{properties}}}\nstateDir: ./state\npartitionedTables:\n{pipeline}",
            rest.uri()
        )
    };
    let work = Workspace::new(&yaml(""));
    produce(kafka, table, 0..100);
    let written = || {
        let folder = dir.path().join("default").join(table);
        std::fs::read_dir(folder.join("data")).map_or(0, Iterator::count)
    };
    for command in [
        "run --once pipeline.yaml",
        "run --once pipeline.yaml",
        "check pipeline.yaml",
    ] {
        let args: Vec<_> = command.split(' ').collect();
        let refused = Aperio::run(work.path(), &args).expect_code(2);
        for part in [
            "location is `file:",
            "`catalog.warehouse` is `s3://lake/w`",
            "aperio.allow-local-files",
        ] {
            assert!(refused.stderr.contains(part), "{part}: {refused:#?}");
        }
    }
    assert_eq!(written(), 0);
    work.rewrite(&yaml(", properties: {aperio.allow-local-files: \"true\"}"));
    work.start_once(&[]).wait().expect_code(0);
    assert!(written() > 0);
    expect_each_once(&read(&Catalog::Rest { uri: rest.uri() }, table), 0..100);
}
