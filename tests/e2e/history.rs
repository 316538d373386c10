//! What others do to a table's history: rollbacks, compaction, expiry, cherry-picks, replaced and dropped tables. The
//! offsets go along with the rows, or the run stops and says what to run.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::aperio::{Aperio, Outcome, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine};
use crate::servers::{Fault, Kafka, Proxy, RestCatalog, send};

/// Records of a round; two windows and a bit.
const ROUND: i64 = 300;

fn topic(table: &str) -> String {
    table.replace('_', "-")
}

fn produce_round(kafka: &Kafka, table: &str, round: i64) {
    let record = |id: i64| Record::of(format!(r#"{{"id":{id},"name":"n{id}"}}"#)).partition((id % 3) as i32);
    produce::produce(kafka, &topic(table), (round * ROUND..(round + 1) * ROUND).map(record));
}

/// A workspace with a pipeline for each table, whose topics hold one round.
fn workspace(kafka: &Kafka, tables: &[&str], more: &str) -> Workspace {
    let mut yaml = "partitionedTables:\n".to_owned();
    for table in tables {
        produce::create_topic(kafka, &topic(table), 3, &[]);
        produce_round(kafka, table, 0);
        yaml.push_str(&format!(
            "  - name: {table}\n    source: {{brokers: \"{}\", topic: {}, format: json, batchSize: 120, maxPollRecords: 50}}\n{more}",
            kafka.brokers(),
            topic(table)
        ));
    }
    Workspace::new(&yaml)
}

fn run(work: &Workspace, table: &str) -> Outcome {
    work.start_once(&["--table", table, "--output", "json"]).wait()
}

/// The part of a table in the report of a run that is done.
fn done(work: &Workspace, table: &str) -> Value {
    let report = run(work, table).expect_code(0).report();
    report["tables"][0].clone()
}

/// Runs a table that must be refused, and expects all of `parts` in what the user reads.
fn refused(work: &Workspace, table: &str, parts: &[&str]) {
    let outcome = run(work, table).expect_code(3);
    let error = outcome.report()["tables"][0]["error"].clone();
    let error = error.as_str().expect("an error");
    for part in parts {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

fn last_snapshot(table: &Value) -> i64 {
    let snapshots = table["snapshots"].as_array().expect("snapshots");
    snapshots.last().and_then(Value::as_i64).expect("a commit")
}

/// Expects each of these ids once in a table, and nothing else.
fn expect_each_once(work: &Workspace, table: &str, ids: impl IntoIterator<Item = i64>) {
    let catalog = Catalog::sql(&work.warehouse());
    let rows = readers::read(Engine::PyIceberg, &catalog, &format!("default.{table}"), None);
    expect_rows(table, &rows, ids);
}

fn expect_rows(table: &str, rows: &[Value], ids: impl IntoIterator<Item = i64>) {
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for row in rows {
        *found.entry(row["id"].as_i64().expect("an id")).or_default() += 1;
    }
    for id in ids {
        *found.entry(id).or_default() -= 1;
    }
    found.retain(|_, times| *times != 0);
    assert!(found.is_empty(), "`{table}`: id and how often too many: {found:?}");
}

#[test]
fn the_offsets_follow_what_spark_does_to_the_history() {
    let kafka = Kafka::shared();
    let tables = [
        "h_rollback",
        "h_others",
        "h_unproven",
        "h_picked",
        "h_dropped",
        "h_remade",
        "h_replaced",
        "h_renamed",
        "h_altered",
    ];
    let work = workspace(kafka, &tables, "");
    let first = work.start_once(&["--output", "json"]).wait().expect_code(0).report();
    let first_of = |table: &str| {
        let index = tables.iter().position(|other| *other == table).expect("a table");
        last_snapshot(&first["tables"][index])
    };
    let mut second_of = BTreeMap::new();
    for table in ["h_rollback", "h_unproven", "h_picked"] {
        produce_round(kafka, table, 1);
        second_of.insert(table, last_snapshot(&done(&work, table)));
    }

    // The table is altered by another engine while a run stands between its window and the swap.
    produce_round(kafka, "h_altered", 1);
    let args = [
        "run",
        "--once",
        "pipeline.yaml",
        "--table",
        "h_altered",
        "--output",
        "json",
    ];
    let stop = [("FAILPOINTS", "Before(Swap)=1*return(stop)")];
    let altered = Aperio::start_with(work.path(), &args, &stop);
    altered.wait_stopped();

    let roll_back = |table: &str| {
        let snapshot = first_of(table);
        format!("CALL system.rollback_to_snapshot('default.{table}', {snapshot})")
    };
    let insert = |table: &str, id: i64| {
        format!(
            "INSERT INTO {table} BY NAME SELECT {id}L AS id, 'spark' AS name, _kafka_partition, _kafka_offset, _kafka_timestamp FROM {table} WHERE id = 0"
        )
    };
    let expire = |table: &str| {
        format!(
            "CALL system.expire_snapshots(table => 'default.{table}', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)"
        )
    };
    let statements = [
        roll_back("h_rollback"),
        // Twice over, so that our commits are several expired parents away.
        "CALL system.rewrite_data_files(table => 'default.h_others', options => map('rewrite-all', 'true'))".to_owned(),
        insert("h_others", -1),
        insert("h_others", -2),
        "CALL system.rewrite_manifests('default.h_others')".to_owned(),
        expire("h_others"),
        roll_back("h_unproven"),
        insert("h_unproven", -1),
        expire("h_unproven"),
        roll_back("h_picked"),
        insert("h_picked", -1),
        format!(
            "CALL system.cherrypick_snapshot('default.h_picked', {})",
            second_of["h_picked"]
        ),
        "DROP TABLE h_dropped".to_owned(),
        "DROP TABLE h_remade".to_owned(),
        "CREATE TABLE h_remade (id BIGINT, name STRING) USING iceberg".to_owned(),
        "CREATE OR REPLACE TABLE h_replaced (id BIGINT, name STRING) USING iceberg".to_owned(),
        "ALTER TABLE h_renamed RENAME TO h_elsewhere".to_owned(),
        "ALTER TABLE h_altered ADD COLUMN more STRING FIRST".to_owned(),
        "ALTER TABLE h_altered RENAME COLUMN name TO called".to_owned(),
        "ALTER TABLE h_altered ADD PARTITION FIELD bucket(2, id)".to_owned(),
    ];
    let catalog = Catalog::sql(&work.warehouse());
    readers::spark_sql(&catalog, &statements);
    let altered = altered.go_on().wait().expect_code(0).report();
    assert_eq!(altered["tables"][0]["lag"], 0, "{altered:#}");
    expect_each_once(&work, "h_altered", 0..2 * ROUND);
    produce_round(kafka, "h_altered", 2);
    assert_eq!(done(&work, "h_altered")["rowsWritten"], ROUND);
    expect_each_once(&work, "h_altered", 0..3 * ROUND);
    status_tells(&work);

    rolled_back(&work);
    changed_by_others(kafka, &work);
    unproven(&work, &catalog, first_of("h_unproven"), second_of["h_unproven"]);
    let pick = format!(
        "is a cherry-pick of snapshot {}, a commit of aperio",
        second_of["h_picked"]
    );
    refused(
        &work,
        "h_picked",
        &[&pick, "`CALL system.rollback_to_snapshot('default.h_picked', "],
    );
    for (table, detail) in [
        ("h_dropped", "it was dropped"),
        ("h_renamed", "renamed"),
        ("h_remade", "holds no commit of aperio"),
    ] {
        let what = format!("table `default.{table}` is gone, but sync points have 3 rows for it");
        refused(&work, table, &[&what, detail, "sync_points.parquet"]);
    }
    let back = format!(
        "`CALL system.set_current_snapshot('default.h_replaced', {})`",
        first_of("h_replaced")
    );
    refused(&work, "h_replaced", &["the table was replaced", &back]);
    // Whatever the history says, a person can say where to go on.
    for table in ["h_picked", "h_remade", "h_replaced"] {
        let args = [
            "sync-points",
            "reset",
            "pipeline.yaml",
            "--table",
            table,
            "--to",
            "latest",
            "--yes",
        ];
        Aperio::run(work.path(), &args).expect_code(0);
        assert_eq!(done(&work, table)["recordsRead"], 0, "{table}");
    }
}

/// The table that was rolled back was read again from there on.
fn rolled_back(work: &Workspace) {
    let table = done(work, "h_rollback");
    assert_eq!(table["recordsRead"], ROUND, "{table:#}");
    let ahead = json!({"syncPoint": 200, "table": 100});
    assert_eq!(
        table["syncPointsAhead"],
        json!({"0": ahead, "1": ahead, "2": ahead}),
        "{table:#}"
    );
    expect_each_once(work, "h_rollback", 0..2 * ROUND);
    let table = done(work, "h_rollback");
    assert_eq!(
        (&table["syncPointsAhead"], &table["snapshots"]),
        (&json!({}), &json!([])),
        "{table:#}"
    );
}

/// Our commits have expired under those of others: nothing is lost or doubled, and the ledger is written again.
fn changed_by_others(kafka: &Kafka, work: &Workspace) {
    let table = done(work, "h_others");
    let counts = (&table["recordsRead"], table["snapshots"].as_array().map(Vec::len));
    assert_eq!(counts, (&json!(0), Some(1)), "{table:#}");
    let table = done(work, "h_others");
    assert_eq!(table["snapshots"], json!([]), "{table:#}");
    produce_round(kafka, "h_others", 1);
    let table = done(work, "h_others");
    assert_eq!(table["recordsRead"], ROUND, "{table:#}");
    expect_each_once(work, "h_others", -2..2 * ROUND);
}

/// The property is ahead of the data and isn't believed, whether or not older metadata files tell the truth.
fn unproven(work: &Workspace, catalog: &Catalog, kept: i64, rolled_back: i64) {
    let proven = format!(
        "the newest commit of aperio in its history is snapshot {kept} with offsets {{p0: 100, p1: 100, p2: 100}}"
    );
    let property = format!("the property `aperio.ledger` is of snapshot {rolled_back}");
    let unset = "`ALTER TABLE default.h_unproven UNSET TBLPROPERTIES ('aperio.ledger')`";
    refused(work, "h_unproven", &[&proven, &property, unset]);

    let files = work.metadata_files("h_unproven");
    let aside = |file: &Path| file.with_extension("aside");
    let (_, older) = files.split_last().expect("a current one");
    for file in older {
        std::fs::rename(file, aside(file)).expect("moved away");
    }
    let cut =
        format!("snapshot {kept}, an ancestor of the current one, has expired and no older metadata file describes it");
    refused(work, "h_unproven", &[&cut, &property]);
    for file in older {
        std::fs::rename(aside(file), file).expect("moved back");
    }

    // What the message says to run.
    readers::unset_property(catalog, "default.h_unproven", "aperio.ledger");
    assert_eq!(done(work, "h_unproven")["recordsRead"], ROUND);
    expect_each_once(work, "h_unproven", -1..2 * ROUND);
}

fn status_tells(work: &Workspace) {
    let status = Aperio::run(work.path(), &["status", "pipeline.yaml"]).expect_code(3);
    let ahead = "sync points are ahead of the table at partition 0, 1, 2";
    for (table, parts) in [
        ("h_rollback", vec!["last commit 2", ahead]),
        ("h_others", vec!["last commit expired", "100          100"]),
        ("h_unproven", vec!["its offsets can't be known"]),
        ("h_picked", vec!["its offsets can't be known"]),
        ("h_dropped", vec!["gone, though sync points speak of it"]),
        ("h_remade", vec!["gone, though sync points speak of it"]),
        ("h_replaced", vec!["its offsets can't be known"]),
    ] {
        let start = format!("default.{table} from topic");
        let told = status.stdout.split("\n\n").find(|told| told.starts_with(&start));
        for part in parts {
            assert!(
                told.is_some_and(|told| told.contains(part)),
                "no `{part}` of {table}: {status:#?}"
            );
        }
    }
    assert!(status.stderr.contains("the table was replaced"), "{status:#?}");
}

#[test]
fn a_table_of_another_engine_is_adopted_if_its_columns_fit() {
    let kafka = Kafka::shared();
    let columns = "    columns: [{name: id, type: long}, {name: name, type: string}]\n";
    let work = workspace(kafka, &["h_adopted"], columns);
    let catalog = Catalog::sql(&work.warehouse());
    std::fs::create_dir_all(work.warehouse()).expect("the warehouse");
    // Ids 1, 2, 3: other rows of the same shape.
    readers::create_small_table(&catalog, "default.h_adopted");
    let status = Aperio::run(work.path(), &["status", "pipeline.yaml"]).expect_code(0);
    assert!(status.stdout.contains("no commit of aperio yet"), "{status:#?}");
    assert_eq!(done(&work, "h_adopted")["rowsWritten"], ROUND);
    expect_each_once(&work, "h_adopted", (0..ROUND).chain(1..=3));
    produce_round(kafka, "h_adopted", 1);
    done(&work, "h_adopted");
    expect_each_once(&work, "h_adopted", (0..2 * ROUND).chain(1..=3));

    let columns = "    columns: [{name: id, type: string}, {name: name, type: string}]\n";
    let work = workspace(kafka, &["h_foreign"], columns);
    let catalog = Catalog::sql(&work.warehouse());
    std::fs::create_dir_all(work.warehouse()).expect("the warehouse");
    readers::create_small_table(&catalog, "default.h_foreign");
    let outcome = run(&work, "h_foreign").expect_code(2);
    let error = outcome.report()["tables"][0]["error"].clone();
    let error = error.as_str().expect("an error");
    assert!(error.contains("`default.h_foreign` exists and doesn't fit"), "{error}");
    assert!(
        error.contains("column `id` is long in the table, but string here"),
        "{error}"
    );
}

#[test]
fn a_sync_point_ahead_of_the_table_is_reported_and_not_obeyed() {
    use aperio::sync_points::{SyncPoint, SyncPoints};
    let kafka = Kafka::shared();
    let work = workspace(kafka, &["h_ahead"], "");
    done(&work, "h_ahead");
    let state = work.warehouse().join(".aperio");
    let points = SyncPoints::open(state.to_str().expect("utf-8"), "default", &BTreeMap::new()).expect("open");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let seen = points.read().await.expect("read");
        assert_eq!(seen.len(), 3);
        let mut rows = seen.clone();
        rows[1].sync_value = "5000".to_owned();
        rows.push(SyncPoint {
            sync_key: "partition:9".to_owned(),
            ..seen[0].clone()
        });
        assert!(points.replace("h_ahead", &seen, rows).await.expect("replace"));
    });
    produce_round(kafka, "h_ahead", 1);
    let outcome = run(&work, "h_ahead").expect_code(0);
    assert!(
        outcome.stderr.contains("a sync point was ahead of the table"),
        "{outcome:#?}"
    );
    let table = &outcome.report()["tables"][0];
    let ahead = json!({"1": {"syncPoint": 5000, "table": 100}, "9": {"syncPoint": 100, "table": null}});
    assert_eq!(table["syncPointsAhead"], ahead, "{table:#}");
    expect_each_once(&work, "h_ahead", 0..2 * ROUND);
    let rows = runtime.block_on(points.read()).expect("read");
    let values: Vec<_> = rows.iter().map(|row| row.sync_value.as_str()).collect();
    assert_eq!(values, ["200", "200", "200"], "repaired from the table");
}

#[test]
fn a_table_dropped_from_a_rest_catalog_is_missed_also_where_its_sync_points_lie_below_it() {
    let (kafka, table) = (Kafka::shared(), "h_gone");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let plain = workspace(kafka, &[table], "");
    let yaml = std::fs::read_to_string(plain.path().join("pipeline.yaml")).expect("the pipeline file");
    let work = Workspace::new(&format!("catalog: {{type: rest, uri: \"{}\"}}\n{yaml}", rest.uri()));
    done(&work, table);
    assert_eq!(done(&work, table)["recordsRead"], 0);

    let (status, answer) = send(
        &rest.address(),
        "DELETE",
        &format!("/v1/namespaces/default/tables/{table}"),
    );
    assert_eq!(status, 204, "{answer}");
    let what = format!("table `default.{table}` is gone, but sync points have 3 rows for it");
    for _ in 0..2 {
        refused(&work, table, &[&what, "it was dropped"]);
    }
}

#[test]
fn a_conflict_for_a_commit_that_happened_destroys_nothing() {
    let (kafka, table) = (Kafka::shared(), "h_conflict");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rest = RestCatalog::start(dir.path());
    let proxy = Proxy::start(rest.address());
    let plain = workspace(kafka, &[table], "");
    let yaml = std::fs::read_to_string(plain.path().join("pipeline.yaml")).expect("the pipeline file");
    let state = dir.path().join("state");
    let work = Workspace::new(&format!(
        "catalog: {{type: rest, uri: \"{}\", warehouse: \"\"}}\nstateDir: \"{}\"\n{yaml}",
        proxy.uri(),
        state.display()
    ));
    done(&work, table);
    // As when a proxy loses the answer to a commit and sends it again.
    proxy.on_commit(1, Fault::LieAfter(409));
    produce_round(kafka, table, 1);
    let before = proxy.commits().len();
    let told = done(&work, table);
    let made = proxy.commits()[before..]
        .iter()
        .filter(|commit| commit.upstream_status == Some(200))
        .count();
    let snapshots = told["snapshots"].as_array().map(Vec::len);
    assert_eq!(
        (&told["recordsRead"], snapshots),
        (&json!(ROUND), Some(made)),
        "{told:#}"
    );
    assert!(
        proxy
            .commits()
            .iter()
            .any(|commit| commit.fault == Fault::LieAfter(409))
    );
    let catalog = Catalog::Rest { uri: rest.uri() };
    let rows = readers::read(Engine::PyIceberg, &catalog, "default.h_conflict", None);
    expect_rows(table, &rows, 0..2 * ROUND);
}

#[test]
fn a_quiet_table_gets_its_ledger_written_again_once_a_day() {
    let work = workspace(Kafka::shared(), &["h_quiet"], "");
    done(&work, "h_quiet");
    assert_eq!(done(&work, "h_quiet")["snapshots"], json!([]));
    make_older(&work, "h_quiet");
    let table = done(&work, "h_quiet");
    let snapshots = table["snapshots"].as_array().expect("snapshots");
    assert_eq!((snapshots.len(), &table["windows"]), (1, &json!([])), "{table:#}");
    assert_eq!(done(&work, "h_quiet")["snapshots"], json!([]));

    // In a service too, which goes on.
    make_older(&work, "h_quiet");
    let mut service = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    assert!(service.wait_for("committed"), "{:#?}", service.printed());
    produce_round(Kafka::shared(), "h_quiet", 1);
    assert!(service.wait_for("rows="), "{:#?}", service.printed());
    service.signal(libc::SIGTERM).expect_code(0);
    done(&work, "h_quiet");
    expect_each_once(&work, "h_quiet", 0..2 * ROUND);
}

/// Makes all that the table's current metadata say two days older.
fn make_older(work: &Workspace, table: &str) {
    let mut metadata = work.metadata(table);
    age(&mut metadata);
    work.set_metadata(table, &metadata);
}

/// Makes all of a metadata file two days older.
fn age(value: &mut Value) {
    const TWO_DAYS_MS: i64 = 2 * 24 * 60 * 60 * 1000;
    match value {
        Value::Array(values) => values.iter_mut().for_each(age),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value.as_i64() {
            Some(time) if name == "timestamp-ms" || name == "last-updated-ms" => *value = json!(time - TWO_DAYS_MS),
            _ => age(value),
        }),
        _ => {}
    }
}
