//! Event time: when what a record tells of happened, read from a column or from the record itself.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{NaiveTime, Utc};

use crate::config::EventTimeFormat;
use crate::decode::field::FieldValue;

/// The time zone that Iceberg's Arrow batches carry; `"UTC"` would be another type to the `iceberg` crate.
pub const UTC: &str = "+00:00";

/// 0001-01-01T00:00:00Z, the first time that Spark, Trino and Python's `datetime` all read.
const EARLIEST_US: i64 = -62_135_596_800_000_000;

/// 10000-01-01T00:00:00Z, the first time after the ones that they all read.
const END_US: i64 = 253_402_300_800_000_000;

/// The longest part of a value that a reject's reason quotes, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// The event times of consecutive rows.
#[derive(Debug)]
pub struct EventTimes {
    /// `(n,)`, microseconds UTC; null exactly where `failures` has the row.
    pub times: TimestampMicrosecondArray,
    /// The rows whose event time can't be read, ascending, and why.
    pub failures: Vec<(u32, String)>,
}

impl EventTimes {
    /// Reads the event time of every row.
    ///
    /// - `column`: `(n,)` of int, long, float, double, decimal, string, timestamp or date; `None` takes the record's own
    ///   timestamp.
    /// - `timestamps_ms`: `(n,)`, the records' timestamps.
    ///
    /// A null, text that doesn't read, and a time outside the years 1 to 9999 are failures: other engines can't read
    /// such a time, and the hours since 1970 would leave an int.
    pub fn compute(format: &EventTimeFormat, column: Option<&ArrayRef>, timestamps_ms: &Int64Array) -> EventTimes {
        let Some(column) = column else {
            return Self::read(timestamps_ms.len(), |row| {
                if timestamps_ms.is_null(row) {
                    return Err("the record has no timestamp".to_owned());
                }
                in_range(i128::from(timestamps_ms.value(row)) * 1000, &timestamps_ms.value(row))
            });
        };
        match column.data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Self::of_times(column),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Self::of_integers(format, column),
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => Self::of_floats(format, column),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::of_text(format, column),
            other => {
                let reason = format!("a column of type {other} holds no time");
                Self::read(column.len(), |_| Err(reason.clone()))
            }
        }
    }

    /// Reads the event time of every row from a field of its record.
    ///
    /// - `field`: the field's value for a row, `None` where it is null or missing.
    ///
    /// Failures are those of [`EventTimes::compute`].
    pub(crate) fn of_fields<'a>(
        format: &EventTimeFormat,
        rows: usize,
        field: impl Fn(usize) -> Option<FieldValue<'a>>,
    ) -> EventTimes {
        let text = TextReader::new(format);
        Self::read(rows, |row| match (field(row), format) {
            (None, _) => Err(missing()),
            (Some(FieldValue::Text(bytes)), _) => text.read(&String::from_utf8_lossy(&bytes)),
            (Some(FieldValue::Other), _) => Err("it is neither text nor a number".to_owned()),
            (Some(FieldValue::Number(number)), EventTimeFormat::Iso8601) => {
                Err(format!("{number} is a number, not the text that ISO8601 asks for"))
            }
            (Some(FieldValue::Number(number)), EventTimeFormat::Strftime(_)) => text.read(number),
            (Some(FieldValue::Number(number)), _) => match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(value), _) => in_range(micros_of_integer(format, value), &value),
                (_, Ok(value)) => micros_of_float(format, value),
                _ => Err(format!("{number} is no time")),
            },
        })
    }

    fn of_times(column: &ArrayRef) -> EventTimes {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let column_us = cast(column, &micros).expect("arrow casts every time stamp and date to microseconds");
        let times = column_us.as_primitive::<TimestampMicrosecondType>();
        Self::read(column.len(), |row| {
            if column.is_null(row) {
                return Err(missing());
            }
            if times.is_null(row) {
                return Err("the time lies outside the years 1 to 9999".to_owned());
            }
            in_range(i128::from(times.value(row)), &times.value(row))
        })
    }

    fn of_integers(format: &EventTimeFormat, column: &ArrayRef) -> EventTimes {
        let column = cast(column, &DataType::Int64).expect("arrow casts every integer to 64 bits");
        let values = column.as_primitive::<Int64Type>();
        let text = TextReader::new(format);
        Self::read(values.len(), |row| {
            if values.is_null(row) {
                return Err(missing());
            }
            match format {
                EventTimeFormat::Iso8601 => Err(format!(
                    "{} is a number, not the text that ISO8601 asks for",
                    values.value(row)
                )),
                // `%Y%m%d` is often stored as the number 20240115.
                EventTimeFormat::Strftime(_) => text.read(&values.value(row).to_string()),
                _ => in_range(micros_of_integer(format, values.value(row)), &values.value(row)),
            }
        })
    }

    fn of_floats(format: &EventTimeFormat, column: &ArrayRef) -> EventTimes {
        let column = cast(column, &DataType::Float64).expect("arrow casts every number to a double");
        let values = column.as_primitive::<Float64Type>();
        Self::read(values.len(), |row| match format {
            _ if values.is_null(row) => Err(missing()),
            EventTimeFormat::Iso8601 | EventTimeFormat::Strftime(_) => Err(format!(
                "{} is a number, where the format asks for text",
                values.value(row)
            )),
            _ => micros_of_float(format, values.value(row)),
        })
    }

    fn of_text(format: &EventTimeFormat, column: &ArrayRef) -> EventTimes {
        let column = cast(column, &DataType::Utf8).expect("arrow casts every kind of text");
        let values = column.as_string::<i32>();
        let text = TextReader::new(format);
        Self::read(values.len(), |row| match values.is_null(row) {
            true => Err(missing()),
            false => text.read(values.value(row)),
        })
    }

    fn read(rows: usize, mut time_us: impl FnMut(usize) -> Result<i64, String>) -> EventTimes {
        let mut failures = Vec::new();
        let times: TimestampMicrosecondArray = (0..rows)
            .map(|row| {
                time_us(row)
                    .map_err(|reason| failures.push((u32::try_from(row).expect("a chunk's rows fit 32 bits"), reason)))
                    .ok()
            })
            .collect();
        EventTimes {
            times: times.with_timezone(Arc::<str>::from(UTC)),
            failures,
        }
    }
}

