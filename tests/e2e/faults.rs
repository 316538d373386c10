//! Catalogs, stores and disks that fail: each time the named exit code or a recovery, and every record once.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::access::{expect_each_once, pipeline, produce, s3_properties, sqlite_over_s3, sync_points};
use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::Record;
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog, S3};
use crate::{produce, setup};

/// Patience of the runs that are meant to lose it.
const IMPATIENT: [&str; 2] = ["--retry-for", "6s"];

pub fn read(catalog: &Catalog, table: &str) -> Vec<Value> {
    readers::read(Engine::PyIceberg, catalog, &format!("default.{table}"), None)
}

/// Expects that a run gave up on something remote, and that its error holds all of `parts`.
pub fn gave_up(outcome: Outcome, parts: &[&str]) {
    let outcome = outcome.expect_code(4);
    for part in parts {
        assert!(outcome.stderr.contains(part), "no `{part}` in: {outcome:#?}");
    }
}

#[test]
fn a_bucket_that_throttles_slows_a_run_and_loses_nothing() {
    let (kafka, s3, table) = (Kafka::shared(), S3::shared(), "throttled");
    s3.make_bucket("throttled");
    let store = Proxy::start(s3.address());
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    // Three requests of ten; `SlowDown` is a 503.
    store.guard(move |_| match counted.fetch_add(1, Ordering::Relaxed) * 7 % 10 {
        0..3 => Fault::Refuse(503),
        _ => Fault::Pass,
    });
    let work = bucket_table(kafka, table, &store.uri());
    for round in 0..2 {
        produce(kafka, table, round * 300..(round + 1) * 300);
        work.start_once(&[]).wait().expect_code(0);
    }
    assert!(seen.load(Ordering::Relaxed) > 50, "the requests went through the proxy");
    expect_each_once(&read(&sqlite_over_s3(&work, s3), table), 0..600);
}

#[test]
fn a_bucket_that_refuses_or_breaks_ends_a_run_that_another_completes() {
    let (kafka, s3, table) = (Kafka::shared(), S3::shared(), "refused");
    s3.make_bucket("refused");
    let store = Proxy::start(s3.address());
    let work = bucket_table(kafka, table, &store.uri());
    produce(kafka, table, 0..100);
    work.start_once(&[]).wait().expect_code(0);
    for (round, fault, words) in [
        (1, Fault::Refuse(403), "403"),
        (2, Fault::Refuse(500), "500"),
        (3, Fault::Cut, ""),
    ] {
        produce(kafka, table, round * 100..(round + 1) * 100);
        store.guard(move |request| match request.method() {
            "GET" | "HEAD" => Fault::Pass,
            _ => fault,
        });
        gave_up(work.start_once(&IMPATIENT).wait(), &[words]);
        let checked = Aperio::run(work.path(), &["check", "pipeline.yaml"]).expect_code(4);
        let told = match fault {
            Fault::Refuse(403) => "can't be written to",
            // Tried again for as long as somebody waits in front of the screen.
            _ => "the store of table `default.refused`",
        };
        assert!(checked.stderr.contains(told), "{checked:#?}");
        store.pass();
        work.start_once(&[]).wait().expect_code(0);
    }
    expect_each_once(&read(&sqlite_over_s3(&work, s3), table), 0..400);
}

