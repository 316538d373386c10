//! Messages into one column: structs, those that stand for something, and text.

use super::super::avro::{decimal_text, unscaled};
use super::super::column::Column;
use super::super::framed::{Bad, BadRecord};
use super::fill::{Fill, misfit};
use super::group::{Group, mismatch};
use super::reader::{BYTES, Reader, VARINT};
use super::text;
use crate::schema::protobuf::Kind;

/// Nanoseconds of a second.
pub(super) const SECOND_NS: i128 = 1_000_000_000;

/// Seconds of a day: times are below.
const DAY_S: i64 = 86_400;

/// The most digits that a decimal's scale puts behind its point, or in front of it.
const SCALE_MAX: i32 = 1000;

/// How a message is read into a column.
#[derive(Debug)]
pub(super) enum MessageFill {
    /// Its fields are the struct's.
    Struct(Group),
    /// Its JSON: the message at this index of the schema.
    Text(usize),
    /// A moment, in nanoseconds or microseconds.
    Timestamp { nanos: bool },
    /// Seconds: nanoseconds times this, divided by that without a rest.
    Duration { times: i128, by: i128 },
    /// Seconds, as near as they come.
    DurationToDouble,
    /// The value of its field 1.
    Wrapper { value: Fill, kind: Kind, wire: u8 },
    /// A day; none where all of its fields are zero.
    Date,
    /// A time of the day.
    TimeOfDay,
    /// A number, at the scale of the column.
    UnscaledDecimal(u32),
}

impl MessageFill {
    /// Reads the message that the reader is inside of.
    pub fn run(&self, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        match self {
            MessageFill::Struct(group) => {
                let row = column.len();
                group.run(reader, column.fields(), row)?;
                column.push_struct();
            }
            MessageFill::Text(index) => column.push_text(|out| text::write_message(reader, *index, out))?,
            MessageFill::Timestamp { nanos } => {
                let [seconds, fraction] = numbers(reader)?;
                // In 64 bits, but at the ends of what they hold, where the fraction decides.
                let fraction = i64::from(fraction as i32);
                let value = match nanos {
                    true => seconds
                        .checked_mul(SECOND_NS as i64)
                        .and_then(|whole| whole.checked_add(fraction)),
                    false => {
                        let micros = seconds.checked_mul(SECOND_NS as i64 / 1000);
                        micros.and_then(|whole| whole.checked_add(fraction.div_euclid(1000)))
                    }
                };
                let value = value.or_else(|| {
                    let whole = nanoseconds(seconds, fraction);
                    let value = if *nanos { whole } else { whole.div_euclid(1000) };
                    i64::try_from(value).ok()
                });
                match value {
                    Some(value) => column.push_long(value),
                    None => return Err(misfit(reader, column, &format_args!("{seconds} s since 1970"))),
                }
            }
            MessageFill::Duration { times, by } => {
                let [seconds, fraction] = numbers(reader)?;
                let scaled = nanoseconds(seconds, fraction).checked_mul(*times);
                let value = scaled.filter(|value| value % by == 0).map(|value| value / by);
                if !value.is_some_and(|value| column.push_decimal(value)) {
                    return Err(misfit(reader, column, &format_args!("{seconds} s and {fraction} ns")));
                }
            }
            MessageFill::DurationToDouble => {
                let [seconds, fraction] = numbers(reader)?;
                column.push_double(seconds as f64 + f64::from(fraction as i32) / SECOND_NS as f64);
            }
            MessageFill::Wrapper { value, kind, wire } => return wrapped(reader, value, *kind, *wire, column),
            MessageFill::Date => {
                let [year, month, day] = numbers(reader)?.map(|value| value as i32);
                if (year, month, day) == (0, 0, 0) {
                    return column.push_missing().map_err(BadRecord::value);
                }
                match days(year, month, day) {
                    Some(days) => column.push_int(days),
                    None => {
                        let written = format!("of year {year}, month {month}, day {day}");
                        return Err(misfit(reader, column, &written));
                    }
                }
            }
            MessageFill::TimeOfDay => {
                let [hours, minutes, seconds, nanos] = numbers(reader)?.map(|value| i64::from(value as i32));
                let whole = hours * 3600 + minutes * 60 + seconds;
                let fits = (0..DAY_S).contains(&whole) && (0..SECOND_NS as i64).contains(&nanos);
                if !fits || [hours, minutes, seconds].iter().any(|part| *part < 0) {
                    let written = format!("{hours}:{minutes}:{seconds} and {nanos} ns");
                    return Err(misfit(reader, column, &written));
                }
                column.push_long(whole * 1_000_000 + nanos / 1000);
            }
            MessageFill::UnscaledDecimal(scale) => {
                let (bytes, held) = unscaled_decimal(reader)?;
                let shift = i64::from(*scale) - i64::from(held);
                let power = u32::try_from(shift.unsigned_abs())
                    .ok()
                    .and_then(|shift| 10i128.checked_pow(shift));
                let value = unscaled(bytes).and_then(|value| match (value, power) {
                    (0, _) => Some(0),
                    (value, power) if shift >= 0 => value.checked_mul(power?),
                    (value, power) => power.filter(|power| value % power == 0).map(|power| value / power),
                });
                if !value.is_some_and(|value| column.push_decimal(value)) {
                    let mut digits = Vec::new();
                    let written = match decimal_text(bytes, 0, &mut digits) {
                        true => format!("{} of scale {held}", String::from_utf8_lossy(&digits)),
                        false => format!("of {} bytes", bytes.len()),
                    };
                    return Err(misfit(reader, column, &written));
                }
            }
        }
        Ok(())
    }
}

