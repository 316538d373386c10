//! Values as text: what has no column type of its own, or goes to a string column by the user's wish.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};

use super::super::framed::Bad;
use super::fill::unscaled;
use super::reader::{DEPTH_MAX, Reader};
use crate::schema::avro::{Avro, BytesAs, FixedAs, IntAs, LongAs, NamedType, TimeUnit};

/// Writes a value: text as it is, anything else as its JSON.
///
/// Bytes are base64 text, as JSON has none; dates and times ISO 8601; decimals and numbers as numbers, `NaN` and the
/// infinities as text; of a union its value.
pub(super) fn write(reader: &mut Reader<'_>, of: &Avro, out: &mut Vec<u8>) -> Result<(), Bad> {
    let start = out.len();
    let quoted = json(reader, of, out, 0)?;
    if quoted {
        // A text alone goes without its quotes; what was escaped in it is said plainly.
        let text: String = serde_json::from_slice(&out[start..]).expect("a JSON string of ours reads back");
        out.truncate(start);
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

/// Writes a value as JSON; says whether it is a string.
fn json(reader: &mut Reader<'_>, of: &Avro, out: &mut Vec<u8>, depth: usize) -> Result<bool, Bad> {
    if depth > DEPTH_MAX {
        return Err(reader.deep());
    }
    let schema = reader.schema;
    match of {
        Avro::Null => out.extend(b"null"),
        Avro::Boolean => {
            let word: &[u8] = if reader.boolean()? { b"true" } else { b"false" };
            out.extend(word);
        }
        Avro::Int(IntAs::Plain) => number(out, reader.int()?),
        Avro::Int(IntAs::Date) => {
            let days = reader.int()?;
            let date = NaiveDate::default().checked_add_signed(TimeDelta::days(i64::from(days)));
            return Ok(text_or_number(out, date, i64::from(days)));
        }
        Avro::Int(IntAs::TimeMillis) => {
            let millis = i64::from(reader.int()?);
            return Ok(text_or_number(out, clock(millis.checked_mul(1000)), millis));
        }
        Avro::Long(LongAs::Plain) => number(out, reader.long()?),
        Avro::Long(LongAs::TimeMicros) => {
            let micros = reader.long()?;
            return Ok(text_or_number(out, clock(Some(micros)), micros));
        }
        Avro::Long(LongAs::Timestamp { unit, zoned }) => {
            let value = reader.long()?;
            let moment = match unit {
                TimeUnit::Millis => DateTime::from_timestamp_millis(value),
                TimeUnit::Micros => DateTime::from_timestamp_micros(value),
                TimeUnit::Nanos => Some(DateTime::from_timestamp_nanos(value)),
            };
            let pattern = if *zoned {
                "%Y-%m-%dT%H:%M:%S%.fZ"
            } else {
                "%Y-%m-%dT%H:%M:%S%.f"
            };
            return Ok(text_or_number(out, moment.map(|moment| moment.format(pattern)), value));
        }
        Avro::Float => {
            let value = reader.float()?;
            return Ok(float(out, value, value.is_finite()));
        }
        Avro::Double => {
            let value = reader.double()?;
            return Ok(float(out, value, value.is_finite()));
        }
        Avro::Bytes(BytesAs::Plain) => {
            binary(out, reader.bytes()?);
            return Ok(true);
        }
        Avro::Bytes(BytesAs::Decimal(of)) => {
            let bytes = reader.bytes()?;
            digits(reader, bytes, of.scale, out)?;
        }
        Avro::String(_) => {
            let bytes = reader.bytes()?;
            let text = simdutf8::basic::from_utf8(bytes).map_err(|_| reader.bad("the text is no UTF-8"))?;
            string(out, text);
            return Ok(true);
        }
        Avro::Array(items) => {
            let empty = schema.takes_no_bytes(items);
            list(reader, out, empty, [b'[', b']'], |reader, out| {
                json(reader, items, out, depth + 1).map(drop)
            })?;
        }
        Avro::Map(values) => list(reader, out, false, [b'{', b'}'], |reader, out| {
            json(
                reader,
                &Avro::String(crate::schema::avro::StringAs::Plain),
                out,
                depth + 1,
            )?;
            out.push(b':');
            json(reader, values, out, depth + 1).map(drop)
        })?,
        Avro::Union(arms) => {
            let arm = reader.arm(arms.len())?;
            return json(reader, &arms[arm], out, depth + 1);
        }
        Avro::Named(index) => match &schema.named[*index].of {
            NamedType::Enum(symbols) => {
                let at = reader.int()?;
                let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at));
                let symbol = symbol
                    .ok_or_else(|| reader.bad(format!("an enum of {} symbols has none at {at}", symbols.len())))?;
                reader.spend_text(symbol.as_bytes())?;
                string(out, symbol);
                return Ok(true);
            }
            NamedType::Fixed(size, of) => {
                let bytes = reader.take(*size)?;
                match of {
                    FixedAs::Decimal(of) => digits(reader, bytes, of.scale, out)?,
                    FixedAs::Uuid => {
                        let uuid = uuid::Uuid::from_slice(bytes).expect("16 bytes, as the parser saw to");
                        string(out, &uuid.to_string());
                        return Ok(true);
                    }
                    FixedAs::Plain => {
                        binary(out, bytes);
                        return Ok(true);
                    }
                }
            }
            NamedType::Record(fields) => {
                out.push(b'{');
                for (at, field) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    // A record that takes no bytes may hold any number of such.
                    reader.spend(1)?;
                    reader.spend_text(field.name.as_bytes())?;
                    string(out, &field.name);
                    out.push(b':');
                    json(reader, &field.of, out, depth + 1).map_err(|bad| bad.inside(&field.name))?;
                }
                out.push(b'}');
            }
        },
    }
    Ok(false)
}

