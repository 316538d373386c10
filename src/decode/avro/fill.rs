//! The steps of a compiled plan: each reads one value's bytes into its column.

use super::super::column::Column;
use super::super::framed::{Bad, BadRecord};
use super::reader::Reader;
use super::text;
use crate::schema::avro::Avro;

/// Microseconds of a day: times are below.
const DAY_US: i64 = 86_400_000_000;

/// How a value is read into a column.
#[derive(Debug)]
pub(super) enum Fill {
    Null,
    Boolean,
    Int,
    IntToLong,
    IntToFloat,
    IntToDouble,
    Long,
    LongToInt,
    LongToFloat,
    LongToDouble,
    Float,
    FloatToDouble,
    Double,
    DoubleToFloat,
    TimeMillis,
    TimeMicros,
    /// To a finer unit.
    Times(i64),
    /// To a coarser one, toward the past.
    Floor(i64),
    /// Bytes or a string as they are.
    Bytes,
    /// So many bytes as they are.
    Fixed(usize),
    /// Text of a kind that the column reads.
    Parsed,
    /// An integer into a decimal, times a power of ten.
    LongToDecimal(i128),
    DecimalBytes(Rescale),
    DecimalFixed(usize, Rescale),
    /// One of these.
    Enum(Box<[Box<[u8]>]>),
    /// One of these, of a kind that the column reads.
    EnumParsed(Box<[Box<[u8]>]>),
    /// Any value as text.
    Text(Avro),
    Struct(Group),
    List {
        item: Box<Fill>,
        empty: bool,
        /// What an item makes, see [`values`](crate::decode::room::values).
        values: usize,
    },
    Map {
        value: Box<Fill>,
        /// What an entry makes.
        values: usize,
    },
    /// One of these.
    Union(Box<[Fill]>),
    /// One of these into its field of a struct; null where there is no field.
    Arms(Box<[Option<(usize, Fill)>]>),
    /// A value that isn't in a union, into its field of a struct.
    Arm(usize, Box<Fill>),
}

/// How an unscaled value of one scale becomes one of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rescale {
    /// Multiplied by this,
    pub times: i128,
    /// and divided by this, without a rest.
    pub by: i128,
}

/// How a record's fields go to columns.
#[derive(Debug)]
pub(super) struct Group {
    /// For each field in turn: its name, and what is done.
    pub steps: Box<[(Box<str>, Step)]>,
    /// The columns that no field goes to.
    pub absent: Box<[(usize, Absent)]>,
}

/// What is done with a field.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes to a column.
    Into(usize, Fill),
    /// It goes nowhere.
    Skip { of: Avro, counted: bool },
    /// It goes to several columns, and its own fields to more.
    Route(Box<Route>),
}

/// A field that several columns are filled from.
#[derive(Debug)]
pub(super) struct Route {
    pub into: Vec<(usize, Fill)>,
    pub inner: Option<Inner>,
}

/// The fields inside a field, and the columns they go to, which are beside its own.
#[derive(Debug)]
pub(super) enum Inner {
    Record(Group),
    /// In a union: the arm of the record, and all arms.
    InUnion {
        record: usize,
        arms: Vec<Avro>,
        group: Group,
    },
    /// In a union of several types: what is done with each.
    Arms(Box<[Step]>),
    /// It has no fields.
    None(Avro),
}

/// What a column gets that no field goes to.
#[derive(Debug)]
pub(super) enum Absent {
    /// Null.
    Null,
    /// The default, read from these bytes.
    Default {
        bytes: Box<[u8]>,
        fill: Fill,
        schema: std::sync::Arc<crate::schema::avro::AvroSchema>,
    },
}

impl Group {
    /// Reads a record's fields, one value for each of its columns.
    pub fn run(&self, reader: &mut Reader<'_>, columns: &mut [Column]) -> Result<(), Bad> {
        for (name, step) in &self.steps {
            step.run(reader, columns).map_err(|bad| bad.inside(name))?;
        }
        for (at, absent) in &self.absent {
            let column = &mut columns[*at];
            match absent {
                Absent::Null => {
                    if let Err(failed) = column.push_missing() {
                        return Err(BadRecord::column(failed, &column.name));
                    }
                }
                Absent::Default { bytes, fill, schema } => {
                    reader.spend_text(bytes)?;
                    let mut default = Reader::new(bytes, schema);
                    default.room = reader.room;
                    fill.run(&mut default, column)?;
                    reader.room = default.room;
                }
            }
        }
        Ok(())
    }
}

impl Step {
    #[inline(always)]
    fn run(&self, reader: &mut Reader<'_>, columns: &mut [Column]) -> Result<(), Bad> {
        match self {
            Step::Into(at, fill) => fill.run(reader, &mut columns[*at]),
            Step::Skip { of, counted } => skip(reader, of, *counted),
            Step::Route(route) => route.run(reader, columns),
        }
    }
}

