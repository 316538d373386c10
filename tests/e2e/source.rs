//! The Kafka side: every way in which a topic, its brokers or its group can be other than hoped for is an outcome that
//! says so, and never a jump.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::{self, Record, Transaction};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;
use crate::setup;

/// A bound for what a service does in the background; nothing here is meant to take longer than some seconds.
const LIMIT: Duration = setup::PATIENCE;

/// A pipeline named after its topic; `source` and `table` are further lines of `source` and of the table, in flow style.
fn pipeline(brokers: &str, topic: &str, source: &str, table: &str) -> String {
    let name = topic.replace('-', "_");
    format!(
        "partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{brokers}\"\n      topic: {topic}\n      \
         format: json\n      {source}\n    {table}\n"
    )
}

fn plain(kafka: &Kafka, topic: &str) -> Workspace {
    Workspace::new(&pipeline(&kafka.brokers(), topic, "", ""))
}

/// As a service that shows what it does within a second or two.
fn lively(kafka: &Kafka, topic: &str, source: &str) -> Workspace {
    let source = format!(
        "batchWindow: 1s\n      consumerConfig: {{topic.metadata.refresh.interval.ms: \"1000\"}}\n      {source}"
    );
    Workspace::new(&pipeline(&kafka.brokers(), topic, &source, ""))
}

fn service(work: &Workspace) -> Aperio {
    Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "5m"])
}

fn once(work: &Workspace) -> Outcome {
    work.start_once(&["--output", "json"]).wait()
}

