//! `aperio sync-points reset`: what is said, and what the table holds after the next run.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;
use crate::setup;

const LIMIT: Duration = setup::PATIENCE;

/// Noon of a day; record `n` was made `n` minutes later.
const NOON_MS: i64 = 1_768_478_400_000;

fn event(n: i64) -> Record {
    let record = Record::of(format!(r#"{{"id":{n}}}"#)).partition((n % 2) as i32);
    record.at(NOON_MS + n * 60_000)
}

fn workspace(kafka: &Kafka, topic: &str) -> Workspace {
    let name = topic.replace('-', "_");
    Workspace::new(&format!(
        "partitionedTables:\n  - name: {name}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      \
         format: json\n      batchWindow: 1s\n    errors: {{maxRejected: 5}}\n",
        kafka.brokers()
    ))
}

fn once(work: &Workspace) -> Outcome {
    work.start_once(&[]).wait()
}

fn reset(work: &Workspace, topic: &str, more: &[&str]) -> Outcome {
    let name = topic.replace('-', "_");
    let args = ["sync-points", "reset", "pipeline.yaml", "--table", &name];
    Aperio::run(work.path(), &[&args, more].concat())
}

#[track_caller]
fn expect_told(outcome: &Outcome, words: &[&str]) {
    for word in words {
        let told = outcome.stdout.contains(word) || outcome.stderr.contains(word);
        assert!(told, "no `{word}`: {outcome:#?}");
    }
}

/// How often each id is in the table.
fn counts(work: &Workspace, topic: &str) -> BTreeMap<i64, usize> {
    let table = format!("default.{}", topic.replace('-', "_"));
    let mut counts = BTreeMap::new();
    for row in readers::read(Engine::PyIceberg, &Catalog::sql(&work.warehouse()), &table, None) {
        *counts.entry(row["id"].as_i64().expect("an id")).or_default() += 1;
    }
    counts
}

#[test]
fn each_form_moves_the_offsets_as_it_says() {
    let (kafka, topic) = (Kafka::shared(), "reset-forms");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..100).map(event));
    let work = workspace(kafka, topic);
    expect_told(
        &reset(&work, topic, &["--to", "earliest", "--yes"]).expect_code(2),
        &["doesn't exist", "startOffset"],
    );
    once(&work).expect_code(0);
    let mut expect: BTreeMap<i64, usize> = (0..100).map(|n| (n, 1)).collect();

    // Nobody to ask, nothing done.
    let told = reset(&work, topic, &["--to", "earliest"]).expect_code(2);
    expect_told(
        &told,
        &[
            "up to 100 records will be in the table twice",
            "--yes",
            "nothing was changed",
        ],
    );
    let told = reset(&work, topic, &["--to", "latest", "--yes"]).expect_code(0);
    expect_told(&told, &["nothing to move"]);
    once(&work).expect_code(0);
    assert_eq!(counts(&work, topic), expect);

    // What can't be is refused.
    for (more, words) in [
        (&["--to", "7"][..], &["one partition", "--partition"][..]),
        (
            &["--to", "51", "--partition", "0"],
            &["reset-forms/0", "begins at 0 and ends at 50"],
        ),
        (&["--to", "0", "--partition", "2"], &["no partition 2"]),
        (
            &["--to", "group:reset-nobody"],
            &["group `reset-nobody` holds no offset of reset-forms/0"],
        ),
    ] {
        expect_told(&reset(&work, topic, &[more, &["--yes"]].concat()).expect_code(2), words);
    }

    // An offset of one partition: its last ten records double.
    let told = reset(&work, topic, &["--to", "40", "--partition", "0", "--yes"]).expect_code(0);
    expect_told(&told, &["10 read again", "moved by snapshot"]);
    once(&work).expect_code(0);
    (80..100).step_by(2).for_each(|n| *expect.entry(n).or_default() += 1);
    assert_eq!(counts(&work, topic), expect);

    // The time of the record 90.
    reset(&work, topic, &["--to", "2026-01-15T13:30:00Z", "--yes"]).expect_code(0);
    once(&work).expect_code(0);
    (90..100).for_each(|n| *expect.entry(n).or_default() += 1);
    assert_eq!(counts(&work, topic), expect);

    // What another group has committed; the sync points are there at once.
    commit(kafka, "reset-other", topic, &[(0, 49), (1, 48)]);
    reset(&work, topic, &["--to", "group:reset-other", "--yes"]).expect_code(0);
    let points = Aperio::run(
        work.path(),
        &["sync-points", "show", "pipeline.yaml", "--output", "json"],
    )
    .report();
    let values: Vec<_> = points
        .as_array()
        .expect("a list")
        .iter()
        .map(|point| &point["syncValue"])
        .collect();
    assert_eq!(values, ["49", "48"]);
    once(&work).expect_code(0);
    [98, 97, 99].iter().for_each(|n| *expect.entry(*n).or_default() += 1);
    assert_eq!(counts(&work, topic), expect);

    // The end: what has come meanwhile is skipped.
    produce::produce(kafka, topic, (100..110).map(event));
    let told = reset(&work, topic, &["--to", "latest", "--yes"]).expect_code(0);
    expect_told(&told, &["5 skipped", "up to 10 records will be skipped"]);
    produce::produce(kafka, topic, (110..112).map(event));
    once(&work).expect_code(0);
    (110..112).for_each(|n| *expect.entry(n).or_default() += 1);
    assert_eq!(counts(&work, topic), expect);

    // All of it again.
    reset(&work, topic, &["--to", "earliest", "--yes"]).expect_code(0);
    once(&work).expect_code(0);
    (0..112).for_each(|n| *expect.entry(n).or_default() += 1);
    assert_eq!(counts(&work, topic), expect);
}