#[inline(never)]
fn skip(reader: &mut Reader<'_>, of: &Avro, counted: bool) -> Result<(), Bad> {
    if counted {
        let null = match of {
            Avro::Null => true,
            Avro::Union(arms) => {
                let start = reader.at;
                let arm = reader.arm(arms.len())?;
                reader.at = start;
                arms[arm] == Avro::Null
            }
            _ => false,
        };
        reader.dropped += u64::from(!null);
    }
    reader.skip(of, 0)
}

impl Route {
    #[inline(never)]
    fn run(&self, reader: &mut Reader<'_>, columns: &mut [Column]) -> Result<(), Bad> {
        let start = reader.at;
        for (at, fill) in &self.into {
            reader.at = start;
            fill.run(reader, &mut columns[*at])?;
        }
        match &self.inner {
            None => Ok(()),
            Some(inner) => {
                reader.at = start;
                inner.run(reader, columns)
            }
        }
    }
}

impl Inner {
    fn run(&self, reader: &mut Reader<'_>, columns: &mut [Column]) -> Result<(), Bad> {
        match self {
            Inner::Record(group) => group.run(reader, columns),
            Inner::Arms(arms) => {
                let arm = reader.arm(arms.len())?;
                arms[arm].run(reader, columns)
            }
            Inner::None(of) => reader.skip(of, 0),
            Inner::InUnion { record, arms, group } => {
                let arm = reader.arm(arms.len())?;
                match arm == *record {
                    true => group.run(reader, columns),
                    false => reader.skip(&arms[arm], 0),
                }
            }
        }
    }
}

impl Fill {
    /// Reads one value into a column.
    #[inline(always)]
    pub fn run(&self, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        // What most values are is done in place; a call of the whole costs as much as one of these.
        let fill = match self {
            Fill::Union(arms) => &arms[reader.arm(arms.len())?],
            fill => fill,
        };
        match fill {
            Fill::Null => return missing(column),
            Fill::Boolean => column.push_boolean(reader.boolean()?),
            Fill::Int => column.push_int(reader.int()?),
            Fill::Long => column.push_long(reader.long()?),
            Fill::Double => column.push_double(reader.double()?),
            Fill::Bytes => {
                let (from, length) = reader.head()?;
                column.push_head(from, length);
            }
            Fill::Times(times) => {
                let value = reader.long()?;
                match value.checked_mul(*times) {
                    Some(value) => column.push_long(value),
                    None => return Err(misfit(reader, column, &value)),
                }
            }
            _ => return fill.run_any(reader, column),
        }
        Ok(())
    }

    #[inline(never)]
    fn run_any(&self, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
        match self {
            Fill::Null
            | Fill::Boolean
            | Fill::Int
            | Fill::Long
            | Fill::Double
            | Fill::Bytes
            | Fill::Times(_)
            | Fill::Union(_) => unreachable!("it was done in place, and no union is in one"),
            Fill::IntToLong => column.push_long(i64::from(reader.int()?)),
            Fill::IntToFloat => column.push_float(reader.int()? as f32),
            Fill::IntToDouble => column.push_double(f64::from(reader.int()?)),
            Fill::LongToInt => {
                let value = reader.long()?;
                let value = i32::try_from(value).map_err(|_| misfit(reader, column, &value))?;
                column.push_int(value);
            }
            Fill::LongToFloat => column.push_float(reader.long()? as f32),
            Fill::LongToDouble => column.push_double(reader.long()? as f64),
            Fill::Float => column.push_float(reader.float()?),
            Fill::FloatToDouble => column.push_double(f64::from(reader.float()?)),
            Fill::DoubleToFloat => {
                let value = reader.double()?;
                if value.is_finite() && !(value as f32).is_finite() {
                    return Err(misfit(reader, column, &value));
                }
                column.push_float(value as f32);
            }
            Fill::TimeMillis => {
                let value = i64::from(reader.int()?) * 1000;
                time(reader, column, value)?;
            }
            Fill::TimeMicros => {
                let value = reader.long()?;
                time(reader, column, value)?;
            }
            Fill::Floor(by) => column.push_long(reader.long()?.div_euclid(*by)),
            Fill::Fixed(size) => column.push_bytes(reader.take(*size)?),
            Fill::Parsed => parsed(column, reader.bytes()?)?,
            Fill::LongToDecimal(times) => {
                let value = reader.long()?;
                if !column.push_decimal(i128::from(value) * times) {
                    return Err(misfit(reader, column, &value));
                }
            }
            Fill::DecimalBytes(rescale) => {
                let bytes = reader.bytes()?;
                decimal(reader, column, bytes, *rescale)?;
            }
            Fill::DecimalFixed(size, rescale) => {
                let bytes = reader.take(*size)?;
                decimal(reader, column, bytes, *rescale)?;
            }
            Fill::Enum(symbols) => column.push_bytes(symbol(reader, symbols)?),
            Fill::EnumParsed(symbols) => parsed(column, symbol(reader, symbols)?)?,
            Fill::Text(of) => column.push_text(|out| text::write(reader, of, out))?,
            Fill::Struct(group) => {
                group.run(reader, column.fields())?;
                column.push_struct();
            }
            Fill::List {
                item: fill,
                empty,
                values,
            } => {
                let item = column.item();
                // Ends: each block takes a byte at least.
                loop {
                    let count = reader.block(*empty)?;
                    if count == 0 {
                        break;
                    }
                    reader.spend(count.saturating_mul(*values))?;
                    for _ in 0..count {
                        fill.run(reader, item).map_err(|bad| bad.inside("element"))?;
                    }
                }
                column.push_list();
            }
            Fill::Map { value: fill, values } => {
                let (key, value) = column.entry();
                // Ends: each block takes a byte at least.
                loop {
                    let count = reader.block(false)?;
                    if count == 0 {
                        break;
                    }
                    reader.spend(count.saturating_mul(*values))?;
                    for _ in 0..count {
                        key.push_bytes(reader.bytes()?);
                        fill.run(reader, value).map_err(|bad| bad.inside("value"))?;
                    }
                }
                column.push_map();
            }
            Fill::Arms(arms) => {
                let arm = reader.arm(arms.len())?;
                match &arms[arm] {
                    None => return missing(column),
                    Some((at, fill)) => push_arm(reader, column, *at, fill)?,
                }
            }
            Fill::Arm(at, fill) => push_arm(reader, column, *at, fill)?,
        }
        Ok(())
    }
}

