//! The end: do the tables hold what the topics do, and the shared dead-letter table what can become no row?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::readers::{self, Catalog, Engine};
use crate::reports::Counts;
use crate::servers::Kafka;
use crate::{LETTERS, TABLES, Table, produce};

/// Differences that are listed of each kind.
const LISTED: usize = 10;

/// Where a record is: its Kafka partition and offset.
type Place = (i64, i64);

/// A letter: the pipeline and topic that it names, its place, and its value.
type Letter = (String, String, Place, String);

/// What the broker serves of the topic of a table: the number of each event by its place, and what can become no row.
pub struct Truth {
    table: &'static Table,
    pub good: BTreeMap<Place, i64>,
    pub bad: BTreeMap<Place, String>,
    ends: BTreeMap<i32, i64>,
}

impl Truth {
    /// Reads the topic, which nobody writes to any more, as a reader of committed records.
    pub fn read(kafka: &Kafka, table: &'static Table) -> Self {
        let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
        for record in produce::read_all(kafka, table.topic, "read_committed") {
            let place = (i64::from(record.partition), record.offset);
            let bytes = record.value.unwrap_or_default();
            let value: Option<Value> = serde_json::from_slice(&bytes).ok();
            match value.and_then(|value| value["id"].as_i64()) {
                Some(number) => drop(good.insert(place, number)),
                None => drop(bad.insert(place, String::from_utf8_lossy(&bytes).into_owned())),
            }
        }
        let ends = produce::ends(kafka, table.topic);
        Self { table, good, bad, ends }
    }

    fn letters(&self) -> impl Iterator<Item = Letter> {
        let Table { full_name, topic, .. } = self.table;
        let letter =
            |(place, value): (&Place, &String)| ((*full_name).to_owned(), (*topic).to_owned(), *place, value.clone());
        self.bad.iter().map(letter)
    }
}

/// What was found at the end.
#[derive(Default)]
pub struct Verdict {
    /// What differs, in words; empty where all is as it must be.
    pub differences: Vec<String>,
    /// How much there is of everything, one line each.
    pub counts: Vec<String>,
    /// The same for programs.
    pub figures: serde_json::Map<String, Value>,
}

impl Verdict {
    /// Compares what DuckDB and PyIceberg read with the topics.
    ///
    /// - `sync_points`: the file of the tables' sync points.
    /// - `shared`: the directory that both tables keep their data in.
    pub fn reach(truths: &[Truth], catalog: &Catalog, sync_points: &Path, shared: &Path) -> Self {
        let mut verdict = Self::default();
        let asked = |truth: &Truth| {
            (
                catalog.clone(),
                truth.table.full_name.to_owned(),
                PathBuf::from(sync_points),
            )
        };
        let states = readers::read_states(&truths.iter().map(asked).collect::<Vec<_>>());
        for (truth, state) in truths.iter().zip(&states) {
            verdict.judge_table(truth, state, catalog);
        }
        verdict.judge_files(truths, &states, shared);
        verdict.judge_letters(truths, catalog);
        verdict
    }

    fn judge_table(&mut self, truth: &Truth, state: &Value, catalog: &Catalog) {
        let (name, told) = (truth.table.full_name, &mut self.differences);
        let rows = places(catalog, name);
        let good = truth.good.iter().map(|(place, number)| (*place, *number));
        let what = format!("`{name}`: DuckDB, rows as (partition, offset), number");
        compare(&what, good.collect(), rows, told);
        let ids = array(state, "ids").iter().map(|id| id.as_i64().unwrap_or(-1)).collect();
        let good: Vec<_> = truth.good.values().copied().collect();
        compare(&format!("`{name}`: PyIceberg, numbers"), good, ids, told);

        let (rows, files) = (array(state, "ids").len(), array(state, "files").len());
        if state["total"] != rows {
            told.push(format!(
                "`{name}`: its newest snapshot tells of {} rows, not {rows}",
                state["total"]
            ));
        }
        let ends = truth.ends.iter().map(|(at, end)| (at.to_string(), Value::from(*end)));
        let ends = Value::Object(ends.collect());
        if state["ledger"] != ends {
            told.push(format!(
                "`{name}`: the ledger is {}, the topic ends at {ends}",
                state["ledger"]
            ));
        }
        if state["ledger"] != state["sync_points"] {
            let (points, ledger) = (&state["sync_points"], &state["ledger"]);
            told.push(format!("`{name}`: sync points are {points}, the ledger {ledger}"));
        }
        let (events, none) = (truth.good.len(), truth.bad.len());
        let topic = format!(
            "`{}` {events} events and {none} records that are none",
            truth.table.topic
        );
        self.counts
            .push(format!("`{name}` holds {rows} rows in {files} files, {topic}"));
        let figures = json!({"rows": rows, "files": files, "events": events, "rejects": none});
        self.figures.insert(name.to_owned(), figures);
    }

