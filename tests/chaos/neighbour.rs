//! Spark beside the instances: it compacts, merges manifests and expires snapshots, of both tables and of their letters; and
//! DuckDB, which looks now and then whether anything is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::readers::{self, Catalog, Spark};
use crate::{LETTERS, TABLES, say};

/// Between two looks at the tables.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A table that gets no row for so long, while records flow, has services that are up and do nothing.
const STALLED_AFTER: Duration = Duration::from_secs(240);

/// What no two rows of a table have in common, and no two letters.
const ROW_KEY: &str = "_kafka_partition, _kafka_offset";
const LETTER_KEY: &str = "pipeline, topic, partition, \"offset\"";

/// What Spark says when a commit of ours came first, or a lock was held: that is no fault of anybody.
const LOST: [&str; 4] = [
    "CommitFailedException",
    "CommitStateUnknown",
    "ValidationException",
    "SQLITE_BUSY",
];

/// What the thread tells while it works.
#[derive(Default)]
struct Told {
    stopped: AtomicBool,
    rows: AtomicU64,
    letters: AtomicU64,
}

/// The thread with its session of Spark; dropped, it is told to stop.
pub struct Neighbour {
    told: Arc<Told>,
    thread: Option<JoinHandle<BTreeMap<String, u64>>>,
}

impl Neighbour {
    /// Starts it on tables that are there.
    pub fn start(catalog: Catalog, seed: u64) -> Self {
        let told = Arc::new(Told::default());
        let own = Arc::clone(&told);
        let thread = std::thread::spawn(move || work(&own, &catalog, Dice(seed ^ 0x5BA2C)));
        Self {
            told,
            thread: Some(thread),
        }
    }

    /// Rows of both tables, and letters, when they were last looked at.
    pub fn seen(&self) -> (u64, u64) {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (number(&self.told.rows), number(&self.told.letters))
    }

    /// Panics if the thread has.
    pub fn expect_alive(&self) {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!ended, "what watches the tables ended");
    }

    /// Compacts and expires a last time; returns how often each statement was run, and lost to one of our commits.
    pub fn stop(mut self) -> BTreeMap<String, u64> {
        self.told.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken here only");
        thread.join().expect("what watches the tables ends by itself")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.told.stopped.store(true, Ordering::Relaxed);
    }
}

fn work(told: &Told, catalog: &Catalog, mut dice: Dice) -> BTreeMap<String, u64> {
    let mut spark = Spark::start(catalog);
    let mut counts = BTreeMap::new();
    let mut next_turn = Instant::now() + Duration::from_secs(10);
    let mut next_look = Instant::now();
    let mut grown = TABLES.map(|_| (0, Instant::now()));
    while !told.stopped.load(Ordering::Relaxed) {
        if next_look <= Instant::now() {
            next_look = Instant::now() + LOOK_EVERY;
            for (table, grown) in TABLES.iter().zip(&mut grown) {
                let (rows, name) = (look(catalog, table.full_name, ROW_KEY), table.full_name);
                if rows > grown.0 {
                    *grown = (rows, Instant::now());
                }
                assert!(grown.1.elapsed() < STALLED_AFTER, "`{name}` stays at {rows} rows");
            }
            let rows = grown.iter().map(|(rows, _)| rows).sum();
            told.rows.store(rows, Ordering::Relaxed);
            told.letters
                .store(look(catalog, LETTERS, LETTER_KEY), Ordering::Relaxed);
        }
        if next_turn <= Instant::now() {
            turn(&mut spark, &mut dice, &mut counts);
            next_turn = Instant::now() + Duration::from_secs(30 + dice.roll(90));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    turn(&mut spark, &mut dice, &mut counts);
    counts
}

/// Counts the rows, none of which may be there twice.
fn look(catalog: &Catalog, table: &str, key: &str) -> u64 {
    let what = format!("count(*) as rows, count(distinct ({key})) as different");
    let seen = readers::select(catalog, table, &what);
    let number = |name: &str| seen[0][name].as_u64().expect("a number");
    let (rows, different) = (number("rows"), number("different"));
    assert_eq!(rows, different, "`{table}`: rows, and different records among them");
    rows
}

/// One round of maintenance, as a nightly job does it; some of it only sometimes.
fn turn(spark: &mut Spark, dice: &mut Dice, counts: &mut BTreeMap<String, u64>) {
    let all = dice.once_in(3);
    let kept = 1 + dice.roll(5);
    let options = format!(", options => map('rewrite-all', '{all}', 'min-input-files', '2')");
    let expiry = format!(", older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => {kept}");
    let mut procedures = Vec::new();
    for table in TABLES.iter().map(|table| table.full_name).chain([LETTERS]) {
        if dice.once_in(2) {
            procedures.push(("rewrite_data_files", table, options.as_str()));
        }
        if dice.once_in(4) {
            procedures.push(("rewrite_manifests", table, ""));
        }
        procedures.push(("expire_snapshots", table, expiry.as_str()));
    }
    for (name, table, more) in procedures {
        let statement = format!("CALL system.{name}(table => '{table}'{more})");
        let start = Instant::now();
        let answer = spark.try_sql(&statement);
        let seconds = start.elapsed().as_secs_f64();
        match answer {
            Ok(_) => {
                say!("Spark: {name} of {table}, {seconds:.1} s");
                *counts.entry(name.to_owned()).or_default() += 1;
            }
            Err(error) if LOST.iter().any(|lost| error.contains(lost)) => {
                let first = error.lines().next().unwrap_or_default();
                say!("Spark: {name} of {table} lost after {seconds:.1} s: {first}");
                *counts.entry(format!("{name} lost")).or_default() += 1;
            }
            Err(error) => panic!("Spark: `{statement}`: {error}"),
        }
    }
}
