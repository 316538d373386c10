//! MessagePack records as JSON text, so that they take the way of JSON: inference, evolution and columns.
//!
//! The format is forty lines of table and has stood since 2017, so it is read here, without a tree, from the record's bytes
//! into the chunk's text. What is a value of which JSON is said in [`to_json`].

#[cfg(test)]
mod tests;

use std::io::Write;

use arrow::array::{Array, BinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, Timelike};
use serde::Serialize;

use crate::schema::infer::DEPTH_MAX;

/// A chunk's values as JSON.
#[derive(Debug)]
pub struct Transcoded {
    /// One value for each of the chunk's, in its order; null stays null, and that of a rejected record is empty.
    pub values: BinaryArray,
    /// The records that can't be JSON, by their index in the chunk, ascending, and why, for a person.
    pub rejects: Vec<(u32, String)>,
}

/// Turns MessagePack maps into JSON objects.
///
/// | MessagePack | JSON |
/// |---|---|
/// | nil, bool | `null`, `true`, `false` |
/// | int | its digits, up to 64 bits without a sign |
/// | float 32, float 64 | the shortest digits that are that float, always with a fraction: `0.1`, `1.0`, `1.0e+300` |
/// | str | a string |
/// | bin | a string, base64 |
/// | array, map | an array, an object; a key may be a str, an int, a bool, or a bin that is UTF-8 |
/// | timestamp | a string, ISO 8601 in UTC with the digits it needs: `"2024-01-15T10:30:00.5Z"` |
/// | other ext | an object, `{"type":5,"data":"base64"}` |
///
/// Rejected are bytes that are no MessagePack, or more than one value; a value that is no map; NaN and the infinities;
/// a str that isn't UTF-8; other keys; a timestamp beyond the year 9999; more nesting than the way of JSON takes.
///
/// Source: the MessagePack specification of 2017-08, github.com/msgpack/msgpack, `spec.md`.
pub fn to_json(values: &BinaryArray) -> Transcoded {
    // Arrow counts the bytes of a binary column in 31 bits.
    transcode(values, i32::MAX as usize, Root::Map)
}

/// Turns keys into JSON: they may be any value, not only maps.
pub fn keys_to_json(keys: &BinaryArray) -> Transcoded {
    transcode(keys, i32::MAX as usize, Root::Any)
}

/// What a value as a whole may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// A map.
    Map,
    /// Any value.
    Any,
}

/// Turns one value into JSON, as [`to_json`] does.
///
/// # Errors
/// Why the record would be rejected.
pub fn json(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(2 * value.len());
    record(value, Root::Map, &mut out)?;
    Ok(out)
}

/// Turns one key into JSON, as [`keys_to_json`] does.
///
/// # Errors
/// Why the record would be rejected.
pub fn key_json(key: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(2 * key.len());
    record(key, Root::Any, &mut out)?;
    Ok(out)
}

fn transcode(values: &BinaryArray, bytes_max: usize, root: Root) -> Transcoded {
    let ends = values.value_offsets();
    let held = (ends[values.len()] - ends[0]) as usize;
    let mut bytes = Vec::with_capacity(2 * held);
    let mut ends = Vec::with_capacity(values.len() + 1);
    ends.push(0);
    let mut rejects = Vec::new();
    for index in 0..values.len() {
        if values.is_valid(index) {
            let start = bytes.len();
            let written = record(values.value(index), root, &mut bytes).and_then(|()| {
                if bytes.len() <= bytes_max {
                    return Ok(());
                }
                Err(format!(
                    "the records fetched with it are more than {bytes_max} bytes of JSON"
                ))
            });
            if let Err(why) = written {
                bytes.truncate(start);
                rejects.push((index as u32, why));
            }
        }
        ends.push(i32::try_from(bytes.len()).expect("what doesn't fit was cut off"));
    }
    let values = BinaryArray::new(
        OffsetBuffer::new(ends.into()),
        Buffer::from_vec(bytes),
        values.nulls().cloned(),
    );
    Transcoded { values, rejects }
}

/// Appends one record; after an error the text is to be truncated.
fn record(value: &[u8], root: Root, out: &mut Vec<u8>) -> Result<(), String> {
    if value.is_empty() {
        return Err("the value is empty".to_owned());
    }
    let mut reader = Reader { bytes: value, at: 0 };
    let token = reader.token()?;
    if root == Root::Map && !matches!(token, Token::Map(_)) {
        return Err(format!("the value is no MessagePack map but {}", token.kind()));
    }
    reader.value(token, 0, out)?;
    if reader.at < value.len() {
        return Err(reader
            .fault(match root {
                Root::Map => "something follows the map",
                Root::Any => "something follows the value",
            })
            .into());
    }
    Ok(())
}

/// Why a record can't be JSON.
#[derive(Debug)]
struct Refused {
    what: String,
    /// Of a value that is at fault: the names from its own up to the record's.
    path: Option<Vec<String>>,
}

