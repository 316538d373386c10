//! Values as text: what has no column type of its own, or goes to a string column by the user's wish.
//!
//! Messages are the JSON of the specification's mapping, but for the names of fields, which are the file's, as those of columns
//! are: 64-bit integers are text, bytes base64, timestamps and durations `"2024-01-15T10:30:00Z"` and `"1.500s"`, fields that
//! are absent or hold a zero without presence left out. Dates, times and decimals of `google.type` and `confluent.type` are text
//! too, `"2024-01-15"`. What an `Any` holds stays base64, as its schema isn't known.
//!
//! Source: protobuf.dev, "ProtoJSON Format", 2025.

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::Range;

use chrono::DateTime;

use super::super::avro::{DECIMAL_BYTES_MAX, binary, decimal_text, float, string};
use super::super::framed::Bad;
use super::fill::wire as wire_of;
use super::group::{framed, mismatch};
use super::message::{SECOND_NS, nanoseconds, numbers, unscaled_decimal};
use super::reader::{BYTES, EIGHT, FOUR, GROUP, Reader, VARINT};
use crate::schema::protobuf::{Field, Kind, Known, MessageType, Number, Shape};

/// Writes a scalar: text as it is, anything else as its JSON without quotes.
pub(super) fn write(reader: &mut Reader<'_>, of: Kind, out: &mut Vec<u8>) -> Result<(), Bad> {
    let start = out.len();
    if value(reader, of, BYTES, 0, out)? {
        unquote(out, start);
    }
    Ok(())
}

/// Writes the message that the reader is inside of: what JSON has as text without its quotes, unless it stands for any JSON.
pub(super) fn write_message(reader: &mut Reader<'_>, index: usize, out: &mut Vec<u8>) -> Result<(), Bad> {
    let start = out.len();
    let quoted = message(reader, index, out)?;
    if quoted && reader.schema.messages[index].known != Some(Known::Value) {
        unquote(out, start);
    }
    Ok(())
}

/// Writes all values of a repeated field or a map.
///
/// - `whole`: where the message's fields are.
pub(super) fn write_field(
    reader: &mut Reader<'_>,
    whole: Range<usize>,
    index: usize,
    field: usize,
    out: &mut Vec<u8>,
) -> Result<(), Bad> {
    let schema = reader.schema;
    let message = &schema.messages[index];
    let outer = reader.enter(whole)?;
    let mut found = fields(reader, message)?;
    found.retain(|place| place.field == field);
    field_value(reader, &message.fields[field], &found, out)?;
    reader.leave(outer);
    Ok(())
}

/// Takes the quotes off a JSON string that begins at `start`.
pub(super) fn unquote(out: &mut Vec<u8>, start: usize) {
    let text: String = serde_json::from_slice(&out[start..]).expect("a JSON string of ours reads back");
    out.truncate(start);
    out.extend_from_slice(text.as_bytes());
}

/// Where a field's value is.
#[derive(Clone, Copy)]
struct Place {
    field: usize,
    number: u32,
    wire: u8,
    at: usize,
}

/// Finds the values of the message that the reader is inside of, in the order of the schema's fields; of each `oneof` those of
/// its last member that came behind all others.
fn fields(reader: &mut Reader<'_>, message: &MessageType) -> Result<Vec<Place>, Bad> {
    let mut found = Vec::new();
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        if let Some(field) = message.field(number) {
            let at = reader.at;
            found.push(Place {
                field,
                number,
                wire,
                at,
            });
        }
        reader.skip(number, wire)?;
    }
    // From the end on: the member that counts, and whether another one came before.
    let mut winners: HashMap<usize, (usize, bool)> = HashMap::new();
    let mut keep: Vec<bool> = found
        .iter()
        .rev()
        .map(|place| {
            let Some(oneof) = message.fields[place.field].oneof else {
                return true;
            };
            let (winner, closed) = winners.entry(oneof).or_insert((place.field, false));
            *closed |= *winner != place.field;
            !*closed
        })
        .collect();
    found.retain(|_| keep.pop() == Some(true));
    found.sort_by_key(|place| place.field);
    Ok(found)
}

