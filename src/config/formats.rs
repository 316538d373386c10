//! Small notations inside the YAML: durations, points in time, shares, partition expressions.

use std::borrow::Cow;

use iceberg::spec::Transform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::pipeline::{EventTimeFormat, MaxRejected, PartitionField};
use super::problem::did_you_mean;
use crate::units::Millis;

/// What is wrong with a value, and what to write instead.
pub(super) type Wrong = (String, Option<String>);

/// A span with its unit, like `60s` or `1 minute`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub Millis);

/// A point in time with its zone, like `2024-01-01T00:00:00Z`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Instant(pub Millis);

/// A share of a window like `1%`, or a count of records.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub(super) struct ShareOrCount(pub MaxRejected);

/// Checks `text` against one of the notations by its name in the schema's `x-format`.
pub(super) fn check(notation: &str, text: &str) -> Result<(), Wrong> {
    match notation {
        "duration" => duration(text).map(|_| ()),
        "timestamp" => timestamp(text).map(|_| ()),
        "percent-or-count" => share_or_count(text).map(|_| ()),
        _ => Ok(()),
    }
}

/// Says how a value of the notation is written, for a bare number in its place.
pub(super) fn advice(notation: &str, written: &str) -> Option<String> {
    match notation {
        "duration" => Some(format!("add the unit, like `{written}s` or `{written}ms`")),
        "timestamp" => Some("write it like `\"2024-01-01T00:00:00Z\"`".to_owned()),
        "percent-or-count" => Some("write a share like `1%` or a whole number of records".to_owned()),
        _ => None,
    }
}

fn duration(text: &str) -> Result<Millis, Wrong> {
    if text.trim().parse::<f64>().is_ok() {
        return Err((format!("`{text}` has no unit"), advice("duration", text.trim())));
    }
    let span = humantime::parse_duration(text.trim()).map_err(|_| {
        (
            format!("`{text}` is not a duration"),
            Some("write it like `60s`, `1 minute` or `2h`".to_owned()),
        )
    })?;
    Ok(Millis::from(span))
}

fn timestamp(text: &str) -> Result<Millis, Wrong> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text.trim()).map_err(|_| {
        (
            format!("`{text}` is not a point in time with its zone"),
            advice("timestamp", text),
        )
    })?;
    Ok(Millis(parsed.timestamp_millis()))
}

fn share_or_count(text: &str) -> Result<MaxRejected, Wrong> {
    let wrong = || {
        (
            format!("`{text}` is neither a share nor a count"),
            advice("percent-or-count", text),
        )
    };
    match text.trim().strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxRejected::Share(percent / 100.0)),
            Ok(_) => Err((format!("`{text}` is not between 0% and 100%"), None)),
            Err(_) => Err(wrong()),
        },
        None => text.trim().parse().map(MaxRejected::Count).map_err(|_| wrong()),
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Span).map_err(|(message, _)| message)
    }
}

impl TryFrom<String> for Instant {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        timestamp(&text).map(Instant).map_err(|(message, _)| message)
    }
}

impl TryFrom<serde_json::Value> for ShareOrCount {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        share_or_count(&text).map(ShareOrCount).map_err(|(message, _)| message)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-format": "duration", "examples": ["60s", "1 minute"]})
    }
}

impl JsonSchema for Instant {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-format": "timestamp", "examples": ["2024-01-01T00:00:00Z"]})
    }
}

impl JsonSchema for ShareOrCount {
    fn schema_name() -> Cow<'static, str> {
        "ShareOrCount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "minimum": 0, "x-format": "percent-or-count", "examples": ["1%", 100]})
    }
}

const TRANSFORMS: [&str; 7] = ["identity", "year", "month", "day", "hour", "bucket", "truncate"];

