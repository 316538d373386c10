//! What several share: tables a directory, pipelines a dead-letter table, clusters the name of a topic, two topics a name one
//! after the other. Nothing of one may be lost to another.

use std::collections::BTreeMap;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::Kafka;

/// The ids in a table, sorted.
fn ids(engine: Engine, work: &Workspace, table: &str) -> Vec<i64> {
    let rows = readers::read(
        engine,
        &Catalog::sql(&work.warehouse()),
        &format!("default.{table}"),
        None,
    );
    let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// The letters of a table: of which pipeline and topic id, and where; sorted.
fn letters(work: &Workspace, table: &str) -> Vec<(String, String, i64)> {
    let table = format!("default.{table}");
    let rows = readers::read(Engine::PyIceberg, &Catalog::sql(&work.warehouse()), &table, None);
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut letters: Vec<_> = rows
        .iter()
        .map(|row| {
            let offset = row["offset"].as_i64().expect("an offset");
            (text(row, "pipeline"), text(row, "topic_id"), offset)
        })
        .collect();
    letters.sort();
    letters
}

fn records(count: i64) -> impl Iterator<Item = Record> {
    (0..count).map(|id| Record::of(format!(r#"{{"id":{id}}}"#)).partition(0))
}

/// A pipeline that takes a long `id` and sets everything else aside.
fn pipeline(name: &str, kafka: &Kafka, topic: &str, letters: &str) -> String {
    format!(
        "  - name: {name}\n    source: {{brokers: \"{}\", topic: {topic}, format: json, batchWindow: 1s}}\n    \
         columns: [{{name: id, type: long, required: true}}]\n    \
         errors: {{maxRejected: 100, deadLetter: {{table: {letters}}}}}\n",
        kafka.brokers()
    )
}

#[test]
fn tables_that_share_a_data_path_keep_their_rows() {
    let kafka = Kafka::shared();
    for (topic, count) in [("shared-path-a", 1_000), ("shared-path-b", 700)] {
        produce::create_topic(kafka, topic, 1, &[]);
        produce::produce(kafka, topic, records(count));
    }
    let table = |name: &str| {
        format!(
            "  - name: {name}\n    source: {{brokers: \"{}\", topic: {}, format: json, batchWindow: 1s}}\n",
            kafka.brokers(),
            name.replace('_', "-")
        )
    };
    let work = Workspace::new("");
    let shared = work.path().join("elsewhere");
    work.rewrite(&format!(
        "defaults:\n  materialize:\n    tableProperties:\n      write.data.path: \"{}\"\n      \
         write.metadata.path: \"{}\"\n      write.object-storage.enabled: \"true\"\npartitionedTables:\n{}{}",
        shared.join("data").display(),
        shared.join("metadata").display(),
        table("shared_path_a"),
        table("shared_path_b"),
    ));
    let mut expect = BTreeMap::from([("shared_path_a", 1_000), ("shared_path_b", 700)]);
    for more in [0, 300] {
        for (name, count) in &mut expect {
            produce::produce(
                kafka,
                &name.replace('_', "-"),
                (*count..*count + more).map(|id| Record::of(format!(r#"{{"id":{id}}}"#)).partition(0)),
            );
            *count += more;
        }
        work.start_once(&[]).wait().expect_code(0);
        for (name, count) in &expect {
            for engine in [Engine::PyIceberg, Engine::DuckDb] {
                assert_eq!(ids(engine, &work, name), (0..*count).collect::<Vec<_>>(), "{name}");
            }
        }
    }
    let files = std::fs::read_dir(shared.join("data")).expect("a directory").count();
    assert_eq!(files, 4, "one file of each table and run, and nothing half written");
}

#[test]
fn pipelines_that_share_a_topic_and_a_dead_letter_table_keep_their_letters() {
    let (kafka, topic) = (Kafka::shared(), "shared-letters");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(kafka, topic, records(3));
    produce::produce(
        kafka,
        topic,
        [Record::of("{}").partition(0), Record::of("no").partition(0)],
    );
    let names = ["shared_one", "shared_two", "shared_three"];
    let pipelines = names.map(|name| pipeline(name, kafka, topic, "shared_bad"));
    let work = Workspace::new(&format!("partitionedTables:\n{}", pipelines.concat()));
    let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    let expect: Vec<_> = names
        .iter()
        .flat_map(|name| [3, 4].map(|offset| (format!("default.{name}"), offset)))
        .collect();
    let held = || {
        let held = letters(&work, "shared_bad");
        let mut held: Vec<_> = held
            .into_iter()
            .map(|(pipeline, _, offset)| (pipeline, offset))
            .collect();
        held.sort();
        held
    };
    let mut expect = expect;
    expect.sort();
    assert_eq!(held(), expect);
    let rejected: i64 = report["tables"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|table| table["rejected"].as_i64().expect("a count"))
        .sum();
    assert_eq!(rejected, 6, "as many as are stored");
    // What is read again is stored already.
    for name in names {
        Aperio::run(
            work.path(),
            &[
                "sync-points",
                "reset",
                "pipeline.yaml",
                "--table",
                name,
                "--to",
                "earliest",
                "--yes",
            ],
        )
        .expect_code(0);
    }
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(held(), expect);
}

#[test]
fn topics_of_one_name_on_two_clusters_keep_their_letters() {
    let (first, second, topic) = (Kafka::shared(), Kafka::start(), "shared-name");
    for kafka in [first, &second] {
        produce::create_topic(kafka, topic, 1, &[]);
        produce::produce(kafka, topic, [Record::of("{}").partition(0)]);
    }
    produce::produce(&second, topic, [Record::of("no").partition(0)]);
    let pipelines = [
        pipeline("shared_here", first, topic, "shared_name_bad"),
        pipeline("shared_there", &second, topic, "shared_name_bad"),
    ];
    let work = Workspace::new(&format!("partitionedTables:\n{}", pipelines.concat()));
    work.start_once(&[]).wait().expect_code(0);
    let held: Vec<_> = letters(&work, "shared_name_bad")
        .into_iter()
        .map(|(pipeline, _, offset)| (pipeline, offset))
        .collect();
    let expect = [
        ("default.shared_here", 0),
        ("default.shared_there", 0),
        ("default.shared_there", 1),
    ];
    assert_eq!(held, expect.map(|(name, offset)| (name.to_owned(), offset)));
}

#[test]
fn a_topic_that_was_made_anew_keeps_the_letters_of_both() {
    let (kafka, topic) = (Kafka::shared(), "shared-anew");
    for format in ["iceberg", "parquet"] {
        let name = format!("shared_anew_{format}");
        produce::create_topic(kafka, topic, 1, &[]);
        produce::produce(kafka, topic, [Record::of("{}").partition(0)]);
        let bad = format!("{name}_bad");
        let work = Workspace::new(&format!(
            "partitionedTables:\n{}    materialize: {{format: {format}}}\n",
            pipeline(&name, kafka, topic, &bad)
        ));
        work.start_once(&[]).wait().expect_code(0);
        produce::delete_topic(kafka, topic);
        produce::create_topic(kafka, topic, 1, &[]);
        produce::produce(
            kafka,
            topic,
            [Record::of("no").partition(0), Record::of(r#"{"id":1}"#).partition(0)],
        );
        work.start_once(&[]).wait().expect_code(3);
        let to = ["--table", &name, "--to", "earliest", "--yes"];
        Aperio::run(
            work.path(),
            &[&["sync-points", "reset", "pipeline.yaml"], &to[..]].concat(),
        )
        .expect_code(0);
        work.start_once(&[]).wait().expect_code(0);
        let held = letters(&work, &bad);
        assert_eq!(
            held.iter().map(|letter| letter.2).collect::<Vec<_>>(),
            [0, 0],
            "{held:?}"
        );
        assert_ne!(held[0].1, held[1].1, "each of its own topic");
        produce::delete_topic(kafka, topic);
    }
}

#[test]
fn a_letter_is_taken_back_where_its_record_becomes_a_row() {
    let (kafka, topic) = (Kafka::shared(), "shared-mended");
    produce::create_topic(kafka, topic, 1, &[]);
    let values = [r#"{"id":0}"#, r#"{"id":1,"size":"two"}"#, "no", r#"{"id":3}"#];
    produce::produce(kafka, topic, values.map(|value| Record::of(value).partition(0)));
    let strict = format!(
        "partitionedTables:\n{}",
        pipeline("shared_mended", kafka, topic, "shared_mended_bad")
    );
    let strict = strict.replace("columns: [", "columns: [{name: size, from: size, type: long}, ");
    let work = Workspace::new(&strict);
    // Both letters are stored, the commit never comes.
    let args = ["run", "pipeline.yaml", "--once"];
    let killed = Aperio::start_with(work.path(), &args, &[("FAILPOINTS", "Before(Swap)=1*off->return")]).wait();
    assert_eq!(killed.code, None, "{killed:#?}");
    let offsets = || {
        letters(&work, "shared_mended_bad")
            .iter()
            .map(|letter| letter.2)
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(), [1, 2]);
    work.rewrite(&strict.replace("from: size", "from: bytes"));
    work.start_once(&[]).wait().expect_code(0);
    assert_eq!(offsets(), [2], "the other one is a row now");
    let rows = readers::read(
        Engine::DuckDb,
        &Catalog::sql(&work.warehouse()),
        "default.shared_mended",
        None,
    );
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn a_letter_that_a_killed_run_was_to_take_back_is_taken_back_by_the_next() {
    for format in ["iceberg", "parquet"] {
        let (kafka, topic) = (Kafka::shared(), format!("shared-left-{format}"));
        let (name, bad) = (format!("shared_left_{format}"), format!("shared_left_{format}_bad"));
        produce::create_topic(kafka, &topic, 1, &[]);
        let values = [
            r#"{"id":0}"#,
            r#"{"id":1,"size":"two"}"#,
            "no",
            r#"{"id":3,"size":"2"}"#,
        ];
        produce::produce(kafka, &topic, values.map(|value| Record::of(value).partition(0)));
        let strict = format!(
            "partitionedTables:\n{}    materialize: {{format: {format}}}\n",
            pipeline(&name, kafka, &topic, &bad)
        );
        let strict = strict.replace("columns: [", "columns: [{name: size, from: size, type: long}, ");
        let work = Workspace::new(&strict);
        let run = |point: &str| {
            Aperio::start_with(
                work.path(),
                &["run", "pipeline.yaml", "--once"],
                &[("FAILPOINTS", point)],
            )
            .wait()
        };
        let killed = run("Before(Swap)=1*off->return");
        assert_eq!(killed.code, None, "{killed:#?}");
        let offsets = || letters(&work, &bad).iter().map(|letter| letter.2).collect::<Vec<_>>();
        assert_eq!(offsets(), [1, 2, 3]);
        work.rewrite(&strict.replace("from: size", "from: bytes"));
        // Rows of 1 and 3 are committed, their letters not taken back yet.
        let killed = run("Inside(AnswerHeld)=return");
        assert_eq!(killed.code, None, "{killed:#?}");
        assert_eq!(offsets(), [1, 2, 3]);
        let report = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
        assert_eq!(report["tables"][0]["rowsWritten"], 0, "nothing is new");
        assert_eq!(offsets(), [2], "{format}");
        // What was taken back is forgotten with the next commit, and the next letter is no stale one.
        produce::produce(
            kafka,
            &topic,
            ["no", r#"{"id":5}"#].map(|value| Record::of(value).partition(0)),
        );
        work.start_once(&[]).wait().expect_code(0);
        assert_eq!(offsets(), [2, 4], "{format}");
    }
}

#[test]
fn a_dead_letter_table_that_cannot_hold_letters_is_told_at_once() {
    let (kafka, topic) = (Kafka::shared(), "shared-unfit");
    produce::create_topic(kafka, topic, 1, &[]);
    produce::produce(kafka, topic, records(1));
    let work = Workspace::new(&format!(
        "partitionedTables:\n{}",
        pipeline("shared_unfit", kafka, topic, "shared_unfit_bad")
    ));
    work.start_once(&[]).wait().expect_code(0);
    produce::produce(kafka, topic, [Record::of("{}").partition(0)]);
    readers::create_small_table(&Catalog::sql(&work.warehouse()), "default.shared_unfit_bad");
    let refused = work.start_once(&[]).wait().expect_code(2);
    assert!(
        refused.stderr.contains("it has no column `topic`") && refused.stderr.contains("errors.deadLetter.table"),
        "{refused:#?}"
    );
}
