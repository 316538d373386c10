//! Which field holds the event time: by its type, its name, its values, and how near these are to the records' own times.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use iceberg::spec::PrimitiveType;

use super::REMARKS_MAX;
use super::columns::Column;
use crate::config::EventTimeFormat;
use crate::place::EventTimes;

/// The years that a number is believed to mean, 2000 to 2100, in seconds since 1970; the ranges of seconds, milliseconds and
/// so on don't meet.
const PLAUSIBLE_S: (f64, f64) = (946_684_800.0, 4_102_444_800.0);

/// Patterns that text is tried with which isn't ISO 8601; each can be read in one way only.
const PATTERNS: [&str; 3] = ["%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S", "%a, %d %b %Y %H:%M:%S %z"];

const MINUTE_US: u64 = 60_000_000;
const DAY_US: u64 = 1440 * MINUTE_US;

/// The field, and fields that nearly were it.
#[derive(Debug, Default)]
pub(super) struct EventTimeGuess {
    pub best: Option<Best>,
    pub remarks: Vec<String>,
}

/// The field that most likely holds the event time.
#[derive(Debug)]
pub(super) struct Best {
    /// `eventTimeField`.
    pub path: String,
    /// `eventTimeFormat`, where it isn't the default.
    pub format: Option<&'static str>,
    /// Why it is this one.
    pub reason: String,
    /// Its times, microseconds since 1970.
    pub times_us: Vec<i64>,
}

/// A field that reads as times.
struct Candidate {
    best: Best,
    score: i64,
    /// Rows without a time that can be read.
    unreadable: usize,
    rows: usize,
}

pub(super) fn guess(columns: &[Column], timestamps_ms: &[Option<i64>]) -> EventTimeGuess {
    let mut guess = EventTimeGuess::default();
    let mut best: Option<Candidate> = None;
    for candidate in columns.iter().filter_map(|column| candidate(column, timestamps_ms)) {
        if candidate.unreadable > 0 {
            // Its record would be a dead letter.
            if guess.remarks.len() < REMARKS_MAX {
                guess.remarks.push(format!(
                    "`{}` is no `eventTimeField`: it has no time in {} of {} samples",
                    candidate.best.path, candidate.unreadable, candidate.rows
                ));
            }
        } else if best.as_ref().is_none_or(|best| candidate.score > best.score) {
            best = Some(candidate);
        }
    }
    guess.best = best.map(|candidate| candidate.best);
    guess
}

fn candidate(column: &Column, timestamps_ms: &[Option<i64>]) -> Option<Candidate> {
    // The configuration takes a path apart at its dots, and fills in what begins with `${`.
    let sayable = |name: &String| !name.is_empty() && !name.contains('.') && !name.contains("${");
    if !column.path.iter().all(sayable) {
        return None;
    }
    let rank = rank(column.path.last()?)?;
    let (form, what) = form(column, rank)?;
    let rows = column.values.len();
    let read = EventTimes::compute(&form.format, Some(&column.values), &Int64Array::new_null(rows));
    let times_us: Vec<i64> = read.times.iter().flatten().collect();
    if rows > 0 && times_us.len() * 2 < rows {
        return None;
    }
    let distance_us = distance_us(&read.times, timestamps_ms);
    let near = match distance_us {
        None => 0,
        Some(distance) if distance <= DAY_US => 10,
        Some(distance) if distance <= 31 * DAY_US => 5,
        Some(distance) if distance <= 366 * DAY_US => 2,
        Some(_) => -5,
    };
    // A time without a name that says so must be that of the record, near enough.
    if rank == 0 && near < 5 {
        return None;
    }
    let depth = column.path.len() as i64 - 1;
    let how_near = match distance_us {
        Some(distance) if distance <= MINUTE_US => ", within a minute of the records' own times",
        Some(distance) if distance <= DAY_US => ", within a day of the records' own times",
        _ => "",
    };
    let reason = match rows {
        0 => format!("{what}, by the schema"),
        _ => format!("{what} in all samples{how_near}"),
    };
    Some(Candidate {
        score: 10 * rank + form.bonus + near - 5 * depth,
        unreadable: rows - times_us.len(),
        rows,
        best: Best {
            path: column.path.join("."),
            format: form.written,
            reason,
            times_us,
        },
    })
}