/// A boxed [`Refused`]: results stay small where everything is well.
type Failed = Box<Refused>;

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        match failed.path {
            Some(path) if path.is_empty() => format!("the record {}", failed.what),
            Some(mut path) => {
                path.reverse();
                format!("field `{}` {}", path.join("."), failed.what)
            }
            None => failed.what,
        }
    }
}

/// Refuses the value at hand; its names are added on the way out.
#[cold]
fn refuse(what: impl Into<String>) -> Failed {
    Box::new(Refused {
        what: what.into(),
        path: Some(Vec::new()),
    })
}

#[cold]
fn within(mut failed: Failed, name: impl FnOnce() -> String) -> Failed {
    if let Some(path) = &mut failed.path {
        path.push(name());
    }
    failed
}

/// One value, or how many are inside it.
#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'a [u8]),
}

impl Token<'_> {
    fn kind(self) -> &'static str {
        match self {
            Token::Nil => "nil",
            Token::Bool(_) => "a bool",
            Token::Signed(_) | Token::Unsigned(_) => "an int",
            Token::Float(_) | Token::Double(_) => "a float",
            Token::Str(_) => "a str",
            Token::Bin(_) => "a bin",
            Token::Array(_) => "an array",
            Token::Map(_) => "a map",
            Token::Ext(..) => "an ext",
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[cold]
    fn fault(&self, what: &str) -> Failed {
        Box::new(Refused {
            what: format!("the value is no MessagePack: {what} at byte {}", self.at),
            path: None,
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Failed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| self.fault("it ends too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failed> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("N bytes were taken"))
    }

    /// Reads a length of 1, 2 or 4 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Failed> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// Checks that as many values as a length says can be in the bytes that are left: each takes one at least.
    fn holds(&self, values: usize) -> Result<(), Failed> {
        if values > self.bytes.len() - self.at {
            return Err(self.fault("it ends too early"));
        }
        Ok(())
    }

    fn ext(&mut self, length: usize) -> Result<Token<'a>, Failed> {
        let [of] = self.array()?;
        Ok(Token::Ext(of as i8, self.take(length)?))
    }

    /// Reads a value up to those inside it.
    fn token(&mut self) -> Result<Token<'a>, Failed> {
        let [first] = self.array()?;
        Ok(match first {
            0x00..=0x7f => Token::Signed(i64::from(first)),
            0x80..=0x8f => Token::Map(usize::from(first & 0x0f)),
            0x90..=0x9f => Token::Array(usize::from(first & 0x0f)),
            0xa0..=0xbf => Token::Str(self.take(usize::from(first & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => {
                self.at -= 1;
                return Err(self.fault("no value starts with the byte c1"));
            }
            0xc2 | 0xc3 => Token::Bool(first == 0xc3),
            0xc4..=0xc6 => {
                let length = self.length(1 << (first - 0xc4))?;
                Token::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (first - 0xc7))?;
                self.ext(length)?
            }
            0xca => Token::Float(f32::from_be_bytes(self.array()?)),
            0xcb => Token::Double(f64::from_be_bytes(self.array()?)),
            0xcc => Token::Unsigned(u64::from(u8::from_be_bytes(self.array()?))),
            0xcd => Token::Unsigned(u64::from(u16::from_be_bytes(self.array()?))),
            0xce => Token::Unsigned(u64::from(u32::from_be_bytes(self.array()?))),
            0xcf => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => Token::Signed(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Token::Signed(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Token::Signed(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Token::Signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.ext(1 << (first - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (first - 0xd9))?;
                Token::Str(self.take(length)?)
            }
            0xdc | 0xdd => Token::Array(self.length(2 << (first - 0xdc))?),
            0xde | 0xdf => Token::Map(self.length(2 << (first - 0xde))?),
            0xe0..=0xff => Token::Signed(i64::from(first as i8)),
        })
    }

    /// Appends a value; the recursion is as deep as [`DEPTH_MAX`].
    fn value(&mut self, token: Token<'a>, depth: usize, out: &mut Vec<u8>) -> Result<(), Failed> {
        match token {
            Token::Nil => out.extend_from_slice(b"null"),
            Token::Bool(value) => scalar(&value, out),
            Token::Signed(value) => scalar(&value, out),
            Token::Unsigned(value) => scalar(&value, out),
            Token::Float(value) => float(&value, f64::from(value), out)?,
            Token::Double(value) => float(&value, value, out)?,
            Token::Str(text) => scalar(utf8(text).ok_or_else(|| refuse("is a str that isn't UTF-8"))?, out),
            Token::Bin(bytes) => base64(bytes, out),
            Token::Ext(-1, data) => timestamp(data, out)?,
            Token::Ext(of, data) => {
                deeper(depth)?;
                out.extend_from_slice(b"{\"type\":");
                scalar(&of, out);
                out.extend_from_slice(b",\"data\":");
                base64(data, out);
                out.push(b'}');
            }
            Token::Array(length) => {
                deeper(depth)?;
                self.holds(length)?;
                out.push(b'[');
                for item in 0..length {
                    out.extend_from_slice(if item > 0 { b"," } else { b"" });
                    let token = self.token()?;
                    self.value(token, depth + 1, out)
                        .map_err(|failed| within(failed, || "element".to_owned()))?;
                }
                out.push(b']');
            }
            Token::Map(length) => {
                deeper(depth)?;
                self.holds(length.saturating_mul(2))?;
                out.push(b'{');
                for entry in 0..length {
                    out.extend_from_slice(if entry > 0 { b"," } else { b"" });
                    let start = out.len();
                    let key = self.token()?;
                    write_key(key, out)?;
                    let end = out.len();
                    out.push(b':');
                    let token = self.token()?;
                    if let Err(failed) = self.value(token, depth + 1, out) {
                        return Err(within(failed, || name(&out[start..end])));
                    }
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

fn deeper(depth: usize) -> Result<(), Failed> {
    if depth < DEPTH_MAX {
        return Ok(());
    }
    Err(Box::new(Refused {
        what: format!("the value is nested more than {DEPTH_MAX} deep"),
        path: None,
    }))
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

/// Appends a bool, a number or a string as `serde_json` writes it.
fn scalar<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a scalar has a text, and a Vec takes it");
}

/// Appends a float in its own shortest digits, with a fraction: that is what tells it from an integer.
///
/// - `wide`: the same as a double.
fn float<T: Serialize>(value: &T, wide: f64, out: &mut Vec<u8>) -> Result<(), Failed> {
    if !wide.is_finite() {
        let value = if wide.is_nan() { "NaN" } else { "infinite" };
        return Err(refuse(format!(
            "is {value}: the value passes as JSON, which has no such number"
        )));
    }
    let start = out.len();
    scalar(value, out);
    let digits = &out[start..];
    if memchr::memchr(b'.', digits).is_none() {
        let exponent = memchr::memchr(b'e', digits).unwrap_or(digits.len());
        out.splice(start + exponent..start + exponent, *b".0");
    }
    Ok(())
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const WHOLE: &str = "four characters for three bytes were made room for";
    out.push(b'"');
    let start = out.len();
    out.resize(start + 4 * bytes.len().div_ceil(3), 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).expect(WHOLE);
    assert!(written == out.len() - start, "{WHOLE}");
    out.push(b'"');
}

fn write_key(key: Token<'_>, out: &mut Vec<u8>) -> Result<(), Failed> {
    match key {
        Token::Str(text) => scalar(utf8(text).ok_or_else(|| refuse("has a key that isn't UTF-8"))?, out),
        Token::Bin(text) => {
            let text = utf8(text).ok_or_else(|| refuse("has a key of bytes that aren't UTF-8"))?;
            scalar(text, out);
        }
        Token::Bool(value) => quoted(&value, out),
        Token::Signed(value) => quoted(&value, out),
        Token::Unsigned(value) => quoted(&value, out),
        key => return Err(refuse(format!("has a key that is {}", key.kind()))),
    }
    Ok(())
}

fn quoted<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    out.push(b'"');
    scalar(value, out);
    out.push(b'"');
}

/// Returns the field's name that was written as JSON.
fn name(written: &[u8]) -> String {
    serde_json::from_slice(written).expect("a key was written as a JSON string")
}

fn timestamp(data: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
    let (seconds, nanos) = match *data {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            ((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
        }
        [i, j, k, l, a, b, c, d, e, f, g, h] => (
            i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u32::from_be_bytes([i, j, k, l]),
        ),
        _ => {
            let length = data.len();
            return Err(refuse(format!("is a timestamp of {length} bytes, not 4, 8 or 12")));
        }
    };
    if nanos > 999_999_999 {
        return Err(refuse(format!(
            "is a timestamp of {nanos} nanoseconds, more than a second"
        )));
    }
    let moment = DateTime::from_timestamp(seconds, nanos).map(|moment| moment.naive_utc());
    let moment = moment
        .filter(|moment| (0..=9999).contains(&moment.year()))
        .ok_or_else(|| {
            refuse(format!(
                "is a timestamp of {seconds} seconds from 1970, outside of the years 0 to 9999"
            ))
        })?;
    let (year, month, day) = (moment.year(), moment.month(), moment.day());
    let (hour, minute, second) = (moment.hour(), moment.minute(), moment.second());
    const TAKES: &str = "a Vec takes every byte";
    write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").expect(TAKES);
    if nanos > 0 {
        write!(out, ".{nanos:09}").expect(TAKES);
        let zeros = out.iter().rev().take_while(|digit| **digit == b'0').count();
        out.truncate(out.len() - zeros);
    }
    out.extend_from_slice(b"Z\"");
    Ok(())
}
