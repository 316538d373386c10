//! What a run tells while it runs, what it says when it can't go on, and `aperio check`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::servers::{self, Fault, Kafka, Proxy, RestCatalog};
use crate::setup;

/// A bound for what happens in the background; nothing here is meant to take longer than some seconds.
const LIMIT: Duration = setup::PATIENCE;

fn event(n: i64) -> Record {
    Record::of(format!(r#"{{"id":{n},"ts":{}}}"#, 1_700_000_000_000 + n)).partition((n % 2) as i32)
}

/// One table of `topic`, in the default catalog or in the REST catalog at `uri`.
fn pipeline(brokers: &str, topic: &str, uri: Option<&str>) -> String {
    let name = topic.replace('-', "_");
    let catalog = uri.map_or(String::new(), |uri| {
        format!("catalog: {{type: rest, uri: \"{uri}\", warehouse: \"\"}}\nstateDir: ./state\n")
    });
    format!(
        "{catalog}health: {{maxLag: 50}}\npartitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{brokers}\"\n      \
         topic: {topic}\n      format: json\n      batchWindow: 1s\n      eventTimeField: ts\n    errors: {{maxRejected: 5}}\n"
    )
}

/// A service that serves its metrics at a port of its own.
struct Service {
    aperio: Aperio,
    port: u16,
}

impl Service {
    /// Starts it and waits until it serves.
    fn start(work: &Workspace) -> Self {
        Self::begin(work, &[]).serving()
    }

    /// Starts it with these environment variables.
    fn begin(work: &Workspace, variables: &[(&str, &str)]) -> Self {
        // Brokers may take their time to come back.
        Self::begin_with(work, &[("--retry-for", "5m")], variables)
    }

    /// Starts it with these options and environment variables.
    fn begin_with(work: &Workspace, options: &[(&str, &str)], variables: &[(&str, &str)]) -> Self {
        let port = setup::free_port();
        let address = format!("127.0.0.1:{port}");
        let mut args = vec!["run", "pipeline.yaml", "--listen", &address];
        args.extend(options.iter().flat_map(|(name, value)| [name, value]));
        let aperio = Aperio::start_with(work.path(), &args, variables);
        Service { aperio, port }
    }

    fn serving(self) -> Self {
        self.wait_for("/health/live", 200, &[]);
        self
    }

    /// The status and the body of a page; `None` where nobody listens.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        servers::page(&format!("127.0.0.1:{}", self.port), path)
    }

    /// Waits until a page has this status and holds these words.
    fn wait_for(&self, path: &str, status: u16, words: &[&str]) {
        let mut last = None;
        let seen = setup::wait_until(LIMIT, || {
            last = self.get(path);
            let fits = |(found, body): &(u16, String)| *found == status && words.iter().all(|word| body.contains(word));
            last.as_ref().is_some_and(fits)
        });
        assert!(
            seen,
            "{path}: {last:#?}, wanted {status} {words:?}; {:#?}",
            self.aperio.printed()
        );
    }

    /// The values of the series of this name, summed over their labels; `None` before there is one.
    fn read(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = || Some(rest.strip_prefix('{')?.split_once("} ")?.1);
            rest.strip_prefix(' ').or_else(labelled)?.parse::<f64>().ok()
        });
        values.reduce(|a, b| a + b)
    }

    fn metric(&self, name: &str) -> f64 {
        self.read(name)
            .unwrap_or_else(|| panic!("no `{name}` in {:#?}", self.get("/metrics")))
    }

    fn wait_metric(&self, name: &str, holds: impl Fn(f64) -> bool) {
        let seen = setup::wait_until(LIMIT, || self.read(name).is_some_and(&holds));
        assert!(
            seen,
            "{name} stays at {:?}: {:#?}",
            self.read(name),
            self.aperio.printed()
        );
    }
}