    /// No file is of two tables, and all are where the tables were told to keep them.
    fn judge_files(&mut self, truths: &[Truth], states: &[Value], shared: &Path) {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (truth, state) in truths.iter().zip(states) {
            let name = truth.table.full_name;
            for file in array(state, "files").iter().map(|file| file.as_str().expect("a path")) {
                if !Path::new(file).starts_with(shared) {
                    let shared = shared.display();
                    self.differences.push(format!("`{name}`: {file} isn't in {shared}"));
                }
                if let Some(other) = owners.insert(file, name) {
                    self.differences.push(format!("{file} is of `{other}` and of `{name}`"));
                }
            }
        }
        let (stored, named) = (count_files(shared), owners.len());
        self.counts.push(format!(
            "the shared directory holds {stored} data files: the {named} of both tables, and those of older snapshots and of \
             commits that never were"
        ));
        self.figures.insert("files_stored".to_owned(), stored.into());
    }

    fn judge_letters(&mut self, truths: &[Truth], catalog: &Catalog) {
        let reads = [(Engine::DuckDb, LETTERS, None), (Engine::PyIceberg, LETTERS, None)];
        let tables = readers::read_many(catalog, &reads);
        let expected: Vec<_> = truths.iter().flat_map(Truth::letters).collect();
        for ((engine, ..), table) in reads.iter().zip(&tables) {
            let what = format!("`{LETTERS}`: {engine:?}, letters as pipeline, topic, (partition, offset), value");
            let letters = table.rows.iter().map(letter).collect();
            compare(&what, expected.clone(), letters, &mut self.differences);
        }
        let (rows, files, total) = (&tables[1].rows, tables[1].files, tables[1].total);
        if total != rows.len() as u64 {
            let told = format!(
                "`{LETTERS}`: its newest snapshot tells of {total} letters, not {}",
                rows.len()
            );
            self.differences.push(told);
        }
        // What keeps the letters of one apart from those of others, for ever.
        let mut origins: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut of: BTreeMap<&str, u64> = BTreeMap::new();
        for row in rows {
            let pipeline = row["pipeline"].as_str().unwrap_or_default();
            let ids = ["table_uuid", "cluster_id", "topic_id"].map(|id| row[id].to_string());
            origins.entry(pipeline).or_default().insert(ids.join(" "));
            *of.entry(pipeline).or_default() += 1;
        }
        let different: BTreeSet<_> = origins.values().flatten().collect();
        if different.len() != TABLES.len() || origins.values().any(|ids| ids.len() != 1) {
            self.differences
                .push(format!("`{LETTERS}`: not one origin for each pipeline: {origins:?}"));
        }
        self.counts.push(format!(
            "`{LETTERS}` holds {} letters in {files} files: {of:?}",
            rows.len()
        ));
        self.figures
            .insert(LETTERS.to_owned(), json!({"letters": of, "files": files}));
    }

    /// Compares what the processes have counted with what is there: those that were killed have said nothing.
    pub fn judge_reports(&mut self, truths: &[Truth], sums: &BTreeMap<String, Counts>) {
        for truth in truths {
            let name = truth.table.full_name;
            let sum = sums.get(name).copied().unwrap_or_default();
            let (rows, rejected) = (truth.good.len() as u64, truth.bad.len() as u64);
            if sum.rows > rows || sum.rejected > rejected {
                let told =
                    format!("`{name}`: the reports count more than the {rows} rows and {rejected} rejects: {sum:?}");
                self.differences.push(told);
            }
            self.counts.push(format!(
                "`{name}`: reports of those that weren't killed count {} rows, {} rejects, {} windows",
                sum.rows, sum.rejected, sum.windows
            ));
        }
    }