/// Record `n` of a topic of two partitions: the even ones are in the first.
fn event(n: i64) -> Record {
    Record::of(format!(r#"{{"id":{n}}}"#)).partition((n % 2) as i32)
}

fn rows(work: &Workspace, topic: &str) -> Vec<i64> {
    let table = format!("default.{}", topic.replace('-', "_"));
    let rows = readers::read(Engine::DuckDb, &Catalog::sql(&work.warehouse()), &table, None);
    let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

fn numbers(ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
    ids.into_iter().collect()
}

/// Waits until the table holds at least `count` rows, or panics with what the service printed.
fn wait_for_rows(service: &Aperio, work: &Workspace, topic: &str, count: usize) {
    let mut found = 0;
    let complete = setup::wait_until(LIMIT, || {
        // Before its first commit there may be no table to read.
        if service.printed()[1].contains("committed") {
            found = rows(work, topic).len();
        }
        found >= count
    });
    assert!(complete, "{found} rows of {count}: {:#?}", service.printed());
}

fn status(work: &Workspace) -> Value {
    let answer = Aperio::run(work.path(), &["status", "pipeline.yaml", "--output", "json"]);
    answer.expect_code(0).report()["tables"][0].clone()
}

#[track_caller]
fn expect_told(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.stderr.contains(word), "no `{word}`: {outcome:#?}");
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<_> = listed
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

// --- the topic isn't what it was -----------------------------------------------------------------------------------

#[test]
fn offsets_that_are_gone_end_the_run_with_both_numbers_and_nothing_is_skipped() {
    let (kafka, topic) = (Kafka::shared(), "source-gone");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = plain(kafka, topic);
    once(&work).expect_code(0);
    produce::produce(kafka, topic, (100..200).map(event));
    // The neighbour first: what goes up to the very offset that is read next is no loss.
    produce::delete_records(kafka, topic, 1, 50);
    produce::delete_records(kafka, topic, 0, 80);
    let before = status(&work)["snapshot"].clone();
    let told = once(&work).expect_code(3);
    expect_told(
        &told,
        &[
            "source-gone/0: the table holds offset 50, the topic begins at 80",
            "another `name`",
        ],
    );
    assert!(!told.stderr.contains("source-gone/1"), "{told:#?}");
    assert_eq!(status(&work)["snapshot"], before, "nothing was committed");
    assert_eq!(rows(&work, topic), numbers(0..100));
}

#[test]
fn offsets_that_go_while_they_are_waited_for_end_the_service() {
    let (kafka, topic) = (Kafka::shared(), "source-going");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    // Nothing past 50 is read while this is open; it isn't committed before the records are gone.
    let open = Transaction::begin(kafka, "source-going");
    open.send(topic, (100..200).filter(|n| n % 2 == 0).map(event));
    let work = lively(kafka, topic, "");
    let service = service(&work);
    wait_for_rows(&service, &work, topic, 100);
    produce::delete_records(kafka, topic, 0, 90);
    let told = service.wait().expect_code(3);
    expect_told(
        &told,
        &["source-going/0: the table holds offset 50, the topic begins at 90"],
    );
    assert_eq!(rows(&work, topic), numbers(0..100));
    open.abort();
}

#[test]
fn a_topic_that_never_was_is_a_slip_of_the_file_and_leaves_nothing_behind() {
    let (kafka, topic) = (Kafka::shared(), "source-never");
    let work = plain(kafka, topic);
    let told = once(&work).expect_code(2);
    expect_told(&told, &["topic `source-never` doesn't exist", &kafka.brokers()]);
    assert_eq!(told.report()["tables"][0]["outcome"], "failed");
    assert_eq!(entries(work.path()), ["pipeline.yaml"]);
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_another_one_however_full_it_is() {
    let (kafka, topic) = (Kafka::shared(), "source-again");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = plain(kafka, topic);
    once(&work).expect_code(0);

    produce::delete_topic(kafka, topic);
    expect_told(
        &once(&work).expect_code(3),
        &["topic `source-again` is gone", "source-again/0: 50; source-again/1: 50"],
    );
    produce::create_topic(kafka, topic, 2, &[]);
    // Empty, shorter than the table, as long, and longer.
    for (from, to) in [(1000, 1000), (1000, 1050), (1050, 1100), (1100, 1200)] {
        produce::produce(kafka, topic, (from..to).map(event));
        let told = once(&work).expect_code(3);
        expect_told(&told, &["topic `source-again` was deleted and created again"]);
    }
    assert_eq!(rows(&work, topic), numbers(0..100));
    let points = status(&work)["partitions"].clone();
    assert_eq!(points[0]["table"], 50, "{points}");
}

#[test]
fn a_topic_that_is_created_anew_under_a_service_never_reaches_its_table() {
    let (kafka, topic) = (Kafka::shared(), "source-under");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = lively(kafka, topic, "");
    let service = service(&work);
    wait_for_rows(&service, &work, topic, 100);
    produce::delete_topic(kafka, topic);
    produce::create_topic(kafka, topic, 2, &[]);
    // More than the old one had, so that reading on at the old offset would find records.
    produce::produce(kafka, topic, (1000..1400).map(event));
    let told = service.wait().expect_code(3);
    expect_told(&told, &["source-under"]);
    assert_eq!(rows(&work, topic), numbers(0..100), "{told:#?}");
}

#[test]
fn a_topic_that_is_deleted_under_a_service_ends_it() {
    let (kafka, topic) = (Kafka::shared(), "source-deleted");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = lively(kafka, topic, "");
    let service = service(&work);
    wait_for_rows(&service, &work, topic, 100);
    produce::delete_topic(kafka, topic);
    expect_told(&service.wait().expect_code(3), &["topic `source-deleted` is gone"]);
}

#[test]
fn the_same_name_in_another_cluster_is_another_topic() {
    let (kafka, other, topic) = (Kafka::shared(), Kafka::start(), "source-elsewhere");
    for kafka in [kafka, &other] {
        produce::create_topic(kafka, topic, 2, &[]);
        produce::produce(kafka, topic, (0..100).map(event));
    }
    let work = plain(kafka, topic);
    once(&work).expect_code(0);
    work.rewrite(&pipeline(&other.brokers(), topic, "", ""));
    expect_told(
        &once(&work).expect_code(3),
        &["topic `source-elsewhere` is in another cluster"],
    );
    produce::produce(&other, topic, (100..300).map(event));
    once(&work).expect_code(3);
    assert_eq!(rows(&work, topic), numbers(0..100));
    // Back at the right one, all goes on.
    work.rewrite(&pipeline(&kafka.brokers(), topic, "", ""));
    produce::produce(kafka, topic, (100..120).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(0..120));
}

// --- where reading starts --------------------------------------------------------------------------------------------

#[test]
fn partitions_that_are_added_are_read_from_their_beginning_also_under_latest() {
    let (kafka, topic) = (Kafka::shared(), "source-more");
    produce::create_topic(kafka, topic, 1, &[]);
    let to = |partition, ids: std::ops::Range<i64>| {
        let records = ids.map(move |id| Record::of(format!(r#"{{"id":{id}}}"#)).partition(partition));
        produce::produce(kafka, topic, records);
    };
    to(0, 0..10);
    let work = lively(kafka, topic, "startOffset: latest");
    once(&work).expect_code(0);
    to(0, 10..20);
    produce::add_partitions(kafka, topic, 2);
    to(1, 100..110);
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers((10..20).chain(100..110)));

    // And while a service reads.
    let service = service(&work);
    to(0, 20..30);
    wait_for_rows(&service, &work, topic, 30);
    produce::add_partitions(kafka, topic, 4);
    to(2, 200..210);
    to(3, 300..310);
    wait_for_rows(&service, &work, topic, 50);
    service.signal(libc::SIGTERM).expect_code(0);
    assert_eq!(
        rows(&work, topic),
        numbers((10..30).chain(100..110).chain(200..210).chain(300..310))
    );
}

#[test]
fn latest_means_the_moment_of_the_first_run_whatever_comes_between() {
    let (kafka, topic) = (Kafka::shared(), "source-latest");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, "startOffset: latest", ""));
    let first = once(&work).expect_code(0).report();
    let snapshots = first["tables"][0]["snapshots"].as_array().expect("a list").len();
    assert_eq!(snapshots, 1, "one empty snapshot: {first:#}");
    assert_eq!(rows(&work, topic), numbers([]));
    assert_eq!(status(&work)["partitions"][0]["table"], 50);

    let nothing = once(&work).expect_code(0).report();
    assert_eq!(nothing["tables"][0]["snapshots"], json!([]), "{nothing:#}");
    produce::produce(kafka, topic, (100..150).map(event));
    work.start_once(&[]).kill_when("partitions assigned");
    produce::produce(kafka, topic, (150..200).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(100..200));
}

#[test]
fn a_timestamp_starts_at_the_first_record_of_that_time_in_each_partition() {
    let (kafka, topic) = (Kafka::shared(), "source-since");
    produce::create_topic(kafka, topic, 2, &[]);
    let noon_ms = 1_705_320_000_000; // 2024-01-15T12:00:00Z
    let timed = |n: i64| event(n).at(noon_ms + (n - 50) * 1000);
    produce::produce(kafka, topic, (0..100).map(timed));
    let start = "startOffset: timestamp\n      startTimestamp: \"2024-01-15T12:00:00Z\"";
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, start, ""));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(50..100));
    // Resolved once: records of an older time that come later are read.
    produce::produce(kafka, topic, (0..10).map(|n| event(200 + n).at(noon_ms - 3_600_000)));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers((50..100).chain(200..210)));
}

