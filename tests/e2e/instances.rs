//! Several instances of one pipeline: frozen and woken, killed, overtaken, ten at once, `--once` beside services. Every
//! record once, every dead letter once, and each process ends as it should.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog};
use crate::servers::{Kafka, RestCatalog};
use crate::setup;

/// A bound for what takes a few seconds on a quiet machine.
const LIMIT: Duration = setup::PATIENCE;

fn event(n: i64, partitions: i64) -> Record {
    Record::of(format!(r#"{{"id":{n},"name":"u{}"}}"#, n % 7)).partition((n % partitions) as i32)
}

/// A topic whose partitions begin with a record that is no JSON, and what was put into it.
struct Topic {
    name: String,
    partitions: i64,
    records: i64,
}

impl Topic {
    fn new(kafka: &Kafka, name: &str, partitions: i64) -> Self {
        produce::create_topic(kafka, name, partitions as i32, &[]);
        let poison = (0..partitions).map(|n| Record::of("{no JSON").partition(n as i32));
        produce::produce(kafka, name, poison);
        Topic {
            name: name.to_owned(),
            partitions,
            records: 0,
        }
    }

    fn add(&mut self, kafka: &Kafka, count: i64) {
        let (from, partitions) = (self.records, self.partitions);
        self.records += count;
        produce::produce(kafka, &self.name, (from..self.records).map(|n| event(n, partitions)));
    }
}

/// The pipeline file: a table named after the topic, members whose death is noticed within two seconds.
fn yaml(kafka: &Kafka, topic: &str, rest: Option<&RestCatalog>, source: &str) -> String {
    let catalog = rest.map_or(String::new(), |rest| {
        format!(
            "catalog: {{type: rest, uri: \"{}\", warehouse: \"\"}}\nstateDir: state\n",
            rest.uri()
        )
    });
    format!(
        "{catalog}partitionedTables:\n  - name: {}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      \
         format: json\n      maxPollRecords: 20\n      consumerConfig: {{session.timeout.ms: \"2000\", \
         heartbeat.interval.ms: \"400\", topic.metadata.refresh.interval.ms: \"1000\"}}\n      {source}\n    errors: \
         {{maxRejected: 100}}\n",
        table(topic),
        kafka.brokers()
    )
}

fn table(topic: &str) -> String {
    topic.replace('-', "_")
}

fn service(work: &Workspace) -> Aperio {
    Aperio::start(work.path(), &["run", "pipeline.yaml"])
}

/// One table to be looked at: where it is, and how its sync points are found.
fn place(work: &Workspace, rest: Option<&RestCatalog>, topic: &str) -> (Catalog, String, PathBuf) {
    let (catalog, state) = match rest {
        Some(rest) => (Catalog::Rest { uri: rest.uri() }, "state/default"),
        None => (Catalog::sql(&work.warehouse()), "warehouse/.aperio/default"),
    };
    let points = work.path().join(state).join("sync_points.parquet");
    (catalog, format!("default.{}", table(topic)), points)
}

/// Every record once, every letter once, and the sync points as the table says.
fn expect_whole(what: &str, state: &serde_json::Value, records: i64, partitions: i64) {
    let mut times: BTreeMap<i64, i64> = (0..records).map(|id| (id, -1)).collect();
    for id in state["ids"].as_array().expect("ids") {
        *times.entry(id.as_i64().expect("a number")).or_default() += 1;
    }
    times.retain(|_, times| *times != 0);
    assert!(times.is_empty(), "{what}: id and how often too many: {times:?}");
    let mut letters: Vec<_> = state["letters"].as_array().expect("letters").clone();
    letters.sort_by_key(|letter| letter.to_string());
    let mut expected: Vec<_> = (0..partitions).map(|partition| format!("{partition}/0")).collect();
    expected.sort();
    assert_eq!(letters, expected, "{what}: dead letters");
    assert_eq!(state["ledger"], state["sync_points"], "{what}: sync points");
}

fn check_whole(work: &Workspace, rest: Option<&RestCatalog>, topic: &Topic) {
    let states = readers::read_states(&[place(work, rest, &topic.name)]);
    expect_whole(&topic.name, &states[0], topic.records, topic.partitions);
}

// --- frozen and woken --------------------------------------------------------------------------------------------------

#[cfg(feature = "failpoints")]
mod zombies {
    use super::*;

    /// Where a run freezes, and whether it is a service.
    #[derive(Clone, Copy, Debug)]
    struct Freeze {
        place: &'static str,
        service: bool,
    }

    /// Freezes a run, has another do all that there is to do, wakes it, and gives the two more to do.
    fn play(kafka: &Kafka, rest: Option<&RestCatalog>, freeze: Freeze, name: &str) -> (Workspace, Topic) {
        let mut topic = Topic::new(kafka, name, 3);
        topic.add(kafka, 600);
        let work = Workspace::new(&yaml(kafka, name, rest, "batchWindow: 3s"));
        let once = ["run", "--once", "pipeline.yaml"];
        let args = if freeze.service { &once[2..] } else { &once[1..] };
        let args = [&["run"], args].concat();
        let failpoints = [("FAILPOINTS", freeze.place)];
        let frozen = Aperio::start_with(work.path(), &args, &failpoints);
        frozen.wait_stopped();
        work.start_once(&[]).wait().expect_code(0);
        topic.add(kafka, 30);
        let woken = frozen.go_on();
        if freeze.service {
            // It goes on as if nothing had been: what came meanwhile is brought in without anybody else.
            let caught_up = setup::wait_until(LIMIT, || {
                let state = readers::read_states(&[place(&work, rest, name)]);
                assert!(!woken.ended(), "{freeze:?}: {:#?}", woken.printed());
                state[0]["ids"]
                    .as_array()
                    .is_some_and(|ids| ids.len() as i64 >= topic.records)
            });
            assert!(caught_up, "{freeze:?}: {:#?}", woken.printed());
            woken.signal(libc::SIGTERM).expect_code(0);
        } else {
            // The ends that it saw are reached, whoever did it.
            woken.wait().expect_code(0);
        }
        work.start_once(&[]).wait().expect_code(0);
        (work, topic)
    }

    fn play_all(kafka: &Kafka, rest: Option<&RestCatalog>, freezes: &[Freeze], prefix: &str) {
        let played = setup::play_all(freezes, |number, freeze| {
            (freeze, play(kafka, rest, freeze, &format!("{prefix}-{number}")))
        });
        let places = played.iter().map(|(_, (work, topic))| place(work, rest, &topic.name));
        let states = readers::read_states(&places.collect::<Vec<_>>());
        for ((freeze, (_, topic)), state) in played.iter().zip(states) {
            expect_whole(&format!("{freeze:?}"), &state, topic.records, topic.partitions);
        }
    }

    #[test]
    fn a_frozen_run_that_wakes_after_others_did_its_work_doubles_and_loses_nothing() {
        let places = [
            // In the middle of a window: chunks were taken, nothing is sealed.
            "After(Take)=2*off->1*return(stop)",
            "Before(Seal)=1*return(stop)",
            "Inside(FileUploaded)=1*off->1*return(stop)",
            "Before(Prepare)=1*return(stop)",
            "Inside(LettersStored)=1*return(stop)",
            // The first commit is that of the start.
            "Before(Swap)=1*off->1*return(stop)",
            "Inside(ManifestsStaged)=1*off->1*return(stop)",
            "Inside(MetadataWritten)=2*off->1*return(stop)",
            "Inside(AnswerHeld)=1*off->1*return(stop)",
            "Before(Publish)=1*off->1*return(stop)",
        ];
        let services = places.iter().map(|place| Freeze { place, service: true });
        let runs = places[..1].iter().chain(&places[5..7]);
        let all: Vec<_> = services
            .chain(runs.map(|place| Freeze { place, service: false }))
            .collect();
        play_all(Kafka::shared(), None, &all, "frozen");
    }

    #[test]
    fn a_run_that_is_overtaken_three_times_in_a_row_gives_up() {
        let (kafka, name) = (Kafka::shared(), "overtaken");
        let mut topic = Topic::new(kafka, name, 1);
        topic.add(kafka, 1_000);
        let yaml = yaml(kafka, name, None, "batchSize: 100");
        let work = Workspace::new(&yaml);
        // The first swap is that of the start.
        let freeze = [("FAILPOINTS", "Before(Swap)=1*off->return(stop)")];
        let mut run = Aperio::start_with(work.path(), &["run", "--once", "pipeline.yaml"], &freeze);
        for other in 1..=3 {
            run.wait_stopped();
            // Others by mistake, each of a group of its own, who commit a window and are gone.
            let other = yaml.replace(
                "      format",
                &format!("      consumerGroup: other-{other}\n      format"),
            );
            std::fs::write(work.path().join("other.yaml"), other).expect("the file can be written");
            let gone = [("FAILPOINTS", "After(Swap)=return")];
            let ended = Aperio::start_with(work.path(), &["run", "--once", "other.yaml"], &gone).wait();
            assert_eq!(ended.signal, Some(libc::SIGKILL), "{ended:#?}");
            run = run.go_on();
        }
        let told = run.wait().expect_code(5);
        assert!(told.stderr.contains("overtook this run 3 times in a row"), "{told:#?}");
        assert!(told.stderr.contains("another job works on this pipeline"), "{told:#?}");
        work.start_once(&[]).wait().expect_code(0);
        check_whole(&work, None, &topic);
    }

    #[test]
    fn partitions_that_others_commit_while_a_run_starts_are_no_lost_ones() {
        let kafka = Kafka::shared();
        let mut topic = Topic::new(kafka, "frozen-start", 2);
        topic.add(kafka, 60);
        let work = Workspace::new(&yaml(kafka, &topic.name, None, ""));
        work.start_once(&[]).wait().expect_code(0);
        let place = [("FAILPOINTS", "Inside(TopicSeen)=1*return(stop)")];
        let frozen = Aperio::start_with(work.path(), &["run", "--once", "pipeline.yaml"], &place);
        frozen.wait_stopped();
        produce::add_partitions(kafka, &topic.name, 3);
        produce::produce(kafka, &topic.name, [Record::of("{no JSON").partition(2)]);
        topic.partitions = 3;
        topic.add(kafka, 60);
        work.start_once(&[]).wait().expect_code(0);
        frozen.go_on().wait().expect_code(0);
        check_whole(&work, None, &topic);
    }

    #[test]
    fn a_frozen_commit_to_a_rest_catalog_comes_too_late() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rest = RestCatalog::start(dir.path());
        let places = [
            "After(Take)=2*off->1*return(stop)",
            "Before(Swap)=1*off->1*return(stop)",
            "Inside(ManifestsStaged)=1*off->1*return(stop)",
            "Inside(AnswerHeld)=1*off->1*return(stop)",
        ];
        let all = places.map(|place| Freeze { place, service: true });
        play_all(Kafka::shared(), Some(&rest), &all, "frozen-rest");
    }
}

// --- services that come and go -------------------------------------------------------------------------------------------

/// Keeps adding records, in small numbers, while `work` is done.
fn flow<T>(kafka: &Kafka, topic: &mut Topic, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, topic) = (&done, topic);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                topic.add(kafka, 60);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        // Also where `work` panics: the thread is waited for.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Done(&done);
        work()
    })
}