/// Reads one entry of `materialize.partition`.
///
/// # Errors
/// What is wrong with it, if it is neither `date`, `hour`, a column, nor a transform of one.
pub(super) fn partition(text: &str) -> Result<PartitionField, Wrong> {
    let text = text.trim();
    let field = |transform, column: &str| {
        if column.is_empty() || column.split('.').any(str::is_empty) {
            return Err((
                format!("`{text}` names no column"),
                Some("write it like `day(created_at)`".to_owned()),
            ));
        }
        Ok(PartitionField::Transform {
            transform,
            column: column.to_owned(),
        })
    };
    match text {
        "date" => return Ok(PartitionField::Date),
        "hour" => return Ok(PartitionField::Hour),
        _ => {}
    }
    let Some((function, rest)) = text.split_once('(') else {
        if text.contains([')', ',', ' ']) {
            return Err((
                format!("`{text}` is not a partition expression"),
                Some("write it like `bucket(16, user_id)`".to_owned()),
            ));
        }
        return field(Transform::Identity, text);
    };
    let function = function.trim();
    let Some(inner) = rest.strip_suffix(')') else {
        return Err((format!("`{text}` has no closing parenthesis"), None));
    };
    let arguments: Vec<&str> = inner.split(',').map(str::trim).collect();
    match (function, arguments.as_slice()) {
        ("identity", [column]) => field(Transform::Identity, column),
        ("year", [column]) => field(Transform::Year, column),
        ("month", [column]) => field(Transform::Month, column),
        ("day", [column]) => field(Transform::Day, column),
        ("hour", [column]) => field(Transform::Hour, column),
        ("bucket" | "truncate", [width, column]) => {
            // Iceberg stores the width as an int: https://iceberg.apache.org/spec/#partition-transforms
            let width = width
                .parse::<i32>()
                .ok()
                .and_then(|width| u32::try_from(width).ok())
                .filter(|width| *width > 0);
            let Some(width) = width else {
                return Err((
                    format!("`{text}` needs a number above 0 first"),
                    Some(format!("write it like `{function}(16, user_id)`")),
                ));
            };
            let transform = if function == "bucket" {
                Transform::Bucket
            } else {
                Transform::Truncate
            };
            field(transform(width), column)
        }
        ("bucket" | "truncate", _) => Err((
            format!("`{function}` takes a number and a column"),
            Some(format!("write it like `{function}(16, user_id)`")),
        )),
        (known, _) if TRANSFORMS.contains(&known) => Err((
            format!("`{known}` takes one column"),
            Some(format!("write it like `{known}(created_at)`")),
        )),
        _ => {
            let hint =
                did_you_mean(function, TRANSFORMS).or_else(|| Some(format!("known are {}", TRANSFORMS.join(", "))));
            Err((format!("`{function}` is not a partition transform"), hint))
        }
    }
}

const TIME_FORMATS: [&str; 5] = [
    "epoch_seconds",
    "epoch_millis",
    "epoch_micros",
    "epoch_nanos",
    "ISO8601",
];

/// Reads `eventTimeFormat`: one of the names, or a strftime pattern.
///
/// # Errors
/// What is wrong with it, if it is neither.
pub(super) fn event_time(text: &str) -> Result<EventTimeFormat, Wrong> {
    match text {
        "epoch_seconds" => return Ok(EventTimeFormat::EpochSeconds),
        "epoch_millis" => return Ok(EventTimeFormat::EpochMillis),
        "epoch_micros" => return Ok(EventTimeFormat::EpochMicros),
        "epoch_nanos" => return Ok(EventTimeFormat::EpochNanos),
        "ISO8601" => return Ok(EventTimeFormat::Iso8601),
        _ => {}
    }
    if !text.contains('%') {
        let hint = did_you_mean(text, TIME_FORMATS).or_else(|| {
            Some(format!(
                "write one of {}, or a strftime pattern like `%Y-%m-%d %H:%M:%S`",
                TIME_FORMATS.join(", ")
            ))
        });
        return Err((format!("`{text}` is not a time format"), hint));
    }
    let known = chrono::format::StrftimeItems::new(text).all(|item| !matches!(item, chrono::format::Item::Error));
    if known {
        Ok(EventTimeFormat::Strftime(text.to_owned()))
    } else {
        Err((
            format!("`{text}` has a `%` letter that strftime doesn't know"),
            Some("write it like `%Y-%m-%d %H:%M:%S`".to_owned()),
        ))
    }
}