#[test]
fn a_time_that_no_record_has_yet_starts_at_the_end() {
    let (kafka, topic) = (Kafka::shared(), "source-future");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let start = "startOffset: timestamp\n      startTimestamp: \"2999-01-01T00:00:00Z\"";
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, start, ""));
    once(&work).expect_code(0);
    produce::produce(kafka, topic, (10..20).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(10..20));
}

#[test]
fn an_empty_topic_with_earliest_makes_no_table_until_there_is_something() {
    let (kafka, topic) = (Kafka::shared(), "source-empty");
    produce::create_topic(kafka, topic, 2, &[]);
    let work = plain(kafka, topic);
    let nothing = once(&work).expect_code(0).report();
    assert_eq!(nothing["tables"][0]["outcome"], "done");
    assert_eq!(status(&work)["exists"], false);
    produce::produce(kafka, topic, (0..10).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(0..10));
}

#[test]
fn an_empty_topic_with_latest_keeps_the_moment_in_a_table_of_kafka_columns() {
    let (kafka, topic) = (Kafka::shared(), "source-empty-latest");
    produce::create_topic(kafka, topic, 2, &[]);
    let work = Workspace::new(&pipeline(&kafka.brokers(), topic, "startOffset: latest", ""));
    once(&work).expect_code(0);
    assert_eq!(status(&work)["exists"], true);
    produce::produce(kafka, topic, (0..10).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(0..10));
}