#[test]
fn every_metric_moves_and_readiness_follows_the_brokers_and_the_lag() {
    let (kafka, topic) = (Kafka::start(), "observed");
    produce::create_topic(&kafka, topic, 2, &[]);
    produce::produce(&kafka, topic, (0..40).map(event));
    produce::produce(&kafka, topic, [Record::of("{no json").partition(0)]);
    let warehouse = tempfile::tempdir().expect("a temporary folder");
    let catalog = RestCatalog::start(warehouse.path());
    let proxy = Proxy::start(catalog.address());
    proxy.on_commit(1, Fault::Refuse(500));
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, Some(&proxy.uri())));
    // The start is tried twice; before its first window is swapped somebody moves the table: that is a conflict.
    let stop = [("FAILPOINTS", "Inside(ManifestsStaged)=2*off->1*return(stop)")];
    let Service { aperio, port } = Service::begin(&work, &stop);
    aperio.wait_stopped();
    let reset = [
        "sync-points",
        "reset",
        "pipeline.yaml",
        "--table",
        topic,
        "--to",
        "1",
        "--partition",
        "0",
        "--yes",
    ];
    Aperio::run(work.path(), &reset).expect_code(0);
    let aperio = aperio.go_on();
    let service = Service { aperio, port }.serving();
    service.wait_metric("aperio_records_rejected_total", |count| count == 1.0);
    service.wait_for("/health/ready", 200, &["\"ready\": true"]);
    service.wait_for("/health/live", 200, &["\"live\": true"]);
    service.wait_metric("aperio_kafka_lag", |lag| lag == 0.0);
    for (name, least) in [
        ("aperio_kafka_records_consumed_total", 41.0),
        ("aperio_kafka_bytes_consumed_total", 1_000.0),
        ("aperio_kafka_batch_size", 1.0),
        ("aperio_kafka_polls_total", 2.0),
        ("aperio_kafka_empty_polls_total", 1.0),
        ("aperio_kafka_rebalances_total", 1.0),
        // The start and a window.
        ("aperio_iceberg_commits_total", 2.0),
        ("aperio_iceberg_commit_failures_total", 1.0),
        ("aperio_iceberg_commit_conflicts_total", 1.0),
        ("aperio_iceberg_commit_latency_seconds_count", 2.0),
        ("aperio_iceberg_commit_latency_seconds_sum", 0.001),
        ("aperio_iceberg_last_commit_timestamp_seconds", 1_700_000_000.0),
        ("aperio_iceberg_files_written_total", 1.0),
        ("aperio_iceberg_bytes_written_total", 500.0),
        ("aperio_memory_limit_bytes", 536_870_912.0),
        ("aperio_memory_resident_bytes", 10_000_000.0),
        ("aperio_memory_headroom_bytes", 1.0),
        // What was read is committed, and nothing more waits.
        ("aperio_memory_in_use_bytes", 0.0),
    ] {
        let found = service.metric(name);
        assert!(found >= least, "{name} is {found}");
    }
    let watermark = service.metric("aperio_event_time_watermark_seconds");
    assert!((watermark - 2.0 * 1_700_000_000.0 - 0.077).abs() < 0.001, "{watermark}");
    assert_eq!(
        service.metric("aperio_records_late_total"),
        0.0,
        "lateness isn't there yet"
    );
    let status: Value = serde_json::from_str(&service.get("/status").expect("it listens").1).expect("JSON");
    let table = &status["tables"][0];
    assert_eq!(
        (&table["table"], &table["phase"], &table["lag"]),
        (&json!("default.observed"), &json!("running"), &json!(0))
    );
    assert_eq!(
        table["partitions"][0],
        json!({"partition": 0, "table": 21, "end": 21, "lag": 0})
    );

    kafka.kill();
    service.wait_metric("aperio_kafka_errors_total", |count| count > 0.0);
    service.wait_for("/health/ready", 503, &["default.observed", "Kafka"]);
    service.wait_for("/health/live", 200, &[]);
    kafka.start_again();
    service.wait_for("/health/ready", 200, &[]);
    service.aperio.signal(libc::SIGTERM).expect_code(0);
}

