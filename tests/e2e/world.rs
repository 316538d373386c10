//! What fails under services beside catalog and store: brokers that restart, leaders that move, rights that go and come
//! back, records that go while a service is frozen, clocks that somebody sets.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;
use crate::setup;

const LIMIT: Duration = setup::PATIENCE;

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
        let service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "5m"]);
        wait_for_commits(&service, 2);
        second.kill();
        wait_for_commits(&service, 3);
        second.start_again();
        wait_for_commits(&service, 2);
        service
    });
    // Now the one that everybody knows, with the group's coordinator. The other one stays: Kafka takes a broker that died
    // for one that may have lost records, and lets nobody lead but those that were in step with it.
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
    // Its last fetch, which the broker holds for half a second, is answered with nothing.
    std::thread::sleep(Duration::from_secs(2));
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
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "40s"]);
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
    std::thread::sleep(Duration::from_secs(42));
    assert!(!service.ended(), "{:#?}", service.printed());
    rights(&[&["--add"], &deny[..]].concat());
    let told = service.wait().expect_code(4);
    assert!(
        told.stderr.contains("can't be read for topic `world-rights`"),
        "{told:#?}"
    );
}

/// Shifts the wall clock of the process that it is loaded into by the seconds in a file, which may change at any time; a
/// wait until a time of that clock, which is how librdkafka waits, ends when the shifted clock shows it.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile const long *shift;

__attribute__((constructor)) static void begin(void) {
    void *found = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, open(getenv("CLOCK_SHIFT"), O_RDONLY), 0);
    if (found == MAP_FAILED) abort();
    shift = found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long answer = syscall(SYS_clock_gettime, clock, now);
    if (answer == 0 && clock == CLOCK_REALTIME && shift) now->tv_sec += *shift;
    return (int)answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

int timespec_get(struct timespec *now, int base) {
    clock_gettime(CLOCK_REALTIME, now);
    return base;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    if (!wait) wait = (int (*)(cnd_t *, mtx_t *, const struct timespec *))dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) {
        struct timespec now, step;
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec > until->tv_sec || (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec))
            return thrd_timedout;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &step);
        long end = step.tv_nsec + 10000000;
        step.tv_sec += end / 1000000000;
        step.tv_nsec = end % 1000000000;
        int answer = wait(condition, mutex, &step);
        if (answer != thrd_timedout) return answer;
    }
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"#;

#[test]
fn a_clock_that_is_set_back_and_forth_costs_no_record_and_no_order() {
    const DAY: i64 = 86_400;
    let (kafka, topic) = (Kafka::shared(), "world-clock");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = pipeline(&kafka.brokers(), topic, "");
    let (source, library, shift) = ("clock.c", "clock.so", "shift");
    std::fs::write(work.path().join(source), CLOCK).expect("a source file");
    let mut compiler = Command::new("cc");
    compiler.current_dir(work.path());
    let built = compiler
        .args(["-shared", "-fPIC", "-O1", "-o", library, source])
        .output()
        .expect("a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let clock = std::fs::File::create_new(work.path().join(shift)).expect("a file");
    let set = |days: i64| {
        clock
            .write_all_at(&(days * DAY).to_ne_bytes(), 0)
            .expect("the clock can be set")
    };
    set(0);
    let path = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_owned();
    let variables = [("LD_PRELOAD", path(library)), ("CLOCK_SHIFT", path(shift))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let service = Aperio::start_with(work.path(), &["run", "pipeline.yaml"], &variables);
    let (count, ()) = flow(kafka, topic, 100, || {
        for days in [0, -90, 30, -1, 0] {
            set(days);
            wait_for_commits(&service, 3);
            let shown = (chrono::Utc::now() + chrono::Duration::days(days)).format("%Y-%m-%dT");
            assert!(
                service.has_printed(&shown.to_string()),
                "{shown}: {:#?}",
                service.printed()
            );
        }
    });
    wait_for_rows(&service, &work, topic, count);
    service.signal(libc::SIGTERM).expect_code(0);
    // One who never saw those clocks goes on.
    produce::produce(kafka, topic, (count..count + 10).map(event));
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(rows(work.path(), topic), (0..count + 10).collect::<Vec<_>>());
    let metadata = work.metadata("world_clock");
    let log = metadata["snapshot-log"].as_array().expect("a log");
    let times: Vec<_> = log
        .iter()
        .map(|entry| entry["timestamp-ms"].as_i64().expect("a time"))
        .collect();
    assert!(times.len() > 15 && times.is_sorted(), "{times:?}");
}