/// How times are written in a column.
struct Form {
    format: EventTimeFormat,
    /// What the file has to say of it.
    written: Option<&'static str>,
    /// How much the form alone says that these are times.
    bonus: i64,
}

fn form(column: &Column, rank: i64) -> Option<(Form, &'static str)> {
    let values = &column.values;
    let form = |format, written, bonus| Form { format, written, bonus };
    match column.of {
        PrimitiveType::Timestamptz | PrimitiveType::TimestamptzNs => {
            Some((form(EventTimeFormat::Default, None, 25), "a timestamp"))
        }
        PrimitiveType::Timestamp | PrimitiveType::TimestampNs => {
            Some((form(EventTimeFormat::Default, None, 15), "a timestamp without a zone"))
        }
        // A number says that it is a time by its name only.
        PrimitiveType::Int | PrimitiveType::Long | PrimitiveType::Float | PrimitiveType::Double if rank > 0 => {
            let (format, written, what) = epoch(&cast(values, &DataType::Float64).ok()?)?;
            Some((form(format, written, 0), what))
        }
        PrimitiveType::String => text_form(values, rank),
        _ => None,
    }
}

fn text_form(values: &ArrayRef, rank: i64) -> Option<(Form, &'static str)> {
    let texts = values.as_string_opt::<i32>()?;
    let dated = texts
        .iter()
        .flatten()
        .all(|text| text.trim().len() <= "2024-01-15".len());
    let readable = |format: &EventTimeFormat| {
        let read = EventTimes::compute(format, Some(values), &Int64Array::new_null(values.len()));
        let times: Vec<i64> = read.times.iter().flatten().collect();
        let plausible = |time: &i64| (PLAUSIBLE_S.0..PLAUSIBLE_S.1).contains(&(*time as f64 / 1e6));
        !times.is_empty() && times.iter().all(plausible) && 2 * times.len() >= values.len()
    };
    let form = |format, written, bonus| Form { format, written, bonus };
    if readable(&EventTimeFormat::Iso8601) {
        // A day is no time of an event, and often a day of birth.
        return match dated {
            true => (rank > 0).then_some((form(EventTimeFormat::Iso8601, None, -10), "an ISO 8601 date")),
            false => Some((form(EventTimeFormat::Iso8601, None, 15), "ISO 8601 text")),
        };
    }
    if rank == 0 {
        return None;
    }
    let numbers: arrow::array::Float64Array = texts
        .iter()
        .map(|text| text.and_then(|text| text.trim().parse::<f64>().ok()))
        .collect();
    if numbers.null_count() == texts.null_count() {
        let numbers: ArrayRef = std::sync::Arc::new(numbers);
        if let Some((format, written, what)) = epoch(&numbers) {
            // The default for text is ISO 8601.
            return Some((form(format, written.or(Some("epoch_millis")), 0), what));
        }
    }
    let pattern = |pattern: &&&'static str| readable(&EventTimeFormat::Strftime((**pattern).to_owned()));
    let pattern = *PATTERNS.iter().find(pattern)?;
    Some((
        form(EventTimeFormat::Strftime(pattern.to_owned()), Some(pattern), 5),
        "a time as text",
    ))
}