/// How often one of them has printed this.
fn times(run: &Aperio, text: &str) -> usize {
    run.printed()[1].matches(text).count()
}

fn wait_for_times(run: &Aperio, text: &str, count: usize) {
    let found = setup::wait_until(LIMIT, || times(run, text) >= count);
    assert!(found, "`{text}` isn't there {count} times: {:#?}", run.printed());
}

#[test]
fn members_that_join_leave_and_die_in_the_middle_of_windows_share_also_new_partitions() {
    let kafka = Kafka::shared();
    let mut topic = Topic::new(kafka, "crowd", 4);
    let work = Workspace::new(&yaml(kafka, "crowd", None, "batchWindow: 2s"));
    let partitions = topic.partitions;
    let survivors = flow(kafka, &mut topic, || {
        let first = service(&work);
        wait_for_times(&first, "committed", 2);
        let second = service(&work);
        let third = service(&work);
        wait_for_times(&second, "partitions assigned", 1);
        wait_for_times(&third, "partitions assigned", 1);
        wait_for_times(&third, "committed", 1);
        // With its partitions, in the middle of whatever it does.
        second.kill();
        produce::add_partitions(kafka, "crowd", partitions as usize + 2);
        let more = |n: i64| Record::of("{no JSON").partition((partitions + n) as i32);
        produce::produce(kafka, "crowd", (0..2).map(more));
        let (a, b) = (times(&first, "committed"), times(&third, "committed"));
        wait_for_times(&first, "committed", a + 3);
        wait_for_times(&third, "committed", b + 3);
        first.signal(libc::SIGTERM).expect_code(0);
        let fourth = service(&work);
        wait_for_times(&fourth, "partitions assigned", 1);
        wait_for_times(&fourth, "committed", 1);
        [third, fourth]
    });
    for survivor in survivors {
        survivor.signal(libc::SIGTERM).expect_code(0);
    }
    topic.partitions += 2;
    work.start_once(&[]).wait().expect_code(0);
    check_whole(&work, None, &topic);
}