#[test]
fn an_empty_topic_with_latest_cannot_be_partitioned_by_a_column_nobody_knows() {
    let (kafka, topic) = (Kafka::shared(), "source-empty-columns");
    produce::create_topic(kafka, topic, 2, &[]);
    let materialize = "materialize: {partition: [country]}";
    let yaml = |columns| {
        pipeline(
            &kafka.brokers(),
            topic,
            "startOffset: latest",
            &format!("{columns}{materialize}"),
        )
    };
    let work = Workspace::new(&yaml(""));
    expect_told(&once(&work).expect_code(2), &["country", "declare `columns`"]);
    work.rewrite(&yaml(
        "columns: [{name: id, type: long}, {name: country, type: string}]\n    ",
    ));
    once(&work).expect_code(0);
    let event = |n| Record::of(format!(r#"{{"id":{n},"country":"c{}"}}"#, n % 3)).partition(0);
    produce::produce(kafka, topic, (0..10).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(0..10));
}

// --- brokers ---------------------------------------------------------------------------------------------------------

#[test]
fn brokers_that_stay_away_are_named_and_end_the_run() {
    let brokers = format!("127.0.0.1:{}", setup::free_port());
    let work = Workspace::new(&pipeline(&brokers, "source-away", "", ""));
    for once in [&["--once"][..], &[]] {
        let args = [&["run", "pipeline.yaml", "--retry-for", "3s"], once].concat();
        let told = Aperio::run(work.path(), &args).expect_code(4);
        expect_told(&told, &[&brokers, "refused", "--retry-for"]);
    }
    assert_eq!(entries(work.path()), ["pipeline.yaml"]);
}

#[test]
fn brokers_that_come_late_or_go_for_a_while_are_waited_for() {
    let (kafka, topic) = (Kafka::start(), "source-late");
    produce::create_topic(&kafka, topic, 2, &[]);
    produce::produce(&kafka, topic, (0..100).map(event));
    kafka.kill();
    let work = lively(&kafka, topic, "");
    let mut service = service(&work);
    assert!(service.wait_for("asking Kafka again"), "{:#?}", service.printed());
    kafka.start_again();
    wait_for_rows(&service, &work, topic, 100);

    // Gone for longer than one is patient: the service says so and ends.
    service.signal(libc::SIGTERM).expect_code(0);
    let mut impatient = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "8s"]);
    assert!(impatient.wait_for("partitions assigned"), "{:#?}", impatient.printed());
    kafka.kill();
    expect_told(&impatient.wait().expect_code(4), &[&kafka.brokers(), "--retry-for"]);

    kafka.start_again();
    produce::produce(&kafka, topic, (100..120).map(event));
    once(&work).expect_code(0);
    assert_eq!(rows(&work, topic), numbers(0..120));
}