#[test]
fn a_taken_port_is_a_warning_and_once_serves_nothing_unless_it_is_told() {
    let (kafka, topic) = (Kafka::shared(), "observe-port");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(kafka, topic, (0..10).map(|n| event(2 * n)));
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, None));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let told = work.start_once(&["--listen", &address]).wait().expect_code(0);
    assert!(
        told.stderr.contains(&address) && told.stderr.contains("--listen"),
        "{told:#?}"
    );
    let quiet = work.start_once(&[]).wait().expect_code(0);
    assert!(!quiet.stderr.contains("/metrics"), "{quiet:#?}");
}

// --- a catalog that takes requests and never answers -------------------------------------------------------------------

/// Stands before a server and, while it is shut, takes everything and hands nothing on.
struct Gate {
    port: u16,
    shut: Arc<AtomicBool>,
}

impl Gate {
    fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shut = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&shut);
        // Ends with the process, as the threads of `Proxy` do.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                let both = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)));
                let Ok((from_client, to_client)) = both.map(|(c, s)| ((c, server), (s, client))) else {
                    continue;
                };
                for (mut from, mut to) in [from_client, to_client] {
                    let shut = Arc::clone(&flag);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 16 << 10];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if !shut.load(Ordering::Relaxed) && to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Gate { port, shut }
    }

    fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::Relaxed);
    }
}

#[test]
fn a_catalog_that_never_answers_is_seen_by_a_service_and_ends_a_run() {
    let (kafka, topic) = (Kafka::shared(), "observe-stalled");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let warehouse = tempfile::tempdir().expect("a temporary folder");
    let catalog = RestCatalog::start(warehouse.path());
    let gate = Gate::start(catalog.address());
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, Some(&gate.uri())));
    let service = Service::start(&work);
    service.wait_metric("aperio_iceberg_files_written_total", |count| count > 0.0);
    service.wait_for("/health/ready", 200, &[]);
    gate.shut(true);
    service.wait_for("/health/ready", 503, &["the catalog at", "gave no answer"]);
    service.wait_for("/health/live", 200, &[]);
    gate.shut(false);
    service.wait_for("/health/ready", 200, &[]);
    service.aperio.signal(libc::SIGTERM).expect_code(0);

    // With records behind it, a run stands before its swap when the catalog falls silent: its requests have an end.
    produce::produce(kafka, topic, (10..20).map(event));
    let stop = [("FAILPOINTS", "Before(Swap)=1*return(stop)")];
    let args = [
        "run",
        "--once",
        "pipeline.yaml",
        "--retry-for",
        "8s",
        "--output",
        "json",
    ];
    let once = Aperio::start_with(work.path(), &args, &stop);
    once.wait_stopped();
    gate.shut(true);
    let told = once.go_on().wait().expect_code(4);
    assert!(told.stderr.contains("the catalog doesn't answer"), "{told:#?}");
    assert_eq!(told.report()["tables"][0]["outcome"], "failed");
    gate.shut(false);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["lag"], 0, "{report:#}");
}

#[test]
fn a_thread_that_hangs_ends_a_run_and_the_next_one_does_its_work() {
    let (kafka, topic) = (Kafka::shared(), "observe-hangs");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, None));
    let args = ["run", "--once", "pipeline.yaml", "--retry-for", "5s"];
    let hang = [("FAILPOINTS", "Inside(FileUploaded)=sleep(3600000)")];
    let told = Aperio::start_with(work.path(), &args, &hang).wait().expect_code(4);
    assert!(told.stderr.contains("its files aren't completed"), "{told:#?}");
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["rowsWritten"], 10, "{report:#}");

    // A service isn't ended by it, and doesn't stay green.
    produce::produce(kafka, topic, (10..20).map(event));
    let patience = [("--retry-for", "5s")];
    let service = Service::begin_with(&work, &patience, &hang);
    service.wait_for(
        "/health/ready",
        503,
        &["past its deadline", "its files aren't completed"],
    );
    service.wait_for("/health/live", 200, &[]);
    drop(service);
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    assert_eq!(report["tables"][0]["rowsWritten"], 10, "{report:#}");
}