fn list(
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
    empty: bool,
    [open, close]: [u8; 2],
    mut item: impl FnMut(&mut Reader<'_>, &mut Vec<u8>) -> Result<(), Bad>,
) -> Result<(), Bad> {
    out.push(open);
    let mut first = true;
    // Ends: each block takes a byte at least.
    loop {
        let count = reader.block(empty)?;
        if count == 0 {
            break;
        }
        for _ in 0..count {
            if !first {
                out.push(b',');
            }
            first = false;
            reader.spend(1)?;
            item(reader, out)?;
        }
    }
    out.push(close);
    Ok(())
}

fn clock(micros: Option<i64>) -> Option<NaiveTime> {
    let micros = u64::try_from(micros?).ok()?;
    let nanos = u32::try_from(micros % 1_000_000 * 1000).ok()?;
    NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(micros / 1_000_000).ok()?, nanos)
}

/// Writes a text, or the number where there is none; says whether it is a string.
fn text_or_number(out: &mut Vec<u8>, text: Option<impl std::fmt::Display>, value: i64) -> bool {
    match text {
        Some(text) => {
            write!(out, "\"{text}\"").expect("a vector takes all");
            true
        }
        None => {
            number(out, value);
            false
        }
    }
}

fn number(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a vector takes all");
}

/// Writes a number; says whether it is a string.
pub(in super::super) fn float(out: &mut Vec<u8>, value: impl std::fmt::Debug, finite: bool) -> bool {
    match finite {
        true => write!(out, "{value:?}").expect("a vector takes all"),
        // As the canonical JSON of Protobuf and most readers of it write them.
        false => {
            let word = format!("{value:?}").replace("inf", "Infinity");
            string(out, &word);
        }
    }
    !finite
}

/// Writes a text in quotes.
pub(in super::super) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes all, and text is JSON");
}

/// Writes bytes as base64 in quotes.
pub(in super::super) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    string(out, &STANDARD.encode(bytes));
}

fn digits(reader: &Reader<'_>, bytes: &[u8], scale: u32, out: &mut Vec<u8>) -> Result<(), Bad> {
    match decimal(bytes, scale, out) {
        true => Ok(()),
        false => Err(reader.bad(format!(
            "a decimal has {} bytes, {DECIMAL_BYTES_MAX} are possible",
            bytes.len()
        ))),
    }
}

/// Writes big-endian two's complement as a number with `scale` digits behind the point; says whether it was short enough for
/// that: [`DECIMAL_BYTES_MAX`].
#[must_use]
pub(in super::super) fn decimal(bytes: &[u8], scale: u32, out: &mut Vec<u8>) -> bool {
    let (negative, digits) = match unscaled(bytes) {
        Some(value) => (value < 0, value.unsigned_abs().to_string()),
        None if bytes.len() > DECIMAL_BYTES_MAX => return false,
        None => long_digits(bytes),
    };
    if negative {
        out.push(b'-');
    }
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    out.extend(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend(fraction.as_bytes());
    }
    true
}

/// The longest decimal whose digits are worked out, in bytes: the time goes with its square.
pub(in super::super) const DECIMAL_BYTES_MAX: usize = 4096;

fn long_digits(bytes: &[u8]) -> (bool, String) {
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    // The magnitude: of a negative number all bits turned, plus one.
    let mut magnitude: Vec<u8> = bytes.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    if negative {
        for byte in magnitude.iter_mut().rev() {
            let (sum, carry) = byte.overflowing_add(1);
            *byte = sum;
            if !carry {
                break;
            }
        }
    }
    let mut groups: Vec<u32> = Vec::new();
    // Ends: each round divides by a thousand million.
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0u64;
        for byte in &mut magnitude {
            let value = rest << 8 | u64::from(*byte);
            *byte = (value / 1_000_000_000) as u8;
            rest = value % 1_000_000_000;
        }
        groups.push(rest as u32);
    }
    let mut digits = groups.pop().unwrap_or_default().to_string();
    for group in groups.iter().rev() {
        digits.push_str(&format!("{group:09}"));
    }
    (negative, digits)
}