#[test]
fn a_wrong_password_is_told_as_a_refusal_and_never_printed() {
    let (kafka, topic) = (Kafka::start_with_user("reader", "right-secret"), "source-login");
    produce::create_topic(&kafka, topic, 2, &[]);
    produce::produce(&kafka, topic, (0..100).map(event));
    let yaml = |password: &str| {
        let security = format!(
            "security: {{protocol: SASL_PLAINTEXT, saslMechanism: SCRAM-SHA-512, saslUsername: reader, saslPassword: {password}}}"
        );
        pipeline(&kafka.login_brokers(), topic, &security, "")
    };
    let work = Workspace::new(&yaml("wrong-secret"));
    let told = work
        .start_once(&["--output", "json", "--retry-for", "8s"])
        .wait()
        .expect_code(4);
    expect_told(
        &told,
        &[&kafka.login_brokers(), "refuse", "uthentication", "source.security"],
    );
    let checked = Aperio::run(work.path(), &["check", "pipeline.yaml"]).expect_code(4);
    assert!(checked.stderr.contains("uthentication"), "{checked:#?}");
    assert!(!format!("{checked:?}").contains("wrong-secret"), "{checked:#?}");
    assert!(
        !told.stderr.contains("wrong-secret") && !told.stdout.contains("wrong-secret"),
        "{told:#?}"
    );
    work.rewrite(&yaml("right-secret"));
    let done = once(&work).expect_code(0);
    assert!(!done.stderr.contains("right-secret"), "{done:#?}");
    assert_eq!(rows(&work, topic), numbers(0..100));
}

// --- runs ------------------------------------------------------------------------------------------------------------

/// A member that holds all partitions of the group and doesn't answer when others want some, since nobody polls it.
fn stubborn_member(kafka: &Kafka, topic: &str, strategy: &str) -> BaseConsumer {
    let stranger: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", format!("aperio-{}", topic.replace('-', "_")))
        .set("partition.assignment.strategy", strategy)
        .create()
        .expect("a consumer");
    stranger.subscribe(&[topic]).expect("subscribed");
    let joined = setup::wait_until(LIMIT, || {
        stranger.poll(Duration::from_millis(100));
        stranger.assignment().is_ok_and(|assigned| assigned.count() == 2)
    });
    assert!(joined, "it is in the group");
    stranger
}

#[test]
fn a_once_that_is_stopped_before_its_ends_says_by_which_signal() {
    let (kafka, topic) = (Kafka::shared(), "source-stopped");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = plain(kafka, topic);
    let _stranger = stubborn_member(kafka, topic, "cooperative-sticky");
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let mut waiting = work.start_once(&["--output", "json"]);
        assert!(waiting.wait_for("joining the group"), "{:#?}", waiting.printed());
        let stopped = waiting.signal(signal).expect_code(code).report();
        assert_eq!(
            (&stopped["exitCode"], &stopped["tables"][0]["outcome"]),
            (&json!(code), &json!("stopped"))
        );
        let mut service = service(&work);
        assert!(service.wait_for("joining the group"), "{:#?}", service.printed());
        service.signal(signal).expect_code(0);
    }
    assert_eq!(rows(&work, topic), numbers([]));
}

#[test]
fn a_stop_while_the_brokers_are_away_is_obeyed_at_once() {
    let brokers = format!("127.0.0.1:{}", setup::free_port());
    let work = Workspace::new(&pipeline(&brokers, "source-away", "", ""));
    let mut waiting = work.start_once(&["--retry-for", "10m"]);
    assert!(waiting.wait_for("asking Kafka again"), "{:#?}", waiting.printed());
    waiting.signal(libc::SIGTERM).expect_code(143);
}

#[test]
fn nothing_new_ends_without_the_group_and_without_a_snapshot() {
    let (kafka, topic) = (Kafka::shared(), "source-nothing");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = plain(kafka, topic);
    once(&work).expect_code(0);
    assert!(produce::groups(kafka).contains(&"aperio-source_nothing".to_owned()));
    let before = status(&work);
    // Under another group: had it joined, the broker would know the name.
    let source = "consumerGroup: source-nothing-joined";
    work.rewrite(&pipeline(&kafka.brokers(), topic, source, ""));
    let nothing = once(&work).expect_code(0).report();
    let table = &nothing["tables"][0];
    assert_eq!(
        (&table["snapshots"], &table["recordsRead"], &table["lag"]),
        (&json!([]), &json!(0), &json!(0))
    );
    assert!(!produce::groups(kafka).contains(&"source-nothing-joined".to_owned()));
    assert_eq!(status(&work)["snapshot"], before["snapshot"]);
}