/// Ten services that all commit to one table all the time: each gets on, none ends.
fn ten(kafka: &Kafka, rest: Option<&RestCatalog>, name: &str) {
    const INSTANCES: usize = 10;
    let mut topic = Topic::new(kafka, name, 20);
    let work = Workspace::new(&yaml(kafka, name, rest, "batchWindow: 1s"));
    let services = flow(kafka, &mut topic, || {
        // One after the other, so that the first makes the table, and rebalances go on while windows fill.
        let services: Vec<_> = (0..INSTANCES)
            .map(|_| {
                let service = service(&work);
                wait_for_times(&service, "joining the group", 1);
                service
            })
            .collect();
        services
            .iter()
            .for_each(|service| wait_for_times(service, "committed", 1));
        let before: Vec<_> = services.iter().map(|service| times(service, "committed")).collect();
        for (service, before) in services.iter().zip(before) {
            wait_for_times(service, "committed", before + 2);
        }
        services
    });
    let (mut commits, mut conflicts, mut seconds) = (0, 0, 0.0);
    for service in services {
        commits += times(&service, "committed");
        conflicts += times(&service, "admitting again");
        seconds += service.cpu_seconds();
        let told = service.signal(libc::SIGTERM).expect_code(0);
        assert!(!told.stderr.contains("database is locked"), "SQLite is busy: {told:#?}");
    }
    println!(
        "{name}: {commits} commits, {conflicts} conflicts, {seconds:.1} s of CPU, {} records",
        topic.records
    );
    work.start_once(&[]).wait().expect_code(0);
    check_whole(&work, rest, &topic);
}