/// Writes the message that the reader is inside of as JSON; says whether it is a string.
fn message(reader: &mut Reader<'_>, index: usize, out: &mut Vec<u8>) -> Result<bool, Bad> {
    let schema = reader.schema;
    let message = &schema.messages[index];
    if let Some(known) = message.known {
        return known_message(reader, message, known, out);
    }
    let found = fields(reader, message)?;
    out.push(b'{');
    let mut first = true;
    for places in found.chunk_by(|one, other| one.field == other.field) {
        let field = &message.fields[places[0].field];
        if unset(reader, field, places)? {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        reader.spend_text(field.name.as_bytes())?;
        string(out, &field.name);
        out.push(b':');
        field_value(reader, field, places, out).map_err(|bad| bad.inside(&field.name))?;
    }
    out.push(b'}');
    Ok(false)
}

/// Says whether a field's values come to what it has where a record lacks it.
fn unset(reader: &mut Reader<'_>, field: &Field, places: &[Place]) -> Result<bool, Bad> {
    let mut zero = |place: &Place| {
        reader.at = place.at;
        Ok(match place.wire {
            VARINT => reader.varint()? == 0,
            EIGHT => reader.eight()? == [0; 8],
            FOUR => reader.four()? == [0; 4],
            BYTES => reader.bytes()?.is_empty(),
            _ => false,
        })
    };
    match (field.shape, places) {
        (Shape::Single { presence: false, .. }, [.., last]) => zero(last),
        // Packed, and none of them.
        (Shape::Repeated(of), places) if wire_of(of) != BYTES => {
            for place in places {
                if place.wire != BYTES || !zero(place)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn known_message(reader: &mut Reader<'_>, message: &MessageType, known: Known, out: &mut Vec<u8>) -> Result<bool, Bad> {
    match known {
        Known::Timestamp => {
            let [seconds, fraction] = numbers(reader)?;
            let whole = nanoseconds(seconds, fraction);
            let (seconds, nanos) = (whole.div_euclid(SECOND_NS), whole.rem_euclid(SECOND_NS));
            let moment = i64::try_from(seconds).ok();
            let moment = moment.and_then(|seconds| DateTime::from_timestamp(seconds, nanos as u32));
            let Some(moment) = moment else {
                return Err(reader.bad(format!("the timestamp of {seconds} s since 1970 has no date")));
            };
            let written = write!(out, "\"{}\"", moment.format("%Y-%m-%dT%H:%M:%S%.fZ"));
            written.expect("a vector takes all");
        }
        Known::Duration => {
            let [seconds, fraction] = numbers(reader)?;
            duration(nanoseconds(seconds, fraction), out);
        }
        Known::Date => {
            let [year, month, day] = numbers(reader)?.map(|value| value as i32);
            write!(out, "\"{year:04}-{month:02}-{day:02}\"").expect("a vector takes all");
        }
        Known::TimeOfDay => {
            let [hours, minutes, seconds, nanos] = numbers(reader)?.map(|value| value as i32);
            write!(out, "\"{hours:02}:{minutes:02}:{seconds:02}").expect("a vector takes all");
            fraction(i128::from(nanos).abs(), out);
            out.push(b'"');
        }
        Known::UnscaledDecimal => {
            let (bytes, scale) = unscaled_decimal(reader)?;
            out.push(b'"');
            if !decimal_text(bytes, u32::try_from(scale).unwrap_or_default(), out) {
                return Err(reader.bad(format!(
                    "a decimal has {} bytes, {DECIMAL_BYTES_MAX} are possible",
                    bytes.len()
                )));
            }
            // A scale below 0 counts zeros in front of the point.
            if scale < 0 && bytes.iter().any(|byte| *byte != 0) {
                out.extend(std::iter::repeat_n(b'0', scale.unsigned_abs() as usize));
            }
            out.push(b'"');
        }
        Known::FieldMask => {
            let found = fields(reader, message)?;
            let mut paths: Vec<String> = Vec::new();
            for place in found.iter().filter(|place| place.number == 1 && place.wire == BYTES) {
                reader.at = place.at;
                let text = simdutf8::basic::from_utf8(reader.bytes()?);
                paths.push(text.map_err(|_| reader.bad("the text is no UTF-8"))?.to_owned());
            }
            string(out, &paths.join(","));
        }
        Known::Any => {
            let found = fields(reader, message)?;
            out.extend(b"{\"@type\":");
            last(reader, Kind::String, &found, 1, out)?;
            out.extend(b",\"value\":");
            last(reader, Kind::Bytes, &found, 2, out)?;
            out.push(b'}');
            return Ok(false);
        }
        Known::Value => {
            let found = fields(reader, message)?;
            // Of one member, since they are a `oneof`.
            let Some(place) = found.last() else {
                out.extend(b"null");
                return Ok(false);
            };
            let field = &message.fields[place.field];
            if field.shape.kind().is_some_and(|kind| matches!(kind, Kind::Enum(_))) {
                out.extend(b"null");
                return Ok(false);
            }
            let places: Vec<Place> = found
                .iter()
                .filter(|other| other.field == place.field)
                .copied()
                .collect();
            return field_value(reader, field, &places, out);
        }
        // What they hold stands for them.
        Known::Wrapper | Known::Struct | Known::ListValue | Known::Decimal => {
            let mut found = fields(reader, message)?;
            found.retain(|place| place.number == 1);
            let Some(field) = message.field(1).map(|at| &message.fields[at]) else {
                return Ok(false);
            };
            return field_value(reader, field, &found, out);
        }
    }
    Ok(true)
}

/// Writes the last of the values that a field of a number has, or its zero.
fn last(reader: &mut Reader<'_>, of: Kind, found: &[Place], number: u32, out: &mut Vec<u8>) -> Result<bool, Bad> {
    match found.iter().rev().find(|place| place.number == number) {
        Some(place) => at_place(reader, of, *place, out),
        None => value(&mut Reader::of_zeros(reader.schema), of, BYTES, 0, out),
    }
}

/// Writes what the values of one field come to; without values the zero of its kind. Says whether it is a string.
fn field_value(reader: &mut Reader<'_>, field: &Field, places: &[Place], out: &mut Vec<u8>) -> Result<bool, Bad> {
    match field.shape {
        Shape::Single {
            of: Kind::Message(index),
            ..
        } if places.len() > 1 => {
            let mut parts = Vec::new();
            for place in places {
                reader.at = place.at;
                if !matches!(place.wire, BYTES | GROUP) {
                    return Err(wrong(reader, field, place.wire));
                }
                parts.push(reader.body(place.number, place.wire)?);
            }
            let whole = framed(reader, &parts);
            reader.elsewhere(&whole, |reader| value(reader, Kind::Message(index), BYTES, 0, out))
        }
        Shape::Single { of, .. } => last(reader, of, places, field.number, out),
        Shape::Repeated(of) => {
            out.push(b'[');
            let mut first = true;
            let mut comma = |out: &mut Vec<u8>| {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
            };
            for place in places {
                if place.wire != BYTES || wire_of(of) == BYTES {
                    comma(out);
                    at_place(reader, of, *place, out)?;
                    continue;
                }
                reader.at = place.at;
                let packed = reader.body(place.number, BYTES)?;
                let outer = reader.enter(packed)?;
                while reader.at < reader.end {
                    comma(out);
                    value(reader, of, wire_of(of), 0, out)?;
                }
                reader.leave(outer);
            }
            out.push(b']');
            Ok(false)
        }
        Shape::Map { key, value } => {
            map(reader, key, value, places, out)?;
            Ok(false)
        }
    }
}

fn map(reader: &mut Reader<'_>, key: Kind, of: Kind, places: &[Place], out: &mut Vec<u8>) -> Result<(), Bad> {
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut place_of: HashMap<Vec<u8>, usize> = HashMap::new();
    for place in places {
        reader.at = place.at;
        if place.wire != BYTES {
            return Err(mismatch(reader, "an entry of a map".to_owned(), BYTES, place.wire));
        }
        let body = reader.body(place.number, place.wire)?;
        let outer = reader.enter(body)?;
        let mut found = Vec::new();
        while reader.at < reader.end {
            let (number, wire) = reader.tag()?;
            let at = reader.at;
            let field = number as usize;
            found.push(Place {
                field,
                number,
                wire,
                at,
            });
            reader.skip(number, wire)?;
        }
        let mut name = Vec::new();
        if !last(reader, key, &found, 1, &mut name)? {
            name.insert(0, b'"');
            name.push(b'"');
        }
        let mut held = Vec::new();
        found.retain(|place| place.number == 2);
        let field = Field {
            name: String::new(),
            number: 2,
            shape: Shape::Single { of, presence: false },
            oneof: None,
        };
        field_value(reader, &field, &found, &mut held)?;
        reader.leave(outer);
        match place_of.get(&name) {
            Some(place) => entries[*place].1 = held,
            None => {
                place_of.insert(name.clone(), entries.len());
                entries.push((name, held));
            }
        }
    }
    out.push(b'{');
    for (at, (name, held)) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b':');
        out.extend_from_slice(held);
    }
    out.push(b'}');
    Ok(())
}

fn at_place(reader: &mut Reader<'_>, of: Kind, place: Place, out: &mut Vec<u8>) -> Result<bool, Bad> {
    reader.at = place.at;
    let wanted = wire_of(of);
    let group = place.wire == GROUP && matches!(of, Kind::Message(_));
    if place.wire != wanted && !group {
        let of = reader.schema.kind_name(of).to_owned();
        return Err(mismatch(reader, of, wanted, place.wire));
    }
    value(reader, of, place.wire, place.number, out)
}

#[cold]
fn wrong(reader: &Reader<'_>, field: &Field, wire: u8) -> Bad {
    mismatch(reader, reader.schema.shape_name(field.shape), BYTES, wire)
}

/// Writes one value as JSON; says whether it is a string.
///
/// - `wire`, `number`: matter where it is a message.
fn value(reader: &mut Reader<'_>, of: Kind, wire: u8, number: u32, out: &mut Vec<u8>) -> Result<bool, Bad> {
    match of {
        Kind::Bool => {
            let word: &[u8] = if reader.varint()? != 0 { b"true" } else { b"false" };
            out.extend(word);
            Ok(false)
        }
        Kind::Number(of @ (Number::Int64 | Number::Uint64 | Number::Sint64 | Number::Fixed64 | Number::Sfixed64)) => {
            write!(out, "\"{}\"", reader.wide(of)?).expect("a vector takes all");
            Ok(true)
        }
        Kind::Number(of) => {
            write!(out, "{}", reader.long(of)?).expect("a vector takes all");
            Ok(false)
        }
        Kind::Float => {
            let value = reader.float()?;
            Ok(float(out, value, value.is_finite()))
        }
        Kind::Double => {
            let value = reader.double()?;
            Ok(float(out, value, value.is_finite()))
        }
        Kind::String => {
            let text = simdutf8::basic::from_utf8(reader.bytes()?);
            string(out, text.map_err(|_| reader.bad("the text is no UTF-8"))?);
            Ok(true)
        }
        Kind::Bytes => {
            binary(out, reader.bytes()?);
            Ok(true)
        }
        Kind::Enum(index) => {
            let number = reader.varint()? as i32;
            let values = &reader.schema.enums[index].values;
            match values.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(at) => {
                    let name = &values[at].1;
                    reader.spend_text(name.as_bytes())?;
                    string(out, name);
                }
                Err(_) => write!(out, "{number}").expect("a vector takes all"),
            }
            Ok(out.last() == Some(&b'"'))
        }
        Kind::Message(index) => {
            let body = reader.body(number, wire)?;
            let outer = reader.enter(body)?;
            let quoted = message(reader, index, out)?;
            reader.leave(outer);
            Ok(quoted)
        }
    }
}

/// Writes nanoseconds as seconds with 0, 3, 6 or 9 digits behind the point.
fn duration(whole: i128, out: &mut Vec<u8>) {
    out.push(b'"');
    if whole < 0 {
        out.push(b'-');
    }
    let whole = whole.abs();
    write!(out, "{}", whole / SECOND_NS).expect("a vector takes all");
    fraction(whole % SECOND_NS, out);
    out.extend(b"s\"");
}

fn fraction(nanos: i128, out: &mut Vec<u8>) {
    let written = match nanos {
        0 => return,
        nanos if nanos % 1_000_000 == 0 => write!(out, ".{:03}", nanos / 1_000_000),
        nanos if nanos % 1000 == 0 => write!(out, ".{:06}", nanos / 1000),
        nanos => write!(out, ".{nanos:09}"),
    };
    written.expect("a vector takes all");
}