/// The last value of field 1, or its zero.
fn wrapped(reader: &mut Reader<'_>, fill: &Fill, kind: Kind, wanted: u8, column: &mut Column) -> Result<(), Bad> {
    let mut found = None;
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        if number == 1 {
            if wire != wanted {
                let of = reader.schema.kind_name(kind).to_owned();
                return Err(mismatch(reader, of, wanted, wire));
            }
            found = Some(reader.at);
        }
        reader.skip(number, wire)?;
    }
    match found {
        Some(at) => {
            reader.at = at;
            fill.run(reader, column)
        }
        None => fill.push_zero(reader.schema, column),
    }
}

/// The varints of the fields 1, 2 and so on; the last of each counts.
pub(super) fn numbers<const COUNT: usize>(reader: &mut Reader<'_>) -> Result<[i64; COUNT], Bad> {
    let mut found = [0; COUNT];
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        match found.get_mut((number - 1) as usize) {
            Some(value) if wire == VARINT => *value = reader.varint()? as i64,
            Some(_) => return Err(mismatch(reader, format!("field {number}"), VARINT, wire)),
            None => reader.skip(number, wire)?,
        }
    }
    Ok(found)
}

/// Seconds, and nanoseconds of which 32 bits count.
pub(super) fn nanoseconds(seconds: i64, fraction: i64) -> i128 {
    i128::from(seconds) * SECOND_NS + i128::from(fraction as i32)
}

/// The unscaled value of a `confluent.type.Decimal`, and its scale.
pub(super) fn unscaled_decimal<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], i32), Bad> {
    let mut bytes: &[u8] = &[];
    let mut scale = 0;
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        match (number, wire) {
            (1, BYTES) => bytes = reader.bytes()?,
            (3, VARINT) => scale = reader.varint()? as i32,
            (1, _) => return Err(mismatch(reader, "bytes".to_owned(), BYTES, wire)),
            (3, _) => return Err(mismatch(reader, "int32".to_owned(), VARINT, wire)),
            _ => reader.skip(number, wire)?,
        }
    }
    if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
        return Err(reader.bad(format!(
            "a decimal has the scale {scale}, -{SCALE_MAX} to {SCALE_MAX} are possible"
        )));
    }
    Ok((bytes, scale))
}

/// Days since 1970-01-01 of a day that there is.
fn days(year: i32, month: i32, day: i32) -> Option<i32> {
    let date = chrono::NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)?;
    // The year 0 says that there is none.
    let since = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
    i32::try_from(since).ok().filter(|_| (1..=9999).contains(&year))
}