/// Refused are files that are sent whole, and the parts of those that are too large for that.
#[test]
fn a_bucket_that_refuses_files_for_a_while_ends_no_service() {
    let (kafka, s3, table) = (Kafka::shared(), S3::shared(), "refusing");
    s3.make_bucket(table);
    let store = Proxy::start(s3.address());
    produce::create_topic(kafka, table, 3, &[]);
    let work = Workspace::new(&format!(
        "catalog: {{uri: \"sqlite://./catalog.db\", warehouse: \"s3://{table}/lake\", properties: {}}}\npartitionedTables:\n  - name: {table}\n    source: {{brokers: \"{}\", topic: {table}, format: json, batchSize: 6000, batchWindow: 2s}}\n",
        s3_properties(&store.uri()),
        kafka.brokers()
    ));
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "50s"]);
    let refused = Arc::new(AtomicUsize::new(0));
    let mut ids = 0..0;
    for (records, words) in [(300, 1), (6_000, 375)] {
        let left = Arc::new(AtomicUsize::new(6));
        let (refused, counted) = (Arc::clone(&refused), Arc::clone(&left));
        store.guard(move |request| {
            let writes = !matches!(request.method(), "GET" | "HEAD" | "DELETE");
            let refuses = |left: usize| left.checked_sub(1);
            if !writes || !request.target().contains("/data/") || request.target().contains("uploads") {
                return Fault::Pass;
            }
            match counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuses) {
                Ok(_) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    Fault::Refuse(403)
                }
                Err(_) => Fault::Pass,
            }
        });
        ids = ids.end..ids.end + records;
        produce::produce(kafka, table, ids.clone().map(|id| noise(id, words)));
        let through = setup::wait_until(setup::PATIENCE, || {
            left.load(Ordering::Relaxed) == 0 && held(&work) == ids.end
        });
        assert!(through, "{:#?}", service.signal(libc::SIGTERM));
    }
    let ended = service.signal(libc::SIGTERM).expect_code(0);
    assert_eq!(refused.load(Ordering::Relaxed), 12, "{ended:#?}");
    assert!(ended.stderr.contains("its records are read again"), "{ended:#?}");
    expect_each_once(&read(&sqlite_over_s3(&work, s3), table), 0..ids.end);
}

/// How many records the sync points of a workspace's only table tell of.
fn held(work: &Workspace) -> i64 {
    let offset = |(_, value): &(String, String)| value.parse::<i64>().expect("an offset");
    sync_points(work.path()).iter().map(offset).sum()
}

/// A workspace with one pipeline into a bucket of the same name at `endpoint`.
fn bucket_table(kafka: &Kafka, table: &str, endpoint: &str) -> Workspace {
    Workspace::new(&format!(
        "catalog: {{uri: \"sqlite://./catalog.db\", warehouse: \"s3://{table}/lake\", properties: {}}}\npartitionedTables:\n{}",
        s3_properties(endpoint),
        pipeline(kafka, table, "")
    ))
}

/// A REST catalog whose commits go through a proxy, and a pipeline into it that has committed its first records.
pub fn rest_table(kafka: &Kafka, table: &str, rest: &RestCatalog, source: &str) -> (Workspace, Proxy) {
    let proxy = Proxy::start(rest.address());
    let work = Workspace::new(&format!(
        "catalog: {{type: rest, uri: \"{}\"}}\nstateDir: ./state\npartitionedTables:\n{}",
        proxy.uri(),
        pipeline(kafka, table, source)
    ));
    produce(kafka, table, 0..100);
    work.start_once(&[]).wait().expect_code(0);
    (work, proxy)
}

