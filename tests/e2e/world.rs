//! Brokers that fail under services: restarts, leaders that move, rights that go and come back, records that go while a
//! service is frozen.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;
use crate::setup;

const LIMIT: Duration = Duration::from_secs(120);

fn pipeline(brokers: &str, topic: &str, source: &str) -> Workspace {
    Workspace::new(&format!(
        "partitionedTables:\n  - name: {}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      \
         format: json\n      batchWindow: 1s\n      maxPollRecords: 20\n      consumerConfig: \
         {{topic.metadata.refresh.interval.ms: \"1000\"}}\n      {source}\n",
        topic.replace('-', "_")
    ))
}

fn event(n: i64) -> Record {
    Record::of(format!(r#"{{"id":{n}}}"#)).partition((n % 2) as i32)
}

fn rows(work: &Path, topic: &str) -> Vec<i64> {
    let table = format!("default.{}", topic.replace('-', "_"));
    let rows = readers::read(Engine::DuckDb, &Catalog::sql(&work.join("warehouse")), &table, None);
    let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

fn wait_for_rows(service: &Aperio, work: &Workspace, topic: &str, count: i64) {
    let mut found = 0;
    let complete = setup::wait_until(LIMIT, || {
        assert!(!service.ended(), "{:#?}", service.printed());
        if service.has_printed("committed") {
            found = rows(work.path(), topic).len();
        }
        found as i64 >= count
    });
    assert!(complete, "{found} rows of {count}: {:#?}", service.printed());
}

/// Keeps producing while `work` is done; returns how many there are then, and what `work` returned.
fn flow<T>(kafka: &Kafka, topic: &str, from: i64, work: impl FnOnce() -> T) -> (i64, T) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &done;
        let producer = scope.spawn(move || {
            let mut next = from;
            while !stop.load(Ordering::Relaxed) {
                produce::produce(kafka, topic, (next..next + 30).map(event));
                next += 30;
                std::thread::sleep(Duration::from_millis(50));
            }
            next
        });
        let told = {
            let _done = Done(&done);
            work()
        };
        (producer.join().expect("the producer ends"), told)
    })
}

fn times(run: &Aperio, text: &str) -> usize {
    run.printed()[1].matches(text).count()
}

fn wait_for_commits(service: &Aperio, more: usize) {
    let before = times(service, "committed");
    let seen = setup::wait_until(LIMIT, || {
        assert!(!service.ended(), "{:#?}", service.printed());
        times(service, "committed") >= before + more
    });
    assert!(seen, "no {more} commits more: {:#?}", service.printed());
}

#[test]
fn a_broker_that_restarts_and_leaders_that_move_cost_nothing_but_time() {
    let (kafka, topic) = (Kafka::start(), "world-leaders");
    // The group's own topic is made while there is one broker only: it stays where it is.
    produce::join_group(&kafka, "world-first");
    let second = kafka.start_second();
    produce::create_topic_on(&kafka, topic, &[&[2, 1], &[1, 2]]);
    let work = pipeline(&kafka.brokers(), topic, "");
    produce::produce(&kafka, topic, (0..100).map(event));
    let (count, service) = flow(&kafka, topic, 100, || {
        let service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
        wait_for_commits(&service, 2);
        second.kill();
        wait_for_commits(&service, 3);
        second.start_again();
        wait_for_commits(&service, 2);
        service
    });
    // Now the one that everybody knows, with the group's coordinator.
    second.kill();
    wait_for_rows(&service, &work, topic, count);
    kafka.restart();
    let (count, ()) = flow(&kafka, topic, count, || wait_for_commits(&service, 3));
    service.signal(libc::SIGTERM).expect_code(0);
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(rows(work.path(), topic), (0..count).collect::<Vec<_>>());
}

#[test]
fn records_that_go_while_a_service_is_frozen_end_it_with_both_numbers() {
    let (kafka, topic) = (Kafka::shared(), "world-frozen");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = pipeline(&kafka.brokers(), topic, "");
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    wait_for_rows(&service, &work, topic, 100);
    service.freeze();
    produce::produce(kafka, topic, (100..300).map(event));
    produce::delete_records(kafka, topic, 0, 120);
    let told = service.go_on().wait().expect_code(3);
    let words = "world-frozen/0: the table holds offset 50, the topic begins at 120";
    assert!(told.stderr.contains(words), "{told:#?}");
    let found = rows(work.path(), topic);
    assert!(found.iter().all(|id| *id < 100 || id % 2 == 1), "{found:?}");
}

#[test]
fn a_right_that_goes_and_comes_back_is_waited_for_and_one_that_stays_away_is_not() {
    let (kafka, topic) = (Kafka::start_with_user("reader", "secret"), "world-rights");
    produce::create_topic(&kafka, topic, 2, &[]);
    produce::produce(&kafka, topic, (0..100).map(event));
    let login = "security: {protocol: SASL_PLAINTEXT, saslMechanism: SCRAM-SHA-512, saslUsername: reader, saslPassword: secret}";
    let work = pipeline(&kafka.login_brokers(), topic, login);
    let rights = |what: &[&str]| {
        let all = [what, &["--force", "--topic", topic]].concat();
        kafka.run_tool("org.apache.kafka.tools.AclCommand", &all);
    };
    rights(&["--add", "--allow-principal", "User:reader", "--operation", "Describe"]);
    rights(&["--add", "--allow-principal", "User:reader", "--operation", "Read"]);
    let deny = ["--deny-principal", "User:reader", "--operation", "Read"];
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "20s"]);
    wait_for_rows(&service, &work, topic, 100);
    rights(&[&["--add"], &deny[..]].concat());
    produce::produce(&kafka, topic, [event(100)]);
    let refused = setup::wait_until(LIMIT, || service.has_printed("uthorization"));
    assert!(refused, "{:#?}", service.printed());
    rights(&[&["--remove"], &deny[..]].concat());
    wait_for_rows(&service, &work, topic, 101);
    // Gone again, with nothing new to read when it is back: that is heard all the same.
    rights(&[&["--add"], &deny[..]].concat());
    let refused = setup::wait_until(LIMIT, || times(&service, "uthorization") >= 2);
    assert!(refused, "{:#?}", service.printed());
    rights(&[&["--remove"], &deny[..]].concat());
    std::thread::sleep(Duration::from_secs(22));
    assert!(!service.ended(), "{:#?}", service.printed());
    rights(&[&["--add"], &deny[..]].concat());
    let told = service.wait().expect_code(4);
    assert!(
        told.stderr.contains("can't be read for topic `world-rights`"),
        "{told:#?}"
    );
}