fn commit(kafka: &Kafka, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers()).set("group.id", group);
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        let offset = rdkafka::Offset::Offset(*offset);
        list.add_partition_offset(topic, *partition, offset).expect("an offset");
    }
    consumer.commit(&list, CommitMode::Sync).expect("the group takes it");
}

#[test]
fn a_topic_that_was_made_anew_and_offsets_that_are_gone_can_be_gone_on_with() {
    let (kafka, topic) = (Kafka::shared(), "reset-anew");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..20).map(event));
    let work = workspace(kafka, topic);
    once(&work).expect_code(0);
    produce::produce(kafka, topic, (20..40).map(event));
    produce::delete_records(kafka, topic, 0, 15);
    expect_told(&once(&work).expect_code(3), &["aperio sync-points reset"]);
    let told = reset(&work, topic, &["--to", "earliest", "--partition", "0", "--yes"]).expect_code(0);
    expect_told(&told, &["5 skipped"]);
    once(&work).expect_code(0);
    let mut expect: BTreeMap<i64, usize> = (0..40).map(|n| (n, 1)).collect();
    expect.retain(|n, _| ![20, 22, 24, 26, 28].contains(n));
    assert_eq!(counts(&work, topic), expect);

    produce::delete_topic(kafka, topic);
    assert!(setup::wait_until(LIMIT, || !kafka
        .run_tool("org.apache.kafka.tools.TopicCommand", &["--list"])
        .contains(topic)));
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (100..120).map(event));
    expect_told(
        &once(&work).expect_code(3),
        &["created again", "aperio sync-points reset"],
    );
    let partly = reset(&work, topic, &["--to", "earliest", "--partition", "0", "--yes"]).expect_code(2);
    expect_told(&partly, &["those of another topic", "leave `--partition` out"]);
    let told = reset(&work, topic, &["--to", "earliest", "--yes"]).expect_code(0);
    expect_told(&told, &["another topic", "its rows stay"]);
    produce::produce(kafka, topic, [Record::of("{no json").partition(1)]);
    once(&work).expect_code(0);
    expect.extend((100..120).map(|n| (n, 1)));
    assert_eq!(counts(&work, topic), expect);

    // A dead letter of the topic before stands for none of the topic to come.
    produce::delete_topic(kafka, topic);
    assert!(setup::wait_until(LIMIT, || !kafka
        .run_tool("org.apache.kafka.tools.TopicCommand", &["--list"])
        .contains(topic)));
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (200..240).map(event));
    reset(&work, topic, &["--to", "earliest", "--yes"]).expect_code(0);
    once(&work).expect_code(0);
    expect.extend((200..240).map(|n| (n, 1)));
    assert_eq!(counts(&work, topic), expect);
}

#[test]
fn a_service_at_work_reads_on_from_the_new_offsets_and_a_table_that_moved_is_left_alone() {
    let (kafka, topic) = (Kafka::shared(), "reset-service");
    produce::create_topic(kafka, topic, 2, &[]);
    produce::produce(kafka, topic, (0..20).map(event));
    let work = workspace(kafka, topic);
    let mut service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    assert!(service.wait_for("committed"), "it serves");
    let mut expect: BTreeMap<i64, usize> = (0..20).map(|n| (n, 1)).collect();
    let wait_for = |expect: &BTreeMap<i64, usize>| {
        let mut found = BTreeMap::new();
        let seen = setup::wait_until(LIMIT, || {
            found = counts(&work, topic);
            found == *expect
        });
        assert!(seen, "{found:?}, wanted {expect:?}");
    };
    wait_for(&expect);
    let told = reset(&work, topic, &["--to", "earliest", "--yes"]).expect_code(0);
    expect_told(&told, &["1 member of the group is at work"]);
    // Its next window starts where the table no longer is: it is dropped, and all is read from the new offsets.
    produce::produce(kafka, topic, (20..22).map(event));
    (0..20).for_each(|n| *expect.entry(n).or_default() += 1);
    expect.extend((20..22).map(|n| (n, 1)));
    wait_for(&expect);

    // A reset that stands before its swap, while the service commits.
    let args = [
        "sync-points",
        "reset",
        "pipeline.yaml",
        "--table",
        "reset_service",
        "--to",
        "earliest",
        "--yes",
    ];
    let stop = [("FAILPOINTS", "Inside(ManifestsStaged)=1*return(stop)")];
    let late = Aperio::start_with(work.path(), &args, &stop);
    late.wait_stopped();
    produce::produce(kafka, topic, (22..24).map(event));
    expect.extend((22..24).map(|n| (n, 1)));
    wait_for(&expect);
    let told = late.go_on().wait().expect_code(4);
    expect_told(&told, &["has moved since the preview", "nothing was changed"]);
    service.signal(libc::SIGTERM).expect_code(0);
    once(&work).expect_code(0);
    assert_eq!(counts(&work, topic), expect);
}