fn push_arm(reader: &mut Reader<'_>, column: &mut Column, at: usize, fill: &Fill) -> Result<(), Bad> {
    for (other, field) in column.fields().iter_mut().enumerate() {
        match other == at {
            true => fill.run(reader, field)?,
            false => field.push_null(),
        }
    }
    column.push_struct();
    Ok(())
}

#[inline]
fn missing(column: &mut Column) -> Result<(), Bad> {
    column.push_missing().map_err(BadRecord::value)
}

fn parsed(column: &mut Column, text: &[u8]) -> Result<(), Bad> {
    column.push_parsed(text).map_err(BadRecord::value)
}

fn symbol<'f>(reader: &mut Reader<'_>, symbols: &'f [Box<[u8]>]) -> Result<&'f [u8], Bad> {
    let index = reader.int()?;
    let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
    let symbol =
        symbol.ok_or_else(|| reader.bad(format!("an enum of {} symbols has none at {index}", symbols.len())))?;
    reader.spend_text(symbol)?;
    Ok(symbol)
}

fn time(reader: &Reader<'_>, column: &mut Column, value: i64) -> Result<(), Bad> {
    if !(0..DAY_US).contains(&value) {
        return Err(misfit(reader, column, &format_args!("{value} µs since midnight")));
    }
    column.push_long(value);
    Ok(())
}

fn decimal(reader: &Reader<'_>, column: &mut Column, bytes: &[u8], rescale: Rescale) -> Result<(), Bad> {
    let value = unscaled(bytes)
        .and_then(|value| value.checked_mul(rescale.times))
        .filter(|value| value % rescale.by == 0)
        .map(|value| value / rescale.by);
    match value.is_some_and(|value| column.push_decimal(value)) {
        true => Ok(()),
        false => {
            let mut digits = Vec::new();
            match text::decimal(bytes, 0, &mut digits) {
                true => {
                    let digits = String::from_utf8_lossy(&digits).into_owned();
                    Err(misfit(reader, column, &format_args!("of the digits {digits}")))
                }
                false => Err(misfit(reader, column, &format_args!("of {} bytes", bytes.len()))),
            }
        }
    }
}

/// Reads big-endian two's complement; `None` beyond 128 bits.
pub(in super::super) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let filler = if negative { 0xFF } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (head, tail) = bytes.split_at(extra);
    let mut whole = [filler; 16];
    whole[16 - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(whole);
    (head.iter().all(|byte| *byte == filler) && (value < 0) == negative).then_some(value)
}

#[cold]
fn misfit(reader: &Reader<'_>, column: &Column, value: &dyn std::fmt::Display) -> Bad {
    reader.bad(format!(
        "the value {value} doesn't fit {}",
        crate::config::types::text(column.of())
    ))
}