#[test]
fn a_service_that_waits_for_a_topic_s_first_record_is_ready() {
    let (kafka, topic) = (Kafka::shared(), "observe-empty");
    produce::create_topic(kafka, topic, 2, &[]);
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, None));
    let service = Service::start(&work);
    service.wait_for("/health/ready", 200, &[]);
    service.wait_for("/status", 200, &["waiting"]);
    produce::produce(kafka, topic, (0..10).map(event));
    service.wait_metric("aperio_iceberg_files_written_total", |count| count > 0.0);
    service.wait_for("/health/ready", 200, &[]);
    service.aperio.signal(libc::SIGTERM).expect_code(0);
}

// --- check -------------------------------------------------------------------------------------------------------------

/// Runs `aperio check` and returns its report, the exit code looked at.
fn check(work: &Workspace, code: i32) -> Value {
    let args = ["check", "pipeline.yaml", "--output", "json"];
    let report = Aperio::run(work.path(), &args).expect_code(code).report();
    assert_eq!(report["exitCode"], code);
    report["tables"][0].clone()
}

/// The subjects that failed, and what they say.
fn failed(table: &Value) -> Vec<(String, String)> {
    let checks = table["checks"].as_array().expect("a list");
    let broken = checks.iter().filter(|check| check["ok"] == false);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    broken
        .map(|check| (text(&check["subject"]), text(&check["error"])))
        .collect()
}

#[test]
fn check_names_what_is_broken_and_leaves_nothing_behind() {
    let (kafka, topic) = (Kafka::shared(), "observe-check");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let good = pipeline(&kafka.brokers(), topic, None);
    let work = Workspace::new(&good);
    assert_eq!(failed(&check(&work, 0)), []);
    let left: Vec<_> = std::fs::read_dir(work.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "only the pipeline file: {left:?}");
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(failed(&check(&work, 0)), []);

    let names = |table: &Value| {
        failed(table)
            .into_iter()
            .map(|(subject, _)| subject)
            .collect::<Vec<_>>()
    };
    work.rewrite(&good.replace("topic: observe-check", "topic: observe-nothing"));
    let report = check(&work, 2);
    assert_eq!(names(&report), ["topic", "group"], "{report:#}");
    assert!(
        failed(&report)[0].1.contains("topic `observe-nothing` doesn't exist"),
        "{report:#}"
    );

    let nobody = format!("127.0.0.1:{}", setup::free_port());
    work.rewrite(&good.replace(&kafka.brokers(), &nobody));
    let report = check(&work, 4);
    assert_eq!(names(&report), ["brokers", "topic", "group"], "{report:#}");
    assert!(failed(&report)[0].1.contains(&nobody), "{report:#}");

    work.rewrite(&pipeline(&kafka.brokers(), topic, Some(&format!("http://{nobody}"))));
    let report = check(&work, 4);
    assert_eq!(names(&report), ["catalog"], "{report:#}");

    // One that is there, and lets nobody in or us alone.
    let warehouse = tempfile::tempdir().expect("a temporary folder");
    let catalog = RestCatalog::start(warehouse.path());
    let proxy = Proxy::start(catalog.address());
    work.rewrite(&pipeline(&kafka.brokers(), topic, Some(&proxy.uri())));
    assert_eq!(failed(&check(&work, 0)), []);
    proxy.guard(|_| Fault::Refuse(401));
    let report = check(&work, 4);
    assert_eq!(names(&report), ["catalog"], "{report:#}");
    assert!(failed(&report)[0].1.contains("401"), "{report:#}");

    std::fs::write(work.path().join("file"), "no folder").expect("a file");
    work.rewrite(&format!("stateDir: ./file\n{good}"));
    let report = check(&work, 4);
    assert_eq!(names(&report), ["store"], "{report:#}");
    work.rewrite(&good.replace(
        "maxRejected: 5",
        "deadLetter: {topic: observe-no-letters}, maxRejected: 5",
    ));
    assert_eq!(names(&check(&work, 2)), ["dead letters"]);
}