/// Finds the unit in which all numbers are times of this century.
fn epoch(numbers: &ArrayRef) -> Option<(EventTimeFormat, Option<&'static str>, &'static str)> {
    let numbers = numbers.as_primitive::<Float64Type>();
    if numbers.null_count() == numbers.len() {
        return None;
    }
    let all_in = |unit: f64| {
        let (from, to) = (PLAUSIBLE_S.0 * unit, PLAUSIBLE_S.1 * unit);
        numbers.iter().flatten().all(|number| (from..to).contains(&number))
    };
    if all_in(1.0) {
        return Some((
            EventTimeFormat::EpochSeconds,
            Some("epoch_seconds"),
            "seconds since 1970",
        ));
    }
    if all_in(1e3) {
        return Some((EventTimeFormat::EpochMillis, None, "milliseconds since 1970"));
    }
    if all_in(1e6) {
        return Some((
            EventTimeFormat::EpochMicros,
            Some("epoch_micros"),
            "microseconds since 1970",
        ));
    }
    let nanos = (
        EventTimeFormat::EpochNanos,
        Some("epoch_nanos"),
        "nanoseconds since 1970",
    );
    all_in(1e9).then_some(nanos)
}

/// The median distance between times and those of their records; `None` where no record has one.
fn distance_us(times: &arrow::array::TimestampMicrosecondArray, timestamps_ms: &[Option<i64>]) -> Option<u64> {
    let pairs = times.iter().zip(timestamps_ms);
    let distance = |(time, own): (Option<i64>, &Option<i64>)| Some(time?.abs_diff((*own)?.checked_mul(1000)?));
    let mut distances: Vec<u64> = pairs.filter_map(distance).collect();
    distances.sort_unstable();
    distances.get(distances.len() / 2).copied()
}

/// How much a name says that its values are event times: 0 nothing, 5 all of it; `None`: it says that they are others.
fn rank(name: &str) -> Option<i64> {
    let words = words(name);
    let plain = words.concat();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let not_the_event = [
        "expires",
        "expire",
        "expiry",
        "expiration",
        "until",
        "due",
        "birth",
        "birthday",
        "birthdate",
        "dob",
        "deadline",
        "deleted",
        "end",
        "ends",
        "ended",
        "next",
        "scheduled",
        "duration",
        "elapsed",
        "timeout",
        "ttl",
        "version",
        "zone",
        "timezone",
        "delivery",
    ];
    if has(&not_the_event) {
        return None;
    }
    let exact = [
        "eventtime",
        "eventtimestamp",
        "eventts",
        "eventat",
        "eventdate",
        "timestamp",
        "ts",
        "tsms",
        "tsus",
        "tsns",
        "time",
        "occurredat",
        "occurred",
        "occurredon",
        "happenedat",
        "timestampms",
        "timems",
        "committsutc",
        "datetime",
        "at",
    ];
    let made = [
        "created",
        "creation",
        "recorded",
        "logged",
        "emitted",
        "sent",
        "published",
        "produced",
        "received",
        "ingested",
        "placed",
        "ordered",
        "observed",
        "measured",
        "captured",
    ];
    let time_words = [
        "time",
        "timestamp",
        "ts",
        "at",
        "on",
        "date",
        "datetime",
        "utc",
        "ms",
        "millis",
        "micros",
    ];
    Some(if exact.contains(&plain.as_str()) {
        5
    } else if has(&made) && (words.len() == 1 || has(&time_words)) {
        4
    } else if has(&["updated", "modified", "changed"]) {
        2
    } else if has(&time_words[..4]) || has(&["date", "datetime"]) || plain.ends_with("timestamp") {
        3
    } else {
        0
    })
}

/// The words of a name in lower case: `createdAt`, `created_at` and `CREATED-AT` are two.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let starts = c.is_uppercase() && !before.is_uppercase();
        if starts || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            let last = words.last_mut().expect("there is one");
            last.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whether_they_are_times_of_the_event() {
        for (name, expect) in [
            ("ts", Some(5)),
            ("eventTime", Some(5)),
            ("@timestamp", Some(5)),
            ("EVENT_TS", Some(5)),
            ("created_at", Some(4)),
            ("createdAt", Some(4)),
            ("created", Some(4)),
            ("login_time", Some(3)),
            ("updated_at", Some(2)),
            ("amount", Some(0)),
            ("status", Some(0)),
            ("created_by", Some(0)),
            ("expires_at", None),
            ("date_of_birth", None),
        ] {
            assert_eq!(rank(name), expect, "{name}");
        }
    }
}