    /// Compares the report of a run that was alone with what was there before and is now.
    pub fn judge_last(&mut self, before: &Stored, after: &Stored, counted: &BTreeMap<String, Counts>) {
        for table in &TABLES {
            let name = table.full_name;
            let more = |stored: fn(&Stored) -> &BTreeMap<String, u64>| {
                let of = |all: &Stored| stored(all).get(name).copied().unwrap_or_default();
                i128::from(of(after)) - i128::from(of(before))
            };
            let (rows, letters) = (more(|stored| &stored.rows), more(|stored| &stored.letters));
            let counted = counted.get(name).copied().unwrap_or_default();
            // Of what it read, some letters may have been there: of a window that was dropped.
            if rows != i128::from(counted.rows) || letters > i128::from(counted.rejected) {
                self.differences.push(format!(
                    "`{name}`: the last run has added {rows} rows and {letters} letters, and reports {counted:?}"
                ));
            }
        }
    }
}

/// How many rows there are of each table, and letters of each pipeline.
pub struct Stored {
    rows: BTreeMap<String, u64>,
    letters: BTreeMap<String, u64>,
}

impl Stored {
    /// Counts them with DuckDB.
    pub fn count(catalog: &Catalog) -> Self {
        let count = |table: &str, what: &str| {
            let answer = readers::select(catalog, table, &format!("{what} as number")).remove(0);
            answer["number"].as_u64().expect("a number")
        };
        let each = |count: &dyn Fn(&str) -> u64| {
            let names = TABLES.iter().map(|table| table.full_name);
            names.map(|name| (name.to_owned(), count(name))).collect()
        };
        Self {
            rows: each(&|name| count(name, "count(*)")),
            letters: each(&|name| count(LETTERS, &format!("count(*) filter (pipeline = '{name}')"))),
        }
    }
}

fn array<'a>(state: &'a Value, name: &str) -> &'a Vec<Value> {
    state[name].as_array().expect("an array")
}

fn letter(row: &Value) -> Letter {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let number = |name: &str| row[name].as_i64().unwrap_or(-1);
    let value = STANDARD.decode(text("value")).expect("Base64");
    let place = (number("partition"), number("offset"));
    let value = String::from_utf8_lossy(&value).into_owned();
    (text("pipeline").to_owned(), text("topic").to_owned(), place, value)
}

fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| match path.is_dir() {
            true => count_files(&path),
            // Hadoop's local files have a checksum beside them.
            false => usize::from(path.extension().is_some_and(|extension| extension == "parquet")),
        })
        .sum()
}

/// The places and numbers in a table.
fn places(catalog: &Catalog, table: &str) -> Vec<(Place, i64)> {
    // One text for all: as an object each, an hour's rows would be half a gigabyte.
    let one = "_kafka_partition || ' ' || _kafka_offset || ' ' || coalesce(id, -1)";
    let what = format!("count(*) as rows, coalesce(string_agg({one}, ';'), '') as places");
    let answer = readers::select(catalog, table, &what).remove(0);
    let text = answer["places"].as_str().expect("text");
    let found: Vec<_> = text
        .split_terminator(';')
        .map(|place| {
            let mut numbers = place.split(' ').map(|number| number.parse::<i64>().expect("a number"));
            let mut next = || numbers.next().expect("three numbers");
            ((next(), next()), next())
        })
        .collect();
    assert_eq!(
        answer["rows"].as_u64(),
        Some(found.len() as u64),
        "`{table}`: rows without a place"
    );
    found
}

/// Tells what is missing, and what is there too often or shouldn't be.
fn compare<T: Ord + Clone + std::fmt::Debug>(what: &str, expected: Vec<T>, found: Vec<T>, told: &mut Vec<String>) {
    let mut times: BTreeMap<T, i64> = BTreeMap::new();
    let known: BTreeSet<T> = expected.iter().cloned().collect();
    for one in expected {
        *times.entry(one).or_default() -= 1;
    }
    for one in found {
        *times.entry(one).or_default() += 1;
    }
    times.retain(|_, times| *times != 0);
    let mut kinds: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (one, times) in times {
        let kind = match (times < 0, known.contains(&one)) {
            (true, _) => "missing",
            (false, true) => "there more than once",
            (false, false) => "not in the topic",
        };
        kinds.entry(kind).or_default().push(one);
    }
    for (kind, which) in kinds {
        let mut line = format!("{what}: {} {kind}:", which.len());
        for one in which.iter().take(LISTED) {
            write!(line, " {one:?}").expect("a string takes everything");
        }
        told.push(line);
    }
}
