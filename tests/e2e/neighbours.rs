//! What others do to a table while services write to it and records flow: it is looked past, or followed, or the service
//! ends and says what to run. Nothing is lost or doubled by any of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog, Engine, Spark};
use crate::servers::Kafka;
use crate::setup;

const LIMIT: Duration = setup::PATIENCE;

/// Tables whose services go on.
const LASTING: [&str; 6] = ["n_kept", "n_back", "n_columns", "n_again", "n_spec", "n_declared"];

/// Tables whose services end.
const ENDING: [&str; 4] = ["n_picked", "n_replaced", "n_renamed", "n_dropped"];

fn topic(table: &str) -> String {
    table.replace('_', "-")
}

fn record(id: i64) -> Record {
    let value = format!(r#"{{"id":{id},"name":"n{id}","city":"c{id}","small":{}}}"#, id % 100);
    Record::of(value).partition((id % 2) as i32)
}

fn yaml(kafka: &Kafka, tables: &[&str]) -> String {
    let mut yaml = "partitionedTables:\n".to_owned();
    for table in tables {
        yaml.push_str(&format!(
            "  - name: {table}\n    source: {{brokers: \"{}\", topic: {}, format: json, batchWindow: 1s, maxPollRecords: 20}}\n",
            kafka.brokers(),
            topic(table)
        ));
        match *table {
            "n_spec" => yaml.push_str("    materialize: {partition: [\"truncate(2, city)\"]}\n"),
            "n_declared" => yaml.push_str(
                "    columns: [{name: id, type: long}, {name: label, from: name, type: string}, {name: small, type: int}]\n",
            ),
            _ => {}
        }
    }
    yaml
}

/// All topics get the same records, a few at a time, from ids that are handed out once.
struct Flow<'a> {
    kafka: &'a Kafka,
    next: AtomicI64,
    done: AtomicBool,
    /// Held while records are on their way, so that whoever holds it knows that all ids below `next` are in Kafka.
    sending: Mutex<()>,
}