#[test]
fn read_uncommitted_takes_what_is_aborted_or_open() {
    let (kafka, topic) = (Kafka::shared(), "source-uncommitted");
    produce::create_topic(kafka, topic, 2, &[]);
    let aborted = Transaction::begin(kafka, "source-uncommitted-aborted");
    aborted.send(topic, (0..10).map(event));
    aborted.abort();
    let open = Transaction::begin(kafka, "source-uncommitted-open");
    open.send(topic, (10..20).map(event));
    let committed = Workspace::new(&pipeline(&kafka.brokers(), topic, "", ""));
    let all = Workspace::new(&pipeline(
        &kafka.brokers(),
        topic,
        "consumerGroup: source-all\n      isolationLevel: read_uncommitted",
        "",
    ));
    once(&all).expect_code(0);
    assert_eq!(rows(&all, topic), numbers(0..20));
    // What is open ends the committed part: there is nothing to see before it.
    once(&committed).expect_code(0);
    // The table is ahead of the last stable offset now, which is no loss.
    all.rewrite(&pipeline(&kafka.brokers(), topic, "consumerGroup: source-all", ""));
    once(&all).expect_code(0);
    open.abort();
    produce::produce(kafka, topic, (20..30).map(event));
    once(&all).expect_code(0);
    assert_eq!(rows(&all, topic), numbers(0..30));
    once(&committed).expect_code(0);
    assert_eq!(rows(&committed, topic), numbers(20..30));
}

#[test]
fn two_runs_at_the_same_time_share_the_topic() {
    let (kafka, topic) = (Kafka::shared(), "source-shared");
    produce::create_topic(kafka, topic, 4, &[]);
    let event = |n: i64| Record::of(format!(r#"{{"id":{n}}}"#)).partition((n % 4) as i32);
    produce::produce(kafka, topic, (0..4000).map(event));
    let work = Workspace::new(&pipeline(
        &kafka.brokers(),
        topic,
        "batchSize: 300\n      maxPollRecords: 100",
        "",
    ));
    for round in 0..2 {
        let runs = [
            work.start_once(&["--output", "json"]),
            work.start_once(&["--output", "json"]),
        ];
        for run in runs {
            let report = run.wait().expect_code(0).report();
            assert_eq!(report["tables"][0]["lag"], 0, "{report:#}");
        }
        assert_eq!(rows(&work, topic), numbers(0..4000 + round * 1000));
        produce::produce(kafka, topic, (4000 + round * 1000..5000 + round * 1000).map(event));
    }
}

// --- what librdkafka is told -------------------------------------------------------------------------------------------

#[test]
fn consumer_config_reaches_librdkafka_and_what_it_refuses_is_a_slip_of_the_file() {
    let (kafka, topic) = (Kafka::shared(), "source-config");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let yaml = |config: &str| pipeline(&kafka.brokers(), topic, &format!("consumerConfig: {{{config}}}"), "");
    let work = Workspace::new(&yaml("client.id: here-i-am"));
    let mut service = service(&work);
    assert!(service.wait_for("partitions assigned"), "{:#?}", service.printed());
    assert_eq!(produce::group_members(kafka, "aperio-source_config"), ["here-i-am"]);
    service.signal(libc::SIGTERM).expect_code(0);
    assert_eq!(
        produce::group_members(kafka, "aperio-source_config"),
        [""; 0],
        "it left"
    );

    produce::produce(kafka, topic, (10..20).map(event));
    for (config, words) in [
        ("fetch.min.bytes: lots", &["fetch.min.bytes"][..]),
        (
            "fetch.mim.bytes: 1",
            &["fetch.mim.bytes", "did you mean `fetch.min.bytes`"],
        ),
        ("auto.offset.reset: latest", &["auto.offset.reset", "set by aperio"]),
        (
            "allow.auto.create.topics: true",
            &["allow.auto.create.topics", "set by aperio"],
        ),
        // The broker's to refuse: it allows 1 s and more.
        (
            "session.timeout.ms: \"500\", heartbeat.interval.ms: \"150\"",
            &["aperio-source_config", "consumerConfig"],
        ),
    ] {
        work.rewrite(&yaml(config));
        expect_told(&once(&work).expect_code(2), words);
    }
}

#[test]
fn a_group_that_another_application_balances_otherwise_is_refused() {
    let (kafka, topic) = (Kafka::shared(), "source-strangers");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..10).map(event));
    let _stranger = stubborn_member(kafka, topic, "range");
    let told = once(&plain(kafka, topic)).expect_code(2);
    expect_told(&told, &["consumer group `aperio-source_strangers`", "consumerGroup"]);
}

