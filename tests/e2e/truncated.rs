//! Logs that lose their end and grow again: offsets that the table holds mean other records then, and that is noticed.

use std::fs;
use std::path::Path;

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::{self, Record, Transaction};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;
use crate::setup;

fn pipeline(kafka: &Kafka, topic: &str) -> Workspace {
    Workspace::new(&format!(
        "partitionedTables:\n  - name: {}\n    source:\n      brokers: \"{}\"\n      topic: {topic}\n      format: json\n      \
         batchWindow: 1s\n      consumerConfig: {{topic.metadata.refresh.interval.ms: \"1000\"}}\n",
        topic.replace('-', "_"),
        kafka.brokers(),
    ))
}

fn events(of: std::ops::Range<i64>) -> impl Iterator<Item = Record> {
    of.map(|n| Record::of(format!(r#"{{"id":{n}}}"#)).partition(0))
}

fn once(work: &Workspace) -> Outcome {
    work.start_once(&[]).wait()
}

fn rows(work: &Workspace, topic: &str) -> Vec<i64> {
    let table = format!("default.{}", topic.replace('-', "_"));
    let rows = readers::read(Engine::DuckDb, &Catalog::sql(&work.warehouse()), &table, None);
    let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

fn service(work: &Workspace, topic: &str, count: usize) -> Aperio {
    let service = Aperio::start(work.path(), &["run", "pipeline.yaml", "--retry-for", "5m"]);
    let complete = setup::wait_until(setup::PATIENCE, || {
        assert!(!service.ended(), "{:#?}", service.printed());
        service.has_printed("committed") && rows(work, topic).len() >= count
    });
    assert!(complete, "{:#?}", service.printed());
    service
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// The first command of a hint, to be run in the folder of the pipeline file.
fn told_command(outcome: &Outcome) -> Vec<String> {
    let from = outcome.stderr.find("`aperio sync-points reset").expect("a command");
    let command = outcome.stderr[from + 1..].split('`').next().expect("it ends");
    let words = command.split_whitespace().skip(1);
    let words = words.map(|word| if word == "FILE" { "pipeline.yaml" } else { word });
    words.map(str::to_owned).collect()
}

#[track_caller]
fn expect_cut(outcome: &Outcome, topic: &str, held: i64, same: i64) {
    let held = format!("{topic}/0: the table holds offset {held} of leader epoch ");
    let same = format!("the log is what it was up to offset {same} only");
    assert!(
        outcome.stderr.contains(&held) && outcome.stderr.contains(&same),
        "{outcome:#?}"
    );
}

#[test]
fn a_log_that_lost_its_end_is_refused_and_what_is_whole_is_read_on() {
    let kafka = Kafka::start();
    let [cut, even, exact, frozen, live, marked] = [
        "cut-once",
        "cut-even",
        "cut-exact",
        "cut-frozen",
        "cut-live",
        "cut-marked",
    ];
    let restored = [cut, even, exact, frozen, live];
    let kept = tempfile::tempdir().expect("a folder");
    for topic in restored {
        produce::create_topic(&kafka, topic, 1, &[]);
        produce::produce(&kafka, topic, events(0..100));
    }
    let [work_cut, work_even, work_exact, work_frozen, work_live, work_marked] =
        [cut, even, exact, frozen, live, marked].map(|topic| pipeline(&kafka, topic));
    once(&work_exact).expect_code(0);
    // Its marker is written under a later leader than its records.
    produce::create_topic(&kafka, marked, 1, &[]);
    let open = Transaction::begin(&kafka, "cut-marked");
    open.send(marked, events(0..10));

    kafka.kill();
    for topic in restored {
        copy(&kafka.log_folder(topic, 0), &kept.path().join(topic));
    }
    kafka.start_again();
    open.commit();
    once(&work_marked).expect_code(0);
    for topic in restored {
        produce::produce(&kafka, topic, events(100..150));
    }
    once(&work_cut).expect_code(0);
    once(&work_even).expect_code(0);
    let service_frozen = service(&work_frozen, frozen, 150);
    let service_live = service(&work_live, live, 150);
    service_frozen.freeze();

    kafka.kill();
    for topic in restored {
        copy(&kept.path().join(topic), &kafka.log_folder(topic, 0));
    }
    kafka.start_again();
    for topic in [cut, exact, frozen, live] {
        produce::produce(&kafka, topic, events(1_000..1_080));
    }
    produce::produce(&kafka, even, events(1_000..1_050));

    let told = once(&work_cut).expect_code(3);
    expect_cut(&told, cut, 150, 100);
    // The topic ends where the table is: nothing would be read, and it's told all the same.
    expect_cut(&once(&work_even).expect_code(3), even, 150, 100);
    expect_cut(&service_frozen.go_on().wait().expect_code(3), frozen, 150, 100);
    // This one may have looked before the log grew again.
    let told_live = service_live.wait().expect_code(3);
    assert!(
        told_live.stderr.contains("the table holds offset 150"),
        "{told_live:#?}"
    );
    assert_eq!(rows(&work_live, live), (0..150).collect::<Vec<_>>());

    // The neighbours: cut to the very offset that the table holds, and not cut at all.
    once(&work_exact).expect_code(0);
    assert_eq!(
        rows(&work_exact, exact),
        (0..100).chain(1_000..1_080).collect::<Vec<_>>()
    );
    once(&work_marked).expect_code(0);
    assert_eq!(rows(&work_marked, marked), (0..10).collect::<Vec<_>>());

    let mut command = told_command(&told);
    command.push("--yes".to_owned());
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let moved = Aperio::run(work_cut.path(), &command).expect_code(0);
    assert!(
        !moved.stdout.contains("read again"),
        "none of it is in the table: {moved:#?}"
    );
    once(&work_cut).expect_code(0);
    assert_eq!(rows(&work_cut, cut), (0..150).chain(1_000..1_080).collect::<Vec<_>>());
    once(&work_cut).expect_code(0);

    // Kept where it is: the new records below it are skipped, as announced.
    let stay = [
        "sync-points",
        "reset",
        "pipeline.yaml",
        "--table",
        "cut_even",
        "--to",
        "150",
        "--yes",
    ];
    let moved = Aperio::run(work_even.path(), &stay).expect_code(0);
    assert!(moved.stdout.contains("50 skipped"), "{moved:#?}");
    produce::produce(&kafka, even, events(2_000..2_010));
    once(&work_even).expect_code(0);
    assert_eq!(rows(&work_even, even), (0..150).chain(2_000..2_010).collect::<Vec<_>>());
}