#[test]
fn ten_instances_commit_to_one_table_in_sqlite() {
    ten(Kafka::shared(), None, "ten");
}

#[test]
fn ten_instances_commit_to_one_table_in_a_rest_catalog() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    ten(Kafka::shared(), Some(&rest), "ten-rest");
}

#[test]
fn services_of_two_groups_overtake_each_other_and_never_end_by_it() {
    let kafka = Kafka::shared();
    let mut topic = Topic::new(kafka, "two-groups", 3);
    let yaml = yaml(kafka, "two-groups", None, "batchWindow: 1s");
    let work = Workspace::new(&yaml);
    let other = yaml.replace("      format", "      consumerGroup: a-slip\n      format");
    std::fs::write(work.path().join("other.yaml"), other).expect("the file can be written");
    let services = flow(kafka, &mut topic, || {
        let services = ["pipeline.yaml", "other.yaml"].map(|file| Aperio::start(work.path(), &["run", file]));
        let commits = || {
            services
                .iter()
                .map(|service| times(service, "committed"))
                .sum::<usize>()
        };
        let overtaken = || {
            services
                .iter()
                .map(|service| times(service, "are read again"))
                .sum::<usize>()
        };
        let seen = setup::wait_until(LIMIT, || commits() >= 8 && overtaken() >= 4);
        assert!(seen, "{:#?}", services.each_ref().map(Aperio::printed));
        services
    });
    for service in services {
        service.signal(libc::SIGTERM).expect_code(0);
    }
    work.start_once(&[]).wait().expect_code(0);
    check_whole(&work, None, &topic);
}

// --- `--once` beside others ----------------------------------------------------------------------------------------------

#[test]
fn once_ends_whoever_did_the_work() {
    let kafka = Kafka::shared();
    let mut topic = Topic::new(kafka, "once-beside", 2);
    topic.add(kafka, 1000);
    let work = Workspace::new(&yaml(kafka, "once-beside", None, "batchWindow: 2s"));
    // More runs than partitions: some have nothing to read.
    let runs: Vec<_> = (0..4).map(|_| work.start_once(&["--output", "json"])).collect();
    for run in runs {
        let report = run.wait().expect_code(0).report();
        assert_eq!(report["tables"][0]["lag"], 0, "{report:#}");
    }
    let services = [service(&work), service(&work)];
    services
        .iter()
        .for_each(|service| wait_for_times(service, "partitions assigned", 1));
    topic.add(kafka, 1000);
    let runs: Vec<_> = (0..3).map(|_| work.start_once(&["--output", "json"])).collect();
    for run in runs {
        let report = run.wait().expect_code(0).report();
        assert_eq!(report["tables"][0]["lag"], 0, "{report:#}");
    }
    for service in services {
        service.signal(libc::SIGTERM).expect_code(0);
    }
    check_whole(&work, None, &topic);
}

#[test]
fn once_gives_up_on_a_member_that_holds_partitions_and_does_nothing() {
    let (kafka, name) = (Kafka::shared(), "once-held");
    let mut topic = Topic::new(kafka, name, 2);
    topic.add(kafka, 100);
    let work = Workspace::new(&yaml(kafka, name, None, "batchWindow: 1s"));
    let holder: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", format!("aperio-{}", table(name)))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    holder.subscribe(&[name]).expect("a topic");
    let joined = setup::wait_until(LIMIT, || {
        // What it is given it throws away; it only stays a member.
        let _ = holder.poll(Duration::from_millis(100));
        holder.assignment().is_ok_and(|assigned| assigned.count() == 2)
    });
    assert!(joined, "it is in the group");
    let waiting = work.start_once(&["--retry-for", "8s", "--output", "json"]);
    setup::wait_until(LIMIT, || {
        let _ = holder.poll(Duration::from_millis(100));
        waiting.ended()
    });
    let told = waiting.wait().expect_code(4);
    for words in [
        "`once-held` doesn't come to its ends",
        "another member",
        "51",
        "--retry-for",
    ] {
        assert!(told.stderr.contains(words), "no `{words}`: {told:#?}");
    }
    drop(holder);
    work.start_once(&[]).wait().expect_code(0);
    check_whole(&work, None, &topic);
}