#[test]
fn a_catalog_that_stays_down_ends_a_run_with_code_4_that_another_completes() {
    let kafka = Kafka::shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let cases = [
        ("down500", Fault::Refuse(500)),
        ("down503", Fault::LieAfter(503)),
        ("down409", Fault::Refuse(409)),
        ("down401", Fault::Refuse(401)),
        ("down429", Fault::Refuse(429)),
        ("downcut", Fault::Cut),
        ("downlost", Fault::SwallowAnswer),
        ("downhang", Fault::Hang),
    ];
    std::thread::scope(|scope| {
        for (table, fault) in cases {
            let rest = &rest;
            scope.spawn(move || {
                let (work, proxy) = rest_table(kafka, table, rest, "");
                produce(kafka, table, 100..300);
                proxy.guard(move |request| match request.is_commit() {
                    true => fault,
                    false => Fault::Pass,
                });
                let outcome = work.start_once(&IMPATIENT).wait();
                // Where the commit happens and its answer is a lie, the table tells: that run is done.
                match fault {
                    Fault::LieAfter(_) | Fault::SwallowAnswer => drop(outcome.expect_code(0)),
                    _ => gave_up(outcome, &["--retry-for"]),
                }
                if table == cases[0].0 {
                    // All of the catalog away, from the start of a run.
                    proxy.guard(|_| Fault::Refuse(503));
                    gave_up(work.start_once(&IMPATIENT).wait(), &["503"]);
                }
                proxy.pass();
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
fn a_service_goes_on_through_a_storm_of_a_catalog_s_faults() {
    let (kafka, table) = (Kafka::shared(), "storm");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let (work, proxy) = rest_table(kafka, table, &rest, ", batchWindow: 1s");
    let faults = [
        Fault::Refuse(500),
        Fault::Pass,
        Fault::LieAfter(503),
        Fault::Refuse(409),
        Fault::Pass,
        Fault::LieAfter(409),
        Fault::Refuse(401),
        Fault::SwallowAnswer,
        Fault::Pass,
        Fault::LieAfter(401),
        Fault::Cut,
        Fault::LieAfter(500),
        Fault::Refuse(429),
        Fault::Refuse(403),
    ];
    // Commits meet one after the other; of the other requests every third meets one too.
    let (mut commits, mut others) = (0, 0);
    proxy.guard(move |request| {
        let met = if request.is_commit() { &mut commits } else { &mut others };
        *met += 1;
        match request.is_commit() || *met % 3 == 0 {
            true => faults[*met % faults.len()],
            false => Fault::Pass,
        }
    });
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    let mut end = 100;
    // Ends: every round meets a fault at least.
    while proxy.commits().len() < faults.len() {
        let seen = proxy.commits().len();
        produce(kafka, table, end..end + 100);
        end += 100;
        assert!(setup::wait_until(setup::PATIENCE, || proxy.commits().len() > seen));
    }
    proxy.pass();
    service.signal(libc::SIGTERM).expect_code(0);
    work.start_once(&[]).wait().expect_code(0);
    let spoiled = proxy.commits().iter().filter(|seen| seen.fault != Fault::Pass).count();
    assert!(spoiled >= 8, "{:?}", proxy.commits());
    expect_each_once(&read(&Catalog::Rest { uri: rest.uri() }, table), 0..end);
}

#[test]
fn new_columns_wait_for_a_catalog_as_long_as_rows_do() {
    let (kafka, table) = (Kafka::shared(), "newcolumns");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let (work, proxy) = rest_table(kafka, table, &rest, "");
    let with_field = |field: &'static str| {
        move |id: i64| Record::of(format!(r#"{{"id":{id},"name":"n{id}","{field}":{id}}}"#)).partition((id % 3) as i32)
    };
    produce::produce(kafka, table, (100..200).map(with_field("more")));
    let (since, mut refused) = (Instant::now(), 0);
    proxy.guard(move |request| {
        if !request.is_commit() || since.elapsed() > Duration::from_secs(15) {
            return Fault::Pass;
        }
        refused += 1;
        Fault::Refuse([503, 409][refused % 2])
    });
    let before = proxy.commits().len();
    work.start_once(&[]).wait().expect_code(0);
    let seen = proxy.commits().split_off(before);
    let spoiled = seen.iter().filter(|seen| seen.fault != Fault::Pass);
    assert!(spoiled.count() >= 3, "{:?}", proxy.commits());

    produce::produce(kafka, table, (200..300).map(with_field("most")));
    proxy.guard(|request| match request.is_commit() {
        true => Fault::Refuse(409),
        false => Fault::Pass,
    });
    gave_up(
        work.start_once(&IMPATIENT).wait(),
        &["the columns of table", "--retry-for"],
    );
    proxy.pass();
    work.start_once(&[]).wait().expect_code(0);
    let rows = read(&Catalog::Rest { uri: rest.uri() }, table);
    expect_each_once(&rows, 0..300);
    for (field, ids) in [("more", 100..200), ("most", 200..300)] {
        let held = rows.iter().filter(|row| row[field] == row["id"]).count();
        assert_eq!(held, ids.count(), "rows with `{field}`");
    }
}

#[test]
fn processes_that_share_a_sqlite_file_wait_for_its_lock() {
    let kafka = Kafka::shared();
    let tables = ["busy_a", "busy_b", "busy_c", "busy_d"];
    let pipelines: String = tables.iter().map(|table| pipeline(kafka, table, "")).collect();
    let work = Workspace::new(&format!("partitionedTables:\n{pipelines}"));
    for table in tables {
        produce(kafka, &table.replace('_', "-"), 0..200);
    }
    // Made first: the lock is on a file.
    work.start_once(&["--table", "busy_a"]).wait().expect_code(0);
    let mut command = Command::new(setup::part("python").join("bin/python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/hold_sqlite.py"));
    command.arg(work.warehouse().join("catalog.db")).args(["3", "3"]);
    let mut holder = setup::spawn(command);
    for round in 1..3 {
        for table in tables {
            produce(kafka, &table.replace('_', "-"), round * 200..(round + 1) * 200);
        }
        let runs = tables.map(|table| work.start_once(&["--table", table]));
        runs.into_iter().for_each(|run| drop(run.wait().expect_code(0)));
    }
    setup::kill_group(&mut holder);
    let catalog = Catalog::sql(&work.warehouse());
    let names = tables.map(|table| format!("default.{table}"));
    let reads: Vec<_> = names.iter().map(|table| (Engine::PyIceberg, &**table, None)).collect();
    for read in readers::read_many(&catalog, &reads) {
        expect_each_once(&read.rows, 0..600);
    }
}

/// Text that hardly compresses, so that a file is about as long as its records: so many words of 16 digits.
fn noise(id: i64, words: usize) -> Record {
    let mut state = id as u64 + 1;
    let mut text = String::new();
    for _ in 0..words {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    Record::of(format!(r#"{{"id":{id},"name":"{text}"}}"#)).partition((id % 3) as i32)
}

#[test]
fn a_full_disk_ends_a_run_that_another_completes() {
    let (kafka, table) = (Kafka::shared(), "full");
    // Packed, the metadata would be shorter than what SQLite writes.
    let plain = "    materialize: {tableProperties: {write.metadata.compression-codec: none}}\n";
    let work = Workspace::new(&format!("partitionedTables:\n{}{plain}", pipeline(kafka, table, "")));
    produce(kafka, table, 0..100);
    work.start_once(&[]).wait().expect_code(0);
    // A limit on the length of files, in blocks of 512 bytes, stands for a full disk, which only root could make: a write
    // fails midway.
    let limited = |blocks: u32| {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let args = [&["run", "--once", "pipeline.yaml"][..], &IMPATIENT].concat();
        Aperio::start_under(&["sh", "-c", &script, "sh"], work.path(), &args, &[]).wait()
    };
    // A data file of 16 KB doesn't fit.
    produce::produce(kafka, table, (100..500).map(|id| noise(id, 16)));
    gave_up(limited(16), &["File too large"]);
    work.start_once(&[]).wait().expect_code(0);
    // This one does, but the metadata doesn't.
    produce(kafka, table, 500..510);
    gave_up(limited(8), &["File too large"]);
    work.start_once(&[]).wait().expect_code(0);
    expect_each_once(&read(&Catalog::sql(&work.warehouse()), table), 0..510);
}

#[test]
fn a_folder_that_may_not_be_written_ends_a_run_that_another_completes() {
    let (kafka, table) = (Kafka::shared(), "forbidden");
    let work = Workspace::new(&format!("partitionedTables:\n{}", pipeline(kafka, table, "")));
    produce(kafka, table, 0..100);
    work.start_once(&[]).wait().expect_code(0);
    produce(kafka, table, 100..200);
    // Root may write everywhere, unless it gives that up.
    // SAFETY: asks for a number.
    let under: &[&str] = match unsafe { libc::geteuid() } {
        0 => &["setpriv", "--bounding-set", "-dac_override,-dac_read_search"],
        _ => &[],
    };
    let args = [&["run", "--once", "pipeline.yaml"][..], &IMPATIENT].concat();
    for folder in ["data", "metadata"] {
        let folder = work.warehouse().join("default").join(table).join(folder);
        allow(&folder, 0o555);
        let outcome = Aperio::start_under(under, work.path(), &args, &[]).wait();
        allow(&folder, 0o755);
        gave_up(outcome, &["Permission denied"]);
    }
    work.start_once(&[]).wait().expect_code(0);
    expect_each_once(&read(&Catalog::sql(&work.warehouse()), table), 0..200);
}

/// Sets the permissions of a folder and of those in it.
fn allow(folder: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            allow(&entry.path(), mode);
        }
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("ours to change");
}
