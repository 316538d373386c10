//! The end: does the table hold what the topic does?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::readers::{self, Catalog};
use crate::servers::Kafka;
use crate::{LETTERS, TABLE, TOPIC, produce};

/// Differences that are listed of each kind.
const LISTED: usize = 10;

/// Where a record is: its Kafka partition and offset.
type Place = (i64, i64);

/// What the broker serves: the number of each event by its place, and the places of what is no event.
pub struct Truth {
    pub good: BTreeMap<Place, i64>,
    pub bad: BTreeSet<Place>,
    ends: BTreeMap<i32, i64>,
}

impl Truth {
    /// Reads the topic, which nobody writes to any more, as a reader of committed records.
    pub fn read(kafka: &Kafka) -> Self {
        let (mut good, mut bad) = (BTreeMap::new(), BTreeSet::new());
        for record in produce::read_all(kafka, TOPIC, "read_committed") {
            let place = (i64::from(record.partition), record.offset);
            let value: Option<Value> = record.value.and_then(|value| serde_json::from_slice(&value).ok());
            match value.and_then(|value| value["id"].as_i64()) {
                Some(number) => drop(good.insert(place, number)),
                None => drop(bad.insert(place)),
            }
        }
        let ends = produce::ends(kafka, TOPIC);
        Self { good, bad, ends }
    }
}

/// Compares what DuckDB and PyIceberg read with the topic; returns all that differs, in words.
pub fn differences(truth: &Truth, catalog: &Catalog, sync_points: &Path) -> Vec<String> {
    let mut told = Vec::new();

    let rows = places(catalog, TABLE, "_kafka_partition", "_kafka_offset", "id");
    let good = truth.good.iter().map(|(place, number)| (*place, *number));
    compare(
        "DuckDB, rows as (partition, offset), number",
        good.collect(),
        rows,
        &mut told,
    );
    let letters = places(catalog, LETTERS, "partition", "\"offset\"", "0");
    let bad = truth.bad.iter().map(|place| (*place, 0));
    compare("DuckDB, dead letters", bad.collect(), letters, &mut told);

    let asked = (catalog.clone(), TABLE.to_owned(), PathBuf::from(sync_points));
    let state = readers::read_states(&[asked]).remove(0);
    let of = |name: &str| state[name].as_array().expect("an array").clone();
    let ids = of("ids").iter().map(|id| id.as_i64().unwrap_or(-1)).collect();
    compare(
        "PyIceberg, numbers",
        truth.good.values().copied().collect(),
        ids,
        &mut told,
    );
    let letters = of("letters")
        .iter()
        .map(|at| at.as_str().expect("text").to_owned())
        .collect();
    let bad = truth
        .bad
        .iter()
        .map(|(partition, offset)| format!("{partition}/{offset}"));
    compare("PyIceberg, dead letters", bad.collect(), letters, &mut told);

    let ends: serde_json::Map<_, _> = truth
        .ends
        .iter()
        .map(|(at, end)| (at.to_string(), Value::from(*end)))
        .collect();
    if state["ledger"] != Value::Object(ends.clone()) {
        told.push(format!("the ledger is {}, the topic ends at {ends:?}", state["ledger"]));
    }
    if state["ledger"] != state["sync_points"] {
        told.push(format!(
            "sync points are {}, the ledger {}",
            state["sync_points"], state["ledger"]
        ));
    }
    told
}

/// The places and numbers in a table.
fn places(catalog: &Catalog, table: &str, partition: &str, offset: &str, number: &str) -> Vec<(Place, i64)> {
    // One text for all: as an object each, an hour's rows would be half a gigabyte.
    let one = format!("{partition} || ' ' || {offset} || ' ' || coalesce({number}, -1)");
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