impl std::str::FromStr for PartitionField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        partition(text).map_err(|(message, _)| message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_partition(text: &str, expect: Result<PartitionField, &str>) {
        let found = partition(text).map_err(|(message, hint)| format!("{message}; {}", hint.unwrap_or_default()));
        assert_eq!(found, expect.map_err(str::to_owned), "{text}");
    }

    fn of(transform: Transform, column: &str) -> Result<PartitionField, &'static str> {
        Ok(PartitionField::Transform {
            transform,
            column: column.to_owned(),
        })
    }

    #[test]
    fn partition_expressions_are_read() {
        check_partition("date", Ok(PartitionField::Date));
        check_partition("hour", Ok(PartitionField::Hour));
        check_partition("country", of(Transform::Identity, "country"));
        check_partition("identity(date)", of(Transform::Identity, "date"));
        check_partition("bucket(16, user_id)", of(Transform::Bucket(16), "user_id"));
        check_partition("truncate(4,country)", of(Transform::Truncate(4), "country"));
        check_partition("day(ts)", of(Transform::Day, "ts"));
        check_partition("year( a.b )", of(Transform::Year, "a.b"));
        check_partition(
            "buckt(16, a)",
            Err("`buckt` is not a partition transform; did you mean `bucket`?"),
        );
        check_partition(
            "void(a)",
            Err("`void` is not a partition transform; known are identity, year, month, day, hour, bucket, truncate"),
        );
        check_partition(
            "bucket(a, 16)",
            Err("`bucket(a, 16)` needs a number above 0 first; write it like `bucket(16, user_id)`"),
        );
        check_partition(
            "bucket(0, a)",
            Err("`bucket(0, a)` needs a number above 0 first; write it like `bucket(16, user_id)`"),
        );
        check_partition(
            "bucket(a)",
            Err("`bucket` takes a number and a column; write it like `bucket(16, user_id)`"),
        );
        check_partition(
            "day(a, b)",
            Err("`day` takes one column; write it like `day(created_at)`"),
        );
        check_partition("day()", Err("`day()` names no column; write it like `day(created_at)`"));
        check_partition("day(a", Err("`day(a` has no closing parenthesis; "));
        check_partition(
            "a b",
            Err("`a b` is not a partition expression; write it like `bucket(16, user_id)`"),
        );
        check_partition("", Err("`` names no column; write it like `day(created_at)`"));
    }

    fn check_notation(notation: &str, text: &str, expect: Result<(), &str>) {
        let found = check(notation, text).map_err(|(message, _)| message);
        assert_eq!(found, expect.map_err(str::to_owned), "{notation} {text}");
    }

    #[test]
    fn notations_are_checked() {
        check_notation("duration", "1 minute", Ok(()));
        check_notation("duration", "60", Err("`60` has no unit"));
        check_notation("duration", "soon", Err("`soon` is not a duration"));
        check_notation("timestamp", "2024-01-01T00:00:00Z", Ok(()));
        check_notation(
            "timestamp",
            "2024-01-01T00:00:00",
            Err("`2024-01-01T00:00:00` is not a point in time with its zone"),
        );
        check_notation("percent-or-count", "1%", Ok(()));
        check_notation("percent-or-count", "100%", Ok(()));
        check_notation("percent-or-count", "101%", Err("`101%` is not between 0% and 100%"));
        check_notation("percent-or-count", "20", Ok(()));
        check_notation("percent-or-count", "few", Err("`few` is neither a share nor a count"));
        assert_eq!(duration("1 minute"), Ok(Millis(60_000)));
        assert_eq!(share_or_count("1%"), Ok(MaxRejected::Share(0.01)));
    }

    #[test]
    fn time_formats_are_read() {
        assert_eq!(event_time("ISO8601"), Ok(EventTimeFormat::Iso8601));
        assert_eq!(event_time("%Y"), Ok(EventTimeFormat::Strftime("%Y".to_owned())));
        assert_eq!(
            event_time("epoch_milis").map_err(|e| e.1),
            Err(Some("did you mean `epoch_millis`?".to_owned()))
        );
        assert!(event_time("%Q9").is_err());
    }
}