impl Flow<'_> {
    fn add(&self, count: i64) {
        let _sending = self.sending.lock().expect("no panic holds it");
        let from = self.next.fetch_add(count, Ordering::Relaxed);
        for table in LASTING.iter().chain(&ENDING) {
            produce::produce(self.kafka, &topic(table), (from..from + count).map(record));
        }
    }

    fn keep_adding(&self) {
        while !self.done.load(Ordering::Relaxed) {
            self.add(40);
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The first id that isn't in the topics yet.
    fn so_far(&self) -> i64 {
        let _sending = self.sending.lock().expect("no panic holds it");
        self.next.load(Ordering::Relaxed)
    }
}

/// Spark, and what it is asked here.
struct Neighbour {
    spark: Spark,
}

impl Neighbour {
    /// Runs a statement, again where it lost to one of our commits: Spark itself tries changes of columns only once.
    fn sql(&mut self, statement: &str) -> Vec<Value> {
        let mut last = String::new();
        for _ in 0..20 {
            match self.spark.try_sql(statement) {
                Ok(rows) => return rows,
                Err(error) if error.contains("CommitFailedException") => last = error,
                // The service was faster: its records hold what was dropped.
                Err(error) if error.contains("Cannot add column, name already exists") => return Vec::new(),
                Err(error) => panic!("`{statement}`: {error}"),
            }
        }
        panic!("`{statement}` lost 20 times: {last}");
    }

    /// The snapshots of aperio, oldest first.
    fn snapshots(&mut self, table: &str) -> Vec<i64> {
        self.sql(&format!("REFRESH TABLE {table}"));
        let rows = self.sql(&format!(
            "SELECT snapshot_id FROM default.{table}.snapshots WHERE summary['aperio.window'] IS NOT NULL ORDER BY committed_at"
        ));
        rows.iter()
            .map(|row| row["snapshot_id"].as_i64().expect("an id"))
            .collect()
    }

    fn expire(&mut self, table: &str) {
        self.sql(&format!(
            "CALL system.expire_snapshots(table => 'default.{table}', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)"
        ));
    }

    fn insert(&mut self, table: &str, id: i64) {
        self.sql(&format!("INSERT INTO {table} (id) VALUES ({id})"));
    }
}

/// Waits for so many commits more to a table: its service goes on.
fn wait_for_commits(service: &Aperio, table: &str, more: usize) {
    let table = format!("table=default.{table} ");
    let commits = || {
        let printed = service.printed();
        let lines = printed[1].lines();
        lines
            .filter(|line| line.contains(" committed ") && line.contains(&table))
            .count()
    };
    let before = commits();
    let seen = setup::wait_until(LIMIT, || {
        assert!(!service.ended(), "{:#?}", service.printed());
        commits() >= before + more
    });
    assert!(seen, "no {more} commits more to {table}: {:#?}", service.printed());
}

#[test]
fn services_look_past_what_spark_does_follow_its_changes_or_end() {
    let kafka = Kafka::shared();
    let flow = Flow {
        kafka,
        next: AtomicI64::new(0),
        done: AtomicBool::new(false),
        sending: Mutex::new(()),
    };
    for table in LASTING.iter().chain(&ENDING) {
        produce::create_topic(kafka, &topic(table), 2, &[]);
    }
    flow.add(100);
    let work = Workspace::new(&yaml(kafka, &LASTING));
    std::fs::write(work.path().join("ending.yaml"), yaml(kafka, &ENDING)).expect("written");
    // Twice, so that each table has two commits with rows.
    for _ in 0..2 {
        Aperio::run(work.path(), &["run", "--once", "pipeline.yaml", "ending.yaml"]).expect_code(0);
        flow.add(100);
    }
    let catalog = Catalog::sql(&work.warehouse());
    std::thread::scope(|scope| {
        scope.spawn(|| flow.keep_adding());
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Done(&flow.done);
        let lasting = Aperio::start(work.path(), &["run", "pipeline.yaml"]);
        let ending = Aperio::start(work.path(), &["run", "ending.yaml"]);
        let mut spark = Neighbour {
            spark: Spark::start(&catalog),
        };
        end_it(&mut spark, &ending);
        kept(&mut spark, &lasting);
        rolled_back(&mut spark, &lasting);
        columns_change(&mut spark, &lasting, &flow);
        spec_changes(&mut spark, &lasting);
        drop(_done);
        expect_ended(ending);
        lasting.signal(libc::SIGTERM).expect_code(0);
    });
    work.start_once(&[]).wait().expect_code(0);
    check(&catalog, flow.so_far());
}

/// Each of the tables is made one that can't be gone on with.
fn end_it(spark: &mut Neighbour, service: &Aperio) {
    for table in ENDING {
        wait_for_commits(service, table, 1);
    }
    let picked = spark.snapshots("n_picked");
    // Rolled back to before the newest commit of ours, which is then picked again, on top of somebody else's.
    let to = picked[picked.len() - 2];
    spark.sql(&format!("CALL system.rollback_to_snapshot('default.n_picked', {to})"));
    spark.insert("n_picked", -1);
    let newest = picked[picked.len() - 1];
    spark.sql(&format!(
        "CALL system.cherrypick_snapshot('default.n_picked', {newest})"
    ));
    spark.sql("CREATE OR REPLACE TABLE n_replaced (id BIGINT, name STRING) USING iceberg");
    spark.sql("ALTER TABLE n_renamed RENAME TO n_renamed_to");
    spark.sql("DROP TABLE n_dropped");
}

fn expect_ended(ending: Aperio) {
    let told = ending.wait().expect_code(3);
    for words in [
        "is a cherry-pick of snapshot",
        "the table was replaced",
        "table `default.n_renamed` is gone",
        "table `default.n_dropped` is gone",
    ] {
        assert!(told.stderr.contains(words), "no `{words}`: {}", told.stderr);
    }
}

/// Compaction, merged manifests, expiry and rows of others, again and again.
fn kept(spark: &mut Neighbour, service: &Aperio) {
    for round in 1..=2 {
        spark.sql("CALL system.rewrite_data_files(table => 'default.n_kept', options => map('rewrite-all', 'true'))");
        spark.insert("n_kept", -round);
        spark.sql("CALL system.rewrite_manifests('default.n_kept')");
        spark.expire("n_kept");
        wait_for_commits(service, "n_kept", 2);
    }
}

/// A rollback takes the offsets along; an expiry right after it takes the way back.
fn rolled_back(spark: &mut Neighbour, service: &Aperio) {
    let first = spark.snapshots("n_back")[0];
    spark.sql(&format!("CALL system.rollback_to_snapshot('default.n_back', {first})"));
    spark.expire("n_back");
    wait_for_commits(service, "n_back", 2);
}

fn columns_change(spark: &mut Neighbour, service: &Aperio, flow: &Flow<'_>) {
    // Before any record brings it, of a type that takes what will come.
    spark.sql("ALTER TABLE n_columns ADD COLUMN note STRING");
    spark.sql("ALTER TABLE n_columns RENAME COLUMN name TO title");
    // Gone and there again under the same name: another column.
    spark.sql("ALTER TABLE n_again DROP COLUMN city");
    spark.sql("ALTER TABLE n_again ADD COLUMN city STRING");
    spark.sql("ALTER TABLE n_declared ALTER COLUMN small TYPE BIGINT");
    spark.sql("ALTER TABLE n_declared RENAME COLUMN label TO legend");
    AGAIN_FROM.store(flow.so_far(), Ordering::Relaxed);
    for table in ["n_columns", "n_again", "n_declared"] {
        wait_for_commits(service, table, 2);
    }
}

/// From this id on, `n_again` holds every city.
static AGAIN_FROM: AtomicI64 = AtomicI64::new(0);

fn spec_changes(spark: &mut Neighbour, service: &Aperio) {
    spark.sql("ALTER TABLE n_spec ADD PARTITION FIELD bucket(4, id)");
    wait_for_commits(service, "n_spec", 3);
    let specs =
        spark.sql("SELECT spec_id, count(*) AS files FROM default.n_spec.files GROUP BY spec_id ORDER BY spec_id");
    assert_eq!(specs.len(), 2, "files are written for the new spec too: {specs:?}");
    spark.sql("ALTER TABLE n_spec DROP PARTITION FIELD truncate(2, city)");
    // What the open window's files are partitioned by goes altogether.
    spark.sql("ALTER TABLE n_spec DROP COLUMN city");
    wait_for_commits(service, "n_spec", 3);
}

fn check(catalog: &Catalog, records: i64) {
    let names: Vec<_> = LASTING.iter().map(|table| format!("default.{table}")).collect();
    let reads: Vec<_> = names
        .iter()
        .map(|table| (Engine::DuckDb, table.as_str(), None))
        .collect();
    let tables = readers::read_many(catalog, &reads);
    for (table, found) in LASTING.iter().zip(&tables) {
        let mut times: BTreeMap<i64, i64> = (0..records).map(|id| (id, -1)).collect();
        for row in &found.rows {
            *times.entry(row["id"].as_i64().expect("an id")).or_default() += 1;
        }
        if *table == "n_kept" {
            assert_eq!(
                (times.remove(&-1), times.remove(&-2)),
                (Some(1), Some(1)),
                "the rows of others stay"
            );
        }
        times.retain(|_, times| *times != 0);
        assert!(times.is_empty(), "`{table}`: id and how often too many: {times:?}");
    }
    let of = |table: &str| {
        let at = LASTING.iter().position(|other| *other == table).expect("a table");
        tables[at].rows.iter()
    };
    // Whenever it was written: each name is in one of the two columns, as it was sent.
    for (table, columns) in [("n_columns", ["title", "name"]), ("n_declared", ["legend", "label"])] {
        for row in of(table) {
            let values: Vec<_> = columns.iter().filter_map(|column| row[*column].as_str()).collect();
            assert_eq!(values, [format!("n{}", row["id"])], "`{table}`: {row}");
        }
        let renamed = of(table).filter(|row| row[columns[0]].is_string()).count();
        assert!(
            renamed > 0 && renamed < of(table).count(),
            "`{table}`: {renamed} rows in `{}`",
            columns[0]
        );
    }
    let from = AGAIN_FROM.load(Ordering::Relaxed);
    for row in of("n_again").filter(|row| row["id"].as_i64() >= Some(from)) {
        assert_eq!(row["city"], format!("c{}", row["id"]), "from id {from} on: {row}");
    }
    for row in of("n_declared") {
        assert_eq!(row["small"], row["id"].as_i64().expect("an id") % 100, "{row}");
    }
}