/// Says whether a time in microseconds lies in the years 1 to 9999.
pub(super) fn readable_everywhere(time_us: i64) -> bool {
    (EARLIEST_US..END_US).contains(&time_us)
}

fn missing() -> String {
    "it is null or missing".to_owned()
}

fn in_range(time_us: i128, value: &dyn std::fmt::Display) -> Result<i64, String> {
    i64::try_from(time_us)
        .ok()
        .filter(|time_us| readable_everywhere(*time_us))
        .ok_or_else(|| format!("{value} lies outside the years 1 to 9999: is `eventTimeFormat` right?"))
}

fn micros_of_integer(format: &EventTimeFormat, value: i64) -> i128 {
    let value = i128::from(value);
    match format {
        EventTimeFormat::EpochSeconds => value * 1_000_000,
        EventTimeFormat::EpochMicros => value,
        EventTimeFormat::EpochNanos => value.div_euclid(1000),
        _ => value * 1000,
    }
}

fn micros_of_float(format: &EventTimeFormat, value: f64) -> Result<i64, String> {
    let micros = match format {
        EventTimeFormat::EpochSeconds => value * 1e6,
        EventTimeFormat::EpochMicros => value,
        EventTimeFormat::EpochNanos => value / 1e3,
        _ => value * 1e3,
    };
    if !micros.is_finite() {
        return Err(format!("{value} is no time"));
    }
    // Rounded to the nearest: 1700000000.123456 seconds has no exact double, and a floor would show …455.
    in_range(micros.round() as i128, &value)
}

/// Reads times from text; a strftime pattern is taken apart once, not once per row.
struct TextReader<'a> {
    format: &'a EventTimeFormat,
    items: Vec<Item<'a>>,
}

impl<'a> TextReader<'a> {
    fn new(format: &'a EventTimeFormat) -> Self {
        let items = match format {
            EventTimeFormat::Strftime(pattern) => StrftimeItems::new(pattern).collect(),
            _ => Vec::new(),
        };
        TextReader { format, items }
    }

    fn read(&self, text: &str) -> Result<i64, String> {
        let trimmed = text.trim();
        match self.format {
            EventTimeFormat::Default | EventTimeFormat::Iso8601 => string_to_datetime(&Utc, trimmed)
                .map_err(|_| format!("`{}` doesn't read as ISO 8601", quoted(text)))
                .and_then(|time| in_range(i128::from(time.timestamp_micros()), &trimmed)),
            EventTimeFormat::Strftime(pattern) => self
                .read_pattern(trimmed)
                .ok_or_else(|| format!("`{}` doesn't read as `{pattern}`", quoted(text)))
                .and_then(|time_us| in_range(i128::from(time_us), &trimmed)),
            _ => match (trimmed.parse::<i64>(), trimmed.parse::<f64>()) {
                (Ok(value), _) => in_range(micros_of_integer(self.format, value), &value),
                (_, Ok(value)) => micros_of_float(self.format, value),
                _ => Err(format!("`{}` is not a number", quoted(text))),
            },
        }
    }

    fn read_pattern(&self, text: &str) -> Option<i64> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, self.items.iter()).ok()?;
        if let Ok(time) = parsed.to_datetime() {
            return Some(time.timestamp_micros());
        }
        let time = match parsed.to_naive_datetime_with_offset(0) {
            Ok(time) => time,
            Err(_) => {
                let has_time = parsed.hour_div_12().is_some() || parsed.hour_mod_12().is_some();
                let time = if has_time {
                    parsed.to_naive_time().ok()?
                } else {
                    NaiveTime::MIN
                };
                parsed.to_naive_date().ok()?.and_time(time)
            }
        };
        Some(time.and_utc().timestamp_micros())
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