// --- looking -----------------------------------------------------------------------------------------------------------

#[test]
fn status_and_sync_points_tell_where_everything_stands() {
    let (kafka, topic) = (Kafka::shared(), "source-status");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..101).map(event));
    let work = plain(kafka, topic);
    let show = |args: &[&str]| Aperio::run(work.path(), &[args, &["pipeline.yaml"]].concat()).expect_code(0);

    // Before the first run: told, and nothing is made by looking.
    let before = show(&["status"]).stdout;
    assert!(
        before.contains("default.source_status from topic source-status") && before.contains("not created yet"),
        "{before}"
    );
    assert!(show(&["sync-points", "show"]).stdout.contains("no sync points yet"));
    assert_eq!(show(&["sync-points", "show", "--output", "json"]).report(), json!([]));
    assert_eq!(entries(work.path()), ["pipeline.yaml"]);

    once(&work).expect_code(0);
    produce::produce(kafka, topic, (101..111).map(event));
    let status = show(&["status", "--output", "json"]).report();
    assert_eq!(status["exitCode"], 0);
    let table = &status["tables"][0];
    let expect: BTreeMap<&str, Value> = [
        ("table", json!("default.source_status")),
        ("topic", json!("source-status")),
        ("group", json!("aperio-source_status")),
        ("exists", json!(true)),
        ("lag", json!(10)),
        ("errors", json!([])),
        (
            "partitions",
            json!([
                {"partition": 0, "table": 51, "syncPoint": "51", "group": 51, "end": 56, "lag": 5},
                {"partition": 1, "table": 50, "syncPoint": "50", "group": 50, "end": 55, "lag": 5},
            ]),
        ),
    ]
    .into();
    for (key, value) in expect {
        assert_eq!(table[key], value, "{key}: {table:#}");
    }
    let last = table["lastCommit"].as_str().expect("a time");
    assert!(last.starts_with("20") && last.contains('T'), "{last}");
    let text = show(&["status"]).stdout;
    for words in [
        "last commit 20",
        "lag 10",
        "partition  table  sync_points  group  end  lag",
    ] {
        assert!(text.contains(words), "no `{words}`: {text}");
    }

    let points = show(&["sync-points", "show", "--output", "json"]).report();
    let shown: Vec<_> = points
        .as_array()
        .expect("a list")
        .iter()
        .map(|point| {
            (
                point["sourceName"].clone(),
                point["syncKey"].clone(),
                point["syncValue"].clone(),
            )
        })
        .collect();
    let point = |key: &str, value: &str| (json!("source_status"), json!(key), json!(value));
    assert_eq!(shown, [point("partition:0", "51"), point("partition:1", "50")]);
    assert!(
        points[0]["committedAt"].as_str().is_some_and(|at| at.starts_with("20")),
        "{points}"
    );
    let text = show(&["sync-points", "show"]).stdout;
    assert!(text.contains("source_name") && text.contains("partition:1"), "{text}");

    // A broker that is away costs only what it alone knows.
    let away = format!("127.0.0.1:{}", setup::free_port());
    work.rewrite(&pipeline(&away, topic, "", ""));
    let told = Aperio::run(work.path(), &["status", "--output", "json", "pipeline.yaml"]).expect_code(4);
    let table = &told.report()["tables"][0];
    assert_eq!(
        (&table["partitions"][0]["table"], &table["partitions"][0]["end"]),
        (&json!(51), &Value::Null)
    );
    assert!(table["errors"].to_string().contains(&away), "{table:#}");
}
